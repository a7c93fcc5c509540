"""What every source of text offers, and what the endless ones share."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from pipeline.dialogue import Language, Record, SourceRow


class SourceCounts(Record):
    """What became of the rows of a source: read = selected + the sum of dropped + broken.

    A row counts once, however many languages and laps pass it; rows in a language that nobody asked for do not count.
    dropped: by reason. used: rows given out, in every lap. first_broken: the first five, as "file#row: why".
    """

    read: int = 0
    selected: int = 0
    used: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    broken: int = 0
    first_broken: tuple[str, ...] = ()


class PreviewRow(NamedTuple):
    """A row as the selection sees it. language, row: None where the row is broken; fault: None if it is selected."""

    source: str
    language: Language | None
    row: SourceRow | None
    raw: str
    fault: str | None


class TextSource(Protocol):
    """Rows of text by language, in an order that depends on nothing but the configuration and the data.

    languages: those that it may have rows in. digest: 16 hex digits over what identifies the rows. origin: name and
    licence that its rows carry.
    """

    @property
    def languages(self) -> frozenset[Language]: ...
    @property
    def digest(self) -> str: ...
    @property
    def origin(self) -> tuple[str, str]: ...

    def next(self, language: Language) -> SourceRow | None:
        """The next selected row, None for ever after the last one."""
        ...

    def state(self) -> dict[str, Any]:
        """Where all its languages stand, small and fit for JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None: ...

    def counts(self) -> SourceCounts: ...

    def preview(self, limit: int) -> Iterator[PreviewRow]:
        """Its first rows as they are read; moves nothing."""
        ...


class OrdinalSource(ABC):
    """A source that is held in memory and gives row k of a language at once, lap after lap.

    laps: after how many it ends, None for never.
    """

    def __init__(self, languages: Iterable[Language], laps: int | None):
        self._next: dict[Language, int] = dict.fromkeys(sorted(languages), 0)
        self._laps = laps

    @property
    def languages(self) -> frozenset[Language]:
        return frozenset(self._next)

    @abstractmethod
    def row(self, language: Language, ordinal: int) -> SourceRow: ...

    @abstractmethod
    def lap_size(self, language: Language) -> int: ...

    def next(self, language: Language) -> SourceRow | None:
        ordinal = self._next[language]
        if self._laps is not None and ordinal >= self._laps * self.lap_size(language):
            return None
        self._next[language] = ordinal + 1
        return self.row(language, ordinal)

    def state(self) -> dict[str, Any]:
        return {"next": dict(self._next)}

    def restore(self, state: dict[str, Any]) -> None:
        self._next.update(state["next"])

    @property
    def used(self) -> int:
        return sum(self._next.values())


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a message: `did you mean 'x'? `, or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}? " if match else ""


def shorten(text: str, limit: int = 300) -> str:
    """One line of at most `limit` characters that can be written as UTF-8, whatever a broken row holds."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
