"""Mathematical signs and Roman numerals of English text in words, where what stands beside them tells what they are."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.text.numerals import ordinal_en, roman_value, words_en

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_PARTS = re.compile(
    r"\b((?:[Cc]hapter|CHAPTER|[Pp]art|PART|Act|Scene|Volume|Vol\.|Book|Section|Article|Phase|Type|Level|Stage|Episode"
    r"|Appendix|Title|Figure|Table|World War|Super Bowl|Final Fantasy|Rocky|Star Wars|Grade|Class|Division|Unit|Lesson)"
    r" )([IVXLC]{2,}|[VX]|(?<=[A-Z][a-z]{2} )I|(?<=[A-Z][a-z]{3} )I|(?<=[A-Z][a-z]{6} )I)\b(?!['.]\w)"
)
_RULERS = re.compile(
    r"\b((?:Henry|Louis|George|Edward|James|William|Charles|Richard|Elizabeth"
    r"|Mary|Catherine|Napoleon|Alexander|Nicholas"
    r"|Peter|Philip|Francis|Benedict|Pius|John Paul|Paul|Leo|Gregory|Innocent|Ivan|Frederick|Ramesses|Ptolemy|Harald"
    r"|Gustav|Christian|Felipe|Juan Carlos|Haakon|Carl|Sam) )"
    r"([IVX]{2,}|V|X|I(?=[,.;:!?]|$|'s| (?:of|was|ruled|reigned|died)))\b"
)


def _part(match: re.Match[str]) -> str:
    value = roman_value(match[2])
    return f"{match[1]}{words_en(str(value))}" if value else match.group()


def _ruler(match: re.Match[str]) -> str:
    value = roman_value(match[2])
    return f"{match[1]}the {ordinal_en(str(value))}" if value else match.group()


_TERM = r"[\d.,]*\d|[a-zA-Z](?![a-zA-Z])"  # a figure or a variable
_LEFT = r"(?:(?<=\d)|(?<=[²³%)])|(?<=\b[a-zA-Z]))"
_RIGHT = r"(?=[-−√(]?(?:\d|[a-zA-Z](?![a-zA-Z])|\.\d))"
_NEGATIVE = r"(?<![\w²³)])"
# Without one of these the rules below have nothing to do.
OPERATORS = re.compile(r"[−×*·÷=≤≥<>≠≈~±√^]|\d ?[-xX]")
LEFTOVERS = re.compile(r"[²³+#&π]")
# While figures are still figures, and once they are words.
SIGNS_BEFORE: tuple[Rule, ...] = (
    (re.compile(rf"({_TERM})\s*[-−]\s*({_TERM})(?=[²³]?\s*[=≈])"), r"\1 minus \2"),
    (re.compile(r"(\b(?:is|'s|calculate|compute|do)\s+)(?!(?:\d{3}-\d{4}|50-50|20-20)\b)(\d[\d.,]*)\s*-\s*(\d[\d.,]*)(?=\s*[?.]?$)",
                re.I),
     r"\1\2 minus \3"),
    (re.compile(r"(?<=[\w²³)])\s*−\s*(?=[\w√(])"), " minus "),
    (re.compile(rf"{_LEFT}\s*(?:[×*·]|(?<=\d)\s+x\s+(?=\d))\s*{_RIGHT}"), " times "),
    (re.compile(r"(?<=\d)[xX](?=\d)"), " by "),
    (re.compile(rf"{_LEFT}\s*÷\s*{_RIGHT}"), " divided by "),
    (re.compile(rf"{_LEFT}\s*=\s*{_RIGHT}(?!\s*[=>])"), " equals "),
    (re.compile(rf"(?:{_LEFT}|(?<=\w))\s*(?:≤|<=)\s*{_RIGHT}"), " is less than or equal to "),
    (re.compile(rf"(?:{_LEFT}|(?<=\w))\s*(?:≥|>=)\s*{_RIGHT}"), " is greater than or equal to "),
    (re.compile(rf"(?:{_LEFT}|(?<=\w)\s)\s*<\s*{_RIGHT}"), " is less than "),
    (re.compile(rf"(?:{_LEFT}|(?<=\w)\s)\s*>\s*{_RIGHT}"), " is greater than "),
    (re.compile(rf"{_LEFT}\s*≠\s*{_RIGHT}"), " is not equal to "),
    (re.compile(rf"{_LEFT}\s*≈\s*{_RIGHT}"), " is about "),
    (re.compile(r"(?<!\w)\s*[≈~]\s*(?=[$£€]?\d)"), " about "),
    (re.compile(r"(?<![\w])≥\s*(?=\d)"), "at least "),
    (re.compile(r"(?<![\w])≤\s*(?=\d)"), "at most "),
    (re.compile(r"(?<![\w<])<\s*(?=\d)"), "less than "),
    (re.compile(r"(?<![\w>])>\s*(?=\d)"), "more than "),
    (re.compile(r"\s*±\s*(?=\d)"), " plus or minus "),
    (re.compile(r"√\s*(?=\d|[a-z]\b)"), "the square root of "),
    (re.compile(rf"{_LEFT}\^2\b"), "²"),
    (re.compile(rf"{_LEFT}\^3\b"), "³"),
    (re.compile(rf"{_LEFT}\^(?=\d)"), " to the power of "),
)  # fmt: skip
SIGNS_AFTER: tuple[Rule, ...] = (
    (re.compile(r"(?<=[^\W_])²"), " squared"),
    (re.compile(r"(?<=[^\W_])³"), " cubed"),
    (re.compile(r"\bC\+\+"), "C plus plus"),
    (re.compile(r"\b([CF])#(?!\w)"), r"\1 sharp"),
    (re.compile(r"(?<=\w)\s*\+\s*(?=\w)"), " plus "),
    (re.compile(r"(?<=\w)\+(?!\S)|(?<=\w)\+(?=[,.!?;:])"), " plus"),
    (re.compile(r"(?<!\S)\+(?=\w)"), "plus "),
    (re.compile(r"(?<=\w)\s*&\s*(?=\w)"), " and "),
    (re.compile(r"π"), "pi"),
)


def apply(rules: tuple[Rule, ...], text: str) -> str:
    """`text` after each rule in turn."""
    for pattern, form in rules:
        text = pattern.sub(form, text)
    return text


def read_roman(text: str) -> str:
    """`text` with its Roman numerals in words: parts of a work are counted, rulers numbered."""
    return _RULERS.sub(_ruler, _PARTS.sub(_part, text))
