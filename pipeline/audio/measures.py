"""What can be measured of a clip without a model: its silences, and how far the speech lies above them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.audio.trim import STEP, levels
from pipeline.dialogue import Clip

DEPTH = 26.0
"""Decibels under the speech from which on a frame is silence. At 30 the breath at the end of some voices was none, and
their clips passed for cut off (6 of 70 turns of am_michael); of clips that are cut no fewer than 9 in 10 are told."""
LOUD = 15.0
"""Decibels under the loudest frames down to which a frame counts as speech when its level is measured."""
PAUSE = 3
"""Frames (0.03 s) in a row of which the quietest stretch of a clip consists: so much silence is left at its ends."""


class Silences(NamedTuple):
    """Seconds of silence: at the beginning, at the end, and the longest inside. All of a silent clip is its lead."""

    lead: float
    tail: float
    hush: float


def speech_level(frames: np.ndarray) -> float:
    """dBFS of the speech in frames of 10 ms (`audio.trim.levels`): the mean power of those that are nearly as loud as
    the loudest (95th percentile, so that a click does not count). After ITU-T P.56: pauses have no part in it."""
    loud = frames[frames >= np.percentile(frames, 95) - LOUD]
    return float(10 * np.log10(np.mean(10 ** (loud / 10))))


def silences(clip: Clip) -> Silences:
    """By level, relative to the speech: noise that is as loud as DEPTH allows is none. 0 for an empty clip."""
    frames = levels(clip)
    if not len(frames):
        return Silences(0.0, 0.0, 0.0)
    loud = np.flatnonzero(frames > max(speech_level(frames) - DEPTH, -100.0))
    if not len(loud):
        return Silences(clip.seconds, 0.0, 0.0)
    hush = int(np.max(np.diff(loud), initial=1)) - 1
    end = max(0.0, clip.seconds - (loud[-1] + 1) * STEP)
    return Silences(loud[0] * STEP, end, hush * STEP)


def trim_silence(clip: Clip) -> Clip:
    """Without its lead and tail; a silent clip stays as it is."""
    lead, tail, _ = silences(clip)
    first, last = round(lead * clip.rate), len(clip.audio) - round(tail * clip.rate)
    return Clip(clip.audio[first:last], clip.rate) if first < last else clip


def snr(clip: Clip) -> float | None:
    """dB of the speech over the quietest 0.03 s, a blind estimate; None for a clip of less than 0.12 s.

    Of clean speech it says how deep the pauses are, at most 100; without a pause it says too little.
    """
    frames = levels(clip)
    if len(frames) < 4 * PAUSE:
        return None
    power = 10 ** (frames[: len(clip.audio) // round(STEP * clip.rate)] / 10)
    quiet = np.convolve(power, np.full(PAUSE, 1 / PAUSE), "valid").min()
    return float(min(100.0, speech_level(frames) - 10 * np.log10(quiet)))
