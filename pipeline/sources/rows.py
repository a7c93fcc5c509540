"""A source that streams rows of a data set: files here, or on the hub."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import Config, SourceConfig
from pipeline.dialogue import Language, Source, SourceRow
from pipeline.errors import ConfigError
from pipeline.sources.base import PreviewRow, SourceCounts, nearest, shorten
from pipeline.sources.files import FileRecords, RawRow, Reading, Records, kind_of
from pipeline.sources.hub import HubRecords
from pipeline.sources.mapping import BrokenRow, FieldMap, MappedRow
from pipeline.sources.selection import Selection

_CHECKED = 1000  # rows after which the share of broken ones is looked at
_GLANCED = 20  # and after which it is glanced at: a small run may never come to a thousand
_SIGMAS = 5  # how far above `max_broken` a glance must find it, so that a few broken rows in the beginning are borne


@dataclass
class _Cursor:
    """Where a language stands. seen: rows passed in this lap, of any language; picked, foreign: in the first lap, the
    rows that were selected and those in another language."""

    lap: int = 0
    seen: int = 0
    picked: int = 0
    foreign: int = 0
    done: bool = False
    position: Any = None  # of the next row, where there is no reading yet
    reading: Reading | None = None

    def state(self) -> dict[str, Any]:
        position = self.reading.position if self.reading else self.position
        return {
            "lap": self.lap,
            "seen": self.seen,
            "picked": self.picked,
            "foreign": self.foreign,
            "done": self.done,
            "position": position,
        }


class RowSource:
    """Each language has a cursor of its own over the same rows. Rows are counted in the first lap, those that cannot be
    read by the cursor that is the first to pass them.

    Raises ConfigError, when it is made or at the rows that show it: nothing to read, a field that no row has, too many
    broken rows, no row that can be used.
    """

    def __init__(self, name: str, config: Config):
        self._source = config.sources[name]
        self._name = name
        self._records = open_records(name, self._source)
        self._map = FieldMap(name, self._source)
        self._select = Selection(config)
        wanted = self._source.language
        self._cursors = {item: _Cursor() for item in config.active_languages if wanted in ("auto", item)}
        self._passed = 0  # rows that some cursor has passed in the first lap
        self._read = self._selected = self._used = self._broken = 0
        self._dropped: Counter[str] = Counter()
        self._first_broken: list[str] = []
        self.languages: frozenset[Language] = frozenset(self._cursors)
        self.origin = (name, self._source.license)
        self.digest = self._records.digest

    def next(self, language: Language) -> SourceRow | None:
        cursor = self._cursors[language]
        while not cursor.done:
            if cursor.reading is None:
                cursor.reading = self._records.read(cursor.position)
            raw = next(cursor.reading, None)
            if raw is None:
                self._end_lap(cursor, language)
                continue
            cursor.seen += 1
            row = self._take(raw, cursor, language)
            if row is not None:
                self._used += 1
                return row
        return None

    def counts(self) -> SourceCounts:
        return SourceCounts(
            read=self._read,
            selected=self._selected,
            used=self._used,
            dropped=dict(sorted(self._dropped.items())),
            broken=self._broken,
            first_broken=tuple(self._first_broken),
        )

    def state(self) -> dict[str, Any]:
        return {
            "cursors": {language: cursor.state() for language, cursor in self._cursors.items()},
            "passed": self._passed,
            "found": sorted(self._map.found),
            "counts": self.counts().model_dump(mode="json"),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._cursors = {language: _Cursor(**state["cursors"][language]) for language in self._cursors}
        self._passed = state["passed"]
        self._map.found = set(state["found"])
        counts = SourceCounts.model_validate(state["counts"])
        self._read, self._selected, self._used = counts.read, counts.selected, counts.used
        self._dropped, self._broken = Counter(counts.dropped), counts.broken
        self._first_broken = list(counts.first_broken)

    def preview(self, limit: int) -> Iterator[PreviewRow]:
        mapping = FieldMap(self._name, self._source)
        for raw in islice(self._records.read(), limit):
            text = raw.value if raw.fault else json.dumps(raw.value, ensure_ascii=False, default=str)
            shown = shorten(str(text))
            try:
                mapped = self._mapped(raw, mapping)
            except BrokenRow as error:
                yield PreviewRow(self._name, None, None, shown, str(error))
                continue
            row = self._row(raw, mapped)
            fault: str | None = mapped.unfit
            if not fault and mapped.language in self._cursors:
                row, fault = self._select(row, mapped.language)
            elif not fault:
                fault = "other language"
            yield PreviewRow(self._name, mapped.language, row, shown, fault)

    def _take(self, raw: RawRow, cursor: _Cursor, language: Language) -> SourceRow | None:
        """The row if it is selected for `language`; counts what became of it."""
        first = cursor.lap == 0 and cursor.seen > self._passed
        mapped = None
        try:
            mapped = self._mapped(raw, self._map)
        except BrokenRow as error:
            if first:
                self._read += 1
                self._broken += 1
                if len(self._first_broken) < 5:
                    self._first_broken.append(f"{raw.place}#{raw.number}: {shorten(str(error), 200)}")
        if first:
            self._passed = cursor.seen
            if mapped and mapped.unfit:
                self._read += 1
                self._dropped[mapped.unfit] += 1
            if self._passed % _CHECKED == 0 or (self._passed % _GLANCED == 0 and self._hopeless()):
                self._check(early=True)
        if mapped is None or mapped.unfit:
            return None
        if mapped.language != language:
            cursor.foreign += cursor.lap == 0
            return None
        row, fault = self._select(self._row(raw, mapped), language)
        if cursor.lap == 0:
            self._read += 1
            self._selected += fault is None
            cursor.picked += fault is None
            if fault is not None:
                self._dropped[fault] += 1
        return row if fault is None else None

    def _mapped(self, raw: RawRow, mapping: FieldMap) -> MappedRow:
        if raw.fault:
            raise BrokenRow(raw.fault)
        return mapping(raw.value)

    def _row(self, raw: RawRow, mapped: MappedRow) -> SourceRow:
        return SourceRow(
            source=Source(name=self._name, license=self._source.license, row=f"{raw.place}#{mapped.id or raw.number}"),
            lines=mapped.lines,
            system=mapped.system,
            ready=self._source.kind == "dialogues",
        )

    def _end_lap(self, cursor: _Cursor, language: Language) -> None:
        if cursor.lap == 0:
            self._check(early=False)
            if not cursor.picked and not cursor.foreign:
                why = ", ".join(f"{reason} {count}" for reason, count in self._dropped.most_common(5))
                raise ConfigError(
                    f"sources.{self._name}.data: {self._records.origin}: none of its {cursor.seen} rows can be used "
                    f"({why or 'all are broken'}); `speechchat text preview` shows them"
                )
        cursor.done = not cursor.picked or cursor.lap + 1 >= (self._source.laps or 1)
        cursor.position = cursor.reading = None
        if not cursor.done:
            cursor.lap, cursor.seen = cursor.lap + 1, 0

    def _hopeless(self) -> bool:
        """Whether chance does not explain so many broken rows, if their share is `max_broken` (binomial)."""
        share = self._source.max_broken
        expected = self._passed * share
        return self._broken > expected + _SIGMAS * math.sqrt(expected * (1 - share))

    def _check(self, early: bool) -> None:
        """Refuse what no row to come will mend. early: there are rows to come."""
        where = f"sources.{self._name}.data: {self._records.origin}"
        if not self._passed:
            raise ConfigError(f"{where}: it is empty: it has no row")
        if (ours := self._map.missing(early)) is not None:
            self._check_field(ours)
        if self._broken > self._source.max_broken * self._passed:
            raise ConfigError(
                f"{where}: {self._broken} of {self._passed} rows are broken (first: {self._first_broken[0]}); "
                f"mend them or raise sources.{self._name}.max_broken"
            )

    def _check_field(self, ours: str) -> None:
        """Refuse a field that no row has; where no row is a map at all, the rows are what is broken."""
        rows = (raw.value for raw in islice(self._records.read(), _CHECKED))
        first: Any = next((row for row in rows if isinstance(row, dict)), None)
        if first is None:
            return
        if ours in ("role", "content"):
            try:
                messages = self._map.messages(first)
            except BrokenRow:
                return
            first = next((item for item in messages if isinstance(item, dict)), {})
        known = [path for name, value in first.items() for path in _paths(str(name), value)]
        theirs = self._map.paths(ours)
        key = f"sources.{self._name}.fields" + (f".{ours}" if ours in self._source.fields else "")
        way = "" if ours in self._source.fields else f"; name it: {key}={{{ours}: THEIRS}}"
        raise ConfigError(
            f"{key}: none of {self._passed} rows in {self._records.origin} has {' or '.join(map(repr, theirs))}; "
            f"{nearest(theirs[0], known)}the first has: {shorten(', '.join(known), 200)}{way}"
        )


def open_records(name: str, source: SourceConfig) -> Records:
    """What `source.data` names: a file or a folder if there is one, else a data set on the hub.

    Raises ConfigError where it can be neither.
    """
    data, key = source.data or "", f"sources.{name}.data"
    try:
        path = Path(data).expanduser()
        if path.exists():
            return FileRecords(path, key)
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder closed to us, a home of nobody
        raise ConfigError(f"{key}: {shorten(data, 100)}: not readable: {shorten(str(error), 100)}") from None
    if kind_of(path) or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", data):
        raise ConfigError(f"{key}: {data}: there is no such file or folder")
    return HubRecords(source, key)


def _paths(name: str, value: Any) -> list[str]:
    """`name`, or the dotted names of what is in it."""
    return [f"{name}.{inner}" for inner in value] if isinstance(value, dict) and value else [name]
