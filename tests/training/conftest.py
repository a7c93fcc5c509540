"""Runs to stream and to export."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dialogue import Split
from pipeline.shards.reader import read_samples
from pipeline.shards.store import RunFolder
from tests.synthetic import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Six units of four: 22 dialogues were accepted, with 2 or 4 turns each."""
    return make_run(tmp_path_factory.mktemp("stream") / "run", dialogues=24, unit_size=4, rejected=2)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def keys(run: RunFolder) -> list[str]:
    """Of all samples, as they lie in the shards."""
    return [sample.key for manifest in run.manifests() for sample in read_samples(run, manifest)]


@pytest.fixture(scope="session")
def timed_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two units of four dialogues with word times, the first in train (two were rejected), the other in validation."""
    root = tmp_path_factory.mktemp("timed") / "run"
    splits: dict[Split, float] = {"train": 0.5, "validation": 0.5}
    return make_run(root, dialogues=8, unit_size=4, rejected=2, splits=splits, words=True)
