"""DNSMOS P.835: how good speech sounds, judged from the audio alone.

Reddy, Gopal, Cutler 2022, "DNSMOS P.835: A non-intrusive perceptual objective speech quality metric to evaluate noise
suppressors". The model is the primary one of the `speechmos` package (`speechmos/dnsmos.py`), which is not imported
because it needs librosa for a second model that we do not use. It finds noise and distortion, not mispronunciation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.backends.onnx import open_session
from pipeline.config import Config
from pipeline.dialogue import Clip, ModelUse, Score
from pipeline.models import locate, uses

WINDOW = 144160
"""Samples that the model sees at once: 9.01 s at 16 kHz."""

# From the network's output to opinion scores: second-order polynomials, highest power first. speechmos/dnsmos.py,
# get_polyfit_val, not personalised.
_CURVES = {
    "mos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "mos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "mos_ovr": (-0.06766283, 1.11546468, 0.04602535),
}


class Dnsmos:
    """A `QualityModel`: mos_sig (the voice), mos_bak (the background), mos_ovr (both), 1 to 5, higher is better."""

    name = "dnsmos"
    rate = 16000

    def __init__(self, threads: int = 1):
        self._session = open_session(locate("dnsmos") / "sig_bak_ovr.onnx", threads)

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: Clip) -> tuple[Score, ...]:
        if clip.rate != self.rate:
            raise ValueError(f"a clip at {clip.rate} Hz; {self.name} wants {self.rate} Hz")
        raw = np.array([self._session.run(None, {"input_1": w[None]})[0][0] for w in windows(clip.audio)], np.float64)
        return tuple(
            Score(name=name, value=float(np.mean(np.polyval(curve, raw[:, column]))))
            for column, (name, curve) in enumerate(_CURVES.items())
        )


def models(config: Config) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    return (uses("dnsmos", "quality"),)


def build(config: Config) -> Dnsmos:
    return Dnsmos(config.asr.threads)


def windows(audio: np.ndarray) -> list[np.ndarray]:
    """What the model sees of a 16 kHz clip, each float32 [144160].

    Longer clips: a window every second, as many as speechmos takes. Shorter ones: one window of the clip repeated.
    (speechmos repeats them to up to 18 s and averages up to nine windows of the same speech: at nine times the cost
    the scores differ by 0.02 at most on clips of 3 to 5 s.)
    """
    audio = np.asarray(audio, np.float32)
    if len(audio) <= WINDOW:
        return [np.resize(audio, WINDOW)]
    hops = int(len(audio) // 16000 - 9.01) + 1
    return [audio[hop * 16000 : hop * 16000 + WINDOW] for hop in range(hops)]
