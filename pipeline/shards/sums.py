"""What finished units add up to, in whole numbers: the same in whatever order they are added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dialogue import Reject
from pipeline.errors import DataError
from pipeline.shards.index import ROLES
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_reject_list
from pipeline.shards.remote import whole
from pipeline.shards.store import RunFolder
from pipeline.shards.tally import spoken_turns

VERSION = 1
"""Of what is added up here; it changes with any of the numbers."""
SECOND = 10**6
"""Durations are whole microseconds, as exact as a manifest tells them."""
RATE = 10**9
"""Sums of error rates are whole billionths, likewise."""
_FIRST = ("voice", "engine")
_COLUMNS = (
    *("user_voice", "assistant_voice", "source_name", "license"),
    *(f"{role}_{field}" for role in ROLES for field in ("first_voice", "first_engine", "turns", "first_passed")),
)

Key = tuple[str, ...]


class Sums:
    """(what, names …) → numbers. Memory grows with the number of voices and sources, not of units.

    units: finished, planned, accepted, turns, llm_turns, retaken_turns. seconds: of samples, of the user's and of the
    assistant's speech. By name: rejected, languages (accepted), planned (by language), splits, voices and sources
    (accepted), rates (total and turns), lengths, refusals and repairs (as in a manifest). first: by "voice" or "engine"
    and its name, who spoke the first takes: dialogues, accepted, turns, passed at the first take, passed in the end. A
    dialogue counts once for a voice or an engine that speaks both roles of it.
    """

    def __init__(self, rows: Iterable[tuple[Iterable[str], Iterable[int]]] = ()) -> None:
        self._table: dict[Key, list[int]] = {tuple(key): list(numbers) for key, numbers in rows}

    def rows(self) -> Iterator[tuple[Key, list[int]]]:
        """All of it, in a fixed order; what `Sums` is made of again."""
        yield from sorted(self._table.items())

    def of(self, what: str) -> list[tuple[Key, list[int]]]:
        """The names and numbers of a table, in the order of names."""
        return sorted((key[1:], numbers) for key, numbers in self._table.items() if key[0] == what)

    def numbers(self, what: str, count: int) -> list[int]:
        """Of a table without names."""
        return self._table.get((what,), [0] * count)

    def counts(self, what: str) -> dict[str, int]:
        """Of a table of one number by one name."""
        return {name: count for (name,), (count,) in self.of(what)}

    def add(self, folder: RunFolder, manifests: Iterable[Manifest]) -> None:
        """Units: of each the manifest, the index and the list of rejects. Raises DataError."""

        def tables(manifest: Manifest) -> tuple[dict[str, list[Any]], list[Reject]]:
            return _index(folder, manifest), read_reject_list(folder, manifest)

        for manifest, (index, rejects) in folder.each(tables, manifests):
            self._add_unit(manifest, index, rejects)

    def _add_unit(self, manifest: Manifest, index: dict[str, list[Any]], rejects: Iterable[Reject]) -> None:
        self._add_manifest(manifest)
        for what, found in (
            ("voices", Counter(zip(index["user_voice"] + index["assistant_voice"], strict=True))),
            ("sources", Counter(zip(index["source_name"], index["license"], strict=True))),
        ):
            for names, count in found.items():
                self._add((what, *names), count)
        self._add_first(index)
        for reject in rejects:
            spoken = [(turn.takes[0], turn.first, turn.kept is not None) for turn in spoken_turns(reject)]
            for kind in _FIRST:
                for take, first, passed in spoken:
                    self._add(("first", kind, getattr(take, kind)), 0, 0, 1, first, passed)
                for name in {getattr(take, kind) for take, _, _ in spoken}:
                    self._add(("first", kind, name), 1, 0, 0, 0, 0)

    def _add(self, key: Key, *numbers: int) -> None:
        row = self._table.get(key)
        if row is None:
            self._table[key] = [int(number) for number in numbers]
        else:
            for place, number in enumerate(numbers):
                row[place] += number

    def _add_manifest(self, item: Manifest) -> None:
        self._add(("units",), 1, item.planned, item.accepted, item.turns, item.llm_turns, item.retaken_turns)
        seconds = (item.seconds, item.user_seconds, item.assistant_seconds)
        self._add(("seconds",), *(round(number * SECOND) for number in seconds))
        self._add(("splits", item.split), item.accepted)
        for what, counts in (
            ("rejected", item.rejected),
            ("languages", item.languages),
            ("planned", item.languages),
            ("planned", item.rejected_languages),
        ):
            for name, count in counts.items():
                self._add((what, name), count)
        for rate in item.error_rates:
            self._add(("rates", rate.language, rate.metric), round(rate.total * RATE), rate.turns)
        for length in item.lengths:
            self._add(("lengths", length.language, length.bucket), length.turns, length.first, length.passed)
        for refusal in item.refusals:
            self._add(("refusals", refusal.reason), refusal.turns, refusal.saved)
        for repair in item.repairs:
            spoken = round(repair.seconds * SECOND)
            self._add(("repairs", repair.rung), repair.turns, repair.saved, repair.takes, spoken)

    def _add_first(self, index: dict[str, list[Any]]) -> None:
        for kind in _FIRST:
            names = [index[f"{role}_first_{kind}"] for role in ROLES]
            for role, own in zip(ROLES, names, strict=True):
                alike = Counter(zip(own, index[f"{role}_turns"], index[f"{role}_first_passed"], strict=True))
                for (name, turns, first), count in alike.items():
                    self._add(("first", kind, name), 0, 0, turns * count, first * count, turns * count)
            for both, count in Counter(zip(*names, strict=True)).items():
                for name in set(both):
                    self._add(("first", kind, name), count, count, 0, 0, 0)


def _index(folder: RunFolder, manifest: Manifest) -> dict[str, list[Any]]:
    """Some columns of a unit's index. Raises DataError."""
    path = folder.index(manifest.unit, manifest.split)
    if not manifest.accepted:
        return {name: [] for name in _COLUMNS}
    try:
        return dict(pq.ParquetFile(whole(path)).read(columns=list(_COLUMNS), use_threads=False).to_pydict())
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a readable index: {reason}; `speechchat verify {folder.root}` says more"
        ) from None
