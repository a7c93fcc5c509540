"""Units in flight: the next text is there when a studio wants it, nobody waits for a large unit, memory has a bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config import Config, load_config
from pipeline.engine.base import units_in_flight
from pipeline.engine.run import run
from pipeline.engine.sizes import Sizes
from pipeline.errors import EndpointError, RunIncomplete
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.studio import Progress
from tests.fakes import FakeLLM, Silent, config_file, tree, write_corpus

LINES = ["How are you today?", "Shall we take a walk?", "Did you sleep well?", "Where is the bridge?"]


@pytest.fixture(params=["local", "ray"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    return str(request.param)


def make(tmp_path: Path, llm: FakeLLM, kind: str, tts: str, *settings: str, lines: list[str] = LINES) -> Config:
    """A dialogue a unit, heard by a recogniser that does not ask whose turn it is."""
    keys = {
        "dialogues": len(lines),
        "unit_size": 1,
        "tts__engines": {"kokoro": {"kind": f"tests.fakes:{tts}"}},
        "asr__engine": "tests.fakes:build_deaf_asr",
        "judge": {"mode": "score_only"},
        "engine__studios": 1,
        "engine__kind": kind,
        # What a unit is refused here is told by an error, which another try would hide.
        "engine__tries": 1,
    }
    path = config_file(tmp_path / f"{kind}.yaml", llm.base_url, write_corpus(tmp_path / "corpus", lines), **keys)
    return load_config(str(path), settings)


def waiting_for(files: str, count: int, out: Path) -> str:
    """The speech engine says nothing to the first who asks before there are so many of these files."""
    return f"tts.engines.kokoro.options={json.dumps({'folder': str(out), 'files': files, 'count': count})}"


def test_the_next_text_is_written_while_a_unit_is_spoken(tmp_path: Path, llm: FakeLLM, kind: str) -> None:
    out = tmp_path / "run"
    texts = waiting_for("dialogues/*/*.jsonl", 2, out)
    config = make(tmp_path, llm, kind, "build_patient_tts", "engine.studio_units=1", texts)
    if kind == "ray":
        import ray

        # A second studio that no node has room for: neither the units nor the end of the run wait for it.
        crowded = {"studios": 2, "studio_cpus": ray.cluster_resources()["CPU"]}
        config = config.model_copy(update={"engine": config.engine.model_copy(update=crowded)})
    observer = Silent()
    assert run(config, out, observer).accepted == len(LINES)
    assert observer.troubles == []


def test_units_go_on_beside_one_that_takes_long(tmp_path: Path, llm: FakeLLM, kind: str) -> None:
    """It is only finished when all the others are."""
    out, observer = tmp_path / "run", Silent()
    others = waiting_for("shards/*/*/*.json", len(LINES) - 1, out)
    config = make(tmp_path, llm, kind, "build_patient_tts", "engine.studio_units=2", "engine.window=4", others)
    assert run(config, out, observer).accepted == len(LINES)
    assert len(observer.units) == len(LINES) and observer.troubles == []


def test_a_text_that_cannot_be_had_costs_no_unit_that_is_being_spoken(
    tmp_path: Path, llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint serves the first unit and refuses the second while the first is spoken."""
    refused = tmp_path / "refused"

    def key(server: FakeLLM) -> str | None:
        if len(server.requests) < 2:
            return None
        refused.touch()
        return "another key"

    options = {"folder": str(tmp_path), "files": refused.name, "count": 1, "slowness": 0.3}
    settings = ("unit_size=2", "writer.concurrency=1", f"tts.engines.kokoro.options={json.dumps(options)}")
    config = make(tmp_path, llm, "local", "build_patient_tts", *settings)
    monkeypatch.setattr(FakeLLM, "key", property(key), raising=False)
    observer = Silent()
    with pytest.raises(EndpointError):
        run(config, tmp_path / "run", observer)
    assert observer.units == [0]


def test_a_bound_in_bytes_keeps_units_apart(tmp_path: Path, llm: FakeLLM, kind: str) -> None:
    """The speech engine fails a unit that is spoken beside another one."""
    bound = ("engine.studio_units=3", "engine.studio_bytes=1")
    config = make(tmp_path, llm, kind, "build_lonely_tts", *bound)
    assert run(config, tmp_path / "run", Silent()).accepted == len(LINES)


def test_without_a_bound_they_meet_and_the_output_is_the_same(tmp_path: Path, llm: FakeLLM) -> None:
    run(make(tmp_path, llm, "local", "build_lonely_tts", "engine.studio_bytes=1"), tmp_path / "one", Silent())
    together = make(tmp_path, llm, "local", "build_lonely_tts", "engine.studio_units=3")
    run(together, tmp_path / "run", Silent(), until="write")
    with pytest.raises(RunIncomplete, match="quarantined"):
        run(together, tmp_path / "run", Silent())
    run(make(tmp_path, llm, "local", "build_lonely_tts", "engine.studio_units=1"), tmp_path / "run", Silent())
    assert tree(tmp_path / "run") == tree(tmp_path / "one")


def test_what_is_measured_takes_the_place_of_what_was_expected(tmp_path: Path, llm: FakeLLM) -> None:
    long = "My sister went to the market this morning to buy apples, bread and a little cheese for her old neighbours, "
    lines = [LINES[1], LINES[2], long + "who had asked her for them on the phone because it rained so hard all day."]
    config = make(tmp_path, llm, "local", "build_tts", lines=lines)
    run(config, tmp_path / "run", Silent(), until="write")
    folder, units = RunFolder(tmp_path / "run"), list(plan_units(config))
    free = Sizes(config, folder)
    units.sort(key=free.of)
    first, second, large = map(free.of, units)
    assert large > 2 * second >= 2 * first > 0
    assert free.fits(units[:2], units[2])
    assert all("dialogues" not in vars(unit) for unit in units)  # it was not made for good

    def bounded(limit: float) -> Sizes:
        engine = config.engine.model_copy(update={"studio_bytes": int(limit)})
        return Sizes(config.model_copy(update={"engine": engine}), folder)

    assert bounded(first + second + 1).fits(units[:1], units[1])
    assert not bounded(first + second - 2).fits(units[:1], units[1])
    assert bounded(1).fits([], units[2])
    sizes = bounded(first + second + 1)
    assert sizes.fits(units[:1], units[1])
    sizes.told([Progress(unit=units[0].number, held=int(2 * first))])
    assert not sizes.fits(units[:1], units[1])
    # A finished unit that took a tenth of what its text had said speaks for those that come.
    sizes.finished(Progress(unit=units[0].number, held=int(first / 3.5 / 10)))
    assert sizes.of(units[1]) == pytest.approx(second / 10, rel=0.01)
    assert sizes.fits(units[1:2], units[2])


def test_the_window_grows_with_the_workers_and_a_number_stands() -> None:
    config = load_config("quickstart")
    assert units_in_flight(config, studios=2, of_writer=2) == 16
    assert units_in_flight(config, studios=1000, of_writer=2) >= 2000
    assert units_in_flight(load_config("quickstart", ["engine.window=3"]), studios=1000, of_writer=2) == 3
