"""Are the members of a shard samples, each with a record that can be, and two tracks of its length?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline import audio
from pipeline.errors import DataError
from pipeline.shards.format import MEMBERS, Encoded, Member
from pipeline.shards.reader import parse_sample
from pipeline.shards.tars import HashedFile, walk_members

MAX_SECONDS = 24 * 3600.0  # of a sample; beyond this it is a damaged number, and no memory to decode into


def walk_samples(file: HashedFile, decode: bool) -> Iterator[tuple[Encoded, tuple[Member, ...]]]:
    """Samples with the places of their members. Raises DataError for any structure that is not a shard's."""
    data: list[bytes] = []
    members: list[Member] = []
    path = file.path
    for number, (member, payload) in enumerate(walk_members(file)):
        key, _, suffix = member.name.partition(".")
        if suffix != MEMBERS[number % 3]:
            raise DataError(f"{path}: member {member.name!r} where KEY.{MEMBERS[number % 3]} belongs")
        data.append(payload)
        members.append(member)
        if len(data) == 3:
            encoded = parse_sample(path, key, data)
            if len({item.name.partition(".")[0] for item in members}) != 1:
                raise DataError(f"{path}: members of different samples are mixed at {key!r}")
            _check_sample(path, encoded, decode)
            yield encoded, tuple(members)
            data, members = [], []
    if data:
        raise DataError(f"{path}: ends inside sample {members[0].name.partition('.')[0]!r}")


def _check_sample(path: Path, encoded: Encoded, decode: bool) -> None:
    sample = encoded.sample
    name = f"{path}: {sample.key}"
    if not sample.turns or {voice.role for voice in sample.voices} != {"user", "assistant"}:
        raise DataError(f"{name}.json: a sample has turns, and a voice for each of the two roles")
    if not 0 < sample.duration < MAX_SECONDS:
        raise DataError(f"{name}.json: duration {sample.duration} is none")
    for number, turn in enumerate(sample.turns):
        if not 0 <= turn.start <= turn.end <= sample.duration:
            raise DataError(f"{name}.json: turn {number} lies outside the timeline")
    _check_track(f"{name}.user.flac", encoded.user, sample.user_rate, sample.duration, decode)
    _check_track(f"{name}.assistant.flac", encoded.assistant, sample.assistant_rate, sample.duration, decode)


def _check_track(name: str, data: bytes, rate: int, duration: float, decode: bool) -> None:
    frames, found = check_clip(name, data, decode)
    expected = round(duration * rate)
    if found != rate or frames != expected:
        raise DataError(f"{name}: {frames} samples at {found} Hz where {expected} at {rate} Hz belong")


def check_clip(name: str, data: bytes, decode: bool) -> tuple[int, int]:
    """(frames, rate) of a mono FLAC. Raises DataError naming `name` if it is none, or cannot be decoded whole."""
    frames, rate = audio.header(data, name)
    if decode:
        audio.check_flac(data, name)  # compares what it decodes with the header
    return frames, rate
