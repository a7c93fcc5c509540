"""One timeline, two tracks: where each turn lies, and how long the silence before it is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.audio.samples import to_pcm
from pipeline.dialogue import Clip, Role
from pipeline.speech_sections import AudioConfig, Spread

# Both tracks end on this grid: whole frames of 12.5, 25 and 50 Hz codecs, whole samples at 16 and 24 kHz.
GRID = Fraction(80, 1000)
# Turns start on this one, or on the least multiple of it that is exact in samples at both rates (20 ms at 22,050 Hz).
START_GRID = Fraction(10, 1000)

_TRIES = 1000


@dataclass(frozen=True)
class Timeline:
    """Where each turn lies (start, end in seconds) and the two tracks (int16), of equal duration in seconds."""

    spans: tuple[tuple[float, float], ...]
    user: np.ndarray
    assistant: np.ndarray
    duration: float


def lay_out(clips: Sequence[tuple[Role, Clip]], gaps: Sequence[float], config: AudioConfig) -> Timeline:
    """One timeline, two tracks: each turn on its speaker's track, silence on the other.

    clips: mastered, in the order of the turns. gaps: seconds before each turn (the first one is the lead).
    """
    rates: dict[Role, int] = {"user": config.user_rate, "assistant": config.assistant_rate}
    grid = START_GRID * math.lcm(*((START_GRID * rate).denominator for rate in rates.values()))
    starts: list[Fraction] = []
    now = Fraction(0)
    for (_, clip), gap in zip(clips, gaps, strict=True):
        now = _up(now + _exact(gap), grid)
        starts.append(now)
        now += Fraction(len(clip.audio), clip.rate)
    duration = _up(now + _exact(config.tail), GRID)
    tracks = {role: np.zeros(int(duration * rate), np.int16) for role, rate in rates.items()}
    spans = []
    for (role, clip), start in zip(clips, starts, strict=True):
        first = int(start * clip.rate)
        tracks[role][first : first + len(clip.audio)] = to_pcm(clip.audio)
        spans.append((float(start), float(start + Fraction(len(clip.audio), clip.rate))))
    return Timeline(tuple(spans), tracks["user"], tracks["assistant"], float(duration))


def _exact(seconds: float) -> Fraction:
    """The decimal that was meant: the float 0.2 is a little more than 1/5, and would be rounded up to 0.21."""
    return Fraction(seconds).limit_denominator(1_000_000)


def _up(value: Fraction, grid: Fraction) -> Fraction:
    return -(-value // grid) * grid


def draw(spread: Spread, chance: random.Random) -> float:
    """Seconds from `spread`, between its limits, in whole milliseconds.

    What lies outside the limits is drawn again, so that nothing piles up at them.
    """
    for _ in range(_TRIES):
        value = _value(spread, chance)
        if spread.low <= value <= spread.high:
            break
    # Rounded, and within the limits even where next to nothing of the distribution is.
    return min(max(round(value, 3), spread.low), spread.high)


def _value(spread: Spread, chance: random.Random) -> float:
    if spread.mean is None or spread.sd is None:
        return chance.uniform(spread.low, spread.high)
    if spread.kind == "normal":
        return chance.normalvariate(spread.mean, spread.sd)
    if spread.kind == "gamma":
        return chance.gammavariate((spread.mean / spread.sd) ** 2, spread.sd**2 / spread.mean)
    # The normal distribution of the logarithm, from the mean and the deviation of the seconds themselves.
    variance = math.log1p((spread.sd / spread.mean) ** 2)
    return chance.lognormvariate(math.log(spread.mean) - variance / 2, math.sqrt(variance))
