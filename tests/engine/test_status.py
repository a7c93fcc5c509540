"""`speechchat status`: runs that go on, were killed, are finished; and what its reader does not read twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.engine import run as driver
from pipeline.engine.base import Job, Pool
from pipeline.engine.heartbeat import Beat, Recorder, read_beat
from pipeline.engine.run import freeze, load_frozen, run
from pipeline.engine.status import STALE, Status, Watch
from pipeline.errors import DataError, RunIncomplete
from pipeline.shards.store import RunFolder
from pipeline.stages.pack import Origin
from pipeline.stages.progress import Cost, Progress
from pipeline.stages.write import TextProgress
from tests.command_line import ROOT, CommandLine, refused
from tests.fakes import EN_LINES, FakeLLM, Silent, config_file, write_corpus
from tests.synthetic import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without logs: four dialogues in two units, one rejected."""
    return make_run(tmp_path_factory.mktemp("status") / "run").root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(made, tmp_path / "run")))


def job_of(folder: RunFolder) -> Job:
    config, frozen = load_frozen(folder)
    return Job(config, folder.root, Origin("tests", frozen.digests, frozen.models))


def configure(tmp_path: Path, llm: FakeLLM, corpus: Path, *settings: str) -> Config:
    path = config_file(tmp_path / "config.yaml", llm.base_url, corpus)
    return load_config(str(path), ["engine.kind=local", *settings])


def totals(found: Status) -> tuple[int, int, int, int, float]:
    return found.units_done, found.units_written, found.dialogues, found.accepted, found.hours


def set_beat(folder: RunFolder, beat: Beat, **changes: Any) -> None:
    folder.heartbeat.parent.mkdir(exist_ok=True)
    folder.heartbeat.write_text(beat.model_copy(update=changes).model_dump_json())


def test_a_folder_that_is_no_run(speechchat: CommandLine, tmp_path: Path) -> None:
    refused(speechchat("status", tmp_path / "nothing"), 2, str(tmp_path / "nothing"), "is not a folder")
    refused(speechchat("status", tmp_path), 2, str(tmp_path), "holds no config.yaml")


def test_a_run_that_never_began(tmp_path: Path) -> None:
    config = Config(dialogues=128, unit_size=64)
    freeze(Job(config, tmp_path / "run", Origin("tests", dict.fromkeys(("text", "speech", "judge"), "0" * 16), ())))
    found = Watch(tmp_path / "run").look()
    assert found.state == "not begun" and found.driver is None
    assert (found.units_planned, found.dialogues_planned) == (2, 128) and totals(found) == (0, 0, 0, 0, 0.0)
    assert (found.share, found.recent, found.overall, found.seconds_left, found.errors) == (None,) * 4 + ((),)


def test_a_finished_run_tells_what_its_totals_tell(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    stats = run(configure(tmp_path, llm, corpus), tmp_path / "run", Silent())
    found = Watch(tmp_path / "run").look()
    assert found.state == "finished" and found.driver and (found.driver.alive, found.driver.outcome) == (False, "done")
    assert (found.units_done, found.dialogues, found.accepted) == (stats.units_finished, stats.planned, stats.accepted)
    assert found.hours == pytest.approx(stats.hours, abs=1e-6) and found.share == 1.0
    assert (found.in_flight, found.quarantined, found.seconds_left, found.recent) == (0, 0, None, None)
    assert found.overall and found.overall.units * found.overall.seconds / 3600 == pytest.approx(4, rel=0.01)
    assert found.busy and found.busy.studios is not None and 0 < found.busy.studios <= 1
    assert {"speak", "listen", "pack"} <= found.busy.stages.keys() and found.cost.cpu_hours > 0
    shutil.rmtree(tmp_path / "run" / "logs")
    bare = Watch(tmp_path / "run").look()
    assert totals(bare) == totals(found) and bare.state == "finished"
    assert (bare.driver, bare.overall, bare.cost.cpu_hours) == (None, None, 0.0)


def test_a_run_that_goes_on(tmp_path: Path, llm: FakeLLM, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "Recorder", partial(Recorder, interval=0.01))
    found: list[Status] = []

    class Looking(Silent):
        def workers(self, writers: Any, studios: Any) -> None:
            """Wait for a beat that tells of this."""
            until = time.monotonic() + 20
            while studios.units and time.monotonic() < until:
                found.append(Watch(tmp_path / "run").look())
                if found[-1].in_flight:
                    return
                time.sleep(0.01)

    run(configure(tmp_path, llm, corpus), tmp_path / "run", Looking())
    last = found[-1]
    assert last.state == "running" and last.in_flight >= 1 and last.driver and last.driver.phase == "working"
    assert last.driver.pid == os.getpid()
    assert last.units_done == 3 and last.dialogues == 6 and last.units_written == 4
    assert last.recent and last.recent.units > 0
    assert last.seconds_left == pytest.approx(3600 / last.recent.units, abs=0.002)


def test_a_run_that_was_killed_and_goes_on(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    out, slow = tmp_path / "run", "tts.engines.kokoro.kind=tests.fakes:build_slow_tts"
    configure(tmp_path, llm, corpus)
    words = ["-m", "pipeline.cli", "run", str(tmp_path / "config.yaml"), "--out", str(out), "--engine", "local"]
    process = subprocess.Popen([sys.executable, *words, "--set", slow], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        told = RunFolder(out).timings
        # The driver tells of a unit some milliseconds after its manifest is there.
        while not (told.exists() and '"planned"' in told.read_text()):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = Watch(out).look()
    manifests = list(RunFolder(out).manifests())
    assert killed.state == "killed" and killed.driver and killed.driver.pid == process.pid
    assert 0 < killed.units_done == len(manifests) < 4
    assert killed.dialogues == sum(item.planned for item in manifests)
    assert (killed.in_flight, killed.seconds_left, killed.recent) == (0, None, None)
    assert killed.overall and killed.overall.units > 0
    run(configure(tmp_path, llm, corpus, slow), out, Silent())
    found = Watch(out).look()
    assert found.state == "finished" and found.units_done == 4
    assert found.overall and found.overall.seconds > killed.overall.seconds
    assert found.cost.driver_cpu_hours > killed.cost.driver_cpu_hours


def test_lost_units_and_the_last_errors(tmp_path: Path, llm: FakeLLM) -> None:
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], "There is a bug in here."])
    config = configure(tmp_path, llm, corpus, "languages={en: 1}", "dialogues=4", "unit_size=1", "engine.tries=2")
    with pytest.raises(RunIncomplete):
        run(config, tmp_path / "run", Silent())
    found = Watch(tmp_path / "run").look()
    assert (found.state, found.units_done, found.quarantined, found.in_flight) == ("stopped", 3, 1, 0)
    assert ["a bug in the engine" in error.message for error in found.errors] == [True]
    shutil.rmtree(tmp_path / "run" / "logs")
    [error] = Watch(tmp_path / "run").look().errors
    assert "is quarantined: ValueError: a bug in the engine" in error.message


