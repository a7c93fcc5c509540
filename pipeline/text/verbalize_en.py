"""Figures, signs and short forms of English text in American English words. What no rule here knows stays as it is."""

from __future__ import annotations

import re

from pipeline.text.dates_en import read_dates, read_times, read_weekdays
from pipeline.text.measures import CURRENCIES, CURRENCY, PER, UNIT_EN, UNITS
from pipeline.text.numerals import (
    fraction_en,
    ordinal_en,
    ordinal_ending,
    part_en,
    spell_en,
    words_en,
    year_en,
)
from pipeline.text.signs_en import LEFTOVERS, OPERATORS, SIGNS_AFTER, SIGNS_BEFORE, Rule, apply, read_roman

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|(?!0\d)\d+(?:\.\d+)?|(?<!\d)\.\d+)"
_SCALES = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million", "b": "billion"} | {
    "B": "billion", "bn": "billion", "T": "trillion", "tn": "trillion"}  # fmt: skip
_VULGAR = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8), "⅜": (3, 8)}

# ---- what is said digit by digit, or part by part ------------------------------------------------------------------

_PHONE = re.compile(
    r"(?<![\w.,])(\+)?((?:\d{1,3}[-. ]?)?(?:\(\d{3}\)[-. ]?|\d{3}[-. ])\d{3}[-. ]\d{4}(?:-\d{1,4})?)(?![\w-])"
    r"|(?<![\w.,-])(\+)?(\d{3}-\d{2}-\d{4}|\d{3}-\d{4}|0\d{2,3}-\d{7,8}|\d{3}-\d{4}-\d{4})(?![\w-])",
    re.A,
)
_DOTTED = re.compile(r"(?<![\w.,])([vV]\.? ?)?(\d+(?:\.\d+){2,})(?![\w.]*\d)", re.A)
_RELEASE = re.compile(
    r"\b([Vv]ersions?|[Rr]elease|[Ff]irmware|Python|Java|iOS|iPadOS|macOS|Android|Windows|Ubuntu|Debian|CUDA|PyTorch"
    r"|Node(?:\.js)?|PHP|Ruby|Kotlin|Django|Bluetooth|USB|HTTP|GPT|[Vv]\.?)([- ]?)(\d+(?:\.\d+)?)(?![\w.]*\d)",
    re.A,
)
# Before figures that name and do not count; after "call" and the like only where nothing is counted.
_NAMED = re.compile(
    r"(?:\b(?:room|suite|apartment|apt|flight|gate|extension|ext|pin|code|zip|passcode|password|route|highway|interstate"
    r"|phone|account|id|serial|invoice|ticket|tracking|otp|pnr)\.?(?: number| code)?(?: is|:)?|(?-i:, [A-Z]{2})) #?$",
    re.I,
)
_CALLED = re.compile(r"\b(?:call|dial|text|phone) $", re.I)
_CALL_ENDS = re.compile(r"\W*$|[,.!?;]|\s(?:for|if|now|when|in|immediately|and|or|right|before|to)\b")
_STREET = re.compile(
    r"(?<![\w.,$-])(\d{3,4})(?= (?:[NSEW]\.? )?(?:[A-Z][a-z]+ |\d+(?:st|nd|rd|th) ){1,3}"
    r"(?:Street|Avenue|Road|Boulevard|Lane|Drive|Court|Highway|Expressway)\b)"
)


def _phone(match: re.Match[str]) -> str:
    plus, figure = match[1] or match[3], match[2] or match[4]
    groups = [spell_en(group) for group in re.findall(r"\d+", figure)]
    said = (" " if len(groups) < 3 else ", ").join(groups)
    return f"plus {said}" if plus else said


def _dotted(match: re.Match[str]) -> str:
    """An address of four parts is read digit by digit, a version by its parts."""
    parts = match[2].split(".")
    if len(parts) == 4 and not match[1]:
        return " dot ".join(spell_en(part) for part in parts)
    return ("version " if match[1] else "") + " point ".join(part_en(part) for part in parts)


