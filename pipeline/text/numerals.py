"""How figures are read aloud. A figure that no rule here knows (a version, a date in figures) is left as it is."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

# One figure with what belongs to it: currency before, digits with their inner separators, percent or ending after.
_CHUNK_EN = re.compile(r"([$£€¥])?(-?\d(?:[\d.,:/–-]*\d)?)(%|(?:st|nd|rd|th|s)\b)?", re.A)
_CHUNK_ZH = re.compile(r"([$£€¥])?(-?\d(?:[\d.,:/~–-]*\d)?)(%|[千万亿]+)?", re.A)
_CARDINAL = re.compile(r"-?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?")
# A phone, bank or room number: said digit by digit. A round number of millions is not.
_DIGITS = re.compile(r"0\d+|(?!\d*0000$)\d{8,}")
_PHONE = re.compile(r"\+?(?:\d{1,3}-)?\d{3}-\d{4}|(?:\d{1,3}-)?\d{3}-\d{3,4}-\d{4}|0\d{2,3}-\d{7,8}")
_TIME = re.compile(r"(\d|1\d|2[0-3]):([0-5]\d)")
_RANGE = re.compile(r"(\d+)[-–~](\d+)")
_YEAR_CUE = re.compile(
    r"\b(?:in|since|until|till|year|before|after|during|late|early|january|february|march|april|may"
    r"|june|july|august|september|october|november|december|\d{1,2}(?:st|nd|rd|th)?),? $",
    re.I,
)
_MONEY_EN = {
    "$": ("dollar", "dollars", "cents"),
    "£": ("pound", "pounds", "pence"),
    "€": ("euro", "euros", "cents"),
}
_MONEY_ZH = {"$": "美元", "£": "英镑", "€": "欧元", "¥": "元"}
_HAN = "零一二三四五六七八九"
_NUMBER_CUE = re.compile(r"(?:电话|号码|手机|热线|拨打|拨)[是为：:，, ]*$")
# Before a measure word two is 两; in 二月, 二号, 二年级 and 第二 it is not.
_MEASURE = re.compile(r"[个位只本条张块天次种点倍岁米句杯件份名辆台家遍周]|年(?!级)|小时|分钟|秒|千|万|亿")


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


def _words(figure: str) -> str:
    number = figure.replace(",", "")
    return f"minus {_inflect()(number[1:])}" if number.startswith("-") else _inflect()(number)


def _spell(figure: str) -> str:
    return " ".join(_inflect()(digit) for digit in figure if digit.isdigit())


def _year(figure: str) -> str:
    century, rest = figure[:2], figure[2:]
    if century[1] == "0" and rest[0] == "0":  # two thousand eight
        return _words(figure)
    tail = "hundred" if rest == "00" else f"oh {_words(rest[1])}" if rest[0] == "0" else _words(rest)
    return f"{_words(century)} {tail}"


def _money_en(symbol: str, figure: str) -> str:
    if symbol == "¥":
        return f"{_words(figure)} yuan"
    one, many, small = _MONEY_EN[symbol]
    whole, _, part = figure.partition(".")
    if part and len(part) != 2:
        return f"{_words(figure)} {many}"
    spoken = f"{_words(whole)} {one if whole == '1' else many}"
    if not part.strip("0"):
        return spoken
    cents = f"{_words(part.lstrip('0'))} {small if int(part) > 1 else 'penny' if symbol == '£' else 'cent'}"
    return cents if whole == "0" else f"{spoken} and {cents}"


def _plain_en(figure: str, before: str, after: str) -> str | None:
    if _DIGITS.fullmatch(figure) or _PHONE.fullmatch(figure):
        return _spell(figure)
    if time := _TIME.fullmatch(figure):
        hour, minute = time.groups()
        tail = "o'clock" if minute == "00" else f"oh {_words(minute[1])}" if minute[0] == "0" else _words(minute)
        return f"{_words(hour)} {tail}"
    if span := _RANGE.fullmatch(figure):
        ends = [_plain_en(end, before if after.strip() else "from ", after) for end in span.groups()]
        return f"{ends[0]} to {ends[1]}"
    if not _CARDINAL.fullmatch(figure):
        return None
    # Alone or after a word of time it is a year; before a noun (1500 people) it counts.
    alone = not re.match(r"\s*\w", after)
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", figure) and (alone or _YEAR_CUE.search(before)):
        return _year(figure)
    return _words(figure)


def _figure_en(match: re.Match[str]) -> str:
    money, figure, ending = match.groups()
    before, after = match.string[: match.start()], match.string[match.end() :]
    cardinal = _CARDINAL.fullmatch(figure)
    spoken: str | None
    if money and cardinal and not ending:
        spoken = _money_en(money, figure)
    elif money:
        spoken = None
    elif ending == "%":
        plain = _plain_en(figure, "", " x") if cardinal or _RANGE.fullmatch(figure) else None
        spoken = f"{plain} percent" if plain else None
    elif ending == "s":
        spoken = re.sub(r"y$", "ie", _plain_en(figure, "in ", "") or "") + "s" if figure.isdigit() else None
    elif ending:
        spoken = _inflect()(figure + ending) if figure.isdigit() else None
    else:
        spoken = _plain_en(figure, before, after)
    if spoken is None:
        return match.group()
    return f"{' ' if before[-1:].isalnum() else ''}{spoken}{' ' if after[:1].isalnum() else ''}"


def _behind_scale(match: re.Match[str]) -> str:
    return f"{match[2]} {match[3]} {_MONEY_EN[match[1]][1]}"


def read_figures_en(text: str) -> str:
    """`text` with its figures in American English words; a figure that no rule knows stays."""
    # $3 million: the unit goes behind the scale.
    text = re.sub(r"([$£€])(\d[\d.,]*) ((?:thousand|million|billion|trillion)\b)", _behind_scale, text)
    return _CHUNK_EN.sub(_figure_en, text)


@functools.lru_cache(maxsize=4096)
def _an2cn(number: str) -> str:
    import cn2an

    return str(cn2an.an2cn(number))


def _han_cardinal(figure: str, after: str, before: str = "") -> str:
    number = figure.replace(",", "")
    if len(number.lstrip("-").partition(".")[0]) > 16:  # beyond what cn2an reads
        return _han_digits(number)
    spoken = _an2cn(number)
    if spoken == "二":
        return "两" if _MEASURE.match(after) and not before.endswith("第") else spoken
    return re.sub(r"^二(?=[千万亿])", "两", spoken)


def _han_digits(figure: str) -> str:
    return "".join(_HAN[int(digit)] if digit.isdigit() else "点" for digit in figure if digit.isdigit() or digit == ".")


def _han_time(hour: str, minute: str) -> tuple[str, ...]:
    spoken = _han_cardinal(hour, "点") + "点"
    if minute == "00":
        return (spoken, f"{spoken}整")
    tail = f"零{_HAN[int(minute)]}" if minute[0] == "0" else _han_cardinal(minute, "")
    half = (f"{spoken}半",) if minute == "30" else ()
    return (f"{spoken}{tail}分", f"{spoken}{tail}", *half)


def _han_readings(match: re.Match[str]) -> tuple[str, ...]:
    """The ways a figure can be read in Mandarin, the likeliest first; none if no rule knows it."""
    money, figure, ending = match.groups(default="")
    after = ending + match.string[match.end() :]
    before = match.string[: match.start()]
    if time := _TIME.fullmatch(figure):
        return _han_time(*time.groups()) if not money + ending else ()
    if span := _RANGE.fullmatch(figure):
        if _PHONE.fullmatch(figure) or _NUMBER_CUE.search(before):
            return (_han_digits(figure),)
        if money:
            return ()
        if ending == "%":
            return ("百分之" + "到".join(_han_cardinal(end, "") for end in span.groups()),)
        years = after.lstrip().startswith("年")
        ends = [_han_digits(end) if years and len(end) == 4 else _han_cardinal(end, after) for end in span.groups()]
        return ("到".join(ends) + ending,)
    if _PHONE.fullmatch(figure):
        return (_han_digits(figure),)
    if not (_CARDINAL.fullmatch(figure) or _DIGITS.fullmatch(figure)):
        return ()
    unit = ending.replace("%", "") + _MONEY_ZH.get(money, "")
    if ending == "%":
        return () if money else (f"百分之{_han_cardinal(figure, '')}",)
    if not _CARDINAL.fullmatch(figure):
        return (_han_digits(figure) + unit,)
    cardinal = _han_cardinal(figure, "个" if money else after, before) + unit
    digits = _han_digits(figure) + unit
    twos = (re.sub(r"^[二两]", new, cardinal) for new in "二两") if cardinal[0] in "二两" else ()
    named = len(figure) >= 3 and figure.isdigit() and _NUMBER_CUE.search(before)
    year = re.fullmatch(r"[12]\d{3}", figure) and (re.match(r"\s*年", after) or not re.search(r"\w", before + after))
    order = (digits, cardinal) if named or year or _DIGITS.fullmatch(figure) else (cardinal, digits)
    return tuple(dict.fromkeys((*order, *twos)))


def han_segments(text: str) -> Iterator[tuple[str, ...]]:
    """`text` cut at its figures: each part as the ways it can be read, the likeliest first (plain text: one way)."""
    end = 0
    for match in _CHUNK_ZH.finditer(text):
        readings = _han_readings(match) or (match.group(),)
        yield (text[end : match.start()],)
        yield readings
        end = match.end()
    yield (text[end:],)


def read_figures_zh(text: str) -> str:
    """`text` with its figures in Han numerals; a figure that no rule knows stays."""
    return "".join(readings[0] for readings in han_segments(text))