def test_what_was_read_is_not_read_again(copy: RunFolder) -> None:
    paths = sorted(copy.root.glob("shards/*/*/*.json"))
    for path in {path.parent for path in paths}:
        os.utime(path, (0, 0))  # as long ago as a listing needs to be believed
    watch = Watch(copy.root)
    before = watch.look()
    for path in paths:
        path.write_bytes(b"no manifest")
    assert watch.look() == before
    with pytest.raises(DataError, match=r"unit-00000.\.json: not a manifest"):
        Watch(copy.root).look()


def test_a_unit_that_comes_or_goes_is_seen(copy: RunFolder) -> None:
    [first, _] = sorted(copy.root.glob("shards/*/*/*.json"))
    watch = Watch(copy.root)
    assert watch.look().units_done == 2
    aside = first.rename(copy.root / "aside")
    assert (watch.look().units_done, watch.look().state) == (1, "stopped")
    aside.rename(first)
    assert (watch.look().units_done, watch.look().state) == (2, "finished")


def test_a_line_that_is_half_there_counts_once(copy: RunFolder) -> None:
    copy.logs.mkdir(exist_ok=True)
    watch, line = Watch(copy.root), '{"unit": 0, "time": 9.0, "planned": 2, "accepted": 1, "seconds": 3600.0, '
    copy.timings.write_text('\n{"unit": 1, "sta\n' + line)
    before = watch.look()
    with copy.timings.open("a") as file:
        file.write('"stages": {"speak": {"cpu": 7200.0}}}')
    found = watch.look()
    assert watch.look() == found
    assert (before.cost.cpu_hours, found.cost.cpu_hours) == (0.0, 2.0)
    assert found.hours == pytest.approx(1 + before.hours - _hours(copy, 0))


def _hours(folder: RunFolder, unit: int) -> float:
    manifest = folder.load_manifest(unit, "train")
    assert manifest is not None
    return manifest.seconds / 3600


def beat_of_another(folder: RunFolder) -> Beat:
    with Recorder(job_of(folder), Silent()):
        beat = read_beat(folder)
    assert beat is not None and beat.outcome == ""
    return beat.model_copy(update={"host": "another machine", "studios": Pool(open=2, busy=2, units=3)})


def test_a_driver_on_another_machine_is_alive_as_long_as_it_beats(copy: RunFolder) -> None:
    beat = beat_of_another(copy)
    next(copy.root.glob("shards/*/*/*.json")).unlink()
    set_beat(copy, beat)
    now = [beat.time + STALE - 1]
    watch = Watch(copy.root, lambda: now[0])
    found = watch.look()
    assert (found.state, found.in_flight) == ("running", 3) and found.driver and found.driver.age == STALE - 1
    now[0] += 2
    assert (watch.look().state, watch.look().in_flight) == ("killed", 0)


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_clocks_that_differ(copy: RunFolder, ahead: float) -> None:
    """Whoever looks twice sees it beat, or sees that it does not."""
    beat = beat_of_another(copy)
    set_beat(copy, beat)
    now = [beat.time - ahead]
    watch = Watch(copy.root, lambda: now[0])
    watch.look()
    now[0] += 60
    set_beat(copy, beat, time=beat.time + 60)
    assert watch.look().state == "running"
    now[0] += STALE + 1
    assert watch.look().state == "finished"


