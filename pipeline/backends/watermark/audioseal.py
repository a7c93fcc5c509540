"""AudioSeal: a watermark of 16 bits for speech. https://github.com/facebookresearch/audioseal

San Roman et al. 2024, "Proactive Detection of Voice Cloning with Localized Watermarking". Its models work at 16 kHz:
the mark is made there, brought to the clip's own rate and added, so that the band above 8 kHz stays as it was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from pipeline.backends.watermark.base import BITS
from pipeline.config import Config
from pipeline.dialogue import Clip, ModelUse
from pipeline.errors import ModelError

MODEL_RATE = 16000
SHORTEST = 320
"""Samples at 16 kHz of the shortest clip: one step of the network's encoder. A shorter one is marked with zeros behind
it, which are then cut off."""

_GENERATOR = "watermark.model_path", "the generator's weights, generator_base.pth of facebook/audioseal"
_DETECTOR = "watermark.detector_path", "the detector's weights, detector_base.pth of facebook/audioseal"


class AudioSeal:
    """A `Watermark`. The files are PyTorch pickles, which can run code as they load: take them from their authors.

    strength: by which the mark is multiplied, 1 is as the model was trained.
    """

    name = "audioseal"
    deterministic = True

    def __init__(self, generator: Path | None, detector: Path | None = None, strength: float = 1.0):
        # First of all: a missing package is told before a missing file.
        from audioseal import AudioSeal as Loader

        self._generator = _load(Loader.load_generator, generator, *_GENERATOR)
        self._detector = None if detector is None else _load(Loader.load_detector, detector, *_DETECTOR)
        self._strength = strength

    def embed(self, clip: Clip, message: int) -> Clip:
        if not 0 <= message < 1 << BITS:
            raise ValueError(f"message {message} has more than {BITS} bits")
        if not len(clip.audio):
            return clip
        import torch

        bits = torch.tensor([[message >> place & 1 for place in range(BITS)]])
        mark = self._run(lambda audio: self._generator.get_watermark(audio, message=bits), clip)[0, 0].numpy()
        mark = soxr.resample(mark, MODEL_RATE, clip.rate, quality="HQ")
        # A sample more or less comes of rounding at both changes of the rate.
        mark = np.pad(mark[: len(clip.audio)], (0, max(0, len(clip.audio) - len(mark))))
        return Clip((clip.audio + np.float32(self._strength) * mark).astype(np.float32), clip.rate)

    def detect(self, clip: Clip) -> tuple[float, int]:
        if self._detector is None:
            raise ModelError(f"{_DETECTOR[0]} is not set: name the file of {_DETECTOR[1]}")
        probability, bits = self._run(self._detector.detect_watermark, clip)
        return float(probability), sum(int(bit) << place for place, bit in enumerate(bits[0].tolist()))

    def _run(self, model: Any, clip: Clip) -> Any:
        """What `model` makes of the clip at 16 kHz, given as float32 [1, 1, samples]."""
        import torch
        from audioseal.libs.moshi.utils.compile import no_compile

        audio = soxr.resample(clip.audio, clip.rate, MODEL_RATE, quality="HQ").astype(np.float32)
        audio = np.pad(audio, (0, max(0, SHORTEST - len(audio))))
        # Compiled, it would be compiled anew for each length of a clip.
        with torch.inference_mode(), no_compile():
            return model(torch.from_numpy(audio)[None, None])


def _load(load: Any, file: Path | None, key: str, what: str) -> Any:
    path = _file(file, key, what)
    try:
        return load(str(path), nbits=BITS).eval()
    except Exception as error:
        # A pickle of something else fails in as many ways as there are pickles.
        raise ModelError(f"{key}={path}: not {what}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _file(file: Path | None, key: str, what: str) -> Path:
    if file is None:
        raise ModelError(f"{key} is not set: name the file of {what}")
    if not file.is_file():
        raise ModelError(f"{key}={file}: no such file; name that of {what}")
    return file


def models(config: Config) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    path = _file(config.watermark.model_path, *_GENERATOR)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return (ModelUse(role="watermark", name="audioseal (the user's own)", sha256=sha256, license="unknown"),)


def build(config: Config) -> AudioSeal:
    section = config.watermark
    return AudioSeal(section.model_path, section.detector_path, section.strength)
