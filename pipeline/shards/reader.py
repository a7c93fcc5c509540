"""Reading a run: by unit for tools, and as a stream for training.

The stream goes through plain `webdataset`; nothing in it needs more than what any reader of these tars has.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline import audio
from pipeline.dialogue import Language, Reject, Role, Sample
from pipeline.errors import DataError, UsageError
from pipeline.shards.format import MEMBERS, Encoded, Member, TakeClip
from pipeline.shards.index import turn_span
from pipeline.shards.manifest import Manifest
from pipeline.shards.remote import listed_sizes, place, read_ranges, whole
from pipeline.shards.store import RunFolder
from pipeline.shards.tars import walk_tar

_TAKE = re.compile(r"([^.]+)\.(\d{2,})-(\d{2,})\.flac")


@dataclass(frozen=True)
class TurnExample:
    """One turn as a trainer takes it.

    audio: float32 in [-1, 1], shape [samples], at `rate` Hz (the user's and the assistant's rates differ by default).
    loss: whether the model learns to say this turn (the assistant's) or only hears it. start: seconds into the sample.
    """

    key: str
    turn: int
    role: Role
    language: Language
    text: str
    audio: np.ndarray
    rate: int
    start: float
    loss: bool


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


def shard_paths(run: Path | str, split: str = "train") -> list[Path]:
    """The published shards of a split in order: those that have a manifest.

    Tar readers end in silence where a tar was cut at a member's end, so sizes are compared with the manifests here.
    Raises RunFolderError, UsageError, and DataError for a shard that is missing or cut.
    """
    folder = RunFolder(place(run)).require()
    splits: set[str] = set()
    listed = listed_sizes(folder.root / "shards" / split)
    paths = []
    for manifest in folder.manifests():
        if not manifest.accepted:
            continue
        splits.add(manifest.split)
        path = folder.shard(manifest.unit, manifest.split)
        if manifest.split != split:
            continue
        size = listed.get(path) or (path.stat().st_size if path.is_file() else 0)
        fact = manifest.file(folder.relative(path))
        if fact is None or size != fact.bytes:
            expected = fact.bytes if fact else 0
            raise DataError(
                f"{path}: {size} bytes where {expected} were published; `speechchat verify {run}` says more"
            )
        paths.append(path)
    if not paths:
        raise UsageError(
            f"{run}: no finished shard of split {split!r}; this run has: {', '.join(sorted(splits)) or 'none yet'}"
        )
    return paths


def stream_samples(
    run: Path | str | Sequence[Path | str],
    split: str = "train",
    *,
    shuffle: int = 0,
    seed: int = 0,
    epochs: int | None = 1,
    on_damage: Literal["raise", "warn"] = "raise",
) -> Any:
    """Samples of a run as dicts `{"key", "sample": Sample, "user": int16 [n], "assistant": int16 [m]}`.

    run: a run folder (its split is read), or a list of shard paths or URLs. shuffle: size of the shuffle buffer in
    samples (0: in order); it also shuffles the shards. epochs: None repeats for ever. on_damage: a sample that cannot
    be read raises DataError, or is named on standard error and passed over.

    The result is a `webdataset` pipeline: iterate over it, or hand it to a torch DataLoader, whose workers share the
    shards out between them.
    """
    import webdataset as wds

    urls = [str(item) for item in (shard_paths(run, split) if isinstance(run, (str, PurePath)) else run)]
    handler = wds.reraise_exception if on_damage == "raise" else wds.warn_and_continue
    pipeline = wds.WebDataset(
        urls,
        shardshuffle=len(urls) if shuffle else False,
        seed=seed,
        handler=handler,
        nodesplitter=_split_by_node,
        workersplitter=wds.split_by_worker,
        empty_check=False,
    )
    if shuffle:
        pipeline = pipeline.shuffle(shuffle, seed=seed)
    pipeline = pipeline.map(decode_sample, handler=handler)
    return pipeline.repeat() if epochs is None else pipeline.repeat(epochs)


def _split_by_node(urls: Iterable[Any]) -> Iterator[Any]:
    """As webdataset's; runs in the process that opens the shards, which learns here to open those of a store."""
    import webdataset as wds
    from webdataset.gopen import gopen_schemes

    gopen_schemes.setdefault("s3", lambda url, *_, **__: place(url).open("rb"))
    yield from wds.split_by_node(urls)


def stream_turns(run: Path | str | Sequence[Path | str], split: str = "train", **options: Any) -> Any:
    """Turns of a run, one `TurnExample` each, in the order of the dialogue; options as for `stream_samples`."""
    return stream_samples(run, split, **options).compose(_turns)


def decode_sample(raw: dict[str, Any]) -> dict[str, Any]:
    """What webdataset yields (bytes by member) to a sample with decoded tracks."""
    name = f"{raw.get('__url__', '')}: {raw['__key__']}"
    missing = [suffix for suffix in MEMBERS if suffix not in raw]
    if missing:
        raise DataError(f"{name}: member {missing[0]!r} is missing")
    try:
        sample = Sample.model_validate(json.loads(raw["json"]))
    except (ValidationError, ValueError) as error:
        raise DataError(f"{name}.json: {one_line(error)}") from None
    user, _ = audio.decode(raw["user.flac"], f"{name}.user.flac")
    assistant, _ = audio.decode(raw["assistant.flac"], f"{name}.assistant.flac")
    return {"key": sample.key, "sample": sample, "user": user, "assistant": assistant}


def _turns(samples: Iterable[dict[str, Any]]) -> Iterator[TurnExample]:
    for item in samples:
        yield from slice_turns(item["sample"], item["user"], item["assistant"])


def slice_turns(sample: Sample, user: np.ndarray, assistant: np.ndarray) -> Iterator[TurnExample]:
    """The turns of a decoded sample: each is a slice of its speaker's track."""
    for number, turn in enumerate(sample.turns):
        track, rate = (user, sample.user_rate) if turn.role == "user" else (assistant, sample.assistant_rate)
        clip = track[slice(*turn_span(turn.start, turn.end, rate))]
        yield TurnExample(
            key=sample.key,
            turn=number,
            role=turn.role,
            language=sample.language,
            text=turn.spoken,
            audio=audio.from_pcm(clip),
            rate=rate,
            start=turn.start,
            loss=turn.role == "assistant",
        )
