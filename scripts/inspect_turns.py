"""The turns of a dialogue as inspect_samples.py shows them: what was said against what was heard, take by take."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from inspect_entries import Entry

from pipeline.dialogue import Author, Language, RejectedTurn, Role, SampleTurn, Score, Take, Turn, Word, fluent
from pipeline.text.rates import MAIN_METRIC, alignment

ALIKE = 0.5  # of two words, above which it is shown what differs inside them
RUNGS = {
    "": "first take",
    "again": "again",
    "slow": "slower",
    "spell": "spelled out",
    "split": "clause by clause",
    "voice": "another voice",
    "engine": "another engine",
    "rephrase": "in other words",
}

Part = tuple[bool, str]
"""Letters of a word, and whether the other word has them too."""


@dataclass(frozen=True)
class Mark:
    """A word (a character in Mandarin) of the text, of the transcript, or of both. same: they agree. said, heard: each
    in parts; () where the word is not there."""

    same: bool
    said: tuple[Part, ...]
    heard: tuple[Part, ...]

    @property
    def said_text(self) -> str:
        return "".join(text for _, text in self.said)

    @property
    def heard_text(self) -> str:
        return "".join(text for _, text in self.heard)


@dataclass(frozen=True)
class Attempt:
    """A take. marks: [] where it was heard as it should be, or nothing was heard. flac: of its clip, b"" where that is
    part of the tracks, or was not kept."""

    take: Take
    kept: bool
    marks: tuple[Mark, ...]
    flac: bytes

    @property
    def how(self) -> str:
        take = self.take
        return f"{RUNGS[take.repair]}, {take.voice} ({take.engine}) at speed {take.speed:g}"


@dataclass(frozen=True)
class TurnView:
    """A turn, spoken or not. span: seconds on the timeline, None where there is none. error_rate: None where nothing
    was heard. failed: the take that stands was refused."""

    number: int
    role: Role
    author: Author
    written: str
    spoken: str
    labels: str
    voice: str = ""
    span: tuple[float, float] | None = None
    transcript: str = ""
    metric: str = ""
    error_rate: float | None = None
    failed: bool = False
    scores: tuple[Score, ...] = ()
    words: tuple[Word, ...] = ()
    marks: tuple[Mark, ...] = ()
    attempts: tuple[Attempt, ...] = ()


def views(entry: Entry) -> list[TurnView]:
    """The turns of a dialogue as far as it came: heard, refused unheard, or only written."""
    language = entry.line.plan.language
    if entry.sample:
        return [_heard(entry, number, turn) for number, turn in enumerate(entry.sample.turns)]
    refused = {item.turn: item for item in entry.reject.turns} if entry.reject else {}
    turns = entry.line.dialogue.turns if entry.line.dialogue else ()
    return [
        _refused(entry, _written(number, turn), refused[number], language)
        if number in refused
        else _written(number, turn)
        for number, turn in enumerate(turns)
    ]


def labels(turn: SampleTurn | Turn) -> str:
    """Emotion, style and disfluencies of a turn."""
    return ", ".join(filter(None, (turn.emotion, turn.style, *(item.kind for item in turn.disfluencies))))


def marks(spoken: str, transcript: str, language: Language) -> tuple[Mark, ...]:
    """Text against transcript, word by word (character by character in Mandarin), normalised; () if they say the
    same."""
    found = [mark for piece in alignment(spoken, transcript, language) for mark in _marks(*piece, language)]
    return () if all(mark.same for mark in found) else tuple(found)


def _marks(op: str, said: str, heard: str, language: Language) -> Iterator[Mark]:
    if op == "equal":
        yield Mark(True, ((True, said),), ((True, heard),))
        return
    left, right = (text.split() if language == "en" else list(text) for text in (said, heard))
    for place in range(max(len(left), len(right))):
        yield _pair(left[place] if place < len(left) else "", right[place] if place < len(right) else "")


def _pair(said: str, heard: str) -> Mark:
    """One word for another: what they have in common is no difference, if it is enough to be heard."""
    matcher = difflib.SequenceMatcher(None, said, heard, autojunk=False)
    if not (said and heard) or matcher.ratio() <= ALIKE:
        return Mark(False, ((False, said),) if said else (), ((False, heard),) if heard else ())
    codes = matcher.get_opcodes()
    left = tuple((op == "equal", said[begin:end]) for op, begin, end, _, _ in codes if end > begin)
    right = tuple((op == "equal", heard[begin:end]) for op, _, _, begin, end in codes if end > begin)
    return Mark(False, left, right)


def _written(number: int, turn: Turn) -> TurnView:
    return TurnView(number, turn.role, turn.author, turn.written, turn.spoken, labels(turn))


def _heard(entry: Entry, number: int, turn: SampleTurn) -> TurnView:
    language = entry.line.plan.language
    return TurnView(
        number,
        turn.role,
        turn.author,
        turn.written,
        turn.spoken,
        labels(turn),
        voice=turn.voice,
        span=(turn.start, turn.end),
        transcript=turn.transcript,
        metric=turn.metric,
        error_rate=turn.error_rate,
        failed=any(take.reason for take in turn.takes if take.take == turn.take),
        scores=turn.scores,
        words=turn.words,
        marks=_nearest(_texts(turn), turn.transcript, language),
        attempts=_attempts(entry, number, turn, turn.take),
    )


def _refused(entry: Entry, view: TurnView, turn: RejectedTurn, language: Language) -> TurnView:
    metric = MAIN_METRIC[language]
    rates = [score.value for score in turn.scores if score.name == metric]
    return replace(
        view,
        spoken=turn.spoken,
        voice=turn.takes[-1].voice if turn.takes else "",
        transcript=turn.transcript,
        metric=metric,
        error_rate=rates[0] if rates else None,
        failed=bool(turn.takes) and all(take.reason for take in turn.takes),
        scores=turn.scores,
        marks=_nearest(_texts(turn), turn.transcript, language) if rates else (),
        attempts=_attempts(entry, view.number, turn, -1),
    )


def _attempts(entry: Entry, number: int, turn: SampleTurn | RejectedTurn, kept: int) -> tuple[Attempt, ...]:
    clips = {clip.take: clip.flac for clip in entry.takes if clip.turn == number}
    language = entry.line.plan.language
    return tuple(
        Attempt(take, take.take == kept, _tried(_texts(turn), take, language), clips.get(take.take, b""))
        for take in turn.takes
    )


def _tried(texts: list[str], take: Take, language: Language) -> tuple[Mark, ...]:
    """Also against what the engine was asked to say: it may have had other words at that time."""
    more = [take.text.replace(" | ", " ")] if take.text else []
    return _nearest([*texts, *more], take.transcript, language) if take.seconds else ()


def _texts(turn: SampleTurn | RejectedTurn) -> list[str]:
    """What a right transcript may be: with the stumbles of the turn, or without."""
    return list(dict.fromkeys((turn.spoken, fluent(turn.spoken, turn.disfluencies))))


def _nearest(texts: list[str], transcript: str, language: Language) -> tuple[Mark, ...]:
    found = [marks(text, transcript, language) for text in texts]
    return min(found, key=lambda item: sum(not mark.same for mark in item))
