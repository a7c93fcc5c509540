"""A release that is killed goes on, and what is damaged or already there is refused."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.engine.run import load_frozen
from pipeline.errors import DataError
from pipeline.shards.index import index_bytes
from pipeline.shards.release_list import Release, read_release
from pipeline.shards.store import RunFolder
from pipeline.training.release import release
from tests.command_line import CommandLine, python, refused
from tests.shards.damage import Members, refit, repack
from tests.synthetic import make_run

SIZE = 900_000
KILLER = """
import os, signal, sys
from pathlib import Path
from pipeline.engine.run import load_frozen
from pipeline.shards.store import RunFolder
from pipeline.training.release import release

run, outs, size = RunFolder(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
frozen, rename = load_frozen(run), Path.replace

def kill_at(number, after):
    met = []
    def replace(path, target):
        met.append(path)
        if len(met) == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = rename(path, target)
        if len(met) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return replace

def killed(number, after):
    child = os.fork()
    if child == 0:
        Path.replace = kill_at(number, after)
        release(run, *frozen, outs / f"{number}{after and ' after'}", size)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

number = 1
while killed(number, ""):
    number += 1
killed(number - 1, "after")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four units of train and two of test."""
    root = tmp_path_factory.mktemp("made") / "run"
    return make_run(root, dialogues=12, unit_size=2, rejected=1, splits={"train": 2, "test": 1})


@pytest.fixture
def folder(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy, to be damaged."""
    return RunFolder(shutil.copytree(run.root, tmp_path / "run"))


def released(folder: RunFolder, out: Path, size: int = SIZE, **options: Any) -> Release:
    return release(folder, *load_frozen(folder), out, size, **options)


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def stamps(out: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*")}


# ---- again ----


def test_killed_anywhere_it_ends_with_the_same_bytes(run: RunFolder, tmp_path: Path) -> None:
    """Right before each file comes to be, and after the last; a shard that is finished is not made again."""
    released(run, tmp_path / "whole")
    whole = files(tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    done = python(script, run.root, tmp_path / "cut", SIZE)
    assert done.status == 0, done.err
    cut = {out.name: out for out in (tmp_path / "cut").iterdir()}
    kills = len(whole) + 1  # and the mark that it was begun
    assert cut.keys() == {*map(str, range(1, kills + 2)), f"{kills} after"}
    assert files(cut.pop(str(kills + 1))) == whole  # nobody killed this one
    kept = 0
    for out in cut.values():
        left = {path: stamp for path, stamp in stamps(out).items() if path.is_file()}
        released(run, out)
        assert files(out) == whole, out.name
        finished = [path for path in left if path.suffix == ".tar" and path.with_suffix(".json") in left]
        assert all(stamps(out)[path] == left[path] for path in finished)
        kept += len(finished)
    assert kept > 10


def test_a_finished_release_is_left_as_it_is(run: RunFolder, tmp_path: Path, speechchat: CommandLine) -> None:
    out = tmp_path / "out"
    first = speechchat("release", run.root, out, "--size", SIZE)
    assert first.status == 0 and "11 samples" in first.out
    before = stamps(out)
    again = speechchat("release", run.root, out, "--size", SIZE)
    assert (again.status, again.out) == (0, first.out) and stamps(out) == before


@pytest.mark.parametrize("harm", ["cut", "gone", "manifest", "card"])
def test_what_was_lost_of_a_finished_release_is_made_again(run: RunFolder, tmp_path: Path, harm: str) -> None:
    out = tmp_path / "out"
    released(run, out)
    whole, shard = files(out), next(out.glob("train/*.tar"))
    if harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-512])
    else:
        {"gone": shard, "manifest": shard.with_suffix(".json"), "card": out / "README.md"}[harm].unlink()
    released(run, out)
    assert files(out) == whole


def test_the_same_run_elsewhere_is_the_same_release(run: RunFolder, folder: RunFolder, tmp_path: Path) -> None:
    released(run, tmp_path / "one")
    released(folder, tmp_path / "other")
    assert files(tmp_path / "one") == files(tmp_path / "other")


# ---- refusals ----


def test_a_place_that_is_taken(run: RunFolder, tmp_path: Path, speechchat: CommandLine) -> None:
    out = tmp_path / "out"
    released(run, out)
    before = stamps(out)
    other = make_run(tmp_path / "other", dialogues=2, unit_size=2, rejected=0)
    refused(speechchat("release", run.root, out, "--size", "1GB"), 2, str(out), "another release", "--size")
    refused(speechchat("release", other.root, out, "--size", SIZE), 2, str(out), "another release")
    assert stamps(out) == before
    (out / "release.json").rename(out / ".release")  # as if it had only been begun, for another size
    (out / ".release").write_text("0" * 32)
    refused(speechchat("release", run.root, out), 2, str(out), "another release")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    refused(speechchat("release", run.root, foreign), 2, str(foreign), "not empty and holds no release")
    refused(speechchat("release", run.root, foreign / "thesis.tex"), 2, "is a file")
    refused(speechchat("release", run.root, run.root / "release"), 2, "lies in the run itself")
    refused(speechchat("release", run.root, "s3://bucket/out"), 2, "s3:", "in a folder of this machine")
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"] and not (run.root / "release").exists()


def test_somebody_else_is_at_work(run: RunFolder, tmp_path: Path, speechchat: CommandLine) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".release.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(speechchat("release", run.root, out), 2, str(out), "another speechchat release is writing")
    assert speechchat("release", run.root, out).status == 0
    assert not (out / ".release.lock").exists() and not (out / ".release").exists()


def test_a_run_that_is_not_finished(folder: RunFolder, tmp_path: Path, speechchat: CommandLine) -> None:
    folder.manifest(2, "train").unlink()
    refused(speechchat("release", folder.root, tmp_path / "out"), 2, "1 of 6 units are not finished", "--partial")
    done = speechchat("release", folder.root, tmp_path / "out", "--partial")
    assert done.status == 0, done.err
    listed = read_release(tmp_path / "out")
    assert (listed.units_planned, listed.units, listed.samples) == (6, 5, 9)
    assert "1 units of 6" in (tmp_path / "out" / "README.md").read_text()
    for path in folder.root.glob("shards/*/*/*.json"):
        path.unlink()
    refused(speechchat("release", folder.root, tmp_path / "none", "--partial"), 2, "nothing to release")
    refused(speechchat("release", tmp_path, tmp_path / "none"), 2, "it is no run")
    refused(speechchat("release", folder.root, tmp_path / "none", "--size", "much"), 2, "--size 'much'", "1GB")
    assert not (tmp_path / "none").exists()


def test_a_run_that_goes_on_meanwhile(folder: RunFolder, tmp_path: Path) -> None:
    """What is released is what was finished at the beginning."""
    manifest = folder.manifest(2, "train")
    data = manifest.read_bytes()
    manifest.unlink()
    released(folder, tmp_path / "before", partial=True)

    class GoesOn:
        def began(self, size: int) -> None:
            manifest.write_bytes(data)

        def copied(self, size: int) -> None:
            pass

    released(folder, tmp_path / "meanwhile", partial=True, watcher=GoesOn())
    assert files(tmp_path / "meanwhile") == files(tmp_path / "before")


def test_an_index_of_another_version(folder: RunFolder, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    index = folder.index(0, "train")
    pq.write_table(pq.read_table(index).drop_columns("duration"), index)
    refit(folder)
    with pytest.raises(DataError, match=r"unit-000000.parquet: its columns are those of another version"):
        released(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["/data/models/qwen", "~/qwen", "C:\\models\\qwen", "file:///qwen"])
def test_a_model_that_is_named_by_a_path(folder: RunFolder, tmp_path: Path, speechchat: CommandLine, name: str) -> None:
    frozen = yaml.safe_load(folder.config.read_text())
    frozen["provenance"]["models"][0]["name"] = name
    folder.config.write_text(yaml.safe_dump(frozen))
    refused(speechchat("release", folder.root, tmp_path / "out"), 2, "writer model", "in every sample", "--paths")
    assert speechchat("release", folder.root, tmp_path / "out", "--paths").status == 0


# ---- damage ----


def _flip(folder: RunFolder) -> None:
    path = folder.shard(0, "train")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(folder: RunFolder) -> None:
    path = folder.shard(0, "train")
    path.write_bytes(path.read_bytes()[:-10240])


def _swap(folder: RunFolder) -> None:
    """Two tracks that fit their tar and its manifest, where only the index can tell."""

    def change(members: Members) -> Members:
        members[1], members[2] = (members[1][0], members[2][1]), (members[2][0], members[1][1])
        return members

    repack(folder, change)


def _lose(folder: RunFolder) -> None:
    repack(folder, lambda members: members[:-3])


def _silence(folder: RunFolder) -> None:
    """A record that denies where it comes from: index, checksum and manifest fit."""
    import zlib

    import pyarrow.parquet as pq

    old = b'"synthetic":true'
    repack(folder, lambda members: [(members[0][0], members[0][1].replace(old, b'"synthetic":null')), *members[1:]])
    index = folder.index(0, "train")
    rows = pq.read_table(index).to_pylist()
    at, size = rows[0]["json_offset"], rows[0]["json_size"]
    rows[0]["json_crc32"] = zlib.crc32(folder.shard(0, "train").read_bytes()[at : at + size])
    index.write_bytes(index_bytes(rows))
    refit(folder)


def _double(folder: RunFolder) -> None:
    """A whole unit under the name of another."""
    for place in (folder.shard, folder.index):
        shutil.copy(place(3, "train"), place(2, "train"))
    refit(folder, 2)


DAMAGES: dict[str, tuple[Callable[[RunFolder], Any], str]] = {
    "flip": (_flip, "unit-000000.tar"),
    "cut": (_cut, "unit-000000.tar"),
    "gone": (lambda folder: folder.shard(0, "train").unlink(), "unit-000000.tar: missing"),
    "swapped": (_swap, "is not what its index says"),
    "lost": (_lose, "is not what its index says"),
    "index": (lambda folder: folder.index(0, "train").write_bytes(b"PAR1"), "unit-000000.parquet"),
    "synthetic": (_silence, "does not say that it is synthetic"),
    "double": (_double, "from another unit"),
    "digest": (lambda folder: refit(folder, 0, speech_digest="1" * 16), "is no unit of this run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_not_released(folder: RunFolder, tmp_path: Path, damage: str) -> None:
    harm, why = DAMAGES[damage]
    harm(folder)
    with pytest.raises(DataError, match=why) as caught:
        released(folder, tmp_path / "out", 1)
    line = str(caught.value)
    assert f"speechchat verify {folder.root}" in line and len(line.splitlines()) == 1
    assert not (tmp_path / "out" / "release.json").exists() and not list((tmp_path).rglob("out/**/*.tmp"))
