"""Words of English, characters of Mandarin, and what repeats among them."""

from __future__ import annotations

import re
from itertools import pairwise

from pipeline.dialogue import Language

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Han characters as a range within a character class."""

_WORD: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"[^\W_]+(?:['’-][^\W_]+)*"),
    # A Latin word that stands in Mandarin is one, with its apostrophe or hyphen.
    "zh": re.compile(f"[{HAN}]|[^\\W_{HAN}]+(?:['’-][A-Za-z]+)*"),
}
_LONG_SOUND = re.compile(r"([^\W\d])\1{3}")
# A run that loops: one word (or character), or a phrase, again right behind itself.
_LOOPS: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"\b(\w+)(?: \1\b){3}|\b(\w+ \w+)(?: \2\b){2}|\b(\w+(?: \w+){2,}) \3\b"),
    "zh": re.compile(r"(.)\1{3}|(..)\2{2}|(.{4,})\3"),
}
_FAR_LOOP: dict[Language, int] = {"en": 5, "zh": 7}  # a run of so many words that comes twice anywhere is a loop
_PRIVATE = 0xF0000  # first character of a plane that no text uses


def count_units(text: str, language: Language) -> int:
    """Words of English (it's and well-known are one each); Han characters plus Latin words or figures of Mandarin."""
    return len(_WORD[language].findall(text))


def words_of(text: str, language: Language) -> list[str]:
    """The words (en) or characters and Latin words (zh) that `count_units` counts, in lower case."""
    return _WORD[language].findall(text.lower().replace("’", "'"))


def loops(text: str, language: Language) -> bool:
    """Whether a sound, a word or a phrase is repeated as nobody would, or a long run of words comes twice."""
    words = words_of(text, language)
    if _LONG_SOUND.search(text.lower()):
        return True
    # Every loop repeats a pair of neighbours; a hyphenated word may hold some within itself.
    if len(set(pairwise(words))) >= len(words) - 1 and "-" not in text:
        return False
    if language == "en":
        line = " ".join(word.replace("'", "") for word in words)
    else:
        # A Latin word counts as one character here: bora bora is no loop of four.
        latin = {word: chr(_PRIVATE + place) for place, word in enumerate(words) if len(word) > 1}
        line = "".join(latin.get(word, word) for word in words)
    if _LOOPS[language].search(line):
        return True
    size = _FAR_LOOP[language]
    runs = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(runs) > len(set(runs))
