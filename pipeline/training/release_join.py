"""Joining shards: members as they are, back to back, each held against the index on the way."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dialogue import Language
from pipeline.errors import DataError
from pipeline.shards.format import MEMBERS, Member, TarWriter
from pipeline.shards.index import INDEX_SCHEMA, PARQUET
from pipeline.shards.manifest import FileFact, Manifest
from pipeline.shards.reader import one_line
from pipeline.shards.release_list import RELEASE_VERSION, ReleaseShard, TermsUse
from pipeline.shards.store import RunFolder, open_pending, publish
from pipeline.shards.tars import HashedFile, walk_members
from pipeline.training.release_plan import ShardPlan

Terms = Counter[tuple[str, str, str, str]]
"""How many samples, by kind, name, licence and consent: as in a TermsUse."""
_PLACES = ("json", "user", "assistant")
"""What the index calls the members."""


def join(
    folder: RunFolder, plan: ShardPlan, out: Path, release: str, copied: Callable[[int], None] = lambda size: None
) -> ReleaseShard:
    """Make a shard of a release: its tar, its index, and last its manifest. copied: told the bytes of each unit.

    What an interrupted try left of it is replaced. Raises DataError, naming the file, where the run is not as it was
    published, and StorageError.
    """
    tables: list[pa.Table] = []
    terms: Terms = Counter()
    pending = open_pending(out / plan.path("tar"))
    try:
        tar = TarWriter(pending)
        for unit in plan.units:
            manifest = folder.load_manifest(unit, plan.split)
            if manifest is None:
                raise DataError(f"{folder.manifest(unit, plan.split)}: went away while its unit was released")
            tables.append(_copy_unit(folder, manifest, tar, pending.tell, terms))
            copied(_fact(folder, manifest, folder.shard(unit, plan.split)).bytes)
        tar.close()
        size, sha256 = pending.commit(replace=True)
    except BaseException:
        pending.abort()
        raise
    table = pa.concat_tables(tables).combine_chunks()
    index = publish(out / plan.path("parquet"), _parquet(table), replace=True)
    languages: Counter[Language] = Counter(table["language"].to_pylist())
    shard = ReleaseShard(
        version=RELEASE_VERSION,
        release=release,
        split=plan.split,
        number=plan.number,
        tar=FileFact(path=plan.path("tar"), bytes=size, sha256=sha256),
        index=FileFact(path=plan.path("parquet"), bytes=index[0], sha256=index[1]),
        units=len(plan.units),
        samples=len(table),
        seconds=round(math.fsum(table["duration"].to_pylist()), 6),
        languages=dict(sorted(languages.items())),
        terms=tuple(
            TermsUse(kind=kind, name=name, license=license, consent=consent, samples=samples)
            for (kind, name, license, consent), samples in sorted(terms.items())
        ),
    )
    publish(out / plan.path("json"), shard_bytes(shard), replace=True)
    return shard


def shard_bytes(shard: ReleaseShard) -> bytes:
    """What the manifest of a shard holds."""
    return (shard.model_dump_json() + "\n").encode()


def _copy_unit(
    folder: RunFolder, manifest: Manifest, tar: TarWriter, tell: Callable[[], int], terms: Terms
) -> pa.Table:
    """The rows of a unit, with the offsets in the joined tar, to which its members have gone."""
    path = folder.shard(manifest.unit, manifest.split)
    fact, base = _fact(folder, manifest, path), tell()
    table = _read_index(folder, manifest)
    try:
        with HashedFile(path) as file:
            rows = _members(folder.index(manifest.unit, manifest.split), table, manifest.unit)
            for expected, found in zip_longest(rows, walk_members(file)):
                if expected is None or found is None or found[0] != expected:
                    name = (expected or found[0]).name
                    raise DataError(f"{path}: {name} is not what its index says")
                tar.add_file(found[0].name, found[1])
                if found[0].name.endswith(".json"):
                    _add_terms(path, manifest, found[0].name, found[1], terms)
            if (file.size, file.sha256()) != (fact.bytes, fact.sha256):
                raise DataError(f"{path}: its SHA-256 is not the published one")
    except FileNotFoundError:
        raise _damaged(folder, f"{path}: missing, though its manifest names it") from None
    except DataError as error:
        raise _damaged(folder, error) from None
    for name in _PLACES:
        column = table.schema.get_field_index(f"{name}_offset")
        table = table.set_column(column, INDEX_SCHEMA.field(column), pc.add(table.column(column), base))
    return table


def _members(path: Path, table: pa.Table, unit: int) -> Iterator[Member]:
    """As the index has them; each key must be one that only this unit can have."""
    columns = [f"{name}_{field}" for name in _PLACES for field in ("offset", "size", "crc32")]
    rows, seen = table.select(["key", *columns]).to_pylist(), set()
    for row in rows:
        key = row["key"]
        if key in seen or key.split("-")[1:2] != [f"{unit:06d}"]:
            raise DataError(f"{path}: has {key!r} twice, or from another unit")
        seen.add(key)
        for suffix, name in zip(MEMBERS, _PLACES, strict=True):
            yield Member(f"{key}.{suffix}", *(row[f"{name}_{field}"] for field in ("offset", "size", "crc32")))


def _add_terms(path: Path, manifest: Manifest, name: str, data: bytes, terms: Terms) -> None:
    """Raises DataError for a record that is not one of this unit, or does not say that it is synthetic."""
    try:
        sample: dict[str, Any] = json.loads(data)
        fits = (f"{sample['key']}.json", sample["split"]) == (name, manifest.split)
        if not fits or sample["provenance"]["synthetic"] is not True:
            raise DataError(f"{path}: {name} is of another key or split, or does not say that it is synthetic")
        source = sample["source"]
        used = {("voices", voice["engine"], voice["license"], voice["consent"]) for voice in sample["voices"]}
        terms.update({("text", source["name"], source["license"], ""), *used})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: {name} is no record of a sample: {one_line(error)}") from None


def _read_index(folder: RunFolder, manifest: Manifest) -> pa.Table:
    path = folder.index(manifest.unit, manifest.split)
    try:
        with HashedFile(path) as file:
            data, sha256 = file.read(file.size), file.sha256()
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(folder, f"{path}: not a readable index: {one_line(error)}") from None
    if sha256 != _fact(folder, manifest, path).sha256:
        raise _damaged(folder, f"{path}: is not the index that was published")
    if not table.schema.equals(INDEX_SCHEMA):
        raise DataError(
            f"{path}: its columns are those of another version of speechchat; release the run with that one, or make "
            "it anew"
        )
    if len(table) != manifest.accepted:
        raise _damaged(folder, f"{path}: has {len(table)} rows where {manifest.accepted} samples were accepted")
    return table


def _fact(folder: RunFolder, manifest: Manifest, path: Path) -> FileFact:
    fact = manifest.file(folder.relative(path))
    if fact is None:
        raise _damaged(folder, f"{folder.manifest(manifest.unit, manifest.split)}: does not name {path.name}")
    return fact


def _damaged(folder: RunFolder, problem: object) -> DataError:
    return DataError(f"{problem}; `speechchat verify {folder.root}` says more, what is damaged is not released")


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **PARQUET)
    return buffer.getvalue()
