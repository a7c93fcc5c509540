"""Real speech to be recognised: English of hibari, Mandarin of a recorded voice, at 16 kHz."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf

from pipeline.audio import resample
from pipeline.dialogue import Clip
from tests.speech_server import RATE, speak


@cache
def english(text: str) -> Clip:
    return resample(Clip(speak(text).astype(np.float32) / 32768, RATE), 16000)


@cache
def mandarin() -> Clip:
    audio, rate = sf.read(Path(__file__).parent / "data" / "zm_yunxi.flac", dtype="float32")
    return resample(Clip(audio, rate), 16000)


def joined(*clips: Clip, gap: float = 0.0) -> Clip:
    """One after the other, with silence between them."""
    silence = np.zeros(int(gap * 16000), np.float32)
    return Clip(np.concatenate([part for clip in clips for part in (clip.audio, silence)]), 16000)


def plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum() or char == " ").strip()
