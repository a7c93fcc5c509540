"""Resemblyzer's speaker encoder: a three-layer LSTM over mel spectrograms, in numpy.

Wan, Wang, Papir, Lopez Moreno 2018, "Generalized end-to-end loss for speaker verification"; weights and windows are
those of the package `Resemblyzer` 0.1.4 (`voice_encoder.py`, `audio.py`, `hparams.py`), which itself needs torch,
librosa and webrtcvad. Here long silences are not cut out: give trimmed clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.backends.speaker.melspectrogram import mel_power
from pipeline.backends.speaker.torch_file import read_tensors
from pipeline.config import Config
from pipeline.dialogue import Clip, ModelUse
from pipeline.errors import ModelError
from pipeline.models import main_file, uses

FRAME = 400
HOP = 160
BANDS = 40
WINDOW = 160
"""Frames that the network sees at once: 1.6 s."""
DENSITY = 1.3
"""Windows a second."""
COVERAGE = 0.75
"""The last window is kept if the clip fills this share of it."""
LEVEL = 10 ** (-30 / 20)
"""RMS of -30 dBFS: quieter clips are raised to it."""
HIDDEN = 256
LAYERS = 3
BATCH = 32
"""Windows that go through the network at once; more gain nothing and take 0.65 MB each."""
ROWS, COLUMNS = 8, 128
"""Matrices are multiplied in blocks of this size. OpenBLAS rounds by the size, so an embedding would depend on its
company and on the number of cores; and it starts threads for any larger product, a hundred times slower where
the cores are busy."""


class Resemblyzer:
    """A `SpeakerEncoder`. Embeddings have no negative numbers, so a cosine lies in [0, 1]. Threads may share one."""

    name = "resemblyzer"
    rate = 16000
    dim = 256

    def __init__(self, model_path: Path | None = None) -> None:
        file = main_file("resemblyzer", model_path)
        weights = read_tensors(file, "model_state")
        try:
            self._layers = [
                (
                    _blocks(weights[f"lstm.weight_ih_l{layer}"], 4 * HIDDEN, HIDDEN if layer else BANDS),
                    _blocks(weights[f"lstm.weight_hh_l{layer}"], 4 * HIDDEN, HIDDEN),
                    weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"],
                )
                for layer in range(LAYERS)
            ]
            self._linear = _blocks(weights["linear.weight"], self.dim, HIDDEN), weights["linear.bias"]
        except (KeyError, ValueError) as error:
            raise ModelError(f"{file}: not the weights of {self.name}: {error}") from error

    def embed(self, clips: Sequence[Clip]) -> np.ndarray:
        means = [windows.mean(axis=0) for windows in self.windows(clips)]
        return _unit(np.array(means, np.float32).reshape(-1, self.dim))

    def windows(self, clips: Sequence[Clip], density: float = DENSITY) -> list[np.ndarray]:
        mels = [self._mels(clip, density) for clip in clips]
        if not mels:
            return []
        together = np.concatenate(mels)
        found = [self._forward(together[start : start + BATCH]) for start in range(0, len(together), BATCH)]
        return np.split(np.concatenate(found), np.cumsum([len(item) for item in mels])[:-1])

    def _mels(self, clip: Clip, density: float) -> np.ndarray:
        """float32 [windows, 160, 40]."""
        if clip.rate != self.rate:
            raise ValueError(f"a clip at {clip.rate} Hz; {self.name} wants {self.rate} Hz")
        if not len(clip.audio):
            raise ValueError("an empty clip has no voice")
        audio = np.asarray(clip.audio, np.float32)
        rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
        if 0 < rms < LEVEL:
            audio = audio * np.float32(LEVEL / rms)
        starts = window_starts(len(audio), density)
        missing = (starts[-1] + WINDOW) * HOP - len(audio)
        mel = mel_power(np.pad(audio, (0, max(0, missing))), self.rate, FRAME, HOP, BANDS)
        return np.stack([mel[start : start + WINDOW] for start in starts])

    def _forward(self, mels: np.ndarray) -> np.ndarray:
        """float32 [windows, 160, 40] to embeddings of length 1 [windows, 256]."""
        filled = np.pad(mels, ((0, -len(mels) % ROWS), (0, 0), (0, 0)))
        sequence = np.ascontiguousarray(filled.transpose(1, 0, 2))
        for inner, recurrent, bias in self._layers:
            sequence = _lstm(sequence, inner, recurrent, bias)
        weight, bias = self._linear
        return _unit(np.maximum(_times(sequence[-1], weight) + bias, 0))[: len(mels)]


def window_starts(samples: int, density: float) -> list[int]:
    """First frames of the windows of a clip, as `VoiceEncoder.compute_partial_slices` places them.

    density: windows a second, 0.625 at least. Raises ValueError for less: they would leave gaps.
    """
    step = round(Resemblyzer.rate / density / HOP)
    if step > WINDOW:
        raise ValueError(f"{density} windows a second leave gaps between windows of {WINDOW * HOP} samples")
    frames = -(-(samples + 1) // HOP)
    starts = list(range(0, max(1, frames - WINDOW + step + 1), step))
    if len(starts) > 1 and samples - starts[-1] * HOP < COVERAGE * WINDOW * HOP:
        starts.pop()
    return starts


def models(config: Config | None = None) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    return (uses("resemblyzer", "speaker"),)


def build(config: Config | None = None) -> Resemblyzer:
    return Resemblyzer()


def _lstm(sequence: np.ndarray, inner: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One layer: [frames, windows, in] to hidden states [frames, windows, 256]; gates in torch's order i, f, g, o."""
    frames, windows, width = sequence.shape
    gates = (_times(sequence.reshape(-1, width), inner) + bias).reshape(frames, windows, -1)
    hidden = np.zeros((windows, HIDDEN), np.float32)
    cell = np.zeros_like(hidden)
    states = np.empty((frames, windows, HIDDEN), np.float32)
    # sigmoid(x) = (1 + tanh(x / 2)) / 2, so that one call of tanh serves all gates and nothing overflows.
    scale = np.full(4 * HIDDEN, 0.5, np.float32)
    scale[2 * HIDDEN : 3 * HIDDEN] = 1
    for frame in range(frames):
        act = np.tanh((gates[frame] + _times(hidden, recurrent)) * scale)
        add, keep, new, out = np.split(act, 4, axis=1)
        cell = (0.5 + 0.5 * keep) * cell + (0.5 + 0.5 * add) * new
        hidden = (0.5 + 0.5 * out) * np.tanh(cell)
        states[frame] = hidden
    return states


def _blocks(weight: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """torch's [out, in] for `_times`: [out / 128, in, 128]. Raises ValueError for another shape."""
    if weight.shape != (rows, columns):
        raise ValueError(f"a matrix of shape {weight.shape} where {rows} x {columns} is wanted")
    return np.ascontiguousarray(weight.reshape(-1, COLUMNS, columns).transpose(0, 2, 1))


def _times(left: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """[n, in], n a multiple of 8, by a matrix in blocks: [n, out]."""
    products = left.reshape(-1, 1, ROWS, left.shape[1]) @ blocks
    return products.transpose(0, 2, 1, 3).reshape(len(left), -1)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(length, np.finfo(np.float32).tiny), np.float32)
