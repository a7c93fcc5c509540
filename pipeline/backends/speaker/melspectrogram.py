"""Mel spectrograms as librosa makes them (`librosa.feature.melspectrogram`, htk=False, norm="slaney"), with numpy."""

from __future__ import annotations

from functools import cache

import numpy as np

# Slaney's Auditory Toolbox (1998): linear up to 1 kHz (15 mels), then 27 mels each time the frequency grows 6.4 times.
_HZ_PER_MEL = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _to_mel(hz: float) -> float:
    if hz < _LOG_FROM_HZ:
        return hz / _HZ_PER_MEL
    return float(_LOG_FROM_MEL + np.log(hz / _LOG_FROM_HZ) / _LOG_STEP)


def _to_hz(mels: np.ndarray) -> np.ndarray:
    high = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mels - _LOG_FROM_MEL))
    return np.where(mels < _LOG_FROM_MEL, mels * _HZ_PER_MEL, high)


@cache
def filters(rate: int, size: int, bands: int) -> np.ndarray:
    """float32 [size // 2 + 1, bands]: triangles from 0 to rate / 2 Hz, equally wide in mels and of equal area."""
    edges = _to_hz(np.linspace(0, _to_mel(rate / 2), bands + 2))
    slopes = edges[None, :] - np.fft.rfftfreq(size, 1 / rate)[:, None]
    widths = np.diff(edges)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return triangles.astype(np.float32)


def mel_power(audio: np.ndarray, rate: int, size: int, hop: int, bands: int) -> np.ndarray:
    """Power in mel bands, not its logarithm: float32 [1 + len(audio) // hop, bands].

    Frames of `size` samples under a Hann window, centred on every `hop`-th sample, with zeros beyond the ends.
    """
    padded = np.pad(np.asarray(audio, np.float32), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    spectrum = np.fft.rfft(frames * window, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    # Frame by frame: one large product would be cut up among threads, and round by their number.
    return (power[:, None] @ filters(rate, size, bands))[:, 0]
