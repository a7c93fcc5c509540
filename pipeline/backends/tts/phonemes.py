"""Text to the phonemes that Kokoro and hibari were trained on: `hibari.g2p` for English, `misaki.zh` for Mandarin.

Both readers leave out, cut off or pass on what they do not know, without a word. Here that is found and named.
"""

from __future__ import annotations

import logging
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.backends.tts.sentences import Piece, Uncuttable, split
from pipeline.dialogue import Language
from pipeline.voice import Unsaid

# Other spaces and hyphens are what they look like; joiners and marks of direction are not read.
_SAME = str.maketrans(
    {**dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "), **dict.fromkeys("\u2010\u2011\u2012", "-")}
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufe0e\ufe0f\ufeff", "")
)
_LATIN = re.compile(r"([A-Za-zÀ-ɏ][A-Za-zÀ-ɏ'’-]*(?: +[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ'’-]*)*)")
_HAN = re.compile("[\u4e00-\u9fff]")
# English: read as a pause or not at all, and rightly so.
_ENGLISH_MARKS = frozenset(".,!?;:'\"-‘’“”—–…() ")
# Mandarin: marks, figures and the signs beside them (what the reader makes of those is checked in its phonemes).
_MANDARIN_MARKS = frozenset('，。！？；：、“”…—（）《》「」【】.,!?;:"() 0123456789０１２３４５６７８９%/~～+℃')
# What the reader of Mandarin would pass on as it is, in the form that it knows. A dot stands between foreign names.
_MANDARIN_SAME = str.maketrans(
    {"〇": "零", "『": "「", "』": "」", "〈": "《", "〉": "》", "‘": "“", "’": "”", "'": '"', "-": "—", "–": "—"}
    | dict.fromkeys("·・‧•", "")
)
# Words that end a sentence more often than they are short for another: the reader would say "I said number".
_STOP = re.compile(r"\b([Nn]o|[Ff]ig|[Ss]at|[Ss]un|[Ww]ed|[Ee]d|[Hh]on)\.(?!\s?\d)")
_LOADING = threading.Lock()


class Phonemes:
    """Reads text aloud, on paper. Safe to call from several threads; the same text is read once (a bounded cache).

    languages: those that will be asked for; packages that are missing raise ImportError here. What they load
    (1 to 2 s of CPU each, once a process) is loaded when it is first needed. remembered: how many texts.
    """

    def __init__(self, languages: Iterable[Language] = ("en", "zh"), remembered: int = 4096):
        import_module("hibari.g2p")
        if "zh" in languages:
            import jieba
            import misaki.zh  # noqa: F401

            jieba.setLogLevel(logging.WARNING)
        self._read = lru_cache(remembered)(self._read_anew)
        self._knows = lru_cache(remembered)(self._tried)

    def pieces(self, text: str, language: Language, accent: str, comfortable: int, limit: int) -> list[Piece] | Unsaid:
        """The phonemes of a text that may be long, cut as `sentences.split` does by their number, or why not: symbols,
        empty, too_long. `text` of a piece are its phonemes."""
        whole = self.read(text, language, accent)
        if isinstance(whole, Unsaid):
            return whole

        def spelled(part: str) -> str:
            phonemes = self.read(part, language, accent)
            return "" if isinstance(phonemes, Unsaid) else phonemes

        try:
            pieces = split(text.strip(), lambda part: len(spelled(part)), comfortable, limit)
        except Uncuttable as error:
            return _too_long(str(error))
        read = [Piece(spelled(piece.text), piece.pause) for piece in pieces]
        # The whole can be said, so a piece that cannot has no sound in it.
        return [piece for piece in read if piece.text]

    def read(self, text: str, language: Language, accent: str) -> str | Unsaid:
        """The phonemes (misaki's alphabet, with marks and spaces), or why there are none: symbols, empty, too_long.

        accent: "gb" for British English, also that of words in Mandarin; American otherwise.
        """
        return self._read(text, language, "gb" if accent == "gb" else "us")

    def _read_anew(self, text: str, language: Language, accent: str) -> str | Unsaid:
        text = unicodedata.normalize("NFC", text).translate(_SAME).strip()
        # Names and words of English go through English: the reader of Mandarin takes their letters for phonemes.
        parts = [text] if language == "en" else _LATIN.split(text)
        read: list[str] = []
        unknown: dict[str, None] = {}
        for place, part in enumerate(parts):
            english = language == "en" or place % 2 == 1
            try:
                said, odd = self._english(part, accent) if english else self._mandarin(part)
            except Uncuttable as error:
                return _too_long(str(error))
            unknown |= dict.fromkeys(odd)
            read.append(f" {said} " if english else said)
        if unknown:
            return unknown_symbols(unknown)
        phonemes = "".join(read).strip()
        return phonemes if _sounds(phonemes) else Unsaid("empty", f"nothing to say in {text!r}")

    def _english(self, text: str, accent: str) -> tuple[str, list[str]]:
        odd = [char for char in text if char not in _ENGLISH_MARKS and not self._knows(char, accent)]
        return ("", odd) if odd else (_reader(accent)(_STOP.sub(r"\1 .", text)), [])

    def _mandarin(self, text: str) -> tuple[str, list[str]]:
        text = text.translate(_MANDARIN_SAME)
        odd = [char for char in text if char not in _MANDARIN_MARKS and not _HAN.match(char)]
        if odd or not text.strip():
            return text, odd
        try:
            return _reader("cn")(text)[0], []
        except ValueError:
            # There are Han characters (of Japan and Korea, and the rarest) without a reading that is Mandarin.
            odd = [char for char in text if not self._knows(char, "cn")]
            return "", odd or _HAN.findall(text)

    def _tried(self, char: str, accent: str) -> bool:
        """Whether the reader makes a sound of the character."""
        if char.isascii() and char.isalnum():
            return True
        reader = _reader(accent)
        if accent == "cn":
            try:
                return bool(reader(char))
            except ValueError:
                return False
        if char.isalpha() and not unicodedata.name(char, "").startswith("LATIN"):
            return False
        return _sounds(reader(f"one {char} two")) > _sounds(reader("one two"))


def _reader(accent: str) -> Callable[[str], Any]:
    with _LOADING:
        return _mandarin() if accent == "cn" else _english(accent == "gb")


@cache
def _mandarin() -> Callable[[str], Any]:
    import misaki.zh

    return misaki.zh.ZHG2P()


@cache
def _english(british: bool) -> Callable[[str], Any]:
    from hibari.g2p import ASSETS, G2P
    from hibari.g2p.oov import OOV

    # Guesses how a word is read that no dictionary has; of a long one it would read the beginning.
    guess = OOV(str(Path(ASSETS) / ("oov_gb.onnx" if british else "oov.onnx")))

    def guess_whole(word: str) -> str | None:
        if len(word) > guess.maxlen:
            raise Uncuttable(word)
        return guess(word)

    return G2P(oov=guess_whole, british=british)


def unknown_symbols(symbols: Iterable[str]) -> Unsaid:
    """The fault of a text that holds these, or whose phonemes do."""
    named = ", ".join(f"{symbol!r} (U+{ord(symbol):04X})" for symbol in symbols)
    return Unsaid("symbols", f"cannot be read aloud: {named}")


def _too_long(text: str) -> Unsaid:
    return Unsaid("too_long", f"cannot be said at once and has no place to be cut: {text[:60]!r}")


def _sounds(phonemes: str) -> int:
    return sum(map(str.isalpha, phonemes))
