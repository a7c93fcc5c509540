"""Long turns: cut where a speaker would stop for breath, spoken piece by piece, joined with pauses.

An engine that reads a long text badly, or cannot read it at all, says

    pieces = split(text, size, comfortable=200, limit=510)
    audio = join([speak(piece.text) for piece in pieces], [piece.pause for piece in pieces], rate)

where `size` counts what the engine counts: characters, phonemes, tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

QUIET = 10 ** (-50 / 20)
"""Amplitude under which the ends of a piece are silence (-50 dBFS)."""
MARGIN = 0.03
"""Seconds of a piece's own silence that stay at a seam, so that no soft onset is cut."""

_HAN = "\u4e00-\u9fff"
_CLOSING = "\"'”’」』》）)】"
# A full stop ends no sentence after an initial or a title, and none ends before a small letter.
_NO_TITLE = r"(?<!\b[A-Z]\.)(?<!\b(?:Mr|Ms|Dr|St|vs)\.)(?<!\bMrs\.)(?<!\bProf\.)"


@dataclass(frozen=True)
class _Cut:
    """A kind of place where a text may be cut: where its group is, which may be empty or hold spaces.

    pause: seconds that a speaker is silent there; about what Kokoro itself makes of such places.
    """

    pattern: re.Pattern[str]
    pause: float


_AT_SENTENCES = _Cut(
    re.compile(
        rf"(?<=[。！？])[{_CLOSING}]*(?![{_CLOSING}。！？…])(\s*)|(?<=[.!?]){_NO_TITLE}[{_CLOSING}]*(\s+)(?![a-z])"
    ),
    0.3,
)
# Best first: after a clause, between words, between Han characters.
_INSIDE = (
    _Cut(re.compile(r"(?<=[，、；：—…])(?![—…])(\s*)|(?<=[,;:])(\s+)"), 0.15),
    _Cut(re.compile(r"(\s+)"), 0.05),
    _Cut(re.compile(f"(?<=[{_HAN}])()(?=[{_HAN}])"), 0.05),
)


@dataclass(frozen=True)
class Piece:
    """A part of a text to be spoken by itself. pause: seconds of silence after it, at speed 1; 0 after the last."""

    text: str
    pause: float


class Uncuttable(ValueError):
    """A piece has no place to be cut and is longer than an engine can say."""


def split(text: str, size: Callable[[str], int], comfortable: int, limit: int) -> list[Piece]:
    """`text` in pieces. It is halved, and halved again, at the place of the best kind that is nearest to the middle:
    at sentences while a piece is over `comfortable`, inside a sentence only while it is over `limit`.

    Nothing is lost but the spaces at the cuts, and every piece has a letter or digit. Raises Uncuttable.
    """
    length = size(text)
    cuts = () if length <= comfortable else (_AT_SENTENCES,) if length <= limit else (_AT_SENTENCES, *_INSIDE)
    for kind in cuts:
        if places := list(_places(text, kind.pattern)):
            first, last = min(places, key=lambda place: abs(place[0] + place[1] - len(text)))
            left, right = (split(half, size, comfortable, limit) for half in (text[:first], text[last:]))
            return [*left[:-1], replace(left[-1], pause=kind.pause), *right]
    if length > limit:
        raise Uncuttable(text)
    return [Piece(text, 0.0)]


def clauses(text: str) -> list[Piece]:
    """`text` cut at every end of a sentence or clause inside it: one piece where there is none."""
    for kind in (_AT_SENTENCES, _INSIDE[0]):
        for first, last in _places(text, kind.pattern):
            left, right = clauses(text[:first]), clauses(text[last:])
            return [*left[:-1], replace(left[-1], pause=kind.pause), *right]
    return [Piece(text, 0.0)]


def _places(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where the left half ends and where the right one begins; each has something to say."""
    for found in pattern.finditer(text):
        first, last = found.span(found.lastindex or 0)
        if any(map(str.isalnum, text[:first])) and any(map(str.isalnum, text[last:])):
            yield first, last


def join(clips: Sequence[np.ndarray], pauses: Sequence[float], rate: int) -> np.ndarray:
    """The clips (float32 [samples], at `rate` Hz) one after another; pauses[i]: seconds of silence after clip i.

    A pause stands in the place of the silence that the clips bring to their seam. The start of the first clip and the
    end of the last one, whose pause is not used, stay as they are.
    """
    parts: list[np.ndarray] = []
    owed = 0  # samples of the pause before this clip that are still to come
    for place, clip in enumerate(clips):
        start, end = _sound(clip)
        first = max(0, start - round(MARGIN * rate)) if place else 0
        last = min(len(clip), end + round(MARGIN * rate)) if place < len(clips) - 1 else len(clip)
        parts += [np.zeros(max(0, owed - (start - first)), np.float32), clip[first:last]]
        owed = round(pauses[place] * rate) - (last - end)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _sound(clip: np.ndarray) -> tuple[int, int]:
    """Where what is louder than QUIET starts and ends, in samples."""
    loud = np.flatnonzero(np.abs(clip) > QUIET)
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (len(clip), len(clip))