def _release(match: re.Match[str]) -> str:
    name = "version" if match[1].lower().startswith("v") else match[1]
    return f"{name} {' point '.join(part_en(part) for part in match[3].split('.'))}"


def _house(match: re.Match[str]) -> str:
    figure = match[1]
    if figure.endswith("00"):
        return words_en(figure)
    if len(figure) == 4:
        return year_en(figure)
    tail = f"oh {words_en(figure[2])}" if figure[1] == "0" else words_en(figure[1:])
    return f"{words_en(figure[0])} {tail}"


# ---- fractions, amounts, ranges ------------------------------------------------------------------------------------

_MIXED = re.compile(rf"(?:(?<![\w.,/$-])(\d+)[ -]?)?([{''.join(_VULGAR)}])")
_FRACTION = re.compile(r"(?<![\w.,/$])(-?)(?:(\d+)[ -])?(\d+) ?/ ?(\d+)(?:st|nd|rd|th|TH)?(?![\w/]|[.,]\d)", re.A)
_FRACTION_UNIT = re.compile(
    rf"(?<![\w.,/$-])(?:(\d+)[ -]?)?(?:(?<!\d)(\d+)/(\d+)|([{''.join(_VULGAR)}])) ?{UNIT_EN}(?!\w)", re.A
)
_IDIOMS = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty-fifty", "20/20": "twenty twenty"}
_AMOUNT = re.compile(
    rf"(?<![\w.])([-−])?({CURRENCY}) ?({_NUMBER})(?: ?[-–] ?(?:{CURRENCY})?({_NUMBER}))?"
    rf"(?:(mn|bn|tn|[kKmMbBT])(?!\w)|-?(?: |(?<=-))(hundred|thousand|million|billion|trillion)\b)?"
    rf"(?:/({'|'.join(PER)})\b)?(?![\w%]|[.,:/]\d)",
    re.A,
)
_AMOUNT_CODE = re.compile(
    rf"(?<![\w.,-])({_NUMBER})(?: ?(¢|(?:{'|'.join(code for code in CURRENCIES if code.isalpha())})\b))"
)
_QUANTITY = re.compile(
    rf"(?<![\w.,/:])([-−])?({_NUMBER})(?:%? ?[-–~] ?({_NUMBER}))?"
    rf"(?: (thousand|million|billion|trillion)(?= [^ ]))?(-| ?)(?:%|(‰)|{UNIT_EN})(?!\w)",
    re.A,
)
_RANGE = re.compile(rf"(?<![\w.,/:%-])({_NUMBER})[-–~]({_NUMBER})(?![\w/:%-]|[.,]\d)", re.A)
_FEET = re.compile(r"(?<![\w.,])(\d)' ?(\d{1,2})(?:\"|'')?(?!\w|')")


def _mixed(whole: str | None, top: str, bottom: str) -> str:
    part = fraction_en(top, bottom)
    if not whole:
        return part
    return f"{words_en(whole)} and {re.sub('^one (?=half|quarter|third)', 'a ', part)}"


def _fraction_unit(match: re.Match[str]) -> str:
    """A unit behind a fraction is singular, behind a mixed number plural: one half kilometer, two and a half pounds."""
    whole, top, bottom, vulgar, unit, per = match.groups()
    if vulgar:
        top, bottom = map(str, _VULGAR[vulgar])
    return f"{_mixed(whole, top, bottom)} {UNITS[unit][bool(whole)]}" + (f" per {PER[per][0]}" if per else "")


def _fraction(match: re.Match[str]) -> str:
    sign, whole, top, bottom = match.groups()
    if not whole and (idiom := _IDIOMS.get(f"{top}/{bottom}")):
        return idiom
    return ("minus " if sign else "") + _mixed(whole, top, bottom)


