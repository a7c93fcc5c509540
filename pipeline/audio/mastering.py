"""From a raw clip to what lies on a track."""

from __future__ import annotations

import numpy as np

from pipeline.audio.samples import centre, quantize, resample
from pipeline.audio.trim import Vad, trim, trim_to_speech
from pipeline.dialogue import Clip, Role
from pipeline.speech_sections import AudioConfig

LOOK_AHEAD = 0.005
"""Seconds before and after a peak in which the limiter lowers and raises the gain."""
PASSES = 3
"""Of measuring and limiting: enough for a click, and a bound for a target that the peaks do not allow."""


def master(clip: Clip, role: Role, config: AudioConfig, vad: Vad | None = None) -> Clip:
    """A raw clip as it goes onto its track: without direct current, trimmed, at its rate, at its loudness, in 16 bit.

    vad: of `trim: vad`; without one, and where it finds no speech, the ends are trimmed by their level alone.
    Empty where the whole clip is under `trim_below`. The samples must be finite (see `check_raw`).
    """
    rate = config.user_rate if role == "user" else config.assistant_rate
    clip = trim(centre(resample(clip, rate)), config.trim_below)
    if vad is not None and config.trim == "vad" and len(clip.audio):
        clip = trim_to_speech(clip, vad)
    return quantize(normalize_loudness(clip, config.loudness, config.peak))


def normalize_loudness(clip: Clip, target: float, peak: float) -> Clip:
    """The clip at `target` LUFS (ITU-R BS.1770-4), with no sample above `peak` dBFS.

    Peaks are limited by themselves: one click would otherwise hold a whole clip below its loudness (that of 1 % of
    Kokoro's clips at -23 LUFS, of most at -16). What was limited is measured again, because the peaks had their part in
    the measure. A clip shorter than one gating block (0.4 s) is repeated for it. Silence stays silence.
    """
    for _ in range(PASSES):
        loudness = measure_loudness(clip)
        if not np.isfinite(loudness):
            break
        loud = Clip((clip.audio * np.float32(10 ** ((target - loudness) / 20))).astype(np.float32), clip.rate)
        clip = limit(loud, peak)
        if clip is loud:
            break
    return clip


def measure_loudness(clip: Clip) -> float:
    """LUFS (ITU-R BS.1770-4), minus infinity for silence."""
    import pyloudnorm

    if not np.any(clip.audio):
        return -np.inf
    block = int(0.4 * clip.rate) + 1
    audio = clip.audio if len(clip.audio) >= block else np.tile(clip.audio, -(-block // len(clip.audio)))
    return float(pyloudnorm.Meter(clip.rate).integrated_loudness(audio.astype(np.float64)))


def limit(clip: Clip, peak: float) -> Clip:
    """The clip with no sample above `peak` dBFS: each peak is turned down, smoothly, within 10 ms on either side of it.

    The gain is the lowest that any sample within 5 ms needs, averaged over 5 ms on either side (a Hann window), so
    that it is never above what the sample itself needs. Where nothing is too loud no sample is changed.
    """
    ceiling = np.float32(10 ** (peak / 20))
    level = np.abs(clip.audio)
    if not len(level) or level.max() <= ceiling:
        return clip
    reach = max(1, round(LOOK_AHEAD * clip.rate))
    needed = np.pad(ceiling / np.maximum(level, ceiling), 2 * reach, constant_values=1)
    lowest = np.lib.stride_tricks.sliding_window_view(needed, 2 * reach + 1).min(axis=-1)
    window = np.hanning(2 * reach + 3)[1:-1]
    gain = np.convolve(lowest, window / window.sum(), "valid")
    return Clip((clip.audio * gain).astype(np.float32), clip.rate)
