"""An undisturbed run, and others like it that come to harm; disks of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import EN_LINES, FakeLLM, config_file, llm_server, tree, write_corpus
from tests.faults.nursery import Nursery, suffer

# Of two units of two dialogues: the second holds one that is accepted and one that is rejected with its clips.
LINES = [*EN_LINES[:3], "Is this a hopeless case?"]
SETTINGS: dict[str, Any] = {"dialogues": 4, "unit_size": 2, "engine__kind": "local", "writer__concurrency": 1}


class Ground:
    """An undisturbed run, and a nursery for others like it. texts: requests that it asks the LLM."""

    def __init__(self, root: Path, llm: FakeLLM):
        config = config_file(root / "run.yaml", llm.base_url, write_corpus(root / "corpus", LINES), **SETTINGS)
        self.llm = llm
        self.nursery = Nursery(config, root / "undisturbed", suffer)
        self.tree = tree(root / "undisturbed")
        self.texts = len(llm.requests)
        assert "shards/train/000/unit-000001.tar" in self.tree and "rejects/000/unit-000001.tar" in self.tree


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with llm_server() as llm:
        ground = Ground(tmp_path_factory.mktemp("ground"), llm)
        with ground.nursery:
            yield ground


def _may_mount(root: Path) -> str:
    """Why this user cannot mount a disk of their own here, "" if they can."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        return "mounting a small disk needs root"
    root.mkdir()
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)], capture_output=True, text=True
    )
    if tried.returncode == 0:
        subprocess.run(["umount", str(root)], check=True)
    return tried.stderr.strip()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts (and then remounts) a disk in memory with the options given."""
    reason = _may_mount(tmp_path / "tried")
    if reason:
        pytest.skip(f"no disk of its own for this test: {reason}")
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        again = ["remount"] if disk.is_mount() else []
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*again, options]), "tmpfs", str(disk)], check=True)
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