def _amount(match: re.Match[str]) -> str:
    minus, sign, figure, end, suffix, scale, per = match.groups()
    one, many, cent, cents, _ = CURRENCIES[sign]
    scale = _SCALES[suffix] if suffix else scale
    spoken = words_en(figure) + (f" to {words_en(end)}" if end else "") + (f" {scale}" if scale else "")
    whole, _, part = figure.partition(".")
    if end or scale or (part and (len(part) != 2 or not cent)):
        spoken = f"{spoken} {many}"
    else:
        spoken = f"{words_en(whole or '0')} {one if whole == '1' else many}"
        if part.strip("0"):
            small = f"{words_en(str(int(part)))} {cent if int(part) == 1 else cents}"
            spoken = small if whole in ("", "0") else f"{spoken} and {small}"
    return ("minus " if minus else "") + spoken + (f" per {PER[per][0]}" if per else "")


def _amount_code(match: re.Match[str]) -> str:
    if match[2] == "¢":
        return f"{words_en(match[1])} cent{'' if match[1] == '1' else 's'}"
    return f"{words_en(match[1])} {CURRENCIES[match[2]][match[1] != '1']}"


def _quantity(match: re.Match[str]) -> str:
    minus, figure, end, scale, joint, mille, unit, per = match.groups()
    if unit == "s" and not joint:  # the 90s
        return match.group()
    spoken = ("minus " if minus else "") + words_en(figure) + (f" to {words_en(end)}" if end else "")
    spoken += f" {scale}" if scale else ""
    if mille:
        return f"{spoken} per mille"
    if not unit:
        return f"{spoken} percent"
    # Only 1 is singular: 0.8 miles. But the unit may be an adjective: a 5-km run, a 45° angle.
    before, after = match.string[: match.start()], match.string[match.end() :]
    noun = re.search(r"\ban? $", before) and re.match(r" [a-z]", after)
    single = joint == "-" or noun or (figure == "1" and not end and not scale)
    name = UNITS[unit][0 if single else 1]
    return f"{spoken}{'-' if joint == '-' else ' '}{name}" + (f" per {PER[per][0]}" if per else "")


def _range(match: re.Match[str]) -> str:
    start, end = match.groups()
    if idiom := _IDIOMS.get(f"{start}/{end}"):  # 50-50 is no range
        return idiom
    if _is_year(start) and (_is_year(end) or (len(end) == 2 and end > start[2:])):
        return f"{year_en(start)} to {year_en(end) if len(end) == 4 else words_en(end)}"
    return f"{words_en(start)} to {words_en(end)}"


# ---- single figures ------------------------------------------------------------------------------------------------

_FIGURE = re.compile(r"((?:(?<![\w.)])[-−])?(?:(?<!\S)\.)?\d(?:[\d.,:/–-]*\d)?)(st|nd|rd|th|s)?(?![a-z\d])", re.A)
_CARDINAL = re.compile(r"[-−]?(?:(?=\.)|0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?")
_DIGITS = re.compile(r"0\d+|(?!\d*0000$)\d{8,}")
_YEAR = re.compile(r"1[1-9]\d\d|20\d\d")
_YEAR_CUE = re.compile(
    r"\b(?:in|since|until|till|year|before|after|during|late|early|mid|by|circa|class of|of|january|february"
    r"|march|april|may|june|july|august|september|october|november|december),? $",
    re.I,
)
# Words behind a figure that it counts: plurals, and nouns without an s.
_COUNTED = re.compile(
    r"\s(?:(?!(?:was|is|has|this|his|its|as|us|yes|[A-Z]\w+)\b)\w+s|people|men|women|children|feet|of"
    r"|more|or so|different|other|percent|hundred|thousand|million|billion|dollar|euro|pound|yuan|yen)\b"
)
_COUNT_CUE = re.compile(
    r"\b(?:about|around|over|under|than|nearly|almost|least|most|only|roughly|exactly|every) $", re.I
)


def _is_year(figure: str) -> bool:
    return bool(_YEAR.fullmatch(figure))


