"""Dates and clock times of English text in words.

A date in figures with slashes or hyphens is read month first (American), unless the first figure can be no month; with
dots day first (European); with the year first it is ISO 8601. Days are ordinals, as they are said.
"""

from __future__ import annotations

import re

from pipeline.text.numerals import ordinal_en, pair_en, words_en, year_en

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_SHORT = {month[:3].lower(): month for month in _MONTHS}
_MONTH = (
    r"(January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)(?:\.|\b))"
)
_YEAR = r"([12]\d{3})(?![\d.,]*\d|[-–]\d|s\b)"
_MONTH_NAME = re.compile(r"\b(?:jan|feb|ma[ry]|apr|ju[nl]|aug|sep|oct|nov|dec)", re.I)
_FIGURE_DATE = re.compile(r"\d([-/.])\d{1,2}\1\d")
_ISO = re.compile(r"(?<![\w./-])([12]\d{3})([-/.])(\d{1,2})\2(\d{1,2})(?![\w/-]|\.\d)")
_FIGURES = re.compile(r"(?<![\w./-])(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})(?![\w/-]|\.\d)")
_MONTH_DAY = re.compile(
    rf"\b{_MONTH}[ -](\d{{1,2}})(?:st|nd|rd|th)?(?:[-–](\d{{1,2}})(?:st|nd|rd|th)?)?"
    rf"(?![\d:%/]|-(?![12]\d{{3}}\b)|[.,]\d| [ap]\.?m|\w)"
    rf"(?:(?:,? |-){_YEAR})?",
    re.I,
)
_DAY_MONTH = re.compile(
    rf"(\bthe )?(?<![\w.,:/-])(\d{{1,2}})(?:st|nd|rd|th)?(?:[-–](\d{{1,2}})(?:st|nd|rd|th)?)?( of)? {_MONTH}(?!\w)"
    rf"(?:,? {_YEAR})?",
    re.I,
)
_MONTH_YEAR = re.compile(rf"\b{_MONTH},? {_YEAR}", re.I)
_WEEKDAYS = {"mon": "Monday", "tue": "Tuesday", "tues": "Tuesday", "wed": "Wednesday", "thu": "Thursday",
             "thurs": "Thursday", "fri": "Friday", "sat": "Saturday", "sun": "Sunday"}  # fmt: skip
_WEEKDAY = r"(Mon|Tues?|Wed|Thu(?:rs)?|Fri|Sat|Sun)"
_WEEK = re.compile(rf"\b{_WEEKDAY}\.?\s?[-–]\s?{_WEEKDAY}\b\.?")


def _name(month: str) -> str:
    return _SHORT[month[:3].lower()]


def _date(year: str, month: int, day: int, whole: str) -> str:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return whole
    said = year_en(year) if len(year) == 4 else pair_en(year)
    return f"{_MONTHS[month - 1]} {ordinal_en(str(day))}, {said}"


def _iso(match: re.Match[str]) -> str:
    return _date(match[1], int(match[3]), int(match[4]), match.group())


def _figures(match: re.Match[str]) -> str:
    first, sign, second, year = match.groups()
    month, day = (second, first) if sign == "." or int(first) > 12 else (first, second)
    if len(year) == 2 and sign == ".":  # 3.11.24 is no date but a version or a section
        return match.group()
    return _date(year, int(month), int(day), match.group())


def _days(first: str, last: str | None) -> str | None:
    days = [first] if last is None else [first, last]
    if not all(1 <= int(day) <= 31 for day in days):
        return None
    return " to ".join(ordinal_en(str(int(day))) for day in days)


def _month_day(match: re.Match[str]) -> str:
    month, first, last, year = match.groups()
    days = _days(first, last)
    if days is None or (month.islower() and month in ("may", "march", "mar")):  # a verb more often than a month
        return match.group()
    return f"{_name(month)} {days}" + (f", {year_en(year)}" if year else "")


def _day_month(match: re.Match[str]) -> str:
    the, first, last, of, month, year = match.groups()
    days = _days(first, last)
    if days is None or (month.islower() and month in ("may", "march", "mar", "sun")):
        return match.group()
    # "5th of March" keeps its words; "5 March" is said "the fifth of March".
    article = the or ("" if of else "the ")
    return f"{article}{days} of {_name(month)}" + (f", {year_en(year)}" if year else "")


def read_dates(text: str) -> str:
    """`text` with its dates in words; a date that no calendar has stays."""
    if _FIGURE_DATE.search(text):
        text = _FIGURES.sub(_figures, _ISO.sub(_iso, text))
    if not _MONTH_NAME.search(text):
        return text
    text = _DAY_MONTH.sub(_day_month, _MONTH_DAY.sub(_month_day, text))
    return _MONTH_YEAR.sub(lambda match: f"{_name(match[1])} {year_en(match[2])}", text)


def read_weekdays(text: str) -> str:
    """`text` with ranges of short weekdays (Mon-Fri) in words."""
    return _WEEK.sub(lambda match: f"{_WEEKDAYS[match[1].lower()]} to {_WEEKDAYS[match[2].lower()]}", text)


_HALF_DAY = re.compile(r"(?<![\w:.,$])(\d{1,2})(?:[:.]([0-5]\d))?(?::([0-5]\d))? ?([apAP])\.?[mM](?:\.(\s*$)?|\b)")
_DAY_TIME = re.compile(r"(?<![\w:.,$-])([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?![\w:%]|[.,]\d)")
_SPAN = re.compile(
    r"(?<=[\d.mM])\s?[-–]\s?(?=\d{1,2}(?:[:.]\d\d)? ?[apAP]\.?[mM]\b)|(?<=:\d\d)\s?[-–]\s?(?=\d{1,2}:\d\d)"
)
_RATIO = re.compile(r"(?<![\w:.,])(\d+):(\d+)(?![\w:]|[.,]\d)")
_RATIO_CUE = re.compile(
    r"\b(?:scores?|scored|ratio|aspect|won|wins?|lost|lose|beat|lead|led|drew|tied|tie|odds|scale)\b", re.I
)


def _time(hour: str, minute: str | None, second: str | None, half: str) -> str:
    said = words_en(str(int(hour)))
    if minute and minute != "00":
        said += f" {pair_en(minute)}"
    elif not half:
        said += " o'clock"
    if second:
        said += f" and {words_en(str(int(second)))} second{'' if int(second) == 1 else 's'}"
    return said + (f" {half.upper()} M" if half else "")


def _half_day(match: re.Match[str]) -> str:
    hour, minute, second, half, end = match.groups()
    if not 1 <= int(hour) <= 12:
        return match.group()
    return _time(hour, minute, second, half) + ("." if end is not None else "")


def _ratio(match: re.Match[str]) -> str:
    # Two figures behind the colon are minutes, or seconds (25:30), unless something is won or compared.
    if len(match[2]) == 2 and match[2] < "60" and not _RATIO_CUE.search(match.string[: match.start()]):
        return match.group()
    return f"{words_en(str(int(match[1])))} to {words_en(str(int(match[2])))}"


def read_times(text: str) -> str:
    """`text` with its clock times in words, and with its scores and ratios (3:2), which look like them."""
    if ":" not in text and "m" not in text.lower():
        return text
    text = _HALF_DAY.sub(_half_day, _SPAN.sub(" to ", text))
    text = _RATIO.sub(_ratio, text)
    return _DAY_TIME.sub(lambda match: _time(match[1], match[2], match[3], ""), text)
