"""Kokoro-82M (ONNX): English and Mandarin at 24 kHz on a CPU. https://github.com/hexgrad/kokoro

Text becomes phonemes (`hibari.g2p` for English, `misaki.zh` for Mandarin), phonemes become tokens, and a style
array of shape [510, 256] says whose voice it is: row n - 1 is for n tokens. The same request gives the same bytes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backends.onnx import open_session
from pipeline.config import Config
from pipeline.dialogue import Clip, Language, ModelUse, SpeechRequest
from pipeline.errors import BackendError, ModelError, SpeechchatError
from pipeline.models import locate, uses
from speakers.library import Voice, VoiceLibrary

MAX_TOKENS = 510
STYLE_WIDTH = 256
PAUSE = 0.15
"""Seconds of silence between the pieces of a text that is too long for the model; the pieces bring their own too."""

# Where a long text may be cut, best first: after a sentence, after a clause, between words, anywhere.
_CUTS = tuple(
    re.compile(pattern)
    for pattern in (r"(?<=[。！？…])|(?<=[.!?])\s+", r"(?<=[，、；：])|(?<=[,;:])\s+", r"\s+", r"(?<=\S)(?=\S)")
)
_LATIN = re.compile(r"([A-Za-z][A-Za-z'’-]*(?: +[A-Za-z][A-Za-z'’-]*)*)")


class Kokoro:
    """A `Synthesizer`. Without chance: a take differs from the last by its speed.

    model_path: folder with kokoro.onnx, vocab.json and voices/NAME.bin; the installed models if None.
    threads: of one inference; more than one costs CPU and gains little (RTF 0.65 with 1, 0.44 with 2).
    """

    name = "kokoro"
    rate = 24000
    stochastic = False
    deterministic = True

    def __init__(self, library: VoiceLibrary, model_path: Path | None = None, threads: int = 1):
        # First of all: a missing package is told before a missing file.
        self._g2p = _Phonemes()
        folder = locate("kokoro", model_path)
        self._library = library
        self._styles_folder = locate("kokoro-voices", model_path) / "voices"
        self._styles: dict[str, np.ndarray] = {}
        vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
        self._vocab: dict[str, int] = vocab.get("vocab", vocab)
        self._session = open_session(folder / "kokoro.onnx", threads)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip]:
        return [self._tried(request) for request in requests]

    def _tried(self, request: SpeechRequest) -> Clip:
        try:
            return self._speak(request)
        except SpeechchatError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise BackendError(f"kokoro cannot say {request.text!r}: {reason}") from error

    def _speak(self, request: SpeechRequest) -> Clip:
        voice = self._library.voice(request.voice)
        if request.language not in voice.languages:
            raise BackendError(f"voice {voice.id!r} does not speak {request.language!r} (text {request.text!r})")
        style = self._style(voice)
        parts: list[np.ndarray] = []
        for tokens in self.pieces(request.text.strip(), request.language, voice.accent):
            if parts:
                parts.append(np.zeros(round(PAUSE * self.rate), np.float32))
            feed = {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": style[len(tokens) - 1 : len(tokens)],
                "speed": np.array([request.speed], np.float32),
            }
            parts.append(np.asarray(self._session.run(None, feed)[0], np.float32).ravel())
        if not parts:
            raise BackendError(f"kokoro finds nothing to say in the text {request.text!r}")
        audio = np.clip(np.concatenate(parts), -1, 1)
        if not np.isfinite(audio).all():
            raise BackendError(f"kokoro gave samples that are no numbers for the text {request.text!r}")
        return Clip(audio, self.rate)

    def pieces(self, text: str, language: Language, accent: str) -> Iterator[list[int]]:
        """The tokens of `text`, cut in half, and again, until each piece fits the model. Silent pieces are left out."""
        phonemes = self._g2p(text, language, accent)
        tokens = [self._vocab[symbol] for symbol in phonemes if symbol in self._vocab]
        if not any(symbol.isalpha() for symbol in phonemes if symbol in self._vocab):
            return
        if len(tokens) <= MAX_TOKENS:
            yield tokens
            return
        for half in cut(text):
            yield from self.pieces(half, language, accent)

    def _style(self, voice: Voice) -> np.ndarray:
        """The style of a voice, float32 [510, 256]: the weighted sum over its recipe, in the recipe's order."""
        if voice.id not in self._styles:
            style = np.zeros((MAX_TOKENS, STYLE_WIDTH), np.float32)
            for name, weight in voice.recipe:
                style += np.float32(weight) * self._read_style(name)
            self._styles[voice.id] = style
        return self._styles[voice.id]

    def _read_style(self, name: str) -> np.ndarray:
        file = self._styles_folder / f"{name}.bin"
        try:
            data = np.fromfile(file, np.dtype("<f4"))
        except FileNotFoundError:
            raise ModelError(f"{file}: kokoro has no style {name!r}; `speechchat models pull kokoro-voices`") from None
        if data.size != MAX_TOKENS * STYLE_WIDTH:
            raise ModelError(
                f"{file}: {data.size} numbers where a style has 510 x 256; `speechchat models pull kokoro-voices`"
            )
        return data.reshape(MAX_TOKENS, STYLE_WIDTH)


def models(config: Config) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    override = config.tts.model_path
    return uses("kokoro", "tts", override), uses("kokoro-voices", "voices", override)


def build(config: Config, library: VoiceLibrary) -> Kokoro:
    return Kokoro(library, config.tts.model_path, config.tts.threads)


class _Phonemes:
    """Text to phonemes by language and accent. Each front end is loaded when it is first needed (1 to 2 s of CPU)."""

    def __init__(self) -> None:
        import hibari.g2p
        import jieba
        import misaki.zh

        jieba.setLogLevel(logging.WARNING)
        self._make: dict[str, Callable[[], Callable[[str], Any]]] = {
            "us": hibari.g2p.G2P,
            "gb": lambda: hibari.g2p.G2P(british=True),
            "cn": misaki.zh.ZHG2P,
        }
        self._made: dict[str, Callable[[str], Any]] = {}

    def __call__(self, text: str, language: Language, accent: str) -> str:
        if language == "en":
            return self._english(text, accent if accent == "gb" else "us")
        # misaki would spell Latin letters as if they were IPA, so names and words of English go through English.
        parts = _LATIN.split(text)
        return "".join(
            f" {self._english(part, 'us')} " if index % 2 else self._mandarin(part) for index, part in enumerate(parts)
        ).strip()

    def _english(self, text: str, accent: str) -> str:
        return str(self._front_end(accent)(text))

    def _mandarin(self, text: str) -> str:
        return str(self._front_end("cn")(text)[0])

    def _front_end(self, accent: str) -> Callable[[str], Any]:
        if accent not in self._made:
            self._made[accent] = self._make[accent]()
        return self._made[accent]


def cut(text: str) -> tuple[str, str]:
    """`text` in two, cut at the best kind of place that it has, as near to the middle as can be."""
    for kind in _CUTS:
        places = [m for m in kind.finditer(text) if text[: m.start()].strip() and text[m.end() :].strip()]
        if places:
            best = min(places, key=lambda m: abs(m.start() + m.end() - len(text)))
            return text[: best.start()], text[best.end() :]
    raise BackendError(f"kokoro cannot cut the text {text[:80]!r} into pieces of {MAX_TOKENS} tokens")
