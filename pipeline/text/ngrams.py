"""Texts as 64-bit hashes of their n-grams: what duplicates and benchmark questions are told by.

A unit of text is a Han character, or a run of other letters and digits (an English word, a Latin word in Mandarin, a
figure), whatever the language: so a long English word in a Mandarin sentence is one unit and not thirteen characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(f"[{_HAN}]|[^\\W_{_HAN}]+")
_HAN_CHAR = re.compile(f"[{_HAN}]")
_APOSTROPHES = re.compile("['’]")
_BASE = 0x9E3779B97F4A7C15
_KNOWN_UNITS = 1 << 18
"""Hashes of units that are remembered: about 50 MB; a long run meets ever more words."""


def split_units(text: str) -> list[str]:
    """The units of `text` in order, lower case and half width; punctuation and white space tell nothing."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _UNIT.findall(_APOSTROPHES.sub("", text).lower())


def has_han(text: str) -> bool:
    return _HAN_CHAR.search(text) is not None


@dataclass(frozen=True)
class Units:
    """Hashes of the units of some texts, one text after the other.

    starts: where each text begins in `hashes`, shape [texts + 1], the last is the end of all.
    """

    hashes: Hashes
    starts: Offsets


class UnitHasher:
    """Hashes units by BLAKE2b (the same in any process, on any machine); its memory is bounded."""

    def __init__(self) -> None:
        self._known = _Known()

    def hash(self, texts: Sequence[Sequence[str]]) -> Units:
        """The units of `texts`, each as `split_units` gave them."""
        if len(self._known) > _KNOWN_UNITS:
            self._known.clear()
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=starts[1:])
        known = self._known
        hashes = np.fromiter((known[unit] for text in texts for unit in text), np.uint64, int(starts[-1]))
        return Units(hashes, starts)


class _Known(dict[str, int]):
    def __missing__(self, unit: str) -> int:
        value = self[unit] = int.from_bytes(blake2b(unit.encode(), digest_size=8).digest(), "little")
        return value


def ngrams(units: Units, width: int | Sequence[int] | Offsets) -> Units:
    """The hashes of every `width` units in a row of each text, in order; of a shorter text the one of all of it.

    width: one for all, or one for each text. A text without units has none. The hash is a polynomial over the units'
    hashes modulo 2^64, finished as in SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators",
    2014): two n-grams that differ have the same with a probability of about 2^-64.
    """
    lengths = np.diff(units.starts)
    widths = np.minimum(np.broadcast_to(np.asarray(width, np.int64), lengths.shape), lengths)
    total = len(units.hashes)
    wide = np.repeat(widths, lengths)
    out = np.zeros(total, np.uint64)
    factor = 1
    for shift in range(int(widths.max(initial=0))):
        here = out[: total - shift]
        np.add(here, units.hashes[shift:] * np.uint64(factor), out=here, where=wide[: total - shift] > shift)
        factor = factor * _BASE % 2**64
    whole = np.arange(total) + wide <= np.repeat(units.starts[1:], lengths)
    starts = np.zeros_like(units.starts)
    np.cumsum(np.where(lengths > 0, lengths - widths + 1, 0), out=starts[1:])
    return Units(mix(out[whole]), starts)


def mix(values: Hashes) -> Hashes:
    """The finisher of SplitMix64: every bit of the result hangs on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
