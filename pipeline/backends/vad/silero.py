"""Silero VAD: where in a clip somebody speaks. https://github.com/snakers4/silero-vad

The package's model for a whole clip at once (`silero_vad_16k_sequence.onnx`): bit for bit the probabilities of the one
that streams, for less than half of the time. The package itself is not imported, because it wants torch.
"""

from __future__ import annotations

import numpy as np

from pipeline.backends.onnx import open_session
from pipeline.config import Config
from pipeline.dialogue import Clip, ModelUse
from pipeline.models import locate, uses

WINDOW = 512
"""Samples of a window, 32 ms; the model also sees the last 64 of the one before."""
CONTEXT = 64
STATE = 128
BLOCK = 512
"""Windows of one call, 16.4 s: bounds the memory, as in the package (sequence_vad.py)."""

# Speech begins where the probability reaches the first and ends where it falls under the second; a shorter silence
# than this is part of it: defaults of the package (utils_vad.py, get_speech_timestamps).
BEGINS = 0.5
ENDS = 0.35
SILENCE = 0.1


class Silero:
    """A `pipeline.audio.Vad` for clips at 16 kHz. The same clip gives the same spans."""

    name = "silero"
    rate = 16000

    def __init__(self, threads: int = 1):
        self._session = open_session(locate("silero-vad") / "silero_vad_16k_sequence.onnx", threads)

    def speech(self, clip: Clip) -> list[tuple[float, float]]:
        """Where speech is: (start, end) in seconds, in order, on the grid of the windows and at most the clip's end."""
        return spans(self.probabilities(clip), clip.seconds)

    def probabilities(self, clip: Clip) -> np.ndarray:
        """float32 [windows]: how likely there is speech in each 32 ms of the clip."""
        if clip.rate != self.rate:
            raise ValueError(f"a clip at {clip.rate} Hz; {self.name} wants {self.rate} Hz")
        hidden = cell = np.zeros((1, 1, STATE), np.float32)
        found = [np.zeros(0, np.float32)]
        seen = windows(clip.audio)
        for first in range(0, len(seen), BLOCK):
            feed = {"input": np.ascontiguousarray(seen[first : first + BLOCK]), "h": hidden, "c": cell}
            probabilities, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], feed)
            found.append(probabilities)
        return np.concatenate(found)


def windows(audio: np.ndarray) -> np.ndarray:
    """What the model sees of the samples: float32 [windows, 64 + 512], zeros before the first and after."""
    count = -(-len(audio) // WINDOW)
    padded = np.zeros(CONTEXT + count * WINDOW, np.float32)
    padded[CONTEXT : CONTEXT + len(audio)] = audio
    if not count:
        return np.zeros((0, CONTEXT + WINDOW), np.float32)
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]


def spans(probabilities: np.ndarray, seconds: float) -> list[tuple[float, float]]:
    """The spans of speech in a clip of that many seconds, from the probabilities of its windows."""
    step = WINDOW / Silero.rate
    found: list[tuple[float, float]] = []
    begun: int | None = None
    for number, value in enumerate([*probabilities.tolist(), 0.0]):
        if begun is None and value >= BEGINS:
            begun = number
        elif begun is not None and value < ENDS:
            found.append((begun * step, min(number * step, seconds)))
            begun = None
    joined: list[tuple[float, float]] = []
    for start, end in found:
        if joined and start - joined[-1][1] < SILENCE:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


def models(config: Config) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    return (uses("silero-vad", "vad"),)


def build(config: Config) -> Silero:
    return Silero()
