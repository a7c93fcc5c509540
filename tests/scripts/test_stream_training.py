"""The script that shows how to stream, stop and go on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.shards.reader import read_samples
from pipeline.shards.store import RunFolder
from tests.synthetic import make_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "stream_training.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("streamed") / "run", dialogues=12, unit_size=4)


@pytest.fixture(scope="module")
def total(run: RunFolder) -> int:
    """Turns of the run."""
    return sum(len(sample.turns) for manifest in run.manifests() for sample in read_samples(run, manifest))


def stream(folder: Path, *arguments: object, rank: int = 0, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "SPEECHCHAT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, arguments)]
    environment["PYTHONPATH"] = str(SCRIPT.parents[1])
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def turns(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stderr
    return sum(map(int, re.findall(r"samples, (\d+) turns", done.stdout)))


def test_an_epoch_in_process_and_through_workers(run: RunFolder, total: int, tmp_path: Path) -> None:
    done = stream(tmp_path, run.root, "--limit", 3)
    assert len(re.findall(r"^\S+ turn \d+ (?:user|assistant)", done.stdout, re.MULTILINE)) == 3
    assert "in process: " in done.stdout and "StatefulDataLoader, 2 workers: " in done.stdout
    assert turns(done) == 2 * total


def test_two_processes_stop_and_one_goes_on(run: RunFolder, total: int, tmp_path: Path) -> None:
    options = (run.root, "--limit", 0, "--shuffle", 100, "--seconds", 6)
    before = [turns(stream(tmp_path, *options, "--take", 3, rank=rank, ranks=2)) for rank in range(2)]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["stream-state-0.json", "stream-state-1.json"]
    after = turns(stream(tmp_path, *options, "--resume", "--workers", 0))
    assert sum(before) + after == total and min(*before, after) > 0


def test_bad_input_gets_one_line(run: RunFolder, tmp_path: Path) -> None:
    done = stream(tmp_path, run.root, "--resume")
    assert done.returncode == 1 and done.stderr == "stream-state-0.json: no such state; --take N saves one\n"
    done = stream(tmp_path, run.root, "--seconds", 1)
    assert done.returncode == 2 and done.stderr.startswith("stream_training: batches.budget: ")
    assert done.stderr.count("\n") == 1
