"""Both engines, the same tests, the same bytes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.engine.base import make_job, open_studio
from pipeline.engine.run import load_frozen, run
from pipeline.engine.tries import Tries
from pipeline.errors import ConfigError, EndpointError, RunFolderError, RunIncomplete, RunMismatchError
from pipeline.plan import plan_units
from pipeline.shards.stats import stage_costs
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import Verification, verify
from tests import fakes
from tests.fakes import EN_LINES, FakeLLM, Silent, config_file, llm_server, tree, write_corpus


@pytest.fixture(params=["local", "ray"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    return str(request.param)


def make(tmp_path: Path, llm: FakeLLM, corpus: Path, kind: str, *settings: str) -> Config:
    """One studio: each of Ray costs seconds of imports. TWO where it takes them to show something."""
    path = config_file(tmp_path / f"{kind}.yaml", llm.base_url, corpus, engine__studios=1)
    return load_config(str(path), [f"engine.kind={kind}", *settings])


TWO = "engine.studios=2"


def checked(root: Path) -> Verification:
    folder = RunFolder(root)
    *_, state = verify(folder, load_frozen(folder)[0], decode=True)
    return state


def test_a_run_verifies_and_a_second_start_changes_nothing(
    tmp_path: Path, llm: FakeLLM, corpus: Path, kind: str
) -> None:
    config = make(tmp_path, llm, corpus, kind, TWO)
    stats = run(config, tmp_path / "run", Silent())
    assert (stats.units_finished, stats.planned, stats.accepted) == (4, 8, 8)
    assert checked(tmp_path / "run").problems == []
    before = tree(tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.tar")}
    asked = len(llm.requests)
    observer = Silent()
    run(config, tmp_path / "run", observer)
    assert tree(tmp_path / "run") == before
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.tar")}
    assert observer.units == [] and len(llm.requests) == asked


def test_engines_and_numbers_of_workers_give_the_same_bytes(
    tmp_path: Path, llm: FakeLLM, corpus: Path, ray_here: None
) -> None:
    trees = []
    for number, settings in enumerate(
        (["engine.kind=local"], ["engine.kind=ray", TWO], ["engine.kind=ray", "engine.window=1"])
    ):
        config = make(tmp_path, llm, corpus, "any", "languages.zh=1", *settings)
        run(config, tmp_path / str(number), Silent())
        trees.append(tree(tmp_path / str(number)))
    assert trees[0] == trees[1] == trees[2]
    assert any(name.endswith(".tar") for name in trees[0])


def test_more_dialogues_add_units_and_touch_none(tmp_path: Path, llm: FakeLLM, corpus: Path, kind: str) -> None:
    out = tmp_path / "run"
    run(make(tmp_path, llm, corpus, kind, "dialogues=4"), out, Silent())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "shards").rglob("*.*")}
    observer = Silent()
    run(make(tmp_path, llm, corpus, kind, "dialogues=8"), out, observer)
    assert sorted(observer.units) == [2, 3]
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}
    run(make(tmp_path, llm, corpus, "local", "dialogues=8"), tmp_path / "at once", Silent())
    assert tree(out) == tree(tmp_path / "at once")


def test_rejects_are_counted_by_reason_and_kept(tmp_path: Path, llm: FakeLLM, kind: str) -> None:
    lines = ["This stumble is mended.", "This is a hopeless case.", "The backend will not say it.", EN_LINES[0]]
    corpus = write_corpus(tmp_path / "corpus", lines, lines)
    config = make(tmp_path, llm, corpus, kind, "languages={en: 1}")
    stats = run(config, tmp_path / "run", Silent())
    assert stats.planned == 8 == stats.accepted + sum(stats.rejected.values())
    assert stats.rejected == {"judge: wer": 2, "speak: refused": 2}
    assert stats.retaken_turns == 2
    assert checked(tmp_path / "run").problems == []
    records = rejects(tmp_path / "run")
    assert {record["reason"]: record["clips"] for record in records} == {"wer": True, "refused": False}
    assert all("hopeless" in record["detail"] for record in records if record["reason"] == "wer")


def test_a_unit_with_a_bug_is_quarantined_and_its_neighbours_come_out(tmp_path: Path, llm: FakeLLM, kind: str) -> None:
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], "There is a bug in here."])
    config = make(tmp_path, llm, corpus, kind, "languages={en: 1}", "dialogues=4", "unit_size=1", "engine.tries=2")
    observer = Silent()
    with pytest.raises(RunIncomplete, match="1 of 4 units are quarantined"):
        run(config, tmp_path / "run", observer)
    assert len(observer.units) == 3 and len(observer.troubles) == 1
    [path] = (tmp_path / "run" / "quarantine").rglob("*.json")
    record = json.loads(path.read_text())
    assert "a bug in the engine" in record["error"] and "fakes.py" in record["traceback"]
    # It is told, so nobody is a suspect if something else dies.
    assert all(not path.read_text() for path in (tmp_path / "run" / "logs" / "studio").rglob("*.txt"))
    state = checked(tmp_path / "run")
    assert state.missing == [record["unit"]] and state.problems == []


# With several units at work in a studio.
TOGETHER = ("engine.studios=1", "asr.engine=tests.fakes:build_deaf_asr", "judge.limits={en: {}}")


@pytest.mark.faults
def test_a_dialogue_that_kills_its_workers_is_rejected_alone(tmp_path: Path, llm: FakeLLM, ray_here: None) -> None:
    """Also where its worker had another unit in hand."""
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], "This is a segfault."])
    settings = ["dialogues=4", "unit_size=2", "engine.tries=2", "engine.studio_units=2", *TOGETHER]
    config = make(tmp_path, llm, corpus, "ray", *settings)
    stats = run(config, tmp_path / "run", Silent())
    assert stats.rejected == {"speak: crash": 1} and stats.accepted == 3
    assert checked(tmp_path / "run").problems == []


def test_units_at_work_together_share_batches_and_change_no_byte(
    tmp_path: Path, llm: FakeLLM, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(fakes, "batches", asked)
    batching = "tts.engines.kokoro.kind=tests.fakes:build_batching_tts"
    trees = []
    for units in (1, 3):
        out = tmp_path / f"run{units}"
        settings = ["dialogues=6", f"engine.studio_units={units}", *TOGETHER, batching]
        run(make(tmp_path, llm, corpus, "local", *settings), out, Silent())
        trees.append(tree(out))
        # A dialogue has two turns: what is larger holds those of several.
        assert (max(map(len, asked)) > 2) == (units > 1)
    assert trees[0] == trees[1]


def test_a_damaged_text_is_named_and_its_neighbours_come_out(
    tmp_path: Path, llm: FakeLLM, corpus: Path, kind: str
) -> None:
    out = tmp_path / "run"
    run(make(tmp_path, llm, corpus, "local", "dialogues=2"), out, Silent())
    spoilt = RunFolder(out).text(1)
    spoilt.write_text("this is no text\n")
    observer = Silent()
    with pytest.raises(RunIncomplete, match="1 of 3 units"):
        run(make(tmp_path, llm, corpus, kind, "dialogues=6"), out, observer)
    assert observer.units == [2] and f"{spoilt}: line 1: Invalid JSON" in observer.troubles[0]
    spoilt.unlink()
    assert run(make(tmp_path, llm, corpus, "local", "dialogues=6"), out, Silent()).accepted == 6


@pytest.mark.faults
@pytest.mark.matrix
def test_two_such_dialogues_in_one_unit_cost_nobody_else(tmp_path: Path, llm: FakeLLM, ray_here: None) -> None:
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:2], "This is a segfault.", "Another segfault is here."])
    settings = ["dialogues=4", "unit_size=4", "engine.tries=2", "engine.restarts=0", "engine.studios=1"]
    stats = run(make(tmp_path, llm, corpus, "ray", *settings), tmp_path / "run", Silent())
    assert stats.rejected == {"speak: crash": 2} and stats.accepted == 2


@pytest.mark.faults
@pytest.mark.matrix
def test_a_dialogue_that_hangs_is_rejected_alone(tmp_path: Path, llm: FakeLLM, ray_here: None) -> None:
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], "Hold on, this will hang."])
    settings = ["dialogues=4", "unit_size=2", "engine.tries=2", "engine.studios=1", "engine.deadline=10"]
    observer = Silent()
    stats = run(make(tmp_path, llm, corpus, "ray", *settings), tmp_path / "run", observer)
    assert stats.rejected == {"speak: crash": 1} and stats.accepted == 3
    assert len(observer.troubles) == 2 and "engine.deadline" in observer.troubles[0]
    [reject] = rejects(tmp_path / "run")
    assert reject["detail"] == "its worker hung for 10 s each of 2 times that it was spoken"
    assert checked(tmp_path / "run").problems == []


@pytest.mark.faults
@pytest.mark.matrix
def test_deaths_are_remembered_by_the_next_driver(tmp_path: Path, llm: FakeLLM, ray_here: None) -> None:
    """One death under a driver that gives up at once, and one under the next."""
    corpus = write_corpus(tmp_path / "corpus", ["This is a segfault.", *EN_LINES[:1]])
    settings = ["dialogues=2", "unit_size=2", "engine.tries=2", "engine.studios=1"]
    config = make(tmp_path, llm, corpus, "ray", *settings)
    tries = Tries(RunFolder(tmp_path / "run"), config)
    [unit] = plan_units(config)
    tries.blame(0, [unit.dialogues[0].id, unit.dialogues[1].id], "died")
    stats = run(config, tmp_path / "run", Silent())
    assert stats.rejected == {"speak: crash": 1} and stats.accepted == 1
    assert "died each of 2 times" in rejects(tmp_path / "run")[0]["detail"]


def rejects(root: Path) -> list[dict[str, Any]]:
    paths = sorted((root / "rejects").rglob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


@pytest.mark.faults
@pytest.mark.matrix
def test_workers_that_never_open_end_the_run(tmp_path: Path, llm: FakeLLM, corpus: Path, ray_here: None) -> None:
    config = make(
        tmp_path, llm, corpus, "ray", TWO, "tts.engines.kokoro.kind=tests.fakes:build_dying_tts", "engine.restarts=1"
    )
    with pytest.raises(RunIncomplete, match="all studio workers were lost"):
        run(config, tmp_path / "run", Silent())


@pytest.mark.faults
def test_a_unit_that_was_published_is_not_made_again(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    """As when a worker dies after the manifest and before it could tell: the unit is handed out once more."""
    out = tmp_path / "run"
    config = make(tmp_path, llm, corpus, "local", "dialogues=2")
    run(config, out, Silent())
    before = tree(out)
    studio, lock = open_studio(make_job(config, out))
    with lock:
        [unit] = plan_units(config)
        manifest, _ = studio.run(unit)
    assert manifest == RunFolder(out).load_manifest(0, "train")
    assert tree(out) == before


def test_a_torn_line_in_the_log_of_costs_is_passed_over(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    out = tmp_path / "run"
    run(make(tmp_path, llm, corpus, "local", "dialogues=2"), out, Silent())
    with RunFolder(out).timings.open("a") as file:
        file.write('\n{"unit": 1, "stages": {"spe')
    before = stage_costs(RunFolder(out))
    assert before["speak"]["audio"] > 0 and before["write"]["wall"] > 0
    run(make(tmp_path, llm, corpus, "local", "dialogues=4"), out, Silent())
    assert stage_costs(RunFolder(out))["speak"]["audio"] > before["speak"]["audio"]


def test_a_model_name_without_an_endpoint_is_refused(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs writer\.base_url"):
        run(make(tmp_path, llm, corpus, "local", "writer.base_url=null"), tmp_path / "run", Silent())


def test_another_configuration_is_refused_and_named(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    """Before an engine is there."""
    out = tmp_path / "run"
    run(make(tmp_path, llm, corpus, "local", "dialogues=4"), out, Silent())
    before = tree(out)
    with pytest.raises(RunMismatchError, match=r"audio.loudness is -23.0 there and -20.0 here"):
        run(make(tmp_path, llm, corpus, "local", "dialogues=4", "audio.loudness=-20"), out, Silent())
    with pytest.raises(RunMismatchError, match=r"speechchat regate"):
        run(make(tmp_path, llm, corpus, "local", "dialogues=4", "judge.limits.en.wer=0.3"), out, Silent())
    with pytest.raises(RunMismatchError, match=r"never shrinks"):
        run(make(tmp_path, llm, corpus, "local", "dialogues=2"), out, Silent())
    assert tree(out) == before
    # How the work is done may change at any time.
    run(make(tmp_path, llm, corpus, "local", "dialogues=4", "writer.timeout=9", "engine.window=3"), out, Silent())


def test_another_corpus_is_refused(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    run(make(tmp_path, llm, corpus, "local", "dialogues=2"), tmp_path / "run", Silent())
    write_corpus(corpus, [*EN_LINES, "And one more line."])
    with pytest.raises(RunMismatchError, match="text would come out differently"):
        run(make(tmp_path, llm, corpus, "local", "dialogues=2"), tmp_path / "run", Silent())


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="holds no run"):
        run(make(tmp_path, llm, corpus, "local"), tmp_path / "home", Silent())
    assert tree(tmp_path / "home") == {"letter.txt": b"dear"}


@pytest.mark.faults
def test_two_drivers_on_one_run(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.driver_lock(), pytest.raises(RunFolderError, match="another speechchat run"):
        run(make(tmp_path, llm, corpus, "local"), folder.root, Silent())


@pytest.mark.parametrize(
    ("key", "model", "message"), [("secret", "fake", "OPENAI_API_KEY"), (None, "other", "writer.model")]
)
def test_an_endpoint_that_refuses_ends_the_run(
    tmp_path: Path, corpus: Path, kind: str, key: str | None, model: str, message: str
) -> None:
    with llm_server(key, model) as server, pytest.raises(EndpointError, match=message):
        run(make(tmp_path, server, corpus, kind), tmp_path / "run", Silent())


def test_an_endpoint_that_is_down_loses_nothing(tmp_path: Path, llm: FakeLLM, corpus: Path, kind: str) -> None:
    out = tmp_path / "run"
    config = make(tmp_path, llm, corpus, kind, "dialogues=4")
    run(make(tmp_path, llm, corpus, "local", "dialogues=4"), tmp_path / "undisturbed", Silent())
    with pytest.raises(EndpointError, match=r"writer\.base_url"):
        run(make(tmp_path, llm, corpus, kind, "dialogues=4", "writer.base_url=http://127.0.0.1:9/v1"), out, Silent())
    run(config, out, Silent())
    assert tree(out) == tree(tmp_path / "undisturbed")
