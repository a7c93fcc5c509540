"""What the takes of a unit add up to: what each repair saved and cost, and which turns pass, by length and reason."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from pipeline.dialogue import Language, Record, Reject, Repair, Sample, Take

BUCKETS = (5, 10, 20, 40)
"""Longest turn of each bucket of lengths, in Latin words and Han characters; the last bucket has no end."""

_TOKEN = re.compile(r"[㐀-鿿]|[^\W_㐀-鿿]+(?:['’.-][^\W_㐀-鿿]+)*")
_WHOLE_SPEAKER = ("voice", "engine")


class RepairSum(Record):
    """What a rung of the ladder did. turns: that it was tried on; saved: of those, whose kept take passed and came from
    it (voice and engine count the speaker of a dialogue once); takes, seconds: spoken for it, whatever came of them."""

    rung: Repair
    turns: int
    saved: int
    takes: int
    seconds: float


class LengthSum(Record):
    """Turns that were spoken, by length (`bucket`: words and characters, as "6-10"). first: that passed at their first
    take; passed: in the end."""

    language: Language
    bucket: str
    turns: int
    first: int
    passed: int


class RefusalSum(Record):
    """Turns whose first take was refused for `reason`, and how many of them were saved by a later one."""

    reason: str
    turns: int
    saved: int


@dataclass(frozen=True)
class SpokenTurn:
    """A turn that was spoken at least once. turn: 0-based, the user's are even. kept: the take that stands if it
    passed, else None."""

    language: Language
    turn: int
    spoken: str
    takes: tuple[Take, ...]
    kept: Take | None

    @property
    def first(self) -> bool:
        """Whether it passed at its first take."""
        return not self.takes[0].reason


@dataclass(frozen=True)
class Tally:
    """Sums over the spoken turns of a unit, each in a fixed order."""

    repairs: tuple[RepairSum, ...]
    lengths: tuple[LengthSum, ...]
    refusals: tuple[RefusalSum, ...]


def spoken_turns(dialogue: Sample | Reject) -> Iterator[SpokenTurn]:
    """The turns of a dialogue that were spoken, in order."""
    if isinstance(dialogue, Sample):
        for number, turn in enumerate(dialogue.turns):
            if turn.takes:
                kept = next((take for take in turn.takes if take.take == turn.take and not take.reason), None)
                yield SpokenTurn(dialogue.language, number, turn.spoken, turn.takes, kept)
    else:
        spoken = [item for item in dialogue.turns if item.takes]
        voices = {speaker: _voice([item.takes for item in spoken if item.turn % 2 == speaker]) for speaker in (0, 1)}
        for item in spoken:
            passed = (take for take in item.takes if take.voice == voices[item.turn % 2] and not take.reason)
            yield SpokenTurn(dialogue.language, item.turn, item.spoken, item.takes, next(passed, None))


def _voice(turns: Sequence[tuple[Take, ...]]) -> str:
    """Which voice a speaker of a rejected dialogue ended with: the one in which most turns pass; the last of those."""
    passing = {take.voice: 0 for takes in turns for take in takes}
    for takes in turns:
        for voice in {take.voice for take in takes if not take.reason}:
            passing[voice] += 1
    return max(reversed(passing), key=passing.__getitem__, default="")


def tally(dialogues: Sequence[Sample | Reject]) -> Tally:
    """Accepted and rejected dialogues alike: a turn that was saved is saved, whatever its neighbours did."""
    repairs: dict[Repair, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    lengths: dict[tuple[Language, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    refusals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for dialogue in dialogues:
        turns = list(spoken_turns(dialogue))
        for turn in turns:
            length = lengths[turn.language, bucket(turn.spoken)]
            for place, counts in enumerate((True, turn.first, turn.kept is not None)):
                length[place] += counts
            if not turn.first:
                refused = refusals[turn.takes[0].reason]
                refused[0] += 1
                refused[1] += turn.kept is not None
            for take in turn.takes:
                if take.repair:
                    repairs[take.repair][2] += 1
                    repairs[take.repair][3] += take.seconds
        for rung, saved in _tried(turns):
            repairs[rung][0] += 1
            repairs[rung][1] += saved
    order = get_args(Repair)
    return Tally(
        tuple(
            RepairSum(rung=rung, turns=int(turns), saved=int(saved), takes=int(takes), seconds=round(seconds, 3))
            for rung, (turns, saved, takes, seconds) in sorted(repairs.items(), key=lambda item: order.index(item[0]))
        ),
        tuple(
            LengthSum(language=language, bucket=bucket_name(place), turns=turns, first=first, passed=passed)
            for (language, place), (turns, first, passed) in sorted(lengths.items())
        ),
        tuple(
            RefusalSum(reason=reason, turns=turns, saved=saved) for reason, (turns, saved) in sorted(refusals.items())
        ),
    )


def _tried(turns: Sequence[SpokenTurn]) -> Iterator[tuple[Repair, bool]]:
    """Each rung that a turn of a dialogue (or, for another voice, a speaker of it) was tried on, and if it saved it."""
    used = {take.repair for turn in turns for take in turn.takes}
    for rung in (name for name in get_args(Repair)[1:] if name in used):
        tried = [turn for turn in turns if any(take.repair == rung for take in turn.takes)]
        if rung not in _WHOLE_SPEAKER:
            for turn in tried:
                yield rung, turn.kept is not None and turn.kept.repair == rung
            continue
        for speaker in sorted({turn.turn % 2 for turn in tried}):
            own = [turn.kept for turn in turns if turn.turn % 2 == speaker]
            yield rung, all(own) and any(kept is not None and kept.repair == rung for kept in own)


def bucket(text: str) -> int:
    """Which bucket of lengths a text falls in: Latin words and figures, and Han characters, count one each."""
    count = len(_TOKEN.findall(text))
    return next((place for place, longest in enumerate(BUCKETS) if count <= longest), len(BUCKETS))


def bucket_name(place: int) -> str:
    first = BUCKETS[place - 1] + 1 if place else 1
    return f"{first}-{BUCKETS[place]}" if place < len(BUCKETS) else f"{first}+"


def bucket_order(name: str) -> int:
    """To sort buckets by length."""
    return int(name.partition("-")[0].rstrip("+"))
