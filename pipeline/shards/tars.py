"""Walking through a tar of ours with nothing taken on trust."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DataError
from pipeline.shards.format import Member


def walk_tar(path: Path) -> Iterator[tuple[Member, bytes]]:
    """The members in order, with their payloads: plain files with ASCII names, contiguous, and nothing behind the last.

    Raises DataError for any other structure, naming the file and what is wrong with it.
    """
    try:
        end = path.stat().st_size
        expected = 0
        with tarfile.open(path, mode="r:") as tar:
            for info in tar:
                if not info.isreg() or not info.name.isascii():
                    raise DataError(f"{path}: member {info.name!r} where a plain file with an ASCII name belongs")
                if info.offset != expected:
                    raise DataError(f"{path}: {info.name} is not contiguous with the member before it")
                expected = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if expected > end:
                    raise DataError(f"{path}: {info.name} is cut short")
                file = tar.extractfile(info)
                data = file.read() if file else b""
                yield Member(info.name, info.offset_data, info.size, zlib.crc32(data)), data
    except FileNotFoundError:
        raise DataError(f"{path}: this file is missing") from None
    # What tarfile raises for a header that was made to look whole is not always its own error.
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a whole tar file: {' '.join(str(error).split())}") from None
    _check_end(path, expected)


def _check_end(path: Path, expected: int) -> None:
    """After the last member: two blocks of zeros, and zeros to the end of the record (POSIX ustar). Readers stop at a
    damaged header as if it were the end, so that this is what tells."""
    whole = -(-(expected + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    with path.open("rb") as file:
        file.seek(expected)
        rest = file.read(whole - expected + 1)
    if rest != bytes(whole - expected):
        raise DataError(f"{path}: does not end after its last member")
