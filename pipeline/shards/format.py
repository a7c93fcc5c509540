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

from pipeline.dialogue import Sample
from pipeline.shards.store import PendingFile

MANIFEST_VERSION = 1
MEMBERS = ("json", "user.flac", "assistant.flac")


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
class Member:
    """Where a member's payload lies in its tar. checksum: CRC-32 of the payload."""

    name: str
    offset: int
    size: int
    checksum: int


class TarWriter:
    """Samples into a pending tar, telling where each member came to lie."""

    def __init__(self, file: PendingFile):
        # tarfile asks of its file object no more than write and tell.
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115

    def add(self, encoded: Encoded) -> tuple[Member, ...]:
        members = []
        for suffix, data in encoded.members():
            info = tarfile.TarInfo(f"{encoded.sample.key}.{suffix}")
            info.size = len(data)
            info.mode = 0o644
            offset = self._tar.offset + tarfile.BLOCKSIZE
            self._tar.addfile(info, io.BytesIO(data))
            members.append(Member(info.name, offset, len(data), zlib.crc32(data)))
        return tuple(members)

    def close(self) -> None:
        self._tar.close()


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
    """One row of the index: what a viewer filters, a reader seeks and statistics add up."""
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


def speech_seconds(sample: Sample, role: str) -> float:
    return sum(turn.end - turn.start for turn in sample.turns if turn.role == role)


def index_bytes(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()
