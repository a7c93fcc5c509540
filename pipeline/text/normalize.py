"""One form for a reference and for what the recogniser wrote, so that only what was heard differs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from pipeline.dialogue import Language
from pipeline.text.verbalize import prepare, verbalize
from pipeline.text.verbalize_zh import read_figures

# What whisper's normaliser would drop or misread: words in brackets (they were spoken), and the o of "o.k.", which it
# takes for a zero.
_BEFORE_EN = (
    (re.compile(r"[()\[\]<>]"), " "),
    (re.compile(r"\bo\.? ?k\.?(?!\w)", re.I), "okay"),
    (re.compile(r"\bo['’ ]?clock\b", re.I), "oclock"),
    (re.compile(r"\bmiz\b", re.I), "ms"),  # as verbalize.py says it
)
_VARIANTS = str.maketrans("〇妳幺0123456789", "零你一零一二三四五六七八九")
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
    return _normalize_en(text) if language == "en" else bare_zh(read_figures(simple_zh(text)))


def _normalize_en(text: str) -> str:
    # By our own rules first: they know which way 10:30, 555-1234 or a date is said; whisper's only gather the words.
    text = verbalize(text, "en")
    for pattern, form in _BEFORE_EN:
        text = pattern.sub(form, text)
    return _INITIALS.sub(lambda match: match[0].replace(" ", ""), _english()(text).strip())


def simple_zh(text: str) -> str:
    """Mandarin in half-width, simplified characters, its figures still to be read."""
    return _simplified()(prepare(text, "zh"))


def bare_zh(text: str) -> str:
    """What is compared of `simple_zh` text whose figures are read: letters, Han characters; other digits one by one."""
    return "".join(char for char in text.lower().translate(_VARIANTS) if char.isalnum())
