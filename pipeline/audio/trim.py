"""The ends of a clip: where nobody speaks they go."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pipeline.audio.samples import resample
from pipeline.dialogue import Clip

STEP = 0.01
"""Seconds of a frame whose level is looked at."""
KEPT = 0.03
"""Seconds of silence that stay before the first and after the last frame that is loud enough."""
MARGIN = 0.1
"""Seconds that stay before the first and after the last speech that a detector found: it is late at soft onsets."""
SURE = 30.0
"""Decibels under the loudest frame down to which a sound is kept whatever a detector says: it may miss a whisper, or a
loud fricative at the beginning (of 112 English clips of 14 voices it would have cut such a sound in 4)."""


class Vad(Protocol):
    """Tells speech from everything else.

    rate: of the clips that it takes, Hz.
    """

    name: str
    rate: int

    def speech(self, clip: Clip) -> list[tuple[float, float]]:
        """Where speech is: (start, end) in seconds, in order, without overlap; none where there is none."""
        ...


def levels(clip: Clip) -> np.ndarray:
    """dBFS (RMS) of each 10 ms of the clip, float64 [frames]; the last frame may be short, silence is -200."""
    step = round(STEP * clip.rate)
    starts = np.arange(0, len(clip.audio), step)
    if not len(starts):
        return np.zeros(0)
    power = np.add.reduceat(np.square(clip.audio, dtype=np.float64), starts)
    return 10 * np.log10(np.maximum(power / np.diff(starts, append=len(clip.audio)), 1e-20))


def trim(clip: Clip, below: float) -> Clip:
    """Without the silence (frames under `below` dBFS) at both ends, of which 0.03 s stay.

    An all-silent clip becomes empty.
    """
    loud = np.flatnonzero(levels(clip) >= below)
    if not len(loud):
        return Clip(clip.audio[:0], clip.rate)
    return _between(clip, loud[0] * STEP - KEPT, (loud[-1] + 1) * STEP + KEPT)


def trim_to_speech(clip: Clip, vad: Vad) -> Clip:
    """From the first speech to the last, with 0.1 s at both ends; all of it where no speech is found.

    What is nearly as loud as the speech counts as such: rather a noise is kept than a sound cut.
    """
    spans = vad.speech(resample(clip, vad.rate))
    if not spans:
        return clip
    level = levels(clip)
    loud = np.flatnonzero(level > level.max() - SURE)
    first, last = min(spans[0][0], loud[0] * STEP), max(spans[-1][1], (loud[-1] + 1) * STEP)
    return _between(clip, first - MARGIN, last + MARGIN)


def _between(clip: Clip, first: float, last: float) -> Clip:
    """The clip from one time to another, in seconds, as far as it goes."""
    return Clip(clip.audio[max(0, round(first * clip.rate)) : max(0, round(last * clip.rate))], clip.rate)
