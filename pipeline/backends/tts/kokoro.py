"""Kokoro-82M (ONNX): English and Mandarin at 24 kHz on a CPU. https://github.com/hexgrad/kokoro

Text becomes phonemes (phonemes.py), phonemes become tokens, and a style says whose voice it is. A style is an array of
shape [510, 256] whose row n - 1 is for n tokens; of a row, the first 128 numbers go to the decoder (timbre), the others
to the predictor of durations, pitch and energy (prosody). The same request gives the same bytes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.backends.onnx import open_session
from pipeline.backends.tts.phonemes import Phonemes, unknown_symbols
from pipeline.backends.tts.sentences import join
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse
from pipeline.errors import ModelError
from pipeline.models import locate, uses
from pipeline.voice import Recipe, SpeechRequest, Unsaid, VoiceKind, Weights

MAX_TOKENS = 510
COMFORTABLE = 150
"""Tokens from which a text is cut at its sentences: long inputs are spoken at another pace. Eight sentences, 500 tokens
of am_michael, took 23.7 s without their pauses at once, 26.8 s in pieces of 250, 25.4 s of up to 130, 25.1 s one by one
(Mandarin, zf_xiaoxiao: 23.0 s in pieces of 300, 24.3 s of up to 190, 24.7 s). The recogniser followed all of them."""
INPUTS = ("tokens", "style", "speed")
STYLE_WIDTH = 256
TIMBRE_WIDTH = 128


@dataclass(frozen=True)
class Utterance:
    """What the model is asked for at once. tokens: 1 to 510; pause: seconds of silence after it, at speed 1."""

    tokens: tuple[int, ...]
    pause: float


class Kokoro:
    """A `Synthesizer`. Without chance: a take differs from the last by its speed.

    model_path: folder with kokoro.onnx, vocab.json and voices/NAME.bin; the installed models if None.
    threads: of one inference; more than one costs CPU and gains little.
    """

    name = "kokoro"
    rate = 24000
    languages: frozenset[Language] = frozenset({"en", "zh"})
    kinds: frozenset[VoiceKind] = frozenset({"styles"})
    stochastic = False
    deterministic = True
    batch = 1

    def __init__(self, model_path: Path | None = None, threads: int = 1):
        # First of all: a missing package is told before a missing file.
        self._phonemes = Phonemes()
        folder = locate("kokoro", model_path)
        self._styles = locate("kokoro-voices", model_path) / "voices"
        self._names = sorted(file.stem for file in self._styles.glob("*.bin"))
        self._style = lru_cache(len(self._names))(self._read_style)
        self._vocab = _read_vocab(folder / "vocab.json")
        self._session = open_session(folder / "kokoro.onnx", threads, INPUTS)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        return [self._speak(request) for request in requests]

    def _speak(self, request: SpeechRequest) -> Clip | Unsaid:
        voice = request.voice
        said = self._unfit(request) or self.utterances(request.text, request.language, voice.accent)
        if isinstance(said, Unsaid):
            return said
        parts: list[np.ndarray] = []
        for utterance in said:
            try:
                spoken = self._session.run(None, self.feed(utterance.tokens, voice.recipe, request.speed))
            except Exception as error:
                # onnxruntime's own errors share no base class but Exception; anything else is a bug of ours.
                if not type(error).__module__.startswith("onnxruntime."):
                    raise
                return Unsaid("refused", " ".join(f"{type(error).__name__}: {error}".split()))
            parts.append(np.asarray(spoken[0], np.float32).ravel())
        if not all(np.isfinite(part).all() for part in parts):
            return Unsaid("not_a_number", f"kokoro gave samples that are no numbers for {request.text!r}")
        audio = join(parts, [utterance.pause / request.speed for utterance in said], self.rate)
        return Clip(np.clip(audio, -1, 1), self.rate)

    def _unfit(self, request: SpeechRequest) -> Unsaid | None:
        """Why the voice cannot be made, or not in this language."""
        voice = request.voice
        if request.language not in voice.languages:
            return Unsaid("voice", f"voice {voice.id!r} does not speak {request.language}")
        if voice.recipe.kind not in self.kinds:
            return Unsaid("voice", f"kokoro makes no voice of a {voice.recipe.kind}: {voice.id!r}")
        for name in voice.recipe.parents:
            if name not in self._names:
                near = difflib.get_close_matches(name, self._names, n=1, cutoff=0.4)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                return Unsaid("voice", f"voice {voice.id!r}: kokoro has no style {name!r}{hint}")
        return None

    def utterances(self, text: str, language: Language, accent: str) -> list[Utterance] | Unsaid:
        """The text as the model is asked for it, or why it cannot be said."""
        pieces = self._phonemes.pieces(text, language, accent, COMFORTABLE, MAX_TOKENS)
        if isinstance(pieces, Unsaid):
            return pieces
        unknown = dict.fromkeys(symbol for piece in pieces for symbol in piece.text if symbol not in self._vocab)
        if unknown:
            return unknown_symbols(unknown)
        return [Utterance(tuple(self._vocab[symbol] for symbol in piece.text), piece.pause) for piece in pieces]

    def feed(self, tokens: Sequence[int], recipe: Recipe, speed: float) -> dict[str, np.ndarray]:
        """The model's inputs: tokens int64 [1, n + 2], style float32 [1, 256], speed float32 [1]."""
        row = len(tokens) - 1
        timbre = self._mixed(recipe.timbre, row)
        prosody = self._mixed(recipe.prosody, row) if recipe.prosody else timbre
        return {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": np.concatenate([timbre[:TIMBRE_WIDTH], prosody[TIMBRE_WIDTH:]])[None],
            "speed": np.array([speed], np.float32),
        }

    def _mixed(self, weights: Weights, row: int) -> np.ndarray:
        """One row, float32 [256], of the weighted sum of styles, in the order of the weights."""
        mixed = np.zeros(STYLE_WIDTH, np.float32)
        for name, weight in weights:
            mixed += np.float32(weight) * self._style(name)[row]
        return mixed

    def _read_style(self, name: str) -> np.ndarray:
        file = self._styles / f"{name}.bin"
        try:
            data = np.fromfile(file, np.dtype("<f4"))
        except FileNotFoundError:
            raise ModelError(f"{file} is gone; `speechchat models pull kokoro-voices`") from None
        if data.size != MAX_TOKENS * STYLE_WIDTH:
            raise ModelError(
                f"{file}: {data.size} numbers where a style has 510 x 256; `speechchat models pull kokoro-voices`"
            )
        return data.reshape(MAX_TOKENS, STYLE_WIDTH)


def _read_vocab(file: Path) -> dict[str, int]:
    try:
        data = json.loads(file.read_text("utf-8"))
        return {str(symbol): int(token) for symbol, token in data.get("vocab", data).items()}
    except (ValueError, TypeError, AttributeError):
        raise ModelError(f"{file}: not a map of phonemes to tokens; put Kokoro's own vocab.json there") from None


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    return uses("kokoro", "tts", section.model_path), uses("kokoro-voices", "voices", section.model_path)


def build(section: TtsEngineConfig) -> Kokoro:
    return Kokoro(section.model_path, section.threads)