def test_a_process_that_is_gone_from_this_machine_is_not_waited_for(copy: RunFolder) -> None:
    with Recorder(job_of(copy), Silent()):
        beat = read_beat(copy)
        assert beat and Watch(copy.root).look().state == "running"
    process = subprocess.Popen(["true"])
    process.wait()
    set_beat(copy, beat, pid=process.pid)
    assert Watch(copy.root, lambda: beat.time).look().state == "finished"


def test_tokens_and_money_add_up_over_writers_and_sessions(copy: RunFolder) -> None:
    for _ in range(2):
        with Recorder(job_of(copy), Silent()) as recorder:
            for tokens in (10, 4, 9):  # one of two writers was replaced after the first
                recorder.written(TextProgress(tokens=tokens, cost=tokens / 10))
    cost = Watch(copy.root).look().cost
    assert (cost.tokens, cost.dollars) == (30, 3.0)
    copy.ledger.write_text(json.dumps({"spent": 4 * 10**9, "reserved": 10**9, "unsettled": 10**9}))
    assert Watch(copy.root).look().cost.dollars == 5.0


def test_use_is_by_the_time_that_workers_were_open(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studios, one of them with a unit in hand, of whose 8 s it spoke 4."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Recorder(job_of(copy), Silent(), interval=3600) as recorder:
        for _ in range(5):
            recorder.workers(Pool(open=1, busy=1, units=1), Pool(open=2, busy=1, units=1))
            now[0] += 2
        recorder.progress([Progress(unit=5, costs={"speak": Cost(wall=4.0), "listen": Cost(wall=1.0)})])
    busy = Watch(copy.root).look().busy
    assert busy and (busy.writers, busy.studios) == (1.0, 0.5)
    assert busy.stages == {"listen": pytest.approx(1 / 16), "speak": pytest.approx(4 / 16)}


def test_why_a_driver_ended(copy: RunFolder) -> None:
    with pytest.raises(DataError), Recorder(job_of(copy), Silent()):
        raise DataError("the text\nof unit 3 is damaged")
    found = Watch(copy.root).look()
    assert [error.message for error in found.errors] == ["the driver ended: DataError: the text of unit 3 is damaged"]
    with pytest.raises(KeyboardInterrupt), Recorder(job_of(copy), Silent()):
        raise KeyboardInterrupt
    found = Watch(copy.root).look()
    assert found.errors == () and found.driver and found.driver.outcome == "interrupted"


def test_for_people_and_for_machines(speechchat: CommandLine, copy: RunFolder) -> None:
    shown = speechchat("status", copy.root)
    assert shown.status == 0 and "finished" in shown.out and "2 of 2 done" in shown.out and "yield 75.0%" in shown.out
    told = speechchat("status", copy.root, "--json", "--watch")  # which ends: there is no driver
    assert told.status == 0 and told.out.count("\n") == 1
    data = json.loads(told.out)
    assert (data["state"], data["units_done"], data["dialogues"], data["accepted"]) == ("finished", 2, 4, 3)


def test_the_counters_for_prometheus(copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.engine import ray_metrics

    kept: dict[tuple[str, ...], float] = {}

    class Metric:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()):
            self._name, self._keys = name.removeprefix("speechchat_"), tag_keys

        def _key(self, tags: dict[str, str] | None) -> tuple[str, ...]:
            return self._name, *(dict(tags or {})[key] for key in self._keys)

        def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
            assert value > 0, "Ray refuses it"
            kept[self._key(tags)] = kept.get(self._key(tags), 0.0) + value

        def set(self, value: float, tags: dict[str, str] | None = None) -> None:
            kept[self._key(tags)] = value

    monkeypatch.setattr(ray_metrics, "Counter", Metric)
    monkeypatch.setattr(ray_metrics, "Gauge", Metric)
    observer = Silent()
    metered = ray_metrics.Metered(observer)
    metered.workers(Pool(open=1, busy=0), Pool(open=2, busy=2, units=3))
    for manifest in copy.manifests():
        metered.finished(manifest, Progress(manifest.unit, costs={"speak": Cost(wall=2.0, cpu=0.0)}))
    metered.trouble("a studio worker died")
    found = Watch(copy.root).look()
    assert kept["units",] == found.units_done == 2 and kept["audio_seconds",] == pytest.approx(found.hours * 3600)
    assert (kept["dialogues", "accepted"], kept["dialogues", "rejected"]) == (3, 1)
    assert (kept["stage_seconds", "speak", "wall"], kept["units_in_flight",], kept["troubles",]) == (4.0, 3, 1)
    assert (kept["workers", "studio"], kept["busy_workers", "writer"]) == (2, 0)
    assert observer.units == [0, 1] and observer.troubles == ["a studio worker died"]
