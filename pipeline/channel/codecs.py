"""Bands and codecs. Neither moves a sound in time: filters are symmetric, codecs come back without their delay."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile as sf

from pipeline import audio
from pipeline.dialogue import Clip
from pipeline.view_sections import CodecName


@dataclass(frozen=True)
class _Codec:
    """A codec of libsndfile, and the rates (Hz) that it knows, in order."""

    container: str
    subtype: str
    rates: tuple[int, ...]


_CODECS: dict[CodecName, _Codec] = {
    "mulaw": _Codec("WAV", "ULAW", (8000,)),
    "alaw": _Codec("WAV", "ALAW", (8000,)),
    "gsm": _Codec("WAV", "GSM610", (8000,)),
    "opus": _Codec("OGG", "OPUS", (16000, 24000, 48000)),
    "mp3": _Codec("MP3", "MPEG_LAYER_III", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
}
TRANSITION = 150.0  # Hz from the edge of a band to where a sound is gone by 60 dB, half of it on either side


def codec_rate(name: CodecName, rate: int) -> int:
    """Hz at which a track of `rate` Hz goes through the codec: the first that keeps its band, else the highest."""
    rates = _CODECS[name].rates
    return next((item for item in rates if item >= rate), rates[-1])


def transcode(track: np.ndarray, rate: int, name: CodecName) -> np.ndarray:
    """The track after encoding and decoding, resampled on the way in and out; as long as it was."""
    codec = _CODECS[name]
    narrow = audio.resample(Clip(track.astype(np.float32), rate), codec_rate(name, rate))
    buffer = io.BytesIO()
    sf.write(buffer, narrow.audio, narrow.rate, format=codec.container, subtype=codec.subtype)
    decoded, found = sf.read(io.BytesIO(buffer.getvalue()), dtype="float32")
    back = audio.resample(Clip(_fit(decoded, len(narrow.audio)), found), rate)
    return _fit(back.audio, len(track)).astype(np.float64)


def bandpass(track: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    """The band from low to high Hz, high below rate / 2; low 0 keeps all below high. Windowed sinc (Kaiser, 60 dB)."""
    from scipy.signal import fftconvolve, firwin, kaiserord

    taps, beta = kaiserord(60, TRANSITION / (rate / 2))
    edges = [low, high] if low else [high]
    filter_ = firwin(taps | 1, edges, window=("kaiser", beta), pass_zero=not low, fs=rate)
    return fftconvolve(track, filter_)[len(filter_) // 2 :][: len(track)]


def _fit(track: np.ndarray, length: int) -> np.ndarray:
    """Cut, or lengthened by silence: codecs of whole frames give back a little more."""
    return np.pad(track[:length], (0, max(0, length - len(track))))
