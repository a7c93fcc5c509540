"""Which units of a run become which shard of a release; known before the first byte is copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from pipeline.config import Config
from pipeline.dialogue import Split
from pipeline.errors import DataError, UsageError
from pipeline.plan import unit_count
from pipeline.shards.manifest import Manifest
from pipeline.shards.release_list import RELEASE_VERSION
from pipeline.shards.store import RunFolder

FOLDER = 3000
"""Shards a folder: three files each, and hubs want fewer than 10,000."""


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be made. number: within its split, of `count`. units: of the run, in order."""

    split: Split
    number: int
    count: int
    units: tuple[int, ...]

    def path(self, suffix: str) -> str:
        """Of the shard's tar, index ("parquet") or manifest ("json"), relative to the release."""
        folder = f"{self.split}/{self.number // FOLDER:03d}" if self.count > FOLDER else self.split
        return f"{folder}/{self.split}-{self.number:05d}-of-{self.count:05d}.{suffix}"


@dataclass(frozen=True)
class ReleasePlan:
    """release: what tells this release from any other: the run, its units, the size. bytes: of the run's tars."""

    release: str
    size: int
    units_planned: int
    units: int
    samples: int
    bytes: int
    shards: tuple[ShardPlan, ...]


def plan_release(
    folder: RunFolder, config: Config, digests: Mapping[str, str], size: int, partial: bool = False
) -> ReleasePlan:
    """Units in their order, as many to a shard as keep it within `size` bytes, one at least; split by split.

    Raises UsageError for a run without a finished shard, and unless `partial` for one of which units are missing;
    DataError for a unit that is not of this run.
    """
    shards: dict[Split, list[list[int]]] = {split: [] for split in get_args(Split)}
    room = dict.fromkeys(shards, 0)
    planned, units, samples, total = unit_count(config), 0, 0, 0
    identity = hashlib.sha256(f"{RELEASE_VERSION} {size}\n".encode() + folder.config.read_bytes())
    for manifest in _manifests(folder, config, planned, digests):
        units += 1
        identity.update(manifest.model_dump_json().encode() + b"\n")
        if not manifest.accepted:
            continue
        fact = manifest.file(folder.relative(folder.shard(manifest.unit, manifest.split)))
        if fact is None:
            raise DataError(f"{_name(folder, manifest)}: names no shard; `speechchat verify {folder.root}` says more")
        joined = shards[manifest.split]
        if not joined or room[manifest.split] < fact.bytes:
            joined.append([])
            room[manifest.split] = size
        joined[-1].append(manifest.unit)
        room[manifest.split] -= fact.bytes
        samples += manifest.accepted
        total += fact.bytes
    if units < planned and not partial:
        raise UsageError(
            f"{folder.root}: {planned - units} of {planned} units are not finished; finish the run, or release what "
            "is there with --partial"
        )
    if not samples:
        raise UsageError(f"{folder.root}: no finished shard holds a sample, so there is nothing to release")
    made = [
        ShardPlan(split, number, len(joined), tuple(numbers))
        for split, joined in shards.items()
        for number, numbers in enumerate(joined)
    ]
    return ReleasePlan(identity.hexdigest()[:32], size, planned, units, samples, total, tuple(made))


def _manifests(folder: RunFolder, config: Config, planned: int, digests: Mapping[str, str]) -> Iterator[Manifest]:
    """Each once, in the order of units. Raises DataError for one that the run cannot have."""
    last = -1
    for manifest in folder.manifests(config):
        found = {"text": manifest.text_digest, "speech": manifest.speech_digest, "judge": manifest.judge_digest}
        if not last < manifest.unit < planned or found != dict(digests):
            raise DataError(
                f"{_name(folder, manifest)}: is no unit of this run, or is there twice; `speechchat verify "
                f"{folder.root}` says more"
            )
        last = manifest.unit
        yield manifest


def _name(folder: RunFolder, manifest: Manifest) -> str:
    return str(folder.manifest(manifest.unit, manifest.split))
