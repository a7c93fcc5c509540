"""The run folder: where everything lies, and how a file comes to exist.

A file is written under a temporary name, synced, read back, and renamed without overwriting. The manifest of a unit is
written last: what has none does not exist.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from pipeline.dialogue import Split
from pipeline.errors import RunFolderError, StorageError
from pipeline.shards.manifest import Manifest, parse_manifest
from pipeline.shards.readback import checksum, forget

TEMPORARY = ".tmp"


class RunFolder:
    """Paths of a run, all relative to its root; nothing here touches the disk but the methods that say so."""

    def __init__(self, root: Path):
        self.root = root
        self.config = root / "config.yaml"
        self.stats = root / "stats.json"
        self.card = root / "README.md"
        self.logs = root / "logs"
        self.timings = self.logs / "timings.jsonl"
        self.totals = self.logs / "totals.json"
        self.heartbeat = self.logs / "driver.json"
        self.ledger = self.logs / "ledger.json"

    def rows(self, unit: int) -> Path:
        """The rows of the sources that were drawn for a unit, and where the sources then stood."""
        return self.root / "sources" / _name(unit, ".jsonl")

    def text(self, unit: int) -> Path:
        return self.root / "dialogues" / _name(unit, ".jsonl")

    def verdicts(self, unit: int) -> Path:
        """What the barrier dropped of a unit's text; there for every unit whose text has passed it."""
        return self.root / "dedup" / _name(unit, ".jsonl")

    def replies(self, unit: int) -> Path:
        """Every reply of the LLM that a unit has paid for, appended as soon as it is there."""
        return self.logs / "replies" / _name(unit, ".jsonl")

    def crash_journal(self, unit: int) -> Path:
        """Ids of the dialogues that a studio has in hand: whoever finds them after a crash knows the suspects."""
        return self.logs / "studio" / _name(unit, ".txt")

    def shard(self, unit: int, split: Split) -> Path:
        return self.root / "shards" / split / _name(unit, ".tar")

    def index(self, unit: int, split: Split) -> Path:
        return self.root / "shards" / split / _name(unit, ".parquet")

    def manifest(self, unit: int, split: Split) -> Path:
        return self.root / f"shards/{split}/{_name(unit, '.json')}"

    def rejects(self, unit: int) -> Path:
        return self.root / "rejects" / _name(unit, ".jsonl")

    def reject_clips(self, unit: int) -> Path:
        return self.root / "rejects" / _name(unit, ".tar")

    def reject_takes(self, unit: int) -> Path:
        """Clips of takes of rejected dialogues, beside those that their tracks are made of."""
        return self.root / "rejects" / _name(unit, ".takes.tar")

    def quarantine(self, unit: int) -> Path:
        return self.root / "quarantine" / _name(unit, ".json")

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def require(self) -> RunFolder:
        """Itself, if it holds a run. Raises RunFolderError."""
        if not self.config.is_file():
            what = "is not a folder" if not self.root.is_dir() else "holds no config.yaml, so it is no run"
            raise RunFolderError(f"{self.root} {what}; `speechchat run PRESET --out {self.root}` makes one")
        return self

    def load_manifest(self, unit: int, split: Split) -> Manifest | None:
        """The manifest, or None if the unit is not there. Raises DataError naming a file that is damaged, or that
        another version of the program wrote."""
        try:
            return _load_manifest(self.manifest(unit, split))
        except FileNotFoundError:
            return None

    def missing(self, place: Callable[[int], Path], units: Iterable[int]) -> Iterator[int]:
        """Those of `units` whose file is not there. Folders are listed, which for many units takes a tenth of the time
        of asking for each file."""
        suffix, folder, names = place(0).name.removeprefix(_name(0, "").rpartition("/")[2]), -1, frozenset[str]()
        for unit in units:
            if unit // 1000 != folder:
                folder = unit // 1000
                names = _names(place(unit).parent)
            if f"unit-{unit:06d}{suffix}" not in names:
                yield unit

    def manifests(self) -> Iterator[Manifest]:
        """Every finished unit, in the order of units."""
        paths = sorted((self.root / "shards").glob("*/*/unit-*.json"), key=lambda path: path.name)
        for path in paths:
            yield _load_manifest(path)

    def unit_files(self, unit: int, split: Split) -> list[Path]:
        """All that a unit of speech may have published, but its manifest."""
        rejects = [self.rejects(unit), self.reject_clips(unit), self.reject_takes(unit)]
        return [self.shard(unit, split), self.index(unit, split), *rejects]

    def discard(self, unit: int, split: Split) -> None:
        """Remove what an interrupted try of a unit left. Raises FileExistsError for a unit that has a manifest."""
        if self.manifest(unit, split).exists():
            raise FileExistsError(errno.EEXIST, "a published unit is never removed", str(self.manifest(unit, split)))
        for path in [*self.unit_files(unit, split), self.manifest(unit, split)]:
            path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)
        for path in self.unit_files(unit, split):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove every temporary file of ours. Only for the driver that holds the lock, with no worker at work."""
        for name in ("sources", "dialogues", "dedup", "shards", "rejects", "quarantine"):
            for place, _, files in os.walk(self.root / name):
                for found in (file for file in files if file.endswith(TEMPORARY)):
                    Path(place, found).unlink(missing_ok=True)
        for path in (self.config, self.stats, self.card):
            path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)

    @contextlib.contextmanager
    def driver_lock(self, patience: float = 30.0) -> Iterator[None]:
        """Be the one driver of this run.

        A second driver is refused at once. Workers of a killed driver may live on for a moment: they hold a shared
        lock of their own, and this waits up to `patience` seconds for the last one to go, because its files are swept
        next.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with _open_lock(self.logs / "driver.lock") as driver, _open_lock(self.logs / "workers.lock") as workers:
            if not _try_lock(driver, fcntl.LOCK_EX):
                raise RunFolderError(
                    f"{self.root}: another speechchat run is writing to this folder; wait for it or stop it"
                )
            deadline = time.monotonic() + patience
            while not _try_lock(workers, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RunFolderError(
                        f"{self.root}: workers of an earlier run are still writing here; stop them first"
                    )
                time.sleep(0.2)
            fcntl.flock(workers, fcntl.LOCK_UN)
            yield

    def worker_lock(self) -> BinaryIO:
        """Held by a worker for as long as it may write to the run; closes with the process, however it ends."""
        self.logs.mkdir(parents=True, exist_ok=True)
        lock = _open_lock(self.logs / "workers.lock")
        fcntl.flock(lock, fcntl.LOCK_SH)
        return lock

    def unit_lock(self, unit: int) -> BinaryIO | None:
        """The right to make a unit, until it is closed; None while another worker has it: one that was taken for dead,
        because nobody could reach it, may still be at work on what was handed to the next."""
        path = self.crash_journal(unit)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _open_lock(path)
        with contextlib.suppress(FileNotFoundError):  # who has made the unit removes it
            if _try_lock(lock, fcntl.LOCK_EX) and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()
        return None


def _load_manifest(path: Path) -> Manifest:
    return parse_manifest(path, path.read_bytes())


def _open_lock(path: Path) -> BinaryIO:
    return path.open("ab", buffering=0)


def _try_lock(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(folder: Path) -> frozenset[str]:
    """Of the files of a folder, which need not be there."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except FileNotFoundError:
        return frozenset()


def _name(unit: int, suffix: str) -> str:
    return f"{unit // 1000:03d}/unit-{unit:06d}{suffix}"


class PendingFile:
    """A file on its way: written under a temporary name, hashed as it goes, published by `commit`."""

    def __init__(self, path: Path):
        self.path = path
        self.bytes = 0
        self._sha = hashlib.sha256()
        self._check = xxhash.xxh3_64()
        self._temporary = path.with_name(path.name + TEMPORARY)
        with storage_errors(path):
            make_folder(path.parent)
            self._file = self._temporary.open("wb")

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError:
            with storage_errors(self.path):
                raise
        self._sha.update(data)
        self._check.update(data)
        self.bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self.bytes

    def commit(self, replace: bool = False) -> tuple[int, str]:
        """Publish; returns (bytes, sha256). Raises StorageError if what was read back is not what was written."""
        with storage_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            forget(self._file.fileno())
            self._file.close()
            if checksum(self._temporary) != self._check.intdigest():
                raise StorageError(f"{self._temporary}: what the disk gives back is not what was written")
            if replace:
                self._temporary.replace(self.path)
            else:
                rename_new(self._temporary, self.path)
            sync_folder(self.path.parent)
        return self.bytes, self._sha.hexdigest()

    def abort(self) -> None:
        """Leave nothing. Errors of the disk are passed over: one of them is mostly what led here, and is told."""
        with contextlib.suppress(OSError):
            self._file.close()  # tries once more to write what the disk would not take
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def publish(path: Path, data: bytes, replace: bool = False) -> tuple[int, str]:
    """Make `data` the file `path`, whole or not at all; returns (bytes, sha256).

    Without `replace` an existing file raises FileExistsError and stays as it is.
    """
    pending = PendingFile(path)
    try:
        pending.write(data)
        return pending.commit(replace)
    except BaseException:
        pending.abort()
        raise


def rename_new(source: Path, target: Path) -> None:
    """Rename that never overwrites: a hard link fails where the target exists, on local disks and on NFS.

    Where the file system has no hard links, the driver's lock is what keeps two writers apart.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        source.rename(target)
        return
    source.unlink()


def make_folder(folder: Path) -> None:
    """With its parents, each synced into its own: what is published in it survives a power cut with it."""
    if not folder.is_dir():
        if not folder.parent.exists():
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns what a full or read-only disk raises into one line for the user."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "no space left on the device",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file size limit is reached",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission denied",
            errno.ENOTDIR: "a part of this path is a file",
            errno.EISDIR: "this is a folder",
            errno.ENAMETOOLONG: "the name is too long",
            errno.EIO: "the device failed to read or write",
        }
        if error.errno not in reasons:
            raise
        raise StorageError(
            f"{error.filename or path}: {reasons[error.errno]}; "
            "nothing that was finished is lost: mend it and run the same command again"
        ) from error
