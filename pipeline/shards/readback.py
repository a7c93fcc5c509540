"""Is what the disk has what was written to it?"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import xxhash

_READ = 1 << 18  # bytes that are read at once: they stay in the processor's cache until they are summed up


def forget(file: int) -> None:
    """Drop what the system remembers of a file that is synced, so that it is read from the disk, or the server of a
    share: memory would only give back what it was handed. Where the system takes no such advice, that is what reading
    back shows, and a write that was cut short or went to another place."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def checksum(path: Path) -> int:
    """XXH3, of 64 bits: it finds whatever happens by chance, for a twentieth of what a second SHA-256 would cost. Who
    looks for more compares the SHA-256 of the manifest, which is of what was written (`verify`)."""
    check = xxhash.xxh3_64()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(_READ, os.fstat(file.fileno()).st_size + 1)))
        while size := file.readinto(buffer):
            check.update(buffer[:size])
    return check.intdigest()
