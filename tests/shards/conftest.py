"""A run to read, and a copy of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.shards.store import RunFolder
from tests.synthetic import make_run


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two units of four; of the first, one dialogue was rejected by the judge and one for its text."""
    return make_run(tmp_path_factory.mktemp("healthy") / "run", dialogues=8, unit_size=4, rejected=2)


@pytest.fixture
def folder(healthy: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy, to be damaged."""
    shutil.copytree(healthy.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")
