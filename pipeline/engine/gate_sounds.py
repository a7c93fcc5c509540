"""Clips that are wrong as sound: cut, noisy, overdriven, silent."""

from __future__ import annotations

import numpy as np

from pipeline import audio
from pipeline.channel.noise import add_noise, pink, white
from pipeline.dialogue import Clip

FADE = 0.01
GAIN = 12.0
LOWERED = 6.0


def cut(clip: Clip, share: float) -> Clip:
    """Without this share of it at the end, faded out over 10 ms."""
    kept = clip.audio[: round(len(clip.audio) * (1 - share))].copy()
    length = min(round(FADE * clip.rate), len(kept))
    if length:
        kept[-length:] *= np.linspace(1, 0, length, dtype=np.float32)
    return Clip(kept, clip.rate)


def noisy(clip: Clip, snr: float, colour: str, seed: int) -> Clip:
    """With white or pink noise, its power `snr` dB below that of the clip."""
    draw = np.random.default_rng(seed)
    noise = (pink if colour == "pink" else white)(len(clip.audio), draw)
    mixed = add_noise(clip.audio.astype(np.float64), noise, [(0, len(clip.audio))], snr)
    # Noise must not clip: how loud it all is decides the mastering.
    return Clip((mixed / max(1.0, 1.01 * float(np.abs(mixed).max()))).astype(np.float32), clip.rate)


def overdriven(clip: Clip, lowered: bool) -> Clip:
    """12 dB above full scale, cut off there. lowered: turned down by 6 dB after that, so that no sample is at full
    scale any more."""
    peak = float(np.abs(clip.audio).max()) or 1.0
    hard = np.clip(clip.audio / peak * 10 ** (GAIN / 20), -1.0, 32767 / 32768)
    return audio.quantize(Clip((hard * (10 ** (-LOWERED / 20) if lowered else 1.0)).astype(np.float32), clip.rate))


def hiss(seconds: float, level: float, rate: int, seed: int) -> Clip:
    """Nothing but white noise of this level, dBFS (RMS)."""
    noise = white(round(seconds * rate), np.random.default_rng(seed))
    return Clip((noise * 10 ** (level / 20)).astype(np.float32), rate)
