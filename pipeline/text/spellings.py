"""How else a text may be written: a recogniser that is asked how likely a text is must not be asked about commas."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein

from pipeline.dialogue import Language
from pipeline.text.normalize import normalize

_MARKS = re.compile(r"[，。？！、；：…,.?!;:\"“”'‘’()（）《》—-]")
_ENDS = re.compile(r"[。？！.?!…]+$")
_WORD = re.compile(r"[^\w']+")


def spellings(text: str, heard: str, language: Language) -> tuple[str, ...]:
    """Ways to write `text`, each once: with and without marks and capitals, in both scripts of Mandarin, numbers in
    figures, and in the spelling of `heard` (a transcript) wherever the two say the same."""
    if language == "en":
        ways = [text, _ENDS.sub("", text), text.lower(), normalize(text, "en"), _merged_en(text, heard)]
    else:
        bare = _MARKS.sub("", text)
        commas = _ENDS.sub("", text).replace("，", ",")
        ways = [bare, commas, _traditional()(bare), _traditional()(commas), _merged_zh(bare, heard)]
    return tuple(dict.fromkeys(way.strip() for way in ways if way.strip()))


@functools.cache
def _traditional() -> Callable[[str], str]:
    import opencc

    return opencc.OpenCC("s2t").convert


def _merged_en(text: str, heard: str) -> str:
    said, other = text.split(), heard.split()
    return " ".join(_merge(said, other, _bare(said), _bare(other)))


def _bare(words: Sequence[str]) -> list[str]:
    return [_WORD.sub("", word).lower() for word in words]


def _merged_zh(bare: str, heard: str) -> str:
    other = list(_MARKS.sub("", heard).replace(" ", ""))
    # Character by character, so that each keeps its place.
    simple = [normalize(char, "zh") or char for char in other]
    return "".join(_merge(list(bare), other, list(bare), simple))


def _merge(said: Sequence[str], heard: Sequence[str], left: Sequence[str], right: Sequence[str]) -> list[str]:
    """What was said, in the form in which it was heard where `left` and `right` are equal."""
    merged: list[str] = []
    for step in Levenshtein.opcodes(left, right):
        equal = step.tag == "equal"
        merged += heard[step.dest_start : step.dest_end] if equal else said[step.src_start : step.src_end]
    return merged
