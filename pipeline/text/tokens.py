"""Normalised text as tokens to compare: words of English, characters and Latin words of Mandarin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.text import pinyin

# Words that carry the grammar and little else. Negations are not among them: without one the sentence says the
# opposite.
_FUNCTION_WORDS = """
a an the this that these those i me my mine we us our ours you your yours he him his she her hers it its they them
their theirs who whom whose which what there here
am is are was were be been being do does did done have has had having will would shall should can could may might
must of to in on at by for from with as into onto upon than then and or but if so because though although while
oh ah well yeah okay like just s t d ll m re ve um madam
"""
_FUNCTION_EN = frozenset(_FUNCTION_WORDS.split())
_FUNCTION_ZH = frozenset("的地得了着吗呢吧啊呀嘛啦哦哎诶唉嗯哇呗咯喽哟")
_NAME = re.compile(r"(?<=[a-z0-9,;'’] )[A-Z][A-Za-z]+")
_NUMERAL = "零一二两三四五六七八九十百千万亿"
# 一 that counts nothing (一起, 一点 that is no hour) is none; a fraction or decimal is one number.
_NUMBER_ZH = re.compile(
    f"(?!一(?:[些下样起直定般共旦切致向边面概]|点(?![{_NUMERAL}半钟整到])))[{_NUMERAL}]+(?:(?:点|分之|又)[{_NUMERAL}]+)*"
)


class Token(NamedTuple):
    """A word or a character that is compared.

    text: as it is written; key: two tokens are the same if theirs is (the word; the syllable without its tone);
    letters: what a mishearing is counted in (characters; initial and final); content: more than grammar; number: which
    number of the text it is part of, counted from 0, -1 if none; name: a proper name, as far as its capital tells.
    """

    text: str
    key: str
    letters: tuple[str, ...]
    content: bool
    number: int = -1
    name: bool = False


def english(text: str, written: str = "") -> list[Token]:
    """The words of normalised English. written: as it was before, whose capitals within a sentence tell the names."""
    names = {name.lower() for name in _NAME.findall(written)}
    tokens: list[Token] = []
    number, inside = -1, False
    for word in text.split():
        numeric = word == "one" or any(map(str.isdigit, word))
        number += numeric and not inside  # neighbours are one: 555 1234
        inside = numeric
        content = word not in _FUNCTION_EN
        tokens.append(Token(word, word, tuple(word), content, number if numeric else -1, content and word in names))
    return tokens


def mandarin(parts: Sequence[str], sounds: Sequence[str]) -> list[Token]:
    """The tokens of `normalize.mixed_zh`, with the syllable (with its tone) of each."""
    # One character a token, so that places in the line are places in `parts`.
    line = "".join(part if len(part) == 1 else " " for part in parts)
    number = {place: count for count, found in enumerate(_NUMBER_ZH.finditer(line)) for place in range(*found.span())}
    return [
        _character(part, sound, number.get(place, -1))
        for place, (part, sound) in enumerate(zip(parts, sounds, strict=True))
    ]


def _character(part: str, sound: str, number: int) -> Token:
    if part == sound:  # no Han character: each of its letters is a sound, and none of pinyin's
        return Token(part, part, tuple(part.upper()), True, number)
    syllable = pinyin.toneless(sound)
    return Token(part, syllable, pinyin.phones(syllable), part not in _FUNCTION_ZH, number)
