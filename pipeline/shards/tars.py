"""Walking through a tar of ours with nothing taken on trust."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isal.isal_zlib import crc32

from pipeline.errors import DataError
from pipeline.shards.format import BLOCK, NAME, SIZE, Member, tar_header
from pipeline.shards.remote import size_of

_READ = 1 << 20  # bytes that are asked of the disk at once
_KIND = slice(156, 157)  # of a header, POSIX ustar


class HashedFile:
    """A file that is read once, from its start to its end, and hashed on the way. size: in bytes. Raises OSError."""

    def __init__(self, path: Path):
        self.path = path
        file: Any = path.open("rb", buffering=_READ)
        self._sha = hashlib.sha256()
        self._file = file
        self.size: int = size_of(path, file)

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Fewer bytes than `size` only at the end of the file."""
        data = self._file.read(size)
        self._sha.update(data)
        return data

    def sha256(self) -> str:
        """Of the whole file, in hex: what nobody asked for is read here."""
        while self.read(_READ):
            pass
        return self._sha.hexdigest()


def walk_tar(path: Path) -> Iterator[tuple[Member, bytes]]:
    """The members in order, with their payloads: plain files with ASCII names, contiguous, and nothing behind the last.

    Raises DataError for any other structure, naming the file and what is wrong with it.
    """
    try:
        with HashedFile(path) as file:
            yield from walk_members(file)
    except FileNotFoundError:
        raise DataError(f"{path}: this file is missing") from None
    except OSError as error:
        raise DataError(f"{path}: not readable: {error.strerror}") from None


def walk_members(file: HashedFile) -> Iterator[tuple[Member, bytes]]:
    """As `walk_tar`, from a file that is open at its start. Raises DataError, OSError."""
    offset = 0
    while (block := file.read(BLOCK)).strip(b"\0"):
        name, size = _header(file.path, block, offset)
        offset += BLOCK
        padding = -size % BLOCK
        if offset + size + padding > file.size:
            raise DataError(f"{file.path}: {name} is cut short")
        data = file.read(size)
        if file.read(padding) != bytes(padding):
            raise DataError(f"{file.path}: something lies between {name} and the next member")
        yield Member(name, offset, size, crc32(data)), data
        offset += size + padding
    # After the last member: two blocks of zeros, and zeros to the end of the record (POSIX ustar).
    end = -(-(offset + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if block + file.read(end - offset - len(block) + 1) != bytes(end - offset):
        raise DataError(f"{file.path}: does not end after its last member")


def _header(path: Path, block: bytes, offset: int) -> tuple[str, int]:
    """Name and size of a member. Of a header of ours no other bit is free, so that it is made anew and compared; a tar
    reader goes by its checksum, which tells less."""
    raw = block[NAME].rstrip(b"\0")
    name = raw.decode("utf-8", "replace")
    if block[_KIND] != tarfile.REGTYPE or not raw.isascii():
        raise DataError(f"{path}: member {name!r} where a plain file with an ASCII name belongs")
    try:
        size = int(block[SIZE].rstrip(b"\0"), 8)
        whole = tar_header(raw, size) == block
    except ValueError:  # no number, or one that has no header
        whole = False
    if not whole:
        raise DataError(f"{path}: the header of member {name!r}, at byte {offset}, is damaged")
    return name, size
