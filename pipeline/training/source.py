"""The run that an export or a release is made from: what it is, what is finished, and its samples, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Config, digest, parse_yaml, validate_config
from pipeline.errors import ConfigError, DataError
from pipeline.shards.format import MEMBERS, Encoded
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import one_line, parse_sample
from pipeline.shards.remote import is_remote, place, whole
from pipeline.shards.store import RunFolder
from pipeline.shards.tars import walk_tar

_COLUMNS = [f"{member}_{field}" for member in ("json", "user", "assistant") for field in ("size", "crc32")]


@dataclass(frozen=True)
class SourceRun:
    """identity: of its content as far as it can grow: a run that has grown since is the same."""

    folder: RunFolder
    config: Config
    identity: str


def open_run(run: Path | str) -> SourceRun:
    """A run, or a view, which is laid out like one. Raises RunFolderError, ConfigError, StorageError."""
    path = place(run)
    folder = RunFolder(path if is_remote(path) else path.resolve()).require()
    try:
        data = parse_yaml(folder.config.read_text("utf-8"), str(folder.config))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder.config}: not readable: {one_line(error)}") from None
    provenance: Any = data.pop("provenance", None)
    if not isinstance(provenance, dict):
        raise ConfigError(f"{folder.config}: provenance is missing, so this folder cannot be trusted")
    identity = digest({**data, "dialogues": 0}, provenance)
    writer = data.get("writer")
    endpoints = writer.get("endpoints") if isinstance(writer, dict) else None
    for items, key in ((data.get("sources"), "data"), (endpoints, "base_url")):
        for item in items.values() if isinstance(items, dict) else ():
            if isinstance(item, dict):  # where it is, is not frozen, and no configuration is valid without
                item.setdefault(key, "")
    return SourceRun(folder, validate_config(data, str(folder.config)), identity)


def read_samples(folder: RunFolder, manifest: Manifest) -> Iterator[Encoded]:
    """The accepted samples of a unit, in order; each member is compared with the checksum that the index has of it.
    Raises DataError naming the shard and the member."""
    if not manifest.accepted:
        return
    path, index = folder.shard(manifest.unit, manifest.split), folder.index(manifest.unit, manifest.split)
    try:
        rows = iter(pq.ParquetFile(whole(index)).read(columns=_COLUMNS).to_pylist())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{index}: not a readable index: {one_line(error)}") from None
    group: list[bytes] = []
    row: dict[str, int] = {}
    count = 0
    for member, data in walk_tar(path):
        key, _, suffix = member.name.partition(".")
        if suffix != MEMBERS[len(group)]:
            raise DataError(f"{path}: member {member.name!r} where KEY.{MEMBERS[len(group)]} belongs")
        row = row if group else next(rows, {})
        kind = suffix.removesuffix(".flac")
        if (member.size, member.checksum) != (row.get(f"{kind}_size"), row.get(f"{kind}_crc32")):
            raise DataError(
                f"{path}: {member.name} is not what was published (its checksum is another); `speechchat repair "
                f"{folder.root}` makes the unit again"
            )
        group.append(data)
        if len(group) == len(MEMBERS):
            yield parse_sample(path, key, group)
            group, count = [], count + 1
    if group or count != manifest.accepted:
        raise DataError(f"{path}: {count} whole samples where its manifest says {manifest.accepted}")
