"""Reading a run unit by unit, in order. (A stream for training is in pipeline/training.)"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.dialogue import Reject, Sample
from pipeline.errors import DataError
from pipeline.shards.format import MEMBERS, Encoded, Member, TakeClip
from pipeline.shards.manifest import Manifest
from pipeline.shards.remote import read_ranges, whole
from pipeline.shards.store import RunFolder
from pipeline.shards.tars import walk_tar

_TAKE = re.compile(r"([^.]+)\.(\d{2,})-(\d{2,})\.flac")


def read_tar(path: Path) -> Iterator[Encoded]:
    """The samples of a shard in order. Raises DataError naming the shard and what is wrong with it."""
    try:
        with path.open("rb") as source, tarfile.open(fileobj=source, mode="r:") as tar:
            group: list[bytes] = []
            for number, info in enumerate(tar):
                key, _, suffix = info.name.partition(".")
                if suffix != MEMBERS[number % 3]:
                    raise DataError(f"{path}: member {info.name!r} where KEY.{MEMBERS[number % 3]} belongs")
                file = tar.extractfile(info)
                data = file.read() if file else b""
                if len(data) != info.size:
                    raise DataError(f"{path}: {info.name} is cut short")
                group.append(data)
                if len(group) == 3:
                    yield parse_sample(path, key, group)
                    group = []
            if group:
                raise DataError(f"{path}: ends inside sample {key!r}")
    except FileNotFoundError:
        raise DataError(f"{path}: this shard is missing") from None
    # What tarfile raises for a header that was made to look whole is not always its own error.
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a whole tar file: {one_line(error)}") from None


def parse_sample(path: Path, key: str, members: Sequence[bytes]) -> Encoded:
    try:
        sample = Sample.model_validate_json(members[0])
    except ValidationError as error:
        raise DataError(f"{path}: {key}.json: {one_line(error)}") from None
    if sample.key != key:
        raise DataError(f"{path}: {key}.json says that its key is {sample.key!r}")
    return Encoded(sample, members[1], members[2])


def one_line(error: Exception) -> str:
    """What is wrong, first things first, on one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())


def read_reject_list(folder: RunFolder, manifest: Manifest) -> list[Reject]:
    """The rejected dialogues of a unit in the order of the plan. Raises DataError."""
    path = folder.rejects(manifest.unit)
    if not manifest.file(folder.relative(path)):
        return []
    try:
        return parse_rejects(path, path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: not a readable list of rejects: {one_line(error)}") from None


def parse_rejects(path: Path, data: bytes) -> list[Reject]:
    """Raises DataError naming `path`, where the data is from."""
    try:
        return [Reject.model_validate_json(line) for line in data.splitlines()]
    except ValueError as error:
        raise DataError(f"{path}: not a readable list of rejects: {one_line(error)}") from None


def read_rejects(folder: RunFolder, manifest: Manifest) -> list[tuple[Reject, Encoded | None]]:
    """The rejected dialogues of a unit with the clips that were kept, in the order of the plan."""
    rejects = read_reject_list(folder, manifest)
    clips: dict[str, Encoded] = {}
    if any(reject.clips for reject in rejects):
        clips = {item.sample.key: item for item in read_tar(folder.reject_clips(manifest.unit))}
    return [(reject, clips.get(reject.id)) for reject in rejects]


def read_takes(folder: RunFolder, manifest: Manifest) -> dict[str, tuple[TakeClip, ...]]:
    """The kept clips of takes of a unit's rejected dialogues, by id, each in the order of turn and take; without those
    that the dialogue's tracks are made of. Raises DataError."""
    path = folder.reject_takes(manifest.unit)
    clips: dict[str, tuple[TakeClip, ...]] = {}
    if manifest.file(folder.relative(path)):
        for key, clip in walk_takes(path):
            clips[key] = (*clips.get(key, ()), clip)
    return clips


def walk_takes(path: Path) -> Iterator[tuple[str, TakeClip]]:
    """(id, clip) of each member of a tar of takes. Raises DataError for any structure that is not one's."""
    for member, data in walk_tar(path):
        yield parse_take(path, member, data)


def parse_take(path: Path, member: Member, data: bytes) -> tuple[str, TakeClip]:
    """(id, clip) of a member of a tar of takes. Raises DataError for another name."""
    match = _TAKE.fullmatch(member.name)
    if match is None:
        raise DataError(f"{path}: member {member.name!r} where KEY.TURN-TAKE.flac belongs")
    return match[1], TakeClip(int(match[2]), int(match[3]), data)


def read_unit(folder: RunFolder, manifest: Manifest) -> Iterator[Encoded]:
    """The accepted samples of a unit."""
    if manifest.accepted:
        yield from read_tar(folder.shard(manifest.unit, manifest.split))


def read_samples(folder: RunFolder, manifest: Manifest) -> Iterator[Sample]:
    """The accepted samples of a unit without their tracks, which are not read. Raises DataError."""
    if not manifest.accepted:
        return
    path, index = (place(manifest.unit, manifest.split) for place in (folder.shard, folder.index))
    try:
        rows = pq.ParquetFile(whole(index)).read(columns=["json_offset", "json_size"]).to_pylist()
        for data in read_ranges(path, [(row["json_offset"], row["json_size"]) for row in rows]):
            yield Sample.model_validate_json(data)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not readable with its index: {one_line(error)}; `speechchat verify {folder.root}` says more"
        ) from None
