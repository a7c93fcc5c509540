"""Samples: 16-bit and float, sample rate, direct current.

Inside a sample of the data set all audio is 16-bit PCM (int16), because that is what FLAC stores: what was judged is
what is shipped.
"""

from __future__ import annotations

import numpy as np
import soxr

from pipeline.dialogue import Clip


def to_pcm(audio: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] to int16, rounded to nearest and clipped. Shape is kept."""
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)


def from_pcm(pcm: np.ndarray) -> np.ndarray:
    """int16 to float32 in [-1, 1). Shape is kept."""
    return pcm.astype(np.float32) / 32768.0


def quantize(clip: Clip) -> Clip:
    """The clip as 16 bits hold it."""
    return Clip(from_pcm(to_pcm(clip.audio)), clip.rate)


def resample(clip: Clip, rate: int) -> Clip:
    """The clip at `rate` Hz (soxr, high quality)."""
    if clip.rate == rate:
        return clip
    return Clip(soxr.resample(clip.audio, clip.rate, rate, quality="HQ").astype(np.float32), rate)


def centre(clip: Clip) -> Clip:
    """The clip without its direct current: its mean is 0."""
    if not len(clip.audio):
        return clip
    return Clip((clip.audio - clip.audio.mean(dtype=np.float64)).astype(np.float32), clip.rate)
