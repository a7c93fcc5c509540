"""What a shard is: a POSIX ustar file with three contiguous members a sample. (Its index is in index.py.)

Tar headers carry no time, owner or machine: the same samples are the same bytes.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

from isal.isal_zlib import crc32

from pipeline.dialogue import Sample
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
        return Member(name, offset, len(data), crc32(data))

    def close(self) -> None:
        """Two blocks of zeros, and zeros to the end of the record."""
        end = self._file.tell() + 2 * BLOCK
        self._file.write(bytes(2 * BLOCK + -end % tarfile.RECORDSIZE))
