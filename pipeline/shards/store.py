"""The run folder: where everything lies, and how a file comes to exist.

A file is written under a temporary name, synced, read back, and renamed without overwriting. The manifest of a unit is
written last: what has none does not exist. On a store (remote.py) each file is one put that overwrites nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.config import Config
from pipeline.dialogue import Split
from pipeline.errors import RunFolderError
from pipeline.plan import plan_units
from pipeline.shards import lease
from pipeline.shards.disk import TEMPORARY, PendingFile, open_lock, storage_errors, take_lock, try_lock
from pipeline.shards.manifest import Manifest, read_manifest
from pipeline.shards.objects import PendingObject, sweep_uploads
from pipeline.shards.remote import is_remote, require_store

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 32
"""Objects of a store that are asked for side by side."""


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
        """Itself, if it holds a run. Raises RunFolderError, and StorageError for a store that is not there."""
        if is_remote(self.root):
            require_store(self.root)
        if not self.config.is_file():
            what = "is not a folder" if not self.root.is_dir() else "holds no config.yaml, so it is no run"
            raise RunFolderError(f"{self.root} {what}; `speechchat run PRESET --out {self.root}` makes one")
        return self

    def load_manifest(self, unit: int, split: Split) -> Manifest | None:
        """The manifest, or None if the unit is not there. Raises DataError naming a file that is damaged, or that
        another version of the program wrote."""
        return read_manifest(self.manifest(unit, split))

    def has(self, unit: int, split: Split) -> bool:
        """Whether the unit is there, be its manifest damaged."""
        try:
            return not lease.is_claim(self.manifest(unit, split).stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def missing(self, place: Callable[[int], Path], units: Iterable[int]) -> Iterator[int]:
        """Those of `units` whose file is not there. Folders of a disk are listed, which for many units takes a tenth of
        the time of asking for each file; on a store, whose listings may lag behind, each is asked for."""
        if is_remote(self.root):
            yield from (unit for unit, there in self.each(lambda unit: place(unit).exists(), units) if not there)
            return
        suffix, folder, names = place(0).name.removeprefix(_name(0, "").rpartition("/")[2]), -1, frozenset[str]()
        for unit in units:
            if unit // 1000 != folder:
                folder = unit // 1000
                names = _names(place(unit).parent)
            if f"unit-{unit:06d}{suffix}" not in names:
                yield unit

    def each(self, ask: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """(item, answer) in order; a store is asked for several at once, as each answer takes a while."""
        if not is_remote(self.root):
            yield from ((item, ask(item)) for item in items)
            return
        waiting = iter(items)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while group := list(islice(waiting, 8 * AT_ONCE)):
                yield from zip(group, pool.map(ask, group), strict=True)

    def manifests(self, config: Config | None = None) -> Iterator[Manifest]:
        """Every finished unit, in the order of units. On a store each unit of `config` is asked for, as a listing may
        lag behind."""
        if is_remote(self.root) and config is not None:
            asked = self.each(lambda unit: self.load_manifest(unit.number, unit.split), plan_units(config))
            yield from (manifest for _, manifest in asked if manifest is not None)
            return
        paths = sorted((self.root / "shards").glob("*/*/unit-*.json"), key=lambda path: path.name)
        yield from (manifest for _, manifest in self.each(read_manifest, paths) if manifest is not None)

    def unit_files(self, unit: int, split: Split) -> list[Path]:
        """All that a unit of speech may have published, but its manifest."""
        rejects = [self.rejects(unit), self.reject_clips(unit), self.reject_takes(unit)]
        return [self.shard(unit, split), self.index(unit, split), *rejects]

    def discard(self, unit: int, split: Split) -> str:
        """Remove what an interrupted try of a unit left. Raises FileExistsError for a unit that has a manifest. Returns
        what its manifest is to be published over: "" but on a store (lease.py)."""
        if is_remote(self.root):
            return lease.discard(self, unit, split)
        manifest = self.manifest(unit, split)
        if manifest.exists():
            if self.has(unit, split):
                raise FileExistsError(errno.EEXIST, "a published unit is never removed", str(manifest))
            manifest.unlink()  # a claim: the run was copied here from a store
        for path in [*self.unit_files(unit, split), self.manifest(unit, split)]:
            path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)
        for path in self.unit_files(unit, split):
            path.unlink(missing_ok=True)
        return ""

    def sweep(self) -> None:
        """Remove every temporary file of ours. Only for the driver that holds the lock, with no worker at work."""
        for name in ("sources", "dialogues", "dedup", "shards", "rejects", "quarantine"):
            if is_remote(self.root):  # what lies in views/ has a driver of its own, who may be at work
                sweep_uploads(self.root / name)
                continue
            for place, _, files in os.walk(self.root / name):
                for found in (file for file in files if file.endswith(TEMPORARY)):
                    Path(place, found).unlink(missing_ok=True)
        for path in (self.config, self.stats, self.card) if not is_remote(self.root) else ():
            path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)

    @contextlib.contextmanager
    def driver_lock(self, patience: float = 30.0) -> Iterator[None]:
        """Be the one driver of this run.

        A second driver is refused at once. Workers of a killed driver may live on for a moment: they hold a shared
        lock of their own, and this waits up to `patience` seconds for the last one to go, because its files are swept
        next. On a store, see lease.py.
        """
        if is_remote(self.root):
            with lease.driver_lease(self):
                yield
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        with open_lock(self.logs / "driver.lock") as driver, open_lock(self.logs / "workers.lock") as workers:
            if not try_lock(driver, fcntl.LOCK_EX):
                raise RunFolderError(
                    f"{self.root}: another speechchat run is writing to this folder; wait for it or stop it"
                )
            deadline = time.monotonic() + patience
            while not try_lock(workers, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RunFolderError(
                        f"{self.root}: workers of an earlier run are still writing here; stop them first"
                    )
                time.sleep(0.2)
            fcntl.flock(workers, fcntl.LOCK_UN)
            yield

    def worker_lock(self) -> BinaryIO:
        """Held by a worker for as long as it may write to the run; closes with the process, however it ends."""
        if is_remote(self.root):
            return BytesIO()  # no lock: what a late worker does there, does no harm (lease.py)
        self.logs.mkdir(parents=True, exist_ok=True)
        lock = open_lock(self.logs / "workers.lock")
        take_lock(lock, fcntl.LOCK_SH)
        return lock

    def unit_lock(self, unit: int) -> BinaryIO | None:
        """The right to make a unit, until it is closed; None while another worker has it: one that was taken for dead,
        because nobody could reach it, may still be at work on what was handed to the next."""
        if is_remote(self.root):
            return BytesIO()  # its claim does that (lease.py); a text may be asked for twice, and is published once
        path = self.crash_journal(unit)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = open_lock(path)
        with contextlib.suppress(FileNotFoundError):  # who has made the unit removes it
            if try_lock(lock, fcntl.LOCK_EX) and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()
        return None


def _names(folder: Path) -> frozenset[str]:
    """Of the files of a folder, which need not be there."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except FileNotFoundError:
        return frozenset()


def _name(unit: int, suffix: str) -> str:
    return f"{unit // 1000:03d}/unit-{unit:06d}{suffix}"


def open_pending(path: Path, claim: str = "") -> PendingFile | PendingObject:
    """claim: what `RunFolder.discard` said, for the manifest of the unit."""
    return PendingObject(path, claim) if is_remote(path) else PendingFile(path)


def publish(path: Path, data: bytes, replace: bool = False, claim: str = "") -> tuple[int, str]:
    """Make `data` the file `path`, whole or not at all; returns (bytes, sha256).

    Without `replace` an existing file raises FileExistsError and stays as it is; on a store, unless it is the same.
    """
    pending = open_pending(path, claim)
    try:
        pending.write(data)
        return pending.commit(replace)
    except BaseException:
        pending.abort()
        raise
