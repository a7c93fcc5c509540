"""Texts that are wrong in one place, to be spoken as if they were right."""

from __future__ import annotations

import functools
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.dialogue import Language, derive_seed
from pipeline.text.words import HAN

_Choice = TypeVar("_Choice")
_Sound = tuple[str, str]
_Fits = Callable[[_Sound, _Sound], bool]

COMMON = 1500
"""Han characters that may take another's place: the most frequent ones."""
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?!['’])\b")
_HAN = re.compile(f"[{HAN}]+")
# What may be missing in English and the sentence still says the same, or that is too short to be told from its
# neighbours.
_FUNCTION_WORDS = """
a about above after again against all also always am an and another any are as at be because been before being below
between both but by can could did do does doing down during each either else ever few for from further had has have
having he her here hers herself him himself his how i if in into is it its itself just let like little lot many may
maybe me might mine more most much must my myself neither never no nor not now of off oh ok okay on once one only
onto or other our ours ourselves out over own please quite rather really s same shall she should so some such t than
that the their theirs them themselves then there these they this those through to too under until up upon us very
was we well were what when where whether which while who whom whose why will with within without would yes yet you
your yours yourself yourselves
"""
_FUNCTION = frozenset(_FUNCTION_WORDS.split())
# Of jieba's parts of speech: nouns, verbs, adjectives, idioms, times, places.
_CONTENT = re.compile(r"[nvaijlts](?!g)|z$")
_PLAIN = frozenset("是有在会能要让使可以应该没有没来去说到")


@dataclass(frozen=True)
class Wrong:
    """A text to be spoken in place of the right one. what: the change, for people."""

    text: str
    what: str


class Slips:
    """Draws the slips of a language. texts: those of the run, whose words may take each other's place."""

    def __init__(self, texts: Iterable[str], language: Language, seed: int):
        self._language = language
        self._seed = seed
        words = Counter(word for text in texts for word in map(str.lower, _words(text))) if language == "en" else ()
        self._words = tuple(sorted(words))

    def dropped(self, text: str) -> Wrong | None:
        """Without one content word; None where there is none, or nothing else."""
        span = self._draw("dropped", text, content(text, self._language))
        if span is None:
            return None
        rest = re.sub(r"\s+", " ", text[: span[0]] + text[span[1] :]).strip(" ,，、")
        rest = re.sub(r"[\s,，、]*([,，、.。?？!！;；:：])", r"\1", rest)
        if not any(map(str.isalnum, rest)):
            return None
        return Wrong(rest, f"-{text[slice(*span)]}")

    def doubled(self, text: str) -> Wrong | None:
        """With one content word said twice in a row."""
        span = self._draw("doubled", text, content(text, self._language))
        if span is None:
            return None
        space = " " if self._language == "en" else ""
        word = text[slice(*span)]
        return Wrong(f"{text[: span[1]]}{space}{word}{text[span[1] :]}", f"+{word}")

    def substituted(self, text: str) -> Wrong | None:
        """One content word (en) by another of like length; one character of such a word (zh) by a common one that is
        another syllable."""
        if self._language == "zh":
            return self._character("substituted", text, lambda old, new: old[0] != new[0])
        span = self._draw("substituted", text, content(text, "en"))
        if span is None:
            return None
        word = text[slice(*span)]
        others = [other for other in self._words if _unlike(other, word.lower())]
        other = self._draw("other", text, others)
        if other is None:
            return None
        other = other.capitalize() if word[0].isupper() else other
        return Wrong(text[: span[0]] + other + text[span[1] :], f"{word}→{other}")

    def tone(self, text: str) -> Wrong | None:
        """Mandarin with one character of another tone, else the same syllable; None of English.

        Not the second for the third, nor the other way round: the third before a third is said as the second.
        """
        if self._language != "zh":
            return None
        return self._character(
            "tone", text, lambda old, new: old[0] == new[0] and old[1] != new[1] and {old[1], new[1]} != {"2", "3"}
        )

    def _character(self, kind: str, text: str, fits: _Fits) -> Wrong | None:
        places = [place for span in content(text, "zh") for place in range(*span) if _HAN.match(text[place])]
        sure = [place for place in places if _sound(text[place])]
        found = [(place, other) for place in sure for other in self._others(text[place], fits)]
        # A place first, and then a character: one with many fitting ones is no likelier.
        place = self._draw(kind, text, sorted({place for place, _ in found}))
        if place is None:
            return None
        other = self._draw("other", text, [other for at, other in found if at == place])
        return Wrong(f"{text[:place]}{other}{text[place + 1 :]}", f"{text[place]}→{other}")

    @staticmethod
    def _others(character: str, fits: _Fits) -> list[str]:
        old = _sound(character)
        return [other for other in common_han() if old and (new := _sound(other)) and fits(old, new)]

    def _draw(self, kind: str, text: str, choices: Sequence[_Choice]) -> _Choice | None:
        return random.Random(derive_seed(self._seed, kind, text)).choice(choices) if choices else None


def content(text: str, language: Language) -> list[tuple[int, int]]:
    """Where the content words of a text are: (start, end), in order."""
    if language == "en":
        found = _WORD.finditer(text)
        return [item.span() for item in found if len(item[0]) > 2 and item[0].lower() not in _FUNCTION]
    spans, place = [], 0
    for word, flag in _tagged(text):
        place = text.index(word, place)
        if _HAN.fullmatch(word) and _CONTENT.match(flag) and word not in _PLAIN:
            spans.append((place, place + len(word)))
        place += len(word)
    return spans


def _words(text: str) -> list[str]:
    return [text[slice(*span)] for span in content(text, "en")]


def _unlike(word: str, other: str) -> bool:
    """Of like length, and not another form of it."""
    return abs(len(word) - len(other)) <= 1 and word[:3] != other[:3] and word[-3:] != other[-3:]


def _tagged(text: str) -> list[tuple[str, str]]:
    import jieba.posseg

    jieba.setLogLevel(logging.WARNING)
    return [(pair.word, pair.flag) for pair in jieba.posseg.cut(text)]


@functools.cache
def common_han() -> tuple[str, ...]:
    """The most frequent Han characters that have one reading only, in the order of the script."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    counts: Counter[str] = Counter()
    for word, count in jieba.dt.FREQ.items():
        for character in word if count else "":
            counts[character] += count
    frequent = sorted(counts, key=lambda character: (-counts[character], character))
    return tuple(sorted(character for character in frequent[:COMMON] if _HAN.match(character) and _sound(character)))


@functools.cache
def _sound(character: str) -> _Sound | None:
    """Syllable and tone ("1" to "4") of a character; None where it has several readings or no tone."""
    from pypinyin import Style, pinyin

    [readings] = pinyin(character, style=Style.TONE3, heteronym=True, errors="ignore") or [[]]
    if len(readings) != 1 or readings[0][-1:] not in "1234":
        return None
    return readings[0][:-1], readings[0][-1]
