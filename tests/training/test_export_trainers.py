"""Exports read by the trainers' own loaders, which live in an environment of their own (make test-trainers).

The tests run here; the loaders run in the environment that SPEECHCHAT_TRAINERS names, .venv-trainers if it names none.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.shards.store import RunFolder
from pipeline.training.export import export
from tests.synthetic import make_run
from tests.training.exported import samples_of

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Path(os.environ.get("SPEECHCHAT_TRAINERS", ROOT / ".venv-trainers")).absolute()

pytestmark = pytest.mark.trainers


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("trainers") / "run", 6, 3, rejected=1)


def read(trainer: str, folder: Path, cache: Path) -> list[dict[str, Any]]:
    cache.mkdir()
    script = ROOT / "tests/training/read_by_trainers.py"
    # LLaMA-Factory refuses versions that it was not tested with, of packages that are ms-swift's here.
    homes = {"HF_HOME": str(cache), "MODELSCOPE_CACHE": str(cache), "DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    command = [ENVIRONMENT / "bin/python", script, trainer, folder, "train", cache]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **homes})
    assert done.returncode == 0, done.stderr
    return json.loads((cache / "rows.json").read_text("utf-8"))


def test_ms_swift_reads_its_export(run: RunFolder, tmp_path: Path) -> None:
    export(run.root, "ms-swift", tmp_path / "out")
    for row, (_, turns, _, _) in zip(read("ms-swift", tmp_path / "out", tmp_path / "c"), samples_of(run), strict=True):
        wanted = ["<audio>" if spoken.turn.role == "user" else spoken.turn.spoken for spoken in turns]
        assert [(item["role"], item["content"]) for item in row["messages"]] == [
            (spoken.turn.role, text) for spoken, text in zip(turns, wanted, strict=True)
        ]
        users = [spoken for spoken in turns if spoken.turn.role == "user"]
        for sound, spoken in zip(row["sounds"], users, strict=True):
            np.testing.assert_array_equal(sound, spoken.pcm)


def test_llama_factory_reads_its_export(run: RunFolder, tmp_path: Path) -> None:
    """Clips are found, and as many as there are tags (its own `_validate_messages`)."""
    export(run.root, "llama-factory", tmp_path / "out")
    rows = read("llama-factory", tmp_path / "out", tmp_path / "c")
    for row, (sample, turns, _, _) in zip(rows, samples_of(run), strict=True):
        wanted = ["<audio>" if spoken.turn.role == "user" else spoken.turn.spoken for spoken in turns]
        assert [(item["role"], item["content"]) for item in row["messages"]] == [
            (spoken.turn.role, text) for spoken, text in zip(turns, wanted, strict=True)
        ]
        assert row["system"] == sample.system
        assert all(Path(path).is_absolute() and Path(path).is_file() for path in row["audios"])
