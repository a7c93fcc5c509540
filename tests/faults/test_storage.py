"""Full and read-only disks: one line that names the file, nothing lost, and the same bytes once there is room."""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.engine.run import run as run_here
from pipeline.training.stream import DialogueStream
from tests.fakes import FakeLLM, Silent, config_file, tree
from tests.faults import tools
from tests.faults.tools import error_line, run

pytestmark = pytest.mark.faults

WHAT_NEXT = "nothing that was finished is lost: mend it and run the same command again"


@pytest.fixture
def config(tmp_path: Path, llm: FakeLLM, corpus: Path) -> Path:
    return config_file(tmp_path / "run.yaml", llm.base_url, corpus)


@pytest.fixture
def undisturbed(tmp_path: Path, config: Path) -> dict[str, bytes]:
    run_here(load_config(str(config), ["engine.kind=local"]), tmp_path / "undisturbed", Silent())
    return tree(tmp_path / "undisturbed")


def _limit_files(size: int) -> None:
    """In the child: no file may grow beyond `size` bytes. Python ignores the signal, so a write fails instead."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_shard_that_may_not_grow(tmp_path: Path, llm: FakeLLM, config: Path, undisturbed: dict[str, bytes]) -> None:
    out = tmp_path / "run"
    llm.requests.clear()
    run_here(load_config(str(config), ["engine.kind=local", "dialogues=4"]), out, Silent())
    finished = {path: path.read_bytes() for path in out.glob("shards/*/*/*")}
    assert len(tools.manifests(out)) == 2
    small = min(len(data) for name, data in undisturbed.items() if name.endswith(".tar")) // 2
    status, said = run(config, out, "--engine", "local", preexec_fn=functools.partial(_limit_files, small))
    assert status == 4
    line = error_line(said)
    assert "unit-000002.tar: the file size limit is reached" in line and line.endswith(WHAT_NEXT)
    assert not tools.temporaries(out)
    assert (out / "dialogues" / "000" / "unit-000002.jsonl").is_file()
    assert finished == {path: path.read_bytes() for path in finished}
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert tree(out) == undisturbed
    assert len(llm.requests) == 8


def _fill(disk: Path, leave: int) -> Path:
    """A file that takes all room of the disk but `leave` bytes."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - leave))
    return filler


@pytest.mark.parametrize(
    ("kind", "leave", "units"),
    [
        pytest.param("local", 0, 0, id="at the start", marks=pytest.mark.matrix),
        pytest.param("local", 60_000, 0, id="in the first unit"),
        pytest.param("local", 850_000, 2, id="in a later unit", marks=pytest.mark.matrix),
        pytest.param("ray", 60_000, 0, id="ray", marks=pytest.mark.matrix),
    ],
)
def test_a_full_disk(
    mount: Callable[[str], Path],
    llm: FakeLLM,
    config: Path,
    undisturbed: dict[str, bytes],
    kind: str,
    leave: int,
    units: int,
) -> None:
    disk = mount("size=16m")
    out = disk / "run"
    llm.requests.clear()
    filler = _fill(disk, leave)
    status, said = run(config, out, "--engine", kind)
    assert status == 4, said
    line = error_line(said)
    assert str(out) in line and line.endswith(f": no space left on the device; {WHAT_NEXT}")
    finished = {path: path.read_bytes() for path in tools.manifests(out)}
    assert len(finished) >= units
    paid = tools.written(out)
    filler.unlink()
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert tree(out) == undisturbed
    assert finished == {path: path.read_bytes() for path in finished}
    asked = tools.asked(llm, load_config(str(config)))
    assert len(asked) == 8 and all(asked[name] == 1 for name in paid)


def test_a_read_only_run_is_read_and_not_written(
    mount: Callable[[str], Path], tmp_path: Path, config: Path, undisturbed: dict[str, bytes]
) -> None:
    disk = mount("size=16m")
    shutil.copytree(tmp_path / "undisturbed", disk / "run")
    mount("ro")
    status, said = run(config, disk / "run", "--engine", "local", "--set", "dialogues=12")
    assert status == 4
    assert "the file system is read-only" in error_line(said) and str(disk / "run") in said
    speechchat = [sys.executable, "-m", "pipeline.cli"]
    for command in ("verify", "stats"):
        done = subprocess.run([*speechchat, command, str(disk / "run")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(list(DialogueStream(disk / "run", each="turn", cache=tmp_path))) == 16
    status, said = run(config, disk / "new", "--engine", "local")
    assert status == 4
    assert "the file system is read-only" in error_line(said)
    mount("rw")
    status, said = run(config, disk / "run", "--engine", "local", "--set", "dialogues=12")
    assert status == 0, said
    assert undisturbed.items() - tree(disk / "run").items() == {
        (name, undisturbed[name]) for name in ("README.md", "config.yaml", "stats.json")
    }
