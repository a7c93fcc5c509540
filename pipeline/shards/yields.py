"""Whose turns pass, and how surely: yields by language, voice and engine."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pipeline.dialogue import Record
from pipeline.shards.tally import LengthSum

WORST = 10  # voices that are named
FEW = 5  # turns below which nothing is said of a voice


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


def of_language(name: str, dialogues: int, accepted: int, lengths: Iterable[LengthSum]) -> Yield:
    own = [item for item in lengths if item.language == name]
    turns, first, passed = (sum(getattr(item, field) for item in own) for field in ("turns", "first", "passed"))
    return Yield(name=name, dialogues=dialogues, accepted=accepted, turns=turns, first=first, passed=passed)
