"""From a row of the catalog to bytes, and to samples: no more is read, and no more is decoded, than was asked for."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from isal.isal_zlib import crc32
from pydantic import ValidationError

from pipeline import audio
from pipeline.audio.flac import decode_frames
from pipeline.dialogue import Language, Role, Sample
from pipeline.errors import DataError
from pipeline.shards.format import BLOCK, MEMBERS, tar_header
from pipeline.shards.index import turn_span
from pipeline.shards.reader import one_line
from pipeline.shards.remote import read_ranges
from pipeline.training.catalog import Catalog, Shard
from pipeline.training.selection import Selection, in_one

Check = Literal["headers", "payload"]
_OPEN = 128
"""Files that are held open."""
_NEAR = 1 << 16
"""Bytes between two ranges of an object that are rather read along than left out."""


@dataclass(frozen=True)
class RawExample:
    """A dialogue as it lies in its shard: the bytes of its JSON and of its two FLAC tracks."""

    key: str
    json: bytes
    user: bytes
    assistant: bytes


@dataclass(frozen=True)
class DialogueExample:
    """A dialogue with both tracks whole: int16 [n], [m], at `sample.user_rate` and `sample.assistant_rate` Hz."""

    key: str
    sample: Sample
    user: np.ndarray
    assistant: np.ndarray


@dataclass(frozen=True)
class TurnExample:
    """One turn as a trainer takes it.

    audio: float32 in [-1, 1], shape [samples], at `rate` Hz (the user's and the assistant's rates differ by default).
    loss: whether the model learns to say this turn (the assistant's) or only hears it. start: seconds into the
    dialogue.
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


@dataclass(frozen=True)
class TurnsExample:
    """A dialogue with those of its turns that were asked for, in order."""

    key: str
    sample: Sample
    turns: tuple[TurnExample, ...]


class ShardReader:
    """Byte ranges of shards; the ones read last stay open. Threads may share it, and so may a process and its forks."""

    def __init__(self, shards: Sequence[Shard]):
        self._shards = shards
        self._files: OrderedDict[int, _File] = OrderedDict()

    def read(self, shard: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Of each (offset, size) its bytes. Raises DataError for a shard that is missing, cut, or not the one that was
        published."""
        path = self._shards[shard].path
        try:
            if not isinstance(path, Path):  # it lies elsewhere
                found = _read_near(path, ranges)
            else:
                file = self._file(shard)  # held until it is read: another thread may drop it from those that are open
                found = [os.pread(file.number, size, offset) for offset, size in ranges]
        except FileNotFoundError:
            raise DataError(f"{path}: this shard is missing") from None
        except OSError as error:
            raise DataError(f"{path}: not readable: {error.strerror or error}") from None
        if [len(data) for data in found] != [size for _, size in ranges]:
            raise DataError(f"{path}: cut short")
        return found

    def _file(self, shard: int) -> _File:
        file = self._files.pop(shard, None) or _File(self._shards[shard])
        self._files[shard] = file
        if len(self._files) > _OPEN:
            self._files.popitem(last=False)
        return file

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._shards,)


def _read_near(path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Of each range its bytes. Neighbours share a request, which takes longer than to read what lies between them."""
    spans: list[tuple[int, int]] = []
    own = []
    for offset, size in ranges:
        begin, end = spans[-1] if spans else (offset, offset)
        if begin <= offset <= end + _NEAR:
            spans[-1:] = [(begin, max(end, offset + size))]
        else:
            spans.append((offset, offset + size))
        own.append(len(spans) - 1)
    data = list(read_ranges(path, [(begin, end - begin) for begin, end in spans]))
    starts = [offset - spans[span][0] for span, (offset, _) in zip(own, ranges, strict=True)]
    return [data[span][start : start + size] for span, start, (_, size) in zip(own, starts, ranges, strict=True)]


class _File:
    """An open shard of this machine, until nobody holds it."""

    number = -1

    def __init__(self, shard: Shard):
        self.number = os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self.number).st_size
        if size != shard.bytes:
            raise DataError(f"{shard.path}: {size} bytes where {shard.bytes} were published: cut, or changed since")

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


_TRACKS = ("user", "assistant")
_PLACES = [f"{member}_{field}" for member in ("json", *_TRACKS) for field in ("offset", "size", "crc32")]


class Decoder:
    """Examples by the row of the catalog. check: `headers` compares each member's tar header with the index, `payload`
    also its checksum."""

    def __init__(self, catalog: Catalog, selection: Selection, check: Check):
        self._reader = ShardReader(catalog.shards)
        self._shards = catalog.shards
        self._keys = in_one(catalog.table["key"])
        self._languages = in_one(catalog.table["language"])
        names = [*_PLACES, *(f"{role}_{field}" for role in _TRACKS for field in ("rate", "block"))]
        self._columns = {name: catalog.table[name].to_numpy() for name in ["shard", *names]}
        self._places = [
            tuple(self._columns[f"{member}_{field}"] for field in ("offset", "size", "crc32"))
            for member in ("json", *_TRACKS)
        ]
        self._offsets = selection.offsets
        self._is_user = pc.equal(selection.turn_column("role"), "user").to_numpy(zero_copy_only=False)
        fields = ("start", "end", "offset", "size", "crc32")
        self._turn = {name: selection.turn_column(name).to_numpy() for name in fields}
        self._payload = check == "payload"

    def raw(self, row: int) -> RawExample:
        """Raises DataError naming shard and member."""
        key, shard = self._keys[row].as_py(), int(self._columns["shard"][row])
        ranges = []  # each by itself: tracks are long, and to cut them out of one piece would copy them once more
        for offset, size, _ in self._places:
            place = offset.item(row)
            ranges += [(place - BLOCK, BLOCK), (place, size.item(row))]
        data = self._reader.read(shard, ranges)
        parts = data[1::2]
        for suffix, header, part, (_, _, checksum) in zip(MEMBERS, data[::2], parts, self._places, strict=True):
            name = f"{key}.{suffix}"
            if header != tar_header(name.encode(), len(part)):
                raise DataError(f"{self._shards[shard].path}: {name}: its tar header is damaged")
            if self._payload and crc32(part) != checksum[row]:
                raise self._damaged(shard, name)
        return RawExample(key, *parts)

    def dialogue(self, row: int) -> DialogueExample:
        """Raises DataError as `raw`, and for what cannot be decoded."""
        raw = self.raw(row)
        name = f"{self._shards[int(self._columns['shard'][row])].path}: {raw.key}"
        sample = _sample(raw.json, name)
        user, _ = audio.decode(raw.user, f"{name}.user.flac")
        assistant, _ = audio.decode(raw.assistant, f"{name}.assistant.flac")
        return DialogueExample(raw.key, sample, user, assistant)

    def turns(self, row: int, numbers: Sequence[int]) -> TurnsExample:
        """numbers: which turns, 0-based. Raises DataError as `dialogue`."""
        data, clips = self._read_turns(row, numbers)
        key = self._keys[row].as_py()
        sample = _sample(data, f"{self._shards[int(self._columns['shard'][row])].path}: {key}")
        texts = [sample.turns[number].spoken for number in numbers]
        return TurnsExample(key, sample, tuple(map(self._example, [row] * len(texts), numbers, texts, clips)))

    def turn(self, row: int, number: int) -> TurnExample:
        """Raises DataError as `dialogue`."""
        data, (clip,) = self._read_turns(row, [number])
        # All else that is asked for is in the index, and to read the whole record takes as long as to decode a turn.
        return self._example(row, number, json.loads(data)["turns"][number]["spoken"], clip)

    def _read_turns(self, row: int, numbers: Sequence[int]) -> tuple[bytes, list[np.ndarray]]:
        """The JSON, and int16 samples of each turn."""
        key, shard = self._keys[row].as_py(), int(self._columns["shard"][row])
        base = int(self._offsets[row])
        ranges = [(int(self._columns["json_offset"][row]), int(self._columns["json_size"][row]))]
        for number in numbers:
            track = "user" if self._is_user[base + number] else "assistant"
            start = int(self._columns[f"{track}_offset"][row]) + int(self._turn["offset"][base + number])
            ranges.append((start, int(self._turn["size"][base + number])))
        data, *parts = self._reader.read(shard, ranges)
        if crc32(data) != self._columns["json_crc32"][row]:
            raise self._damaged(shard, f"{key}.json")
        clips = []
        for number, part in zip(numbers, parts, strict=True):
            place = base + number
            track = "user" if self._is_user[place] else "assistant"
            name = f"{key}.{track}.flac"
            if crc32(part) != self._turn["crc32"][place]:
                raise self._damaged(shard, f"{name} (turn {number})")
            rate, block = (int(self._columns[f"{track}_{field}"][row]) for field in ("rate", "block"))
            span = turn_span(float(self._turn["start"][place]), float(self._turn["end"][place]), rate)
            clips.append(decode_frames(part, block, rate, span, f"{self._shards[shard].path}: {name}"))
        return data, clips

    def _example(self, row: int, number: int, text: str, clip: np.ndarray) -> TurnExample:
        place = int(self._offsets[row]) + number
        role: Role = "user" if self._is_user[place] else "assistant"
        return TurnExample(
            key=self._keys[row].as_py(),
            turn=number,
            role=role,
            language=self._languages[row].as_py(),
            text=text,
            audio=audio.from_pcm(clip),
            rate=int(self._columns[f"{role}_rate"][row]),
            start=float(self._turn["start"][place]),
            loss=role == "assistant",
        )

    def _damaged(self, shard: int, member: str) -> DataError:
        return DataError(f"{self._shards[shard].path}: {member}: its checksum is not the one of the index: damaged")


def _sample(data: bytes, name: str) -> Sample:
    try:
        return Sample.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{name}.json: {one_line(error)}") from None
