"""Folders of recordings that a user brings (room impulse responses and noise), and the tags of a track."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf

from pipeline import audio
from pipeline.audio.files import TAGS
from pipeline.dialogue import Clip
from pipeline.errors import ConfigError, DataError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".caf")


def list_recordings(folder: Path, key: str) -> dict[str, str]:
    """SHA-256 by name of each audio file in the folder and below it, in the order of names.

    Every file's header is read, so that a bad one is found before work begins. key: of the configuration, for errors.
    Raises ConfigError.
    """
    if not folder.is_dir():
        raise ConfigError(f"{key}: {folder} is no folder")
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    files = {}
    for name, path in sorted(paths.items()):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        try:
            data = path.read_bytes()
            frames = sf.info(io.BytesIO(data)).frames
        except (OSError, sf.SoundFileError) as error:
            raise ConfigError(f"{key}: {path}: not readable: {_why(error)}; mend or remove it") from None
        if not frames:
            raise ConfigError(f"{key}: {path}: holds no sound; remove it")
        files[name] = hashlib.sha256(data).hexdigest()
    if not files:
        raise ConfigError(f"{key}: no audio file in {folder} or below it ({', '.join(SUFFIXES)})")
    return files


@lru_cache(maxsize=8)
def read_recording(path: Path, sha256: str, rate: int) -> np.ndarray:
    """The first channel at `rate` Hz, float64, shape [samples]; not to be written to. Raises DataError."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(f"{path}: is not the file that the view began with; put that one back")
        samples, found = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (OSError, sf.SoundFileError) as error:
        raise DataError(f"{path}: not readable: {_why(error)}") from None
    track = audio.resample(Clip(samples[:, 0], found), rate).audio.astype(np.float64)
    if not np.any(track):
        raise DataError(f"{path}: holds nothing but silence; remove it from its folder and make the view anew")
    if not np.all(np.isfinite(track)):
        raise DataError(f"{path}: holds samples that are no numbers; remove it and make the view anew")
    track.flags.writeable = False
    return track


def tags_of(flac: bytes) -> dict[str, str]:
    """The tags of a FLAC, to be put into another one."""
    with sf.SoundFile(io.BytesIO(flac)) as file:
        return {name: value for name, value in file.copy_metadata().items() if name in TAGS}


def _why(error: Exception) -> str:
    """libsndfile's words without the address of the buffer that it read from."""
    return " ".join(str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error).split())
