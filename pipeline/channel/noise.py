"""Noise: made or recorded, and mixed in at a signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]  # first sample, last sample + 1


def white(length: int, draw: np.random.Generator) -> np.ndarray:
    return draw.standard_normal(length)


def pink(length: int, draw: np.random.Generator) -> np.ndarray:
    """White noise whose spectrum is divided by the root of the frequency: its power falls by 3 dB an octave."""
    from scipy.fft import irfft, next_fast_len, rfft

    whole = next_fast_len(length, real=True)
    spectrum = rfft(draw.standard_normal(whole))
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return irfft(spectrum, whole)[:length]


def babble(length: int, talkers: Sequence[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """Talkers at once and equally loud, each from a place of its own and over again; none of them is silent."""
    mix = np.zeros(length)
    for talker in talkers:
        mix += looped(talker / np.sqrt(np.mean(talker**2)), length, int(draw.integers(len(talker))))
    return mix


def looped(recording: np.ndarray, length: int, start: int) -> np.ndarray:
    """`length` samples of the recording from `start` on, over again."""
    return np.resize(np.roll(recording, -start), length)


def power(track: np.ndarray, spans: Sequence[Span]) -> float:
    """Mean square over the spans; they hold at least one sample."""
    return float(np.mean(np.concatenate([track[first:last] for first, last in spans]) ** 2))


def add_noise(track: np.ndarray, noise: np.ndarray, spans: Sequence[Span], snr: float) -> np.ndarray:
    """track + noise, the noise scaled so that the powers over the spans are `snr` dB apart.

    The noise is there between the spans too. It must not be silent in all of them; a silent track stays as it is.
    """
    gain = np.sqrt(power(track, spans) / power(noise, spans) / 10 ** (snr / 10))
    return track + gain * noise
