"""What a shard is: a POSIX ustar file with three contiguous members a sample, and a Parquet index beside it.

Tar headers carry no time, owner or machine: the same samples are the same bytes.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dialogue import Role, Sample
from pipeline.shards.disk import PendingFile
from pipeline.shards.objects import PendingObject

MEMBERS = ("json", "user.flac", "assistant.flac")
MODE = 0o644
"""Of every member: who unpacks a shard may read it."""
BLOCK = tarfile.BLOCKSIZE
NAME, SIZE, SUM = slice(0, 100), slice(124, 136), slice(148, 156)
"""Where a header has them (POSIX ustar)."""


def _blank_header() -> bytes:
    info = tarfile.TarInfo("")
    info.mode = MODE
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[SIZE] = bytes(12)
    block[SUM] = b" " * 8  # what the checksum of a header counts in its own place
    return bytes(block)


_BLANK = _blank_header()
_BLANK_SUM = sum(_BLANK)


def tar_header(name: bytes, size: int) -> bytes:
    """The header of a plain file, as `tarfile` makes it, which takes ten times as long. name: ASCII, of at most 100
    bytes; size: of the payload, less than 8 GiB. Raises ValueError."""
    digits = b"%011o\0" % size
    if not name.isascii() or len(name) > NAME.stop or len(digits) > SIZE.stop - SIZE.start:
        raise ValueError(f"no tar header holds the name {name!r} and {size} bytes")
    block = bytearray(_BLANK)
    block[: len(name)] = name
    block[SIZE] = digits
    block[SUM] = b"%06o\0 " % (_BLANK_SUM + sum(name) + sum(digits))
    return bytes(block)


@dataclass(frozen=True)
class Encoded:
    """A sample as it lies in a shard: its JSON and its two FLAC tracks."""

    sample: Sample
    user: bytes
    assistant: bytes

    def members(self) -> tuple[tuple[str, bytes], ...]:
        return (("json", sample_json(self.sample)), ("user.flac", self.user), ("assistant.flac", self.assistant))


def sample_json(sample: Sample) -> bytes:
    """Canonical bytes of a sample's metadata."""
    return (sample.model_dump_json() + "\n").encode()


@dataclass(frozen=True)
class TakeClip:
    """The clip of a take that is not the kept one of its turn. turn, take: 0-based; flac: mono, at the rate it has."""

    turn: int
    take: int
    flac: bytes

    def name(self, key: str) -> str:
        return f"{key}.{self.turn:02d}-{self.take:02d}.flac"


@dataclass(frozen=True)
class Member:
    """Where a member's payload lies in its tar. checksum: CRC-32 of the payload."""

    name: str
    offset: int
    size: int
    checksum: int


class TarWriter:
    """Samples, or clips of takes, into a pending tar, telling where each member came to lie."""

    def __init__(self, file: PendingFile | PendingObject):
        self._file = file

    def add(self, encoded: Encoded) -> tuple[Member, ...]:
        return tuple(self.add_file(f"{encoded.sample.key}.{suffix}", data) for suffix, data in encoded.members())

    def add_file(self, name: str, data: bytes) -> Member:
        self._file.write(tar_header(name.encode(), len(data)))
        offset = self._file.tell()
        self._file.write(data)
        self._file.write(bytes(-len(data) % BLOCK))
        return Member(name, offset, len(data), zlib.crc32(data))

    def close(self) -> None:
        """Two blocks of zeros, and zeros to the end of the record."""
        end = self._file.tell() + 2 * BLOCK
        self._file.write(bytes(2 * BLOCK + -end % tarfile.RECORDSIZE))


ROLES: tuple[Role, Role] = ("user", "assistant")
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("language", pa.string()),
        ("duration", pa.float64()),
        ("user_seconds", pa.float64()),
        ("assistant_seconds", pa.float64()),
        ("turns", pa.int32()),
        ("llm_turns", pa.int32()),
        ("user_voice", pa.string()),
        ("assistant_voice", pa.string()),
        *[
            (f"{role}_{field}", kind)
            for role in ROLES
            for field, kind in (
                ("first_voice", pa.string()),
                ("first_engine", pa.string()),
                ("turns", pa.int32()),
                ("first_passed", pa.int32()),
            )
        ],
        ("metric", pa.string()),
        ("error_rate_mean", pa.float64()),
        ("error_rate_max", pa.float64()),
        ("mos_ovr_min", pa.float64()),
        ("source_name", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        *[
            (f"{member}_{field}", kind)
            for member in ("json", "user", "assistant")
            for field, kind in (("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.int64()))
        ],
    ]
)


def index_row(sample: Sample, members: tuple[Member, ...]) -> dict[str, Any]:
    """One row of the index: what a viewer filters, a reader seeks and statistics add up.

    first_voice, first_engine: who spoke the first takes of a role; first_passed: those of its turns that passed then.
    """
    voices = {voice.role: voice.id for voice in sample.voices}
    rates = [turn.error_rate for turn in sample.turns]
    mos = [score.value for turn in sample.turns for score in turn.scores if score.name == "mos_ovr"]
    row: dict[str, Any] = {
        "key": sample.key,
        "language": sample.language,
        "duration": sample.duration,
        "user_seconds": speech_seconds(sample, "user"),
        "assistant_seconds": speech_seconds(sample, "assistant"),
        "turns": len(sample.turns),
        "llm_turns": sum(turn.author == "llm" for turn in sample.turns),
        "user_voice": voices["user"],
        "assistant_voice": voices["assistant"],
        **{key: value for role in ROLES for key, value in _first_takes(sample, role).items()},
        "metric": sample.turns[0].metric,
        "error_rate_mean": sum(rates) / len(rates),
        "error_rate_max": max(rates),
        "mos_ovr_min": min(mos) if mos else None,
        "source_name": sample.source.name,
        "source": sample.source.row,
        "license": sample.source.license,
    }
    for name, member in zip(("json", "user", "assistant"), members, strict=True):
        row |= {f"{name}_offset": member.offset, f"{name}_size": member.size, f"{name}_crc32": member.checksum}
    return row


def _first_takes(sample: Sample, role: Role) -> dict[str, Any]:
    turns = [turn for turn in sample.turns if turn.role == role]
    first = [turn.takes[0] for turn in turns if turn.takes]
    return {
        f"{role}_first_voice": first[0].voice if first else "",
        f"{role}_first_engine": first[0].engine if first else "",
        f"{role}_turns": len(turns),
        f"{role}_first_passed": sum(not take.reason for take in first),
    }


def speech_seconds(sample: Sample, role: Role) -> float:
    return sum(turn.end - turn.start for turn in sample.turns if turn.role == role)


def index_bytes(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()
