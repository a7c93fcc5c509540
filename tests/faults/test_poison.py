"""A dialogue that kills or hangs the program that speaks it: each start learns of the last."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from pipeline.engine.run import load_frozen
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from tests.fakes import EN_LINES, FakeLLM, config_file, write_corpus
from tests.faults import tools
from tests.faults.tools import Driver, error_line, run

pytestmark = pytest.mark.faults


def make(tmp_path: Path, llm: FakeLLM, line: str, **more: object) -> Path:
    """Two units of two dialogues; one of the second holds the line."""
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], line])
    settings = {"dialogues": 4, "unit_size": 2, "engine__tries": 2, **more}
    return config_file(tmp_path / "run.yaml", llm.base_url, corpus, **settings)


def rejected(out: Path) -> list[tuple[str, str, str]]:
    lines = [line for path in sorted((out / "rejects").rglob("*.jsonl")) for line in path.read_text().splitlines()]
    return [(item["stage"], item["reason"], item["detail"]) for item in map(json.loads, lines)]


def check(out: Path) -> None:
    folder = RunFolder(out)
    *_, state = verify(folder, load_frozen(folder)[0], decode=True)
    assert state.problems == [] and state.missing == []
    assert not tools.in_hand(out) and not tools.temporaries(out)


def test_a_segfault_ends_the_program_and_at_the_last_try_its_dialogue_alone(tmp_path: Path, llm: FakeLLM) -> None:
    config, out = make(tmp_path, llm, "This is a segfault."), tmp_path / "run"
    for _ in range(2):
        status, said = run(config, out, "--engine", "local")
        assert status == -signal.SIGSEGV, said
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert "was in hand when the last driver died (Segmentation fault)" in said
    [(stage, reason, detail)] = rejected(out)
    assert (stage, reason) == ("speak", "crash") and "died (Segmentation fault) each of 2 times" in detail
    check(out)


def test_a_kill_from_outside_blames_nobody(tmp_path: Path, llm: FakeLLM) -> None:
    slow = {"tts__engines__kokoro__kind": "tests.fakes:build_slow_tts"}
    config, out = make(tmp_path, llm, EN_LINES[3], **slow), tmp_path / "run"
    for _ in range(2):
        driver = Driver(config, out, "--engine", "local")
        driver.until(lambda: tools.in_hand(out))
        driver.kill()
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert rejected(out) == [] and "was in hand" not in said
    check(out)


@pytest.mark.matrix
def test_a_hang_ends_the_program_at_its_deadline_and_at_the_last_try_its_dialogue_alone(
    tmp_path: Path, llm: FakeLLM
) -> None:
    config, out = make(tmp_path, llm, "Hold on, this will hang.", engine__deadline=8), tmp_path / "run"
    for _ in range(2):
        status, said = run(config, out, "--engine", "local")
        assert status == 1
        assert "was being spoken for 8 s (engine.deadline)" in error_line(said)
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    [(stage, reason, detail)] = rejected(out)
    assert (stage, reason) == (
        "speak",
        "crash",
    ) and detail == "its worker hung for 8 s each of 2 times that it was spoken"
    check(out)
