"""hibari: fast English, one voice, 24 kHz on a CPU. https://github.com/MMWilliams/hibari

It reads the phonemes that Kokoro reads; the model comes in the package and is distilled from Kokoro's style af_heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.backends.tts.phonemes import Phonemes
from pipeline.backends.tts.sentences import join
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse
from pipeline.models import main_file, uses
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

VOICE = "heart"
"""The only one whose model is in the package; hibari would download the others."""
COMFORTABLE, MAX_PHONEMES = 150, 400


class HibariVoice:
    """A `Synthesizer`. The same request gives the same bytes: the noise in the sound is always drawn the same way."""

    name = "hibari"
    rate = 24000
    languages: frozenset[Language] = frozenset({"en"})
    kinds: frozenset[VoiceKind] = frozenset({"name"})
    stochastic = False
    deterministic = True
    batch = 1

    def __init__(self, model: Path, threads: int = 1):
        from hibari import Hibari

        self._phonemes = Phonemes(("en",))
        self._model = Hibari(VOICE, str(model), threads)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        return [self._speak(request) for request in requests]

    def _speak(self, request: SpeechRequest) -> Clip | Unsaid:
        voice = request.voice
        if voice.recipe.name != VOICE or request.language not in self.languages:
            return Unsaid("voice", f"voice {voice.id!r}: hibari has only the English voice {VOICE!r}")
        pieces = self._phonemes.pieces(request.text, "en", "us", COMFORTABLE, MAX_PHONEMES)
        if isinstance(pieces, Unsaid):
            return pieces
        parts = [self._model.from_phonemes(piece.text, request.speed, seed=0) for piece in pieces]
        audio = join(parts, [piece.pause / request.speed for piece in pieces], self.rate)
        return Clip(np.clip(audio, -1, 1), self.rate)


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    return (uses("hibari", "tts"),)


def build(section: TtsEngineConfig) -> HibariVoice:
    return HibariVoice(main_file("hibari"), section.threads)