def _plain(figure: str, before: str, after: str) -> str | None:
    if _DIGITS.fullmatch(figure) or (figure.isdigit() and len(figure) > 2 and _NAMED.search(before)):
        return spell_en(figure)
    if figure.isdigit() and 2 < len(figure) < 6 and _CALLED.search(before) and _CALL_ENDS.match(after):
        return spell_en(figure)
    if not _CARDINAL.fullmatch(figure):
        return None
    counted = bool(_COUNTED.match(after)) or (re.match(r"\s\w", after) and _COUNT_CUE.search(before))
    year = _is_year(figure) or (re.fullmatch(r"10\d\d", figure) and _YEAR_CUE.search(before))
    if not year or re.match(r"[a-zA-Z]", after) or before[-1:].isalpha():  # 2000m, HAL2000
        return words_en(figure)
    if counted and (not _YEAR_CUE.search(before) or re.match(r"\s(?:of|people|percent)\b|\s\w+s\b", after)):
        return words_en(figure)
    return year_en(figure)


def _figure(match: re.Match[str]) -> str:
    figure, ending = match.groups()
    before, after = match.string[: match.start()], match.string[match.end() :]
    plain = figure.replace(",", "")
    spoken: str | None
    if ending == "s":
        decade = plain.isdigit() and plain.endswith("0") and len(plain) in (2, 4)
        said = (year_en(plain) if len(plain) == 4 else words_en(plain)) if decade else None
        spoken = re.sub(r"y$", "ie", said) + "s" if said else None
    elif ending:
        spoken = ordinal_en(plain) if plain.isdigit() and ending == ordinal_ending(plain) else None
    else:
        spoken = _plain(figure, before, after)
    if spoken is None:
        return match.group()
    return f"{' ' if before[-1:].isalnum() else ''}{spoken}{' ' if after[:1].isalpha() else ''}"


def _latin_tail(match: re.Match[str]) -> str:
    """A figure with small letters behind it, as in 2x or h2o."""
    space = " " if match.string[match.start() - 1 : match.start()].isalpha() else ""
    return f"{space}{words_en(match[1])} {match[2]}"


_RULES: tuple[Rule, ...] = (
    (_PHONE, _phone),
    (_FRACTION_UNIT, _fraction_unit),
    (_MIXED, lambda match: _mixed(match[1], *map(str, _VULGAR[match[2]]))),
    (_FRACTION, _fraction),
    (_DOTTED, _dotted),
    (_RELEASE, _release),
    (_FEET, lambda match: f"{words_en(match[1])} foot {words_en(match[2])}"),
    (_STREET, _house),
    (re.compile(r"'(?=\d0s\b)"), ""),
    (re.compile(r"(?<=\ds)-(?='?\d{2,4}s\b)"), " to "),
    (re.compile(r"#(?=\d)"), "number "),
    (_AMOUNT, _amount),
    (_AMOUNT_CODE, _amount_code),
    (re.compile(r"(?<=\d)[-–](?=\d{1,2}(?:st|nd|rd|th)\b)|(?<=\dst|\dnd|\drd|\dth)[-–](?=\d)"), " to "),
    (_QUANTITY, _quantity),
    (_RANGE, _range),
    (_FIGURE, _figure),
    (re.compile(r"(?<![\d.,:/-])(\d+)((?!(?:st|nd|rd|th)\b)[a-z]+)\b", re.A), _latin_tail),
)


def read_figures(text: str) -> str:
    """`text` (one line, ASCII punctuation) with its figures, units and mathematical signs in words."""
    text = read_roman(text)
    if "-" in text:
        text = read_weekdays(text)
    if any(char.isdecimal() for char in text) or not text.isascii():
        text = read_times(read_dates(text))
        if OPERATORS.search(text):
            text = apply(SIGNS_BEFORE, text)
        text = apply(_RULES, text)
    return apply(SIGNS_AFTER, text) if LEFTOVERS.search(text) else text
