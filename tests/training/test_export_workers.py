"""An export over processes: the same bytes, whoever makes a unit and whoever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.engine.pool import in_order
from pipeline.errors import DataError
from pipeline.shards.store import RunFolder
from pipeline.training.export import Summary, export
from tests.synthetic import make_run
from tests.training.exported import samples_of, tree

ROOT = Path(__file__).resolve().parents[2]
TWO = partial(in_order, workers=2, group=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Twenty units of one dialogue; of two nothing was accepted."""
    return make_run(tmp_path_factory.mktemp("workers") / "run", 20, 1, rejected=2)


def units_of_answers(run: RunFolder, path: Path) -> Path:
    rows = [
        {"key": sample.key, "turn": number, "units": [number, 7]}
        for sample, *_ in samples_of(run, "train")
        for number in range(len(sample.turns))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("format", ["hf", "lhotse", "llama-omni", "moshi", "nemo"])
def test_processes_change_nothing(run: RunFolder, tmp_path: Path, format: str) -> None:
    options: dict[str, Any] = {"moshi": {"times": "even"}}.get(format, {})
    if format == "llama-omni":
        options = {"units": str(units_of_answers(run, tmp_path / "units.jsonl"))}
    seen: list[Summary] = []
    export(run.root, format, tmp_path / "one", options=options)
    summary = export(run.root, format, tmp_path / "two", None, options, seen.append, TWO)
    assert (summary.units, summary.added, summary.samples) == (20, 20, 18)
    assert [item.added for item in seen] == list(range(21))
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
    assert export(run.root, format, tmp_path / "two", options=options, each=TWO).added == 0


def test_a_damaged_shard_is_named_by_another_process(run: RunFolder, tmp_path: Path) -> None:
    copy = make_run(tmp_path / "copy", 20, 1)
    shard = copy.shard(12, "train")
    shard.write_bytes(shard.read_bytes()[:-20_000])
    with pytest.raises(DataError, match=r"unit-000012\.tar"):
        export(copy.root, "hf", tmp_path / "out", each=TWO)


@pytest.mark.faults
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_whoever_is_killed_leaves_what_the_next_one_goes_on_with(tmp_path: Path, victim: str) -> None:
    run = make_run(tmp_path / "run", 200, 1)  # seconds of work
    export(run.root, "llama-factory", tmp_path / "whole")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "export", str(run.root), str(out), "--to", "llama-factory"]
    command += ["--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "audio").exists():
        time.sleep(0.001)
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in "".join(child.cmdline())]
    assert len(workers) == 2
    (process if victim == "driver" else workers[0]).kill()
    _, said = process.communicate(timeout=60)
    if victim == "worker":
        assert process.returncode == 1
        assert "a worker process was killed" in said and "Traceback" not in said
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive  # they do not outlive the driver
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert tree(out) == tree(tmp_path / "whole")
