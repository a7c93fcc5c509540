"""Which dialogues hold a benchmark question, so that a model trained on them could not be tested with it.

A turn is contaminated if it shares `overlap` units in a row with a question (Brown et al., "Language Models are
Few-Shot Learners", 2020, appendix C), or if it is, unit by unit, a whole question shorter than that. Units are those of
text/ngrams.py; a question with a Han character is Mandarin. A turn is held against the questions of both languages,
whatever its own. Questions below SHORTEST are passed over: they are what anybody says.

Memory: 12 bytes for each n-gram of the questions and 16 to 32 for a table that tells most turns at once that they share
none; a question of 40 words is about 1.2 kB.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.dialogue import Language
from pipeline.errors import ConfigError
from pipeline.text.ngrams import Hashes, UnitHasher, Units, has_han, ngrams, split_units

FIELDS = ("question", "prompt", "instruction", "text", "query")
"""Where a row of .jsonl or .csv may hold its question: the first of these that has text."""
SHORTEST: Mapping[Language, int] = {"en": 4, "zh": 5}

_CHUNK = 2048


@dataclass(frozen=True)
class Overlap:
    """What a turn shares: units `start` to `end` (exclusive) of turn `turn`, with row `row` (from 1) of a file."""

    turn: int
    start: int
    end: int
    file: Path
    row: int


class Benchmarks:
    """The n-grams of all questions in `files`, as 64-bit hashes.

    Raises ConfigError naming dedup.benchmarks and a file that is missing, not readable, or holds no question.
    """

    def __init__(self, files: Sequence[Path], overlap: Mapping[Language, int]):
        self._files = tuple(files)
        self._ends: list[int] = []  # number of questions up to the end of each file
        parts: dict[Language, list[tuple[Hashes, NDArray[np.uint32]]]] = {"en": [], "zh": []}
        hasher, count = UnitHasher(), 0
        for path in files:
            questions = _read(path)
            kept = 0
            while chunk := list(islice(questions, _CHUNK)):
                for language in parts:
                    rows = [row for row, text in enumerate(chunk) if ("zh" if has_han(text) else "en") == language]
                    split = [split_units(chunk[row]) for row in rows]
                    split = [units if len(units) >= SHORTEST[language] else [] for units in split]
                    found = ngrams(hasher.hash(split), overlap[language])
                    owners = np.repeat(np.array(rows, np.uint32) + np.uint32(count), np.diff(found.starts))
                    parts[language].append((found.hashes, owners))
                    kept += len(owners)
                count += len(chunk)
            if not kept:
                raise _refuse(
                    path, f"holds no question of at least {SHORTEST['en']} words or {SHORTEST['zh']} Han characters"
                )
            self._ends.append(count)
        self._tables = [
            _Table(overlap[language], found)
            for language, found in parts.items()
            if any(len(hashes) for hashes, _ in found)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes that the n-grams take."""
        return sum(table.nbytes for table in self._tables)

    def find(self, turns: Units, counts: Sequence[int]) -> dict[int, Overlap]:
        """The first overlap of each contaminated dialogue, by its number in the batch (turn by turn, then by place).

        turns: the units of all turns; counts: how many turns each dialogue has.
        """
        found: dict[int, Overlap] = {}
        ends = np.cumsum(counts)
        for table in self._tables:
            grams, hits = table.find(turns)
            for place, question in hits:
                turn = int(np.searchsorted(grams.starts, place, "right")) - 1
                dialogue = int(np.searchsorted(ends, turn, "right"))
                start = place - int(grams.starts[turn])
                length = int(turns.starts[turn + 1] - turns.starts[turn])
                file = bisect_right(self._ends, question)
                overlap = Overlap(
                    turn=turn - (int(ends[dialogue - 1]) if dialogue else 0),
                    start=start,
                    end=start + min(table.width, length),
                    file=self._files[file],
                    row=question + 1 - (self._ends[file - 1] if file else 0),
                )
                known = found.get(dialogue)
                if known is None or (overlap.turn, overlap.start) < (known.turn, known.start):
                    found[dialogue] = overlap
        return found


class _Table:
    """The n-grams of the questions of one language; each belongs to the first question that has it."""

    def __init__(self, width: int, parts: Sequence[tuple[Hashes, NDArray[np.uint32]]]):
        self.width = width
        hashes = np.concatenate([item for item, _ in parts])
        self._hashes, first = np.unique(hashes, return_index=True)
        self._owners = np.concatenate([owners for _, owners in parts])[first]
        bits = max(10, (16 * len(self._hashes) - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._seen = np.zeros(1 << bits, np.bool_)
        self._seen[self._hashes >> self._shift] = True

    @property
    def nbytes(self) -> int:
        return self._hashes.nbytes + self._owners.nbytes + self._seen.nbytes

    def find(self, turns: Units) -> tuple[Units, list[tuple[int, int]]]:
        """The n-grams of the turns; the places among them that a question has too, and which question."""
        grams = ngrams(turns, self.width)
        places = np.flatnonzero(self._seen[grams.hashes >> self._shift])
        at = np.minimum(np.searchsorted(self._hashes, grams.hashes[places]), len(self._hashes) - 1)
        same = self._hashes[at] == grams.hashes[places]
        return grams, list(zip(places[same].tolist(), self._owners[at[same]].tolist(), strict=True))


def _read(path: Path) -> Iterator[str]:
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise _refuse(path, "its name must end in .txt (a question a line), .jsonl or .csv")
    try:
        yield from readers[path.suffix.lower()](path)
    except FileNotFoundError:
        raise _refuse(path, "there is no such file") from None
    except (OSError, UnicodeDecodeError, RecursionError, csv.Error) as error:
        raise _refuse(path, f"not readable: {error}") from None


def _read_txt(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        yield from file


def _read_jsonl(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {FIELDS[0]: " "}
            except json.JSONDecodeError as error:
                raise _refuse(path, f"line {number} is not JSON: {error.msg}") from None
            yield _question(row, path, number)


def _read_csv(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            yield _question(row, path, number)


def _question(row: object, path: Path, number: int) -> str:
    if isinstance(row, dict):
        for name in FIELDS:
            if isinstance(row.get(name), str) and row[name]:
                return row[name]
    raise _refuse(path, f"row {number} has no text in any of the fields {', '.join(FIELDS)}")


def _refuse(path: Path, why: str) -> ConfigError:
    return ConfigError(f"dedup.benchmarks: {path}: {why}; mend the file or take it out of the list")
