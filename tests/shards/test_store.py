"""How a file comes to exist: whole or not at all, once, and by one driver."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError, RunFolderError, StorageError
from pipeline.shards import store
from pipeline.shards.disk import PendingFile
from pipeline.shards.store import RunFolder, publish


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_publish_makes_the_whole_file_and_says_what_it_is(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    assert publish(tmp_path / "a" / "b.bin", data) == (len(data), hashlib.sha256(data).hexdigest())
    assert (tmp_path / "a" / "b.bin").read_bytes() == data
    assert names(tmp_path) == {"a/b.bin"}


def test_publish_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    publish(path, b"first")
    with pytest.raises(FileExistsError):
        publish(path, b"second")
    assert path.read_bytes() == b"first" and names(tmp_path) == {"b.bin"}


def test_publish_never_overwrites_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(store.os, "link", refuse)
    publish(tmp_path / "b.bin", b"first")
    with pytest.raises(FileExistsError):
        publish(tmp_path / "b.bin", b"second")
    assert (tmp_path / "b.bin").read_bytes() == b"first" and names(tmp_path) == {"b.bin"}


def test_replace_is_seen_as_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    versions = {bytes([number]) * 50_000 for number in range(20)}
    publish(path, min(versions))
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for version in sorted(versions):
        publish(path, version, replace=True)
    stop.set()
    reader.join()
    assert seen and seen <= versions
    assert path.read_bytes() == max(versions) and names(tmp_path) == {"b.bin"}


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    pending = PendingFile(tmp_path / "b.bin")
    pending.write(b"something")
    assert names(tmp_path) == {"b.bin.tmp"}
    pending.abort()
    assert names(tmp_path) == set()


@settings(deadline=None, max_examples=30)
@given(
    data=st.binary(min_size=1, max_size=600_000), place=st.floats(0, 1, exclude_max=True), change=st.integers(0, 257)
)
@example(data=bytes(600_000), place=0.999999, change=1)
@example(data=bytes(600_000), place=0.5, change=256)
def test_what_the_disk_gives_back_wrong_is_not_published(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: float, change: int
) -> None:
    """change: to the byte at `place` is added 1 … 255; or the file ends there, or a byte more is at its end."""
    root, at, sync = tmp_path_factory.mktemp("disk"), int(place * len(data)), os.fsync

    def damage(handle: int) -> None:
        sync(handle)
        with (root / "b.bin.tmp").open("r+b") as file:
            if change == 256:
                file.truncate(at)
            else:
                file.seek(len(data) if change == 257 else at)
                file.write(b"x" if change == 257 else bytes([(data[at] + max(1, change)) % 256]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.os, "fsync", damage)
        with pytest.raises(StorageError, match=r"b\.bin.*is not what was written"):
            publish(root / "b.bin", data)
    assert names(root) == set()


@pytest.mark.parametrize("advice", ["missing", "refused"])
def test_a_disk_that_takes_no_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    if advice == "missing":
        monkeypatch.delattr(store.os, "posix_fadvise", raising=False)
    else:
        monkeypatch.setattr(store.os, "posix_fadvise", refuse, raising=False)
    publish(tmp_path / "b.bin", b"data")
    assert (tmp_path / "b.bin").read_bytes() == b"data" and names(tmp_path) == {"b.bin"}


@pytest.mark.parametrize("size", [100, 5_000, 100_000])
def test_a_file_that_the_disk_does_not_take(tmp_path: Path, size: int) -> None:
    """However it is buffered: one error that names the file, and no temporary left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(StorageError, match=r"b\.bin: the file size limit is reached; .*run the same command again"):
            publish(tmp_path / "b.bin", bytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == set()


@settings(deadline=None, max_examples=50)
@given(chunks=st.lists(st.binary(max_size=20_000), max_size=6))
def test_a_pending_file_is_the_sum_of_its_writes(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("pending") / "b.bin"
    pending = PendingFile(path)
    told = []
    for chunk in chunks:
        told.append(pending.tell())
        pending.write(chunk)
    whole = b"".join(chunks)
    assert told == [sum(map(len, chunks[:number])) for number in range(len(chunks))]
    assert pending.commit() == (len(whole), hashlib.sha256(whole).hexdigest())
    assert path.read_bytes() == whole


def test_sweep_removes_temporaries_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    publish(folder.shard(0, "train"), b"shard")
    PendingFile(folder.shard(1, "train")).write(b"half")
    PendingFile(folder.text(1)).write(b"half")
    folder.sweep()
    assert names(tmp_path) == {"shards/train/000/unit-000000.tar"}


def test_discard_removes_one_unit_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for unit in (0, 1):
        for path in [*folder.unit_files(unit, "train"), folder.text(unit)]:
            publish(path, b"x")
    PendingFile(folder.shard(0, "train")).write(b"half")
    before = names(tmp_path)
    folder.discard(0, "train")
    assert before - names(tmp_path) == {
        "shards/train/000/unit-000000.tar",
        "shards/train/000/unit-000000.tar.tmp",
        "shards/train/000/unit-000000.parquet",
        "rejects/000/unit-000000.jsonl",
        "rejects/000/unit-000000.tar",
        "rejects/000/unit-000000.takes.tar",
    }


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.load_manifest(3, "test") is None
    publish(folder.manifest(3, "test"), b'{"version": 1')
    for read in (lambda: folder.load_manifest(3, "test"), lambda: list(folder.manifests())):
        with pytest.raises(DataError, match=r"shards/test/000/unit-000003\.json: not a manifest"):
            read()


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_that_is_no_run(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "run").mkdir()
    with pytest.raises(RunFolderError, match=r"run (is not a folder|holds no config\.yaml).*speechchat run"):
        RunFolder(tmp_path / "run").require()


def _hold(root: Path, lock: str, ready: Any, release: Any) -> None:
    folder = RunFolder(root)
    if lock == "driver":
        with folder.driver_lock():
            ready.set()
            release.wait()
    else:
        with folder.worker_lock():
            ready.set()
            release.wait()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """Starts another process that holds a lock; returns it and the event that lets it end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.shards.store"])
    started = []

    def start(lock: str) -> tuple[Any, Any]:
        ready, release = context.Event(), context.Event()
        process = context.Process(target=_hold, args=(tmp_path, lock, ready, release))
        process.start()
        started.append(process)
        assert ready.wait(60)
        return process, release

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_driver_is_refused_at_once_and_let_in_after_the_first(tmp_path: Path, holder: Any) -> None:
    process, release = holder("driver")
    with (
        pytest.raises(RunFolderError, match="another speechchat run is writing"),
        RunFolder(tmp_path).driver_lock(),
    ):
        pass
    release.set()
    process.join()
    with RunFolder(tmp_path).driver_lock():
        assert names(tmp_path) == {"logs/driver.lock", "logs/workers.lock"}


def test_a_lock_dies_with_its_holder(tmp_path: Path, holder: Any) -> None:
    process, _ = holder("driver")
    process.kill()
    process.join()
    with RunFolder(tmp_path).driver_lock(patience=0):
        assert process.exitcode == -9


def test_a_driver_waits_for_the_workers_of_an_earlier_run(tmp_path: Path, holder: Any) -> None:
    process, release = holder("worker")
    with (
        pytest.raises(RunFolderError, match="workers of an earlier run"),
        RunFolder(tmp_path).driver_lock(patience=0),
    ):
        pass
    threading.Timer(0.3, release.set).start()
    with RunFolder(tmp_path).driver_lock(patience=60):
        assert release.is_set()
    process.join()


def test_workers_of_one_run_hold_their_lock_side_by_side(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).driver_lock(),
        RunFolder(tmp_path).worker_lock(),
        RunFolder(tmp_path).worker_lock() as lock,
    ):
        assert not lock.closed


def test_a_new_folder_is_synced_into_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = os.fsync

    def watch(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        sync(file)

    monkeypatch.setattr(os, "fsync", watch)
    publish(tmp_path / "shards" / "train" / "000" / "file", b"x")
    parents = [tmp_path, tmp_path / "shards", tmp_path / "shards" / "train"]
    assert [path for path in synced if path.is_dir()] == [*parents, tmp_path / "shards" / "train" / "000"]
    synced.clear()
    publish(tmp_path / "shards" / "train" / "000" / "other", b"x")
    assert [path for path in synced if path.is_dir()] == [tmp_path / "shards" / "train" / "000"]


@given(st.sets(st.integers(0, 4000), max_size=20), st.lists(st.integers(0, 4200), max_size=40), st.booleans())
@settings(max_examples=30)
def test_missing_files_are_those_that_are_not_there(
    tmp_path_factory: pytest.TempPathFactory, there: set[int], asked: list[int], ordered: bool
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for unit in there:
        for place in (folder.text, folder.rows, folder.reject_takes):
            place(unit).parent.mkdir(parents=True, exist_ok=True)
            place(unit).touch()
    units = sorted(asked) if ordered else asked
    expected = [unit for unit in units if unit not in there]
    for place in (folder.text, folder.rows, folder.reject_takes):
        assert list(folder.missing(place, units)) == expected
    assert list(folder.missing(folder.reject_clips, units)) == units  # names that only begin alike are no such files


def test_a_sweep_takes_temporaries_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = [folder.shard(0, "train"), folder.text(1001), folder.rows(7), folder.crash_journal(3), folder.heartbeat]
    for path in kept:
        for name in (path, path.with_name(f"{path.name}.tmp")):
            name.parent.mkdir(parents=True, exist_ok=True)
            name.touch()
    for path in (folder.config, folder.stats, folder.card):
        path.with_name(f"{path.name}.tmp").touch()
    folder.sweep()
    logs = {f"{path.relative_to(tmp_path)}.tmp" for path in kept[3:]}
    assert names(tmp_path) == {str(path.relative_to(tmp_path)) for path in kept} | logs
