"""Numbers in words, in American English and in Mandarin. All take figures as a string and return words."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

_HAN = "零一二三四五六七八九"
_ROMAN = re.compile(r"(M{0,3})(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


@functools.cache
def _inflect() -> Callable[[str], str]:
    typeguard: Any = import_module("typeguard")
    # inflect has typeguard rewrite all its methods as it is imported: 2 s of CPU in every process for no gain here.
    decorator, typeguard.typechecked = typeguard.typechecked, lambda target: target
    try:
        import inflect
    finally:
        typeguard.typechecked = decorator

    engine = inflect.engine()
    return lambda figure: str(engine.number_to_words(figure, andword="", comma=""))


@functools.lru_cache(maxsize=8192)
def words_en(figure: str) -> str:
    """A cardinal or decimal ("1,234", "-3.5", ".5") in words, without "and"."""
    number = figure.replace(",", "").replace("−", "-")
    if number.startswith("-"):
        return f"minus {words_en(number[1:])}"
    if number.startswith("."):
        return f"point {spell_en(number)}"
    return _inflect()(number)


@functools.lru_cache(maxsize=4096)
def ordinal_en(figure: str) -> str:
    """The ordinal of a whole number: "21" is "twenty-first"."""
    number = figure.replace(",", "")
    return _inflect()(f"{number}th")


def ordinal_ending(figure: str) -> str:
    """The ending that the ordinal of a whole number is written with: "st", "nd", "rd" or "th"."""
    number = int(figure.replace(",", ""))
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def spell_en(figure: str) -> str:
    """The digits of `figure` one by one; whatever else is in it is passed over."""
    return " ".join(words_en(digit) for digit in figure if digit.isdigit())


def year_en(figure: str) -> str:
    """A year of four digits, by pairs: "nineteen oh five", but "two thousand eight"."""
    century, rest = figure[:2], figure[2:]
    if century[1] == "0" and rest[0] == "0":
        return words_en(figure)
    if rest == "00":
        return f"{words_en(century)} hundred"
    return f"{words_en(century)} {pair_en(rest)}"


def pair_en(figure: str) -> str:
    """Two digits as they are said in a year or a clock time: "05" is "oh five"."""
    return f"oh {words_en(figure[1])}" if figure[0] == "0" and figure != "00" else words_en(str(int(figure)))


def part_en(figure: str) -> str:
    """A part of a version number: a cardinal, digit by digit if it begins with 0."""
    return spell_en(figure) if figure[0] == "0" and len(figure) > 1 else words_en(figure)


@functools.lru_cache(maxsize=1024)
def fraction_en(numerator: str, denominator: str) -> str:
    """As in "three quarters", "one half"; above a hundredth "five over two hundred"."""
    top, bottom = int(numerator), int(denominator)
    if bottom < 2 or bottom > 100:
        return f"{words_en(numerator)} over {words_en(denominator)}"
    part = {2: "half", 4: "quarter"}.get(bottom) or ordinal_en(str(bottom))
    many = "halves" if part == "half" else f"{part}s"
    return f"{words_en(str(top))} {part if top == 1 else many}"


def roman_value(figure: str) -> int | None:
    """The value of a Roman numeral in the usual subtractive form, None if it is none."""
    if not figure or not _ROMAN.fullmatch(figure):
        return None
    values = [_ROMAN_VALUES[char] for char in figure]
    return sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))


@functools.lru_cache(maxsize=4096)
def _an2cn(number: str) -> str:
    import cn2an

    return str(cn2an.an2cn(number))


def han_cardinal(figure: str) -> str:
    """A cardinal or decimal in Han numerals; 二 is 两 at the head of thousands and above (两千, 两万), else 二."""
    number = figure.replace(",", "").replace("−", "-")
    if number.startswith("-"):
        return "负" + han_cardinal(number[1:])
    if len(number.partition(".")[0]) > 16:  # beyond what cn2an reads
        return han_digits(number)
    return re.sub(r"^二(?=[千万亿])", "两", _an2cn(number))


_TWO = re.compile("(?<!十)[二两](?=[百千万亿])|^[二两](?!十)")
_LAST_UNIT = re.compile("(?<=百[一二三四五六七八九])十$|(?<=千[一二三四五六七八九])百$|(?<=万[一二三四五六七八九])千$")


def han_colloquial(cardinal: str) -> Iterator[str]:
    """Ways to say a cardinal in Han numerals: 二 or 两 before its units, the last unit left out (两万五 is 25000)."""
    parts = _TWO.split(cardinal)
    for twos in itertools.product("二两", repeat=len(parts) - 1):
        way = "".join(part + two for part, two in zip(parts, (*twos, ""), strict=True))
        yield from (way, _LAST_UNIT.sub("", way))


def han_digits(figure: str) -> str:
    """The digits of `figure` one by one, a point as 点; whatever else is in it is passed over."""
    return "".join(_HAN[int(char)] if char.isdigit() else "点" for char in figure if char.isdigit() or char == ".")
