"""Which row of the sources each planned dialogue is made of, written down unit by unit.

The rows of a unit lie in RUN/sources/: the first line says where the sources stood behind them, so that a run that is
stopped, resumed or grown draws what an undisturbed one would, and the text workers need not know the sources.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.config import Config
from pipeline.dialogue import SourceRow
from pipeline.errors import DataError
from pipeline.plan import Unit, plan_units, unit_count
from pipeline.shards.store import RunFolder, publish
from pipeline.sources import SourceCounts, Sources


class _Head(BaseModel):
    """state: of the sources, behind the unit's rows. counts: by source, from the start of the run. rows: how many
    lines follow."""

    state: dict[str, Any]
    counts: dict[str, SourceCounts]
    rows: int


_ROW = TypeAdapter(SourceRow | None)


class Draw:
    """Draws the rows of a run, unit after unit. For the one driver of the run; memory does not grow with it."""

    def __init__(self, config: Config, folder: RunFolder):
        self._config = config
        self._folder = folder
        self._sources: Sources | None = None
        self._unit = -1  # the last one that `_sources` has drawn

    def ensure(self, unit: Unit) -> None:
        """Publish the rows of a unit, unless they are there, and first those of earlier units if they are not.

        Raises ConfigError (see `Sources`), DataError for a damaged file of rows, StorageError.
        """
        if self._folder.rows(unit.number).exists():
            return
        first = unit.number
        while first > 0 and first - 1 != self._unit and not self._folder.rows(first - 1).exists():
            first -= 1
        for missing in islice(plan_units(self._config), first, unit.number) if first < unit.number else ():
            self._draw(missing)
        self._draw(unit)

    def mend(self) -> None:
        """Publish the rows again that were taken out of the run because they were damaged, though their unit has its
        text: where the run grows, it goes on drawing behind them. Raises what `ensure` raises."""
        if not self._folder.rows(0).parent.parent.is_dir():
            return  # the text came from elsewhere
        lost = set(self._folder.missing(self._folder.rows, range(unit_count(self._config))))
        lost.difference_update(self._folder.missing(self._folder.text, sorted(lost)))
        for unit in plan_units(self._config) if lost else ():
            if unit.number in lost:
                self.ensure(unit)

    def _draw(self, unit: Unit) -> None:
        sources = self._at(unit.number)
        self._unit = -1  # in case that this fails half way
        rows = [sources.next(planned.language) for planned in unit.dialogues]
        head = _Head(state=sources.state(), counts=sources.counts(), rows=len(rows))
        lines = [head.model_dump_json(), *(_ROW.dump_json(row).decode() for row in rows)]
        publish(self._folder.rows(unit.number), "".join(f"{line}\n" for line in lines).encode())
        self._unit = unit.number

    def _at(self, unit: int) -> Sources:
        """The sources as they stand before `unit`."""
        if self._sources is None or self._unit != unit - 1 or self._unit < 0:
            self._sources = Sources(self._config)
            if unit > 0:
                self._sources.restore(_head(self._folder.rows(unit - 1)).state)
        return self._sources


def read_rows(folder: RunFolder, unit: int) -> list[SourceRow | None]:
    """The row of each planned dialogue of a unit, None where the sources were exhausted. Raises DataError."""
    path = folder.rows(unit)
    head = _head(path)
    try:
        rows = [_ROW.validate_json(line) for line in path.read_bytes().splitlines()[1:]]
        if len(rows) != head.rows:
            raise ValueError(f"{len(rows)} rows instead of {head.rows}")
    except ValueError as error:
        raise _damaged(path, error) from None
    return rows


def draw_counts(folder: RunFolder, units: int) -> dict[str, SourceCounts]:
    """What became of the rows of each source, from the start of the run to the last of the first `units` units that
    is drawn; nothing if none is."""
    for unit in range(units - 1, -1, -1):
        if folder.rows(unit).exists():
            return _head(folder.rows(unit)).counts
    return {}


def _head(path: Path) -> _Head:
    try:
        with path.open("rb") as file:
            return _Head.model_validate_json(file.readline())
    except (FileNotFoundError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return DataError(f"{path}: not the rows of a unit: {' '.join(why.split())}; remove it and run again")
