"""Discrete units of the answers, which a speech tokenizer of the user's made: no tokenizer comes with this package."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import StorageError, UsageError
from pipeline.shards.store import RunFolder
from pipeline.training.formats.base import Format

COLUMNS = ("key", "turn", "units")
_BATCH = 1000


class UnitsFile:
    """`key` (of the dialogue), `turn` (from 0, as in its `turns`) and `units` (whole numbers, in order of time): a line
    of JSON each (.jsonl), or a row of a Parquet file, in any order.

    Sorted into a temporary file by `load`, so that memory does not grow with it.
    """

    def __init__(self, path: Path):
        self._path = path
        self._rows: sqlite3.Connection | None = None

    def load(self) -> None:
        """Raises UsageError for a file that is not one, StorageError."""
        self._rows = self._sorted()

    def of(self, key: str, turn: int) -> list[int]:
        """Raises UsageError for a turn that the file has not."""
        if self._rows is None:
            raise RuntimeError("load the units first")
        found = self._rows.execute("SELECT units FROM units WHERE key = ? AND turn = ?", (key, turn)).fetchone()
        if found is None:
            raise UsageError(
                f"--set units={self._path}: it has no units for turn {turn} of {key}; make them of each answer, or "
                "export without"
            )
        return array("q", found[0]).tolist()

    def _sorted(self) -> sqlite3.Connection:
        rows = sqlite3.connect("")  # a file of its own, which the operating system removes
        rows.execute("CREATE TABLE units (key TEXT, turn INTEGER, units BLOB, PRIMARY KEY (key, turn)) WITHOUT ROWID")
        for number, row in enumerate(self._read()):
            place = f"--set units={self._path}: row {number + 1}"
            try:
                key, turn, units = (row[name] for name in COLUMNS)
                packed = array("q", units).tobytes()
            except (KeyError, TypeError, ValueError, OverflowError):
                raise UsageError(
                    f"{place} is no key, turn and list of whole numbers as `units`, which each row has to hold"
                ) from None
            if not isinstance(key, str) or type(turn) is not int:
                raise UsageError(f"{place}: `key` has to be a dialogue's key and `turn` its number, from 0")
            try:
                rows.execute("INSERT INTO units VALUES (?, ?, ?)", (key, turn, packed))
            except sqlite3.IntegrityError:
                raise UsageError(f"{place}: turn {turn} of {key} is there twice") from None
            except (OverflowError, UnicodeEncodeError):
                raise UsageError(f"{place}: no dialogue has such a `key` and `turn`") from None
            except sqlite3.OperationalError as error:
                raise StorageError(
                    f"{place}: not sorted ({error}): make room in the folder of temporary files, or set SQLITE_TMPDIR "
                    "to another one"
                ) from None
        return rows

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._path.suffix == ".parquet":
            yield from self._read_parquet()
        elif self._path.suffix == ".jsonl":
            with self._path.open("rb") as lines:
                for number, line in enumerate(lines):
                    try:
                        yield json.loads(line)
                    except ValueError:
                        raise UsageError(f"--set units={self._path}: line {number + 1} is not JSON") from None
        else:
            raise UsageError(f"--set units={self._path}: name a .jsonl or a .parquet file")

    def _read_parquet(self) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._path) as table:
                for batch in table.iter_batches(_BATCH, columns=list(COLUMNS)):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"--set units={self._path}: not readable as Parquet: {error}") from None


class UnitsFormat(Format):
    """A format with an option `units`, the path of a units file or None."""

    def __init__(self, options: Any):
        super().__init__(options)
        self._units = UnitsFile(options.units) if options.units else None

    def check(self, folder: RunFolder, config: Config) -> None:
        if self._units is not None:
            self._units.load()
