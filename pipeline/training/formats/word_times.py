"""When each word of a turn is said: the words of its text, at the times of those that the recogniser heard."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.dialogue import SampleTurn, Word

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[^\w\s]*[{_HAN}][^\w\s]*|[^\s{_HAN}]+")
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_LEAST = 0.01
"""Seconds: a word of no duration would be dropped by its reader."""
_SHORT = 0.3
"""Seconds: what is shorter leaves its reader no room for its tokens, one in 80 ms and the first of them a space."""


@dataclass(frozen=True)
class _Letter:
    """A letter or digit; word: which one of the text it belongs to, from 0."""

    text: str
    word: int


def split_words(text: str) -> list[str]:
    """What stands between spaces, and each Han character by itself, with the punctuation that follows."""
    words: list[str] = []
    for match in _WORD.finditer(text):
        if words and not _has_letter(match[0]):
            words[-1] += f" {match[0]}"  # a dash between spaces
        else:
            words.append(match[0])
    return words


def time_words(turn: SampleTurn, heard: bool = True) -> list[Word]:
    """The words of what was said, in order, at seconds on the timeline of the sample; Han characters are joined while
    they are shorter than 0.3 s and nothing, no pause and no punctuation, is between them.

    heard: letters that the recogniser heard too have its times (evenly spaced within a word of it), the others share
    what lies between evenly. If not, all letters share the turn evenly.
    """
    words = split_words(turn.spoken)
    letters = [
        _Letter(character.casefold(), number)
        for number, word in enumerate(words)
        for character in word
        if character.isalnum()
    ]
    times = _letter_times([letter.text for letter in letters], turn, turn.words if heard else ())
    spans: dict[int, tuple[float, float]] = {}
    for letter, (start, end) in zip(letters, times, strict=True):
        spans[letter.word] = (spans.get(letter.word, (start, end))[0], end)
    return [
        word.model_copy(update={"start": round(word.start, 3), "end": round(max(word.end, word.start + _LEAST), 3)})
        for word in _join(Word(text=words[number], start=start, end=end) for number, (start, end) in spans.items())
    ]


def _join(words: Iterable[Word]) -> Iterator[Word]:
    last: Word | None = None
    for word in words:
        if last and last.end - last.start < _SHORT and word.start - last.end < _SHORT and _run_on(last.text, word.text):
            last = Word(text=last.text + word.text, start=last.start, end=word.end)
            continue
        if last:
            yield last
        last = word
    if last:
        yield last


def _run_on(text: str, more: str) -> bool:
    return bool(_HAN_CHARACTER.fullmatch(text[-1]) and _HAN_CHARACTER.fullmatch(more[0]))


def _letter_times(letters: Sequence[str], turn: SampleTurn, words: Sequence[Word]) -> list[tuple[float, float]]:
    known = list(_heard_letters(words, turn))
    first, last = (known[0][1], known[-1][2]) if known else (turn.start, turn.end)
    matcher = difflib.SequenceMatcher(None, letters, [text for text, _, _ in known], autojunk=False)
    times: list[tuple[float, float]] = []
    for block in matcher.get_matching_blocks():  # the last one is empty and stands at both ends
        until = known[block.b][1] if block.size else last
        since = times[-1][1] if times else first
        times += _even(since, until, block.a - len(times))
        times += [(start, end) for _, start, end in known[block.b : block.b + block.size]]
    return times


def _heard_letters(words: Sequence[Word], turn: SampleTurn) -> Iterator[tuple[str, float, float]]:
    """Never back in time and never out of the turn, whatever the recogniser says."""
    now = turn.start
    for word in words:
        letters = [character.casefold() for character in word.text if character.isalnum()]
        start = max(now, min(word.start, turn.end))
        now = max(start, min(word.end, turn.end))
        for letter, span in zip(letters, _even(start, now, len(letters)), strict=True):
            yield letter, *span


def _even(start: float, end: float, count: int) -> list[tuple[float, float]]:
    step = (end - start) / count if count else 0.0
    return [(start + number * step, start + (number + 1) * step) for number in range(count)]


def _has_letter(text: str) -> bool:
    return any(character.isalnum() for character in text)
