"""What a run appends to, where its store cannot append: numbered objects, one a put, below the name of the file.

They are put one after the other, each only once the one before it is there, so that there is no gap: the end is found
by asking for exact keys, and no listing is trusted.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

from pipeline.shards.remote import Refused, StorePath, is_remote

AT_ONCE = 32
"""Objects that are asked for side by side."""


class PartLog:
    """One file that grows. Safe for threads; a second process that appends takes the numbers behind."""

    def __init__(self, path: Path):
        self._path = cast(StorePath, path)
        self._next: int | None = None
        self._lock = threading.Lock()

    def append(self, data: bytes) -> None:
        """Durable when this returns. Raises StorageError."""
        with self._lock:
            if self._next is None:
                self._next = self._end()
            while True:
                part = self._part(self._next)
                try:
                    part.put(data, IfNoneMatch="*")
                except Refused:
                    ours = part.read_bytes() == data  # the answer to our put was lost, and it was tried again
                    self._next += 1
                    if ours:
                        return
                else:
                    self._next += 1
                    return

    def read(self, first: int = 0) -> Iterator[bytes]:
        """The parts from number `first` on, in order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            size = 1
            while True:
                for part in pool.map(self._read, range(first, first + size)):
                    if part is None:
                        return
                    yield part
                first, size = first + size, min(2 * size, AT_ONCE)

    def _end(self) -> int:
        """The first number that is free: doubled until it is found to be, then halved in."""
        above = 1
        while self._part(above - 1).exists():
            above *= 2
        low, high = above // 2, above - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._part(middle).exists() else (low, middle)
        return low

    def _read(self, number: int) -> bytes | None:
        try:
            return self._part(number).read_bytes()
        except FileNotFoundError:
            return None

    def _part(self, number: int) -> StorePath:
        return self._path / f"{number:08d}"


def read_log(path: Path) -> bytes:
    """A file that was appended to, wherever it lies. Raises FileNotFoundError."""
    if not is_remote(path):
        return path.read_bytes()
    parts = list(PartLog(path).read())
    if not parts:
        raise FileNotFoundError(2, "no such log", str(path))
    return b"".join(parts)


def open_log(path: Path) -> IO[str]:
    """The same, to be read line by line."""
    if not is_remote(path):
        return path.open(encoding="utf-8", errors="replace")
    return io.StringIO(read_log(path).decode("utf-8", "replace"))


def scratch_file(path: Path) -> Path:
    """`path`, or for a run on a store a file of this machine in its stead: for what something else writes to."""
    if not is_remote(path):
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"speechchat-{os.getuid()}-{name}-{path.name}"
