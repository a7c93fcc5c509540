"""Rows of files, read one by one from any place in the middle.

JSON lines, CSV and JSON arrays are read with the standard library, though `datasets` reads them too: its JSON reader
fails a whole block for one broken line and holds an array whole. Here a broken row is one row, known by its number.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from pipeline.config import digest
from pipeline.errors import ConfigError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PACKED = (".gz", ".zst")  # of all but parquet, which is packed itself
_EDGE = 64 * 1024  # bytes of each end of a file that go into the digest
_CHUNK = 64 * 1024
_LONGEST = 16 * 1024 * 1024  # characters of a row of a JSON array, beyond which the array is taken for broken


class RawRow(NamedTuple):
    """A row as it is in the file `place`. number: from 1, its line in JSON lines, else its place among the rows.

    value: what was read; where it is broken, as much as there is for people to see, and `fault` says why.
    """

    place: str
    number: int
    value: Any
    fault: str = ""


class Reading(Iterator[RawRow]):
    """Rows in their order. `position`, fit for JSON, is where the next row begins."""

    @property
    @abstractmethod
    def position(self) -> Any: ...


class Records(Protocol):
    """A data set that can be read many times. origin: what a message calls it."""

    origin: str
    digest: str

    def read(self, position: Any = None) -> Reading:
        """From its first row, or from a position that an earlier reading gave."""
        ...


class FileRecords:
    """The rows of a file, or of all files of a folder, sorted by their path within it.

    digest: over names, sizes and both ends of the files. key: the configuration's, for messages. Raises ConfigError
    where there is nothing to read.
    """

    def __init__(self, path: Path, key: str):
        self.origin = str(path)
        self.key = key
        if path.is_dir():
            found = (item for item in path.rglob("*") if item.is_file() and not item.name.startswith("."))
            files = {item.relative_to(path).as_posix(): item for item in found if kind_of(item)}
        else:
            files = {path.name: path}
        self.files = sorted(files.items())
        if not self.files or not kind_of(self.files[0][1]):
            what = "holds no file that ends so" if path.is_dir() else f"unknown ending {path.suffix!r}"
            packed = " or ".join(PACKED)
            raise ConfigError(f"{key}: {path}: {what}: {', '.join(SUFFIXES)}; all but .parquet also with {packed}")
        with _file_errors(key, path):
            self.digest = digest([(name, *_fingerprint(item)) for name, item in self.files])

    def read(self, position: Any = None) -> Reading:
        return _FileReading(self, position or [0, 0, 0])


class _FileReading(Reading):
    """position: [index of the file, number of the last row, its end], the end as the reader of the kind counts."""

    def __init__(self, records: FileRecords, position: list[int]):
        self._position = position
        self._rows = self._read(records)

    @property
    def position(self) -> list[int]:
        return self._position

    def __next__(self) -> RawRow:
        return next(self._rows)

    def _read(self, records: FileRecords) -> Iterator[RawRow]:
        first, number, end = self._position
        for index, (name, path) in enumerate(records.files[first:], first):
            with _file_errors(records.key, path):
                for row in READERS[kind_of(path)](path, number, end):
                    self._position = [index, row.number, row.end]
                    yield RawRow(name, row.number, row.value, row.fault)
            number = end = 0


class _file_errors:  # a context manager that, unlike a generator's, may surround a `yield`
    """Turns what a file that is missing, closed to us or cut off raises into one line."""

    def __init__(self, key: str, path: Path):
        self._where = f"{key}: {path}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        import pyarrow as pa

        damage = gzip.BadGzipFile | EOFError | zlib.error | pa.ArrowException | UnicodeDecodeError | csv.Error
        if isinstance(error, damage):
            raise ConfigError(f"{self._where}: damaged or not what its ending says: {error}") from None
        if isinstance(error, OSError):
            raise ConfigError(f"{self._where}: not readable: {error.strerror or error}") from None


def kind_of(path: Path) -> str:
    """The ending that says how to read the file, "" where none does."""
    ending = path.suffix.lower()
    if ending in PACKED:
        ending = Path(path.stem).suffix.lower()
        return ending if ending in SUFFIXES[:-1] else ""
    return ending if ending in SUFFIXES else ""


def _fingerprint(path: Path) -> tuple[int, str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        sha = hashlib.sha256(file.read(_EDGE))
        file.seek(max(0, size - _EDGE))
        sha.update(file.read())
    return size, sha.hexdigest()


def _open(path: Path, offset: int = 0) -> BinaryIO:
    """The unpacked bytes of a file from `offset` on. Packed files are unpacked up to there."""
    file: BinaryIO
    if path.suffix.lower() == ".gz":
        file = cast(BinaryIO, gzip.GzipFile(path))
    elif path.suffix.lower() == ".zst":
        import pyarrow as pa

        file = cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
        while offset > 0:
            offset -= len(file.read(min(offset, _CHUNK))) or offset
        return file
    else:
        file = path.open("rb")
    file.seek(offset)
    return file


class _Row(NamedTuple):
    """end: where the next row begins, as the reader of this kind of file counts."""

    value: Any
    fault: str
    number: int
    end: int


# A reader goes on behind row `number`, from `end` on; both are 0 for the start.
Rows = Iterator[_Row]


def _read_lines(path: Path, number: int, end: int) -> Rows:
    """JSON lines; `end` counts bytes."""
    with _open(path, end) as file:
        for line in file:
            number, end = number + 1, end + len(line)
            if not line.strip():
                continue
            try:
                value, fault = json.loads(line), ""
            except RecursionError:
                value, fault = _seen(line), "JSON that is nested too deep"
            except ValueError as error:  # also of bytes that are no UTF-8
                value, fault = _seen(line), f"not JSON: {error}"
            yield _Row(value, fault, number, end)


def _seen(line: bytes) -> str:
    return line[:400].decode("utf-8", "replace").strip()


_GAP = re.compile(r"[\s,]*")


def _read_array(path: Path, number: int, end: int) -> Rows:
    """A JSON array, one element at a time; `end` counts bytes. What does not begin as an array is read as lines."""
    with _open(path) as file:
        opening = re.match(rb"(?:\xef\xbb\xbf)?\s*(\[?)", file.read(_CHUNK))
    if not opening or not opening[1]:
        yield from _read_lines(path, number, end)
        return
    parse = json.JSONDecoder().raw_decode
    decode = codecs.getincrementaldecoder("utf-8")().decode
    end = end or opening.end()
    text, place, size = "", 0, _CHUNK
    with _open(path, end) as file:
        while True:
            start = cast("re.Match[str]", _GAP.match(text, place)).end()
            if text[start : start + 1] == "]":
                return
            try:
                value, stop = parse(text, start)
                cut = stop == len(text)  # a figure may go on in the next chunk
                problem = "the file ends in it"
            except (json.JSONDecodeError, RecursionError) as error:
                cut, problem = True, str(error)
            if not cut:
                number, end, place, size = number + 1, end + len(text[place:stop].encode()), stop, _CHUNK
                yield _Row(value, "", number, end)
                continue
            more = decode(file.read(size)) if len(text) - place < _LONGEST else ""
            if not more:
                raise EOFError(f"row {number + 1} is no JSON, so what follows cannot be told apart: {problem}")
            text, place, size = text[place:] + more, 0, 2 * size  # twice as much: each byte is parsed a few times


def _read_csv(path: Path, number: int, end: int) -> Rows:
    """CSV with a line of names; `end` counts bytes. Rows are numbered from 1 below the names."""
    with _open(path) as file:
        count = 0

        def lines() -> Iterator[str]:
            nonlocal count
            for line in file:
                count += len(line)
                # Bytes that are no UTF-8 become lone surrogates, which are told as broken when the row is mapped.
                yield line.decode("utf-8-sig" if count == len(line) else "utf-8", "surrogateescape")

        rows = csv.reader(lines())
        names = next(rows, [])
    with _open(path, end or count) as file:
        count = end or count
        rows = csv.reader(lines())
        while True:
            try:
                row = next(rows, None)
                fault = "" if row is None or len(row) == len(names) else f"{len(row)} fields under {len(names)} names"
            except csv.Error as error:
                row, fault = [], f"not CSV: {error}"
            if row is None:
                return
            if not row and not fault:
                continue
            number += 1
            yield _Row(dict(zip(names, row, strict=False)), fault, number, count)


def _read_parquet(path: Path, number: int, end: int) -> Rows:
    """Parquet; `end` counts rows. The row group that holds the first one is read up to it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        group = done = 0
        while group < file.num_row_groups and done + file.metadata.row_group(group).num_rows <= end:
            done += file.metadata.row_group(group).num_rows
            group += 1
        for batch in file.iter_batches(256, row_groups=range(group, file.num_row_groups)):
            skip = min(max(0, end - done), len(batch))
            done += skip
            for value in batch.slice(skip).to_pylist():
                done += 1
                yield _Row(value, "", done, done)


READERS: dict[str, Callable[[Path, int, int], Rows]] = {
    ".jsonl": _read_lines,
    ".json": _read_array,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
