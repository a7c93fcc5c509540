"""What is wrong with a clip at first sight, before a recogniser is paid to find out."""

from __future__ import annotations

import re

import numpy as np

from pipeline.dialogue import Clip
from pipeline.speech_sections import AudioConfig
from pipeline.voice import Unsaid

FULL_SCALE = 32767 / 32768
"""From which level on a sample counts as clipped: that of the highest 16-bit sample."""

# Han characters and others of the East, figures.
_SYLLABLE = re.compile(r"[\d\u2e80-\uff00\U00020000-\U0003ffff]")
# Letters that stand alone or among capitals (F B I, FBI) may be said by name, and may be read as a word (NASA).
_NAMED = re.compile(r"\b[^\W\d_\u2e80-\uff00\U00020000-\U0003ffff]\b|[A-Z](?=[A-Z])|(?<=[A-Z])[A-Z]")


def check_raw(clip: Clip, config: AudioConfig) -> Unsaid | None:
    """not_a_number or clipping, of a clip as it came out of the engine; None where it is sound."""
    wrong = int(np.count_nonzero(~np.isfinite(clip.audio)))
    if wrong:
        return Unsaid("not_a_number", f"{wrong} of {len(clip.audio)} samples are no numbers")
    clipped = int(np.count_nonzero(np.abs(clip.audio) >= FULL_SCALE))
    if clipped and clipped >= config.faults.clipping * len(clip.audio):
        return Unsaid("clipping", f"{clipped} of {len(clip.audio)} samples are at full scale")
    return None


def check(clip: Clip, text: str, config: AudioConfig, speed: float = 1.0) -> Unsaid | None:
    """silence or length, of a mastered clip in which `text` should be said; None where it is sound.

    speed: at which it was asked for, 1 is the voice's own; at half of it all may take twice as long. At a higher speed
    the slack stays: the ends of a clip are as long as ever, and a word alone is not spoken twice as fast.
    """
    if not len(clip.audio):
        return Unsaid("silence", f"no sound above {config.trim_below:g} dBFS")
    low, high = expected_seconds(text, config, speed)
    if low <= clip.seconds <= high:
        return None
    at_speed = "" if speed == 1 else f" at speed {speed:g}"
    return Unsaid("length", f"{clip.seconds:.2f} s for a text that takes {low:.2f} to {high:.2f} s{at_speed}: {text}")


def expected_seconds(text: str, config: AudioConfig, speed: float = 1.0) -> tuple[float, float]:
    """The shortest and the longest that `text` may take at this speed, by `audio.faults`.

    A character counts with the pace of its script, whatever the language is called: English in a Mandarin text has its
    own. Figures count as syllables, and so do letters that may be said by name, for the longest. Spaces and stops take
    no time.
    """
    faults = config.faults
    syllables = sum(map(str.isalnum, _SYLLABLE.findall(text)))
    letters = sum(map(str.isalnum, text)) - syllables
    named = len(_NAMED.findall(text))
    low = letters * faults.pace["en"][0] + syllables * faults.pace["zh"][0]
    high = (letters - named) * faults.pace["en"][1] + (syllables + named) * faults.pace["zh"][1]
    slack = faults.slack / min(speed, 1.0)
    return max(0.0, low / speed - slack), high / speed + slack
