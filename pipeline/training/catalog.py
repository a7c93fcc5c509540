"""What there is to stream: the rows of the indexes of all shards as one table, and where the shards lie.

A run of a million samples has thousands of small indexes. They are read once and then lie in the cache as one Arrow
file, which is mapped and not read, for as long as the run is the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError, RunFolderError, UsageError
from pipeline.shards.disk import open_lock, take_lock
from pipeline.shards.http import HttpPath
from pipeline.shards.index import INDEX_SCHEMA
from pipeline.shards.reader import one_line
from pipeline.shards.release_list import RELEASE_LIST, is_release, read_release
from pipeline.shards.remote import reading_place
from pipeline.shards.store import RunFolder

_VERSION = 1
_SCORES = ("scores", "text_scores")
_BASE = [name for name in INDEX_SCHEMA.names if name not in _SCORES]
_READERS = 8
"""Threads that read the indexes of a store."""
_LOCAL_READERS = 2
"""Of a disk. Decoding is half Python: more would wait for each other."""
_JOINED = 256
"""Indexes that are joined as soon as they are read."""


@dataclass(frozen=True)
class Shard:
    """A tar and its index. sha256: as they were published."""

    tar: str
    bytes: int
    sha256: str
    parquet: str
    index_sha256: str

    @cached_property
    def path(self) -> Path:
        return reading_place(self.tar)

    @cached_property
    def index(self) -> Path:
        return reading_place(self.parquet)


class Catalog:
    """The samples of a split of a run or a release.

    table: the columns of `INDEX_SCHEMA` but the scores, in the order of shards; shard: int32 [n], which one each sample
    is in. digest: of what the shards hold.
    """

    def __init__(self, root: Path, split: str, shards: Sequence[Shard], table: pa.Table, cache: _Cache):
        self.root = root
        self.split = split
        self.shards = shards
        self.table = table
        self.digest = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
        self._cache = cache

    @property
    def about(self) -> str:
        return f"{self.root} ({self.split}: {len(self.table)} samples in {len(self.shards)} shards)"

    @property
    def advice(self) -> str:
        """What to do about damage."""
        if _is_release(self.root):
            return f"`sha256sum -c SHA256SUMS` in {self.root} says more; fetch it again"
        return f"`speechchat verify {self.root}` says more"

    def scores(self) -> pa.Table:
        """scores and text_scores of each sample, as in the index."""
        return self._cache.table("scores", lambda: _read_indexes(self.shards, list(_SCORES)))


def open_catalog(run: Path | str, split: str, cache: Path | None) -> Catalog:
    """Raises RunFolderError, UsageError for a split that has no shard, and DataError for an index that is damaged or is
    of another version. cache: a folder, None keeps nothing."""
    root = reading_place(run)
    if isinstance(root, Path):
        root = root.resolve()  # a process in another folder finds the shards by the cache too
    signature = _signature(root, split)
    kept = _Cache(cache, f"{root}\n{split}", signature)
    shards: list[Shard] = []

    def read() -> pa.Table:
        shards.extend(list_shards(root, split))
        table = _read_indexes(shards, _BASE)
        facts = [astuple(shard) for shard in shards]
        return table.replace_schema_metadata({"shards": json.dumps(facts)})

    table = kept.table("base", read)
    if not shards:
        shards = [Shard(*facts) for facts in json.loads(table.schema.metadata[b"shards"])]
    return Catalog(root, split, shards, table, kept)


def list_shards(root: Path, split: str) -> list[Shard]:
    """The published shards of a split of a run or a release, in order. Raises RunFolderError, UsageError, DataError."""
    if _is_release(root):
        return _released(root, split)
    folder = RunFolder(root).require()
    shards, splits = [], set()
    for manifest in folder.manifests():
        if not manifest.accepted:
            continue
        splits.add(manifest.split)
        if manifest.split != split:
            continue
        tar, index = folder.shard(manifest.unit, manifest.split), folder.index(manifest.unit, manifest.split)
        facts = [manifest.file(folder.relative(path)) for path in (tar, index)]
        if None in facts:
            raise DataError(f"{folder.manifest(manifest.unit, manifest.split)}: does not name its shard and index")
        bytes_, sha256, index_sha256 = facts[0].bytes, facts[0].sha256, facts[1].sha256  # type: ignore[union-attr]
        shards.append(Shard(str(tar), bytes_, sha256, str(index), index_sha256))
    if not shards:
        raise UsageError(
            f"{root}: no finished shard of split {split!r}; this run has: {', '.join(sorted(splits)) or 'none yet'}"
        )
    return shards


def _is_release(root: Path) -> bool:
    return isinstance(root, HttpPath) or is_release(root)  # a web server lists nothing


def _released(root: Path, split: str) -> list[Shard]:
    made = read_release(root)
    shards = [
        Shard(
            str(root / item.tar.path), item.tar.bytes, item.tar.sha256, str(root / item.index.path), item.index.sha256
        )
        for item in made.shards
        if item.split == split
    ]
    if not shards:
        raise UsageError(f"{root}: no shard of split {split!r}; this release has: {', '.join(made.splits) or 'none'}")
    return shards


def _signature(root: Path, split: str) -> str:
    """Of a release its list, of a run on a disk what its manifests look like from outside; "" for a run on a store,
    where that cannot be told cheaply."""
    if _is_release(root):
        with contextlib.suppress(FileNotFoundError):
            return hashlib.sha256((root / RELEASE_LIST).read_bytes()).hexdigest()
    if not isinstance(root, Path):
        return ""
    digest = hashlib.sha256()
    for folder in sorted(filter(Path.is_dir, (root / "shards" / split).glob("*"))):
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".json"):
                    facts = entry.stat()
                    digest.update(f"{folder.name}/{entry.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class _Cache:
    """Tables of one split of a run. Without a folder, or a signature, nothing is kept; a cache that cannot be written
    costs the time to read again."""

    def __init__(self, folder: Path | None, name: str, signature: str):
        self._folder = folder if signature else None
        self._name = hashlib.sha256(f"{_VERSION}\n{INDEX_SCHEMA}\n{name}".encode()).hexdigest()[:24]
        self._signature = signature[:24]

    def table(self, kind: str, read: Callable[[], pa.Table]) -> pa.Table:
        if self._folder is None:
            return read()
        path = self._folder / f"{self._name}-{kind}-{self._signature}.arrow"
        with contextlib.suppress(OSError, pa.ArrowInvalid):
            return _mapped(path)
        with _one_at_a_time(self._folder / f"{self._name}-{kind}.lock"):
            with contextlib.suppress(OSError, pa.ArrowInvalid):
                return _mapped(path)  # another rank has made it meanwhile
            return self._make(path, kind, read)

    def _make(self, path: Path, kind: str, read: Callable[[], pa.Table]) -> pa.Table:
        table = read()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Machines that share the folder may have the same process ids.
            pending = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
            try:
                with pa.OSFile(str(pending), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                pending.replace(path)
            finally:
                pending.unlink(missing_ok=True)
            for old in path.parent.glob(f"{self._name}-{kind}-*.arrow"):
                if old != path:
                    old.unlink(missing_ok=True)
            return _mapped(path)  # whose pages the system may take back
        return table


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """All ranks of a machine begin at once; each would read all indexes and need the memory for them. Where there are
    no locks they do, and make the same."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, RunFolderError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            take_lock(held.enter_context(open_lock(lock)), fcntl.LOCK_EX)
        yield


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _read_indexes(shards: Sequence[Shard], columns: list[str]) -> pa.Table:
    """Those columns of all indexes, and `shard`. Raises DataError."""

    def read(item: tuple[int, Shard]) -> pa.Table:
        number, shard = item
        table = _read_index(shard, columns)
        return table.append_column("shard", pa.array(np.full(len(table), number, np.int32)))

    with ThreadPoolExecutor(_LOCAL_READERS if isinstance(shards[0].path, Path) else _READERS) as pool:
        tables = pool.map(read, enumerate(shards))
        # Small tables take several times the memory of what is in them.
        groups = iter(lambda: list(itertools.islice(tables, _JOINED)), [])
        table = pa.concat_tables(pa.concat_tables(group).combine_chunks() for group in groups)
    names, parts = table.column_names, table.columns
    del table
    for number, name in enumerate(names):  # one by one: what is joined is let go, or all would be there twice
        parts[number] = pa.table([parts[number]], [name]).combine_chunks().column(0)
    return pa.table(parts, names)


def _read_index(shard: Shard, columns: list[str]) -> pa.Table:
    try:
        data = shard.index.read_bytes()
        if hashlib.sha256(data).hexdigest() != shard.index_sha256:
            raise DataError(f"{shard.index}: its SHA-256 is not the published one: damaged or changed")
        file = pq.ParquetFile(io.BytesIO(data))
        known = set(file.schema_arrow.names)  # which is parsed anew for each that asks
        if missing := [name for name in columns if name not in known]:
            raise DataError(
                f"{shard.index}: has no column {missing[0]!r}: it was made by another version of speechchat; read it "
                "with that one, or make the run anew"
            )
        return file.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise DataError(f"{shard.index}: this index is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{shard.index}: not a readable index: {one_line(error)}") from None
