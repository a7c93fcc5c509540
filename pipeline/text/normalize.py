"""One form for a reference and for what the recogniser wrote, so that only what was heard differs."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from pipeline.dialogue import Language
from pipeline.text.numerals import read_figures_zh

# What whisper's normaliser would drop, split or misread: words in brackets (they were spoken), clock times, phone
# numbers, leading zeros, the sign of a figure, and the o of "o.k.", which it takes for a zero.
_BEFORE_EN = (
    (re.compile(r"[()\[\]<>]"), " "),
    (re.compile(r"\b([01]?\d|2[0-3]):00\b"), r"\1 o'clock"),
    (re.compile(r"(?<=\d):(?=\d\d\b)"), ""),
    (re.compile(r"\b(\d{3})-(?:(\d{3})-)?(\d{4})\b"), r"\1\2\3"),
    (re.compile(r"(?<=\d)[-–](?=\d)"), " to "),
    (re.compile(r"\bo\.? ?k\.?(?!\w)", re.I), "okay"),
    (re.compile(r"\bo['’ ]?clock\b", re.I), "oclock"),
    (re.compile(r"(?<!\w)-(?=\d)"), "minus "),
    # As verbalize.py says them, and as a recogniser writes them.
    (re.compile(r"\betc\b", re.I), "et cetera"),
    (re.compile(r"\bmiz\b", re.I), "ms"),
)
_LEADING_ZERO = re.compile(r"(?<![\d.,])0\d+(?![\d.,]*\d)")
_VARIANTS = str.maketrans("〇妳0123456789", "零你零一二三四五六七八九")
_DIGIT_EN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_INITIALS = re.compile(r"\b[a-z](?: [a-z])+\b")


@functools.cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


@functools.cache
def _simplified() -> Callable[[str], str]:
    import opencc

    return opencc.OpenCC("t2s").convert


def normalize(text: str, language: Language) -> str:
    """`text` in the form in which it is compared.

    en: words between single spaces, by the normaliser of Radford et al., "Robust Speech Recognition via Large-Scale
    Weak Supervision" (2022), appendix C: lower case, no punctuation, contractions written out, numbers in figures,
    American spelling; letters said one by one are one word (A.I., a i and AI are ai).
    zh: simplified Han characters, lower-case Latin letters and nothing between them, numbers in Han numerals.
    """
    return _normalize_en(text) if language == "en" else bare_zh(read_figures_zh(simple_zh(text)))


def _normalize_en(text: str) -> str:
    for pattern, form in _BEFORE_EN:
        text = pattern.sub(form, text)
    text = _LEADING_ZERO.sub(lambda match: " ".join(_DIGIT_EN[int(digit)] for digit in match[0]), text)
    return _INITIALS.sub(lambda match: match[0].replace(" ", ""), _english()(text).strip())


def simple_zh(text: str) -> str:
    """Mandarin in half-width, simplified, lower-case characters, its figures still to be read."""
    return _simplified()(unicodedata.normalize("NFKC", text)).lower()


def bare_zh(text: str) -> str:
    """What is compared of `simple_zh` text whose figures are read: letters, Han characters; other digits one by one."""
    return "".join(char for char in text.translate(_VARIANTS) if char.isalnum())
