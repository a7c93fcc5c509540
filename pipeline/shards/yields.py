"""Whose turns pass, and how surely: yields by language, voice and engine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pipeline.dialogue import Record
from pipeline.shards.format import ROLES
from pipeline.shards.reader import read_reject_list
from pipeline.shards.store import Manifest, RunFolder
from pipeline.shards.tally import LengthSum, spoken_turns

WORST = 10  # voices that are named
FEW = 5  # turns below which nothing is said of a voice
FIRST = ("first_voice", "first_engine", "turns", "first_passed")
"""Columns of the index about the first takes of a role, without the role."""

_R = TypeVar("_R", bound=Record)


class Yield(Record):
    """What came of the dialogues of a language, a voice or an engine (by who spoke the first takes).

    dialogues: that were planned, or of a voice or engine, spoken; accepted: of those. turns: that were spoken; first:
    that passed at their first take; passed: in the end. Where nothing is gated every take passes.
    """

    name: str
    dialogues: int
    accepted: int
    turns: int
    first: int
    passed: int


class VoiceYield(Yield):
    """low, high: 95 % interval of the share of turns that pass at their first take."""

    low: float
    high: float


def add_up(sums: dict[tuple[Any, ...], _R], items: Iterable[_R], by: Sequence[str]) -> None:
    """Add the numbers of records to those of the record that has the same values in the fields `by`."""
    for item in items:
        key = tuple(getattr(item, name) for name in by)
        old = sums.get(key)
        numbers = [name for name in type(item).model_fields if name not in by]
        update = {name: getattr(old, name) + getattr(item, name) for name in numbers} if old else {}
        sums[key] = item.model_copy(update=update)


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share of which `hits` of `trials` are known (95 % at z = 1.96): Wilson 1927, "Probable Inference,
    the Law of Succession, and Statistical Inference"."""
    share = hits / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)


def worst(voices: Iterable[Yield]) -> list[VoiceYield]:
    """Those of which it is surest that few turns pass at their first take: lowest upper bound first."""
    bounded = []
    for item in voices:
        if item.turns >= FEW and item.first < item.turns:
            low, high = (round(bound, 6) for bound in wilson(item.first, item.turns))
            bounded.append(VoiceYield(**item.model_dump(), low=low, high=high))
    return sorted(bounded, key=lambda item: (item.high, item.name))[:WORST]


class FirstTakes:
    """Adds up by voice and by engine: dialogues, accepted, turns, first, passed. A dialogue counts once for a voice or
    an engine that speaks both roles of it."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 5)

    def add(self, folder: RunFolder, manifest: Manifest, index: dict[str, list[Any]]) -> None:
        for row in range(manifest.accepted):
            roles = [[index[f"{role}_{field}"][row] for field in FIRST] for role in ROLES]
            self._dialogue(True, [(voice, engine, (turns, first, turns)) for voice, engine, turns, first in roles])
        for reject in read_reject_list(folder, manifest):
            turns = [(turn.takes[0], (1, turn.first, turn.kept is not None)) for turn in spoken_turns(reject)]
            self._dialogue(False, [(take.voice, take.engine, counts) for take, counts in turns])

    def _dialogue(self, accepted: bool, parts: Sequence[tuple[str, str, tuple[int, int, int]]]) -> None:
        for voice, engine, counts in parts:
            for name in (("voice", voice), ("engine", engine)):
                for place, count in enumerate(counts, 2):
                    self._sums[name][place] += count
        for name in {name for voice, engine, _ in parts for name in (("voice", voice), ("engine", engine))}:
            self._sums[name][0] += 1
            self._sums[name][1] += accepted

    def yields(self, kind: str) -> Iterable[Yield]:
        for (what, name), (dialogues, accepted, turns, first, passed) in sorted(self._sums.items()):
            if what == kind and name:
                yield Yield(name=name, dialogues=dialogues, accepted=accepted, turns=turns, first=first, passed=passed)


def of_language(name: str, dialogues: int, accepted: int, lengths: Iterable[LengthSum]) -> Yield:
    own = [item for item in lengths if item.language == name]
    turns, first, passed = (sum(getattr(item, field) for item in own) for field in ("turns", "first", "passed"))
    return Yield(name=name, dialogues=dialogues, accepted=accepted, turns=turns, first=first, passed=passed)
