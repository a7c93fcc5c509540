"""repair: what is tried next for a turn that failed, given what was tried. Pure: the same takes lead to the same next.

A turn goes up the ladder of `repair.ladder`, each rung once (again: once for each speed), past those that cannot help
with what went wrong and those that would ask for what was asked before. Three rungs are not a turn's own business and
are handed to the caller by name: voice and engine, which concern all turns of a speaker, and rephrase, which asks an
LLM.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.backends.tts.sentences import Piece, clauses
from pipeline.config import RepairConfig
from pipeline.dialogue import Language, Repair
from pipeline.listening_sections import Rung
from pipeline.text.verbalize import verbalize
from pipeline.text.words import count_units
from pipeline.voice import Voice

VERSION = 1
SLOW = 0.8
"""Of the pace of the first take."""
SHORTEST = 3
"""Words (en) or characters (zh) of a clause that is spoken by itself: engines say single words badly."""
SEAM = 0.05
"""Seconds of silence between two words that were spoken apart."""

Shared = Literal["voice", "engine", "rephrase"]
SHARED: frozenset[str] = frozenset(("voice", "engine", "rephrase"))

_SOUND = frozenset(("again", "slow"))
# Why there is no clip, and what does nothing about it: the same text, or the same engine, gives the same answer.
_VAIN: dict[str, frozenset[str]] = {
    "symbols": _SOUND | {"split", "voice"},
    "too_long": _SOUND | {"spell", "voice"},
    "voice": _SOUND | {"spell", "split", "rephrase"},
    "empty": _SOUND | {"spell", "split", "voice", "engine"},
}

_ACRONYM = re.compile(r"(?<![A-Za-z'’])([A-Z]{2,6})(s?)(?![A-Za-z])")
# Words that are set in capitals to stress them.
_STRESSED_WORDS = """
A ALL ALWAYS AM AN AND ANY ARE AS AT BAD BE BEST BIG BUT BY CAN DID DO EVER FOR FROM GO GOOD GREAT HAS HAVE HE
HER HERE HIM HIS HOW IF IN IS IT JUST LESS LIKE LOT LOVE ME MORE MOST MUST MY NEED NEVER NEW NO NONE NOT NOW
OF OFF OLD ON ONE ONLY OR OUR OUT OVER REAL REALLY SHE SO SOME STILL STOP SURE THAT THE THEM THEN THERE THEY
THIS TO TOO UP US VERY WAIT WANT WAS WE WELL WERE WHAT WHEN WHERE WHO WHY WILL WITH WOW YES YOU YOUR
"""
_STRESSED = frozenset(_STRESSED_WORDS.split())
_MARKS: dict[Language, str] = {"en": ".,!?;:'’", "zh": "，。！？；：、.,!?'’"}
_HAN = "\u4e00-\u9fff"


@dataclass(frozen=True)
class Attempt:
    """How a turn is spoken once. rung: what led to it, "" for the first time. text: what is said; said: the text of the
    turn that it stands for. pieces: of `text`, to be spoken one by one and joined; none if it is spoken at once."""

    rung: Repair
    said: str
    text: str
    voice: Voice
    speed: float
    pieces: tuple[Piece, ...] = ()

    @property
    def asked(self) -> str:
        """What the engine is asked to say; a bar where it is cut."""
        return " | ".join(piece.text for piece in self.pieces) or self.text

    def same(self, other: Attempt) -> bool:
        """Whether an engine without chance would give the same clip."""
        return replace(self, rung="", said="") == replace(other, rung="", said="")


@dataclass(frozen=True)
class Tried:
    """An attempt, and why it failed: the gate that it broke or the fault of `Unsaid`, "" if it passed."""

    attempt: Attempt
    reason: str


class Ladder:
    """speeds: `tts.speeds`. chance: whether the engine of this name gives another take for another seed."""

    def __init__(self, config: RepairConfig, speeds: Sequence[float], chance: Callable[[str], bool]):
        self._config = config
        self._speeds = tuple(speeds)
        self._chance = chance

    def plain(self, text: str, voice: Voice, rung: Repair = "") -> Attempt:
        """The text as it is, at the first speed."""
        return Attempt(rung, text, text, voice, self._speeds[0])

    def next(
        self, text: str, language: Language, voice: Voice, tried: Sequence[Tried], over: Collection[str]
    ) -> Attempt | Shared | None:
        """What is tried next for a turn of this text by this voice, after all that was tried of it; None at the end.

        tried: the last one of this text and voice says what is wrong; where there is none, the text is a new one. over:
        shared rungs that were taken, or have nothing to give.
        """
        if len(tried) >= self._config.takes:
            return None
        ours = [item for item in tried if item.attempt.voice == voice and item.attempt.said == text]
        if not ours:
            return self.plain(text, voice, "rephrase")
        vain = _VAIN.get(ours[-1].reason, frozenset())
        base = self.plain(text, voice)
        if any(item.reason == "symbols" and item.attempt.text == text for item in tried):
            base = replace(base, text=spell_out(text, language))  # whatever comes: as it is, it cannot be said
        for rung in self._config.ladder:
            if rung in vain:
                continue
            if rung not in SHARED:
                attempt = self._own(rung, base, language, tried)
                if attempt is not None:
                    return attempt
            elif rung not in over:
                return rung  # type: ignore[return-value]  # the three names of Shared
        return None

    def _own(self, rung: Rung, base: Attempt, language: Language, tried: Sequence[Tried]) -> Attempt | None:
        """The next attempt of a rung, None where it has none that is new."""
        taken = sum(item.attempt.rung == rung for item in tried)
        chance = self._chance(base.voice.engine)
        for attempt in self._variants(rung, base, language)[taken:]:
            if chance or not any(attempt.same(item.attempt) for item in tried):
                return attempt
        return None

    def _variants(self, rung: Rung, base: Attempt, language: Language) -> list[Attempt]:
        base = replace(base, rung=rung)
        if rung == "again":
            speeds = self._speeds[1:]
            # Where a new seed is a new take the speed stays.
            return [base if self._chance(base.voice.engine) else replace(base, speed=speed) for speed in speeds]
        if rung == "slow":
            return [replace(base, speed=round(SLOW * base.speed, 3))]
        if rung == "spell":
            text = spell_out(base.said, language)
            return [replace(base, text=text)] if text != base.said and text else []
        pieces = cut(base.text, language)
        return [replace(base, pieces=pieces)] if pieces else []


def spell_out(text: str, language: Language) -> str:
    """`text` with all in words that a reader may stumble over: acronyms letter by letter (NASA as N A S A), figures and
    abbreviations in words, hyphens and signs out."""
    text = verbalize(text, language)
    if any(map(str.islower, text)) or language == "zh":  # where all is in capitals, they mark no acronym
        text = _ACRONYM.sub(_letters, text)
    kept = [char if char.isalnum() or char in _MARKS[language] else " " for char in text]
    text = " ".join("".join(kept).split())
    text = re.sub(r"\s+(?=[.,!?;:，。！？；：、])", "", text)
    return re.sub(rf"(?<=[{_HAN}，。！？；：、]) (?=[{_HAN}])", "", text)


def _letters(match: re.Match[str]) -> str:
    if match[1] in _STRESSED:
        return match[0]
    return " ".join(match[1]) + ("'s" if match[2] else "")


def cut(text: str, language: Language) -> tuple[Piece, ...]:
    """`text` clause by clause, none of them shorter than SHORTEST; without a stop inside, in two near its middle, at
    the edge of a word. Nothing where it is too short for that."""
    pieces = _merged(clauses(text), language)
    if len(pieces) == 1:
        pieces = _halves(text, language)
    return tuple(pieces) if len(pieces) > 1 else ()


def _merged(pieces: Sequence[Piece], language: Language) -> list[Piece]:
    """A short clause goes with the one after it, the last one with the one before it."""
    space = " " if language == "en" else ""
    merged: list[Piece] = []
    for piece in pieces:
        short = merged and count_units(merged[-1].text, language) < SHORTEST
        last = merged and piece is pieces[-1] and count_units(piece.text, language) < SHORTEST
        if short or last:
            merged[-1] = Piece(f"{merged[-1].text}{space}{piece.text}", piece.pause)
        else:
            merged.append(piece)
    return merged


def _halves(text: str, language: Language) -> list[Piece]:
    words = re.findall(r"\S+\s*", text) if language == "en" else _words_zh(text)
    places = [sum(map(len, words[:count])) for count in range(1, len(words))]
    fit = [
        place
        for place in places
        if min(count_units(text[:place], language), count_units(text[place:], language)) >= SHORTEST
    ]
    if not fit:
        return [Piece(text, 0.0)]
    middle = min(fit, key=lambda place: abs(2 * place - len(text)))
    return [Piece(text[:middle].strip(), SEAM), Piece(text[middle:].strip(), 0.0)]


def _words_zh(text: str) -> list[str]:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return list(jieba.cut(text, HMM=False))
