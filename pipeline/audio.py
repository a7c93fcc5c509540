"""The only room that touches soundfile, soxr, pyloudnorm and pydub: resample, loudness, trim, tracks, encode.

Inside a sample all audio is 16-bit PCM (int16), because that is what FLAC stores: what was judged is what is shipped.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import soundfile as sf
import soxr

from pipeline.config import AudioConfig
from pipeline.dialogue import Clip, Role
from pipeline.errors import DataError

# Both tracks end on this grid: whole frames of 12.5, 25 and 50 Hz codecs, whole samples at 16 and 24 kHz.
GRID = Fraction(80, 1000)
# Turns start on this one, or on the least multiple of it that is exact in samples at both rates (20 ms at 22,050 Hz).
START_GRID = Fraction(10, 1000)


@cache
def _pydub() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # pydub warns when FFmpeg is not installed and on newer Pythons about its own strings; raw PCM needs neither.
        warnings.simplefilter("ignore")
        from pydub import AudioSegment
        from pydub.silence import detect_leading_silence
    return AudioSegment, detect_leading_silence


def to_pcm(audio: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] to int16, rounded to nearest and clipped. Shape is kept."""
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)


def from_pcm(pcm: np.ndarray) -> np.ndarray:
    """int16 to float32 in [-1, 1). Shape is kept."""
    return pcm.astype(np.float32) / 32768.0


def resample(clip: Clip, rate: int) -> Clip:
    """The clip at `rate` Hz (soxr, high quality)."""
    if clip.rate == rate:
        return clip
    return Clip(soxr.resample(clip.audio, clip.rate, rate, quality="HQ").astype(np.float32), rate)


def trim(clip: Clip, below: float, keep: float = 0.03) -> Clip:
    """Without the silence (under `below` dBFS, in steps of 10 ms) at both ends, of which `keep` seconds stay.

    An all-silent clip becomes empty.
    """
    segment_type, detect = _pydub()
    segment = segment_type(to_pcm(clip.audio).tobytes(), frame_rate=clip.rate, sample_width=2, channels=1)
    head = detect(segment, silence_threshold=below, chunk_size=10)
    if head >= len(segment):
        return Clip(clip.audio[:0], clip.rate)
    tail = detect(segment.reverse(), silence_threshold=below, chunk_size=10)
    first = max(0, round((head / 1000 - keep) * clip.rate))
    last = min(len(clip.audio), len(clip.audio) - round((tail / 1000 - keep) * clip.rate))
    return Clip(clip.audio[first:last], clip.rate)


def normalize_loudness(clip: Clip, target: float, peak: float) -> Clip:
    """The clip at `target` LUFS (ITU-R BS.1770-4), with no sample above `peak` dBFS.

    A clip shorter than one gating block (0.4 s) is repeated for the measurement. Silence stays silence.
    """
    import pyloudnorm

    if not len(clip.audio) or not np.any(clip.audio):
        return clip
    block = int(0.4 * clip.rate) + 1
    measured = clip.audio if len(clip.audio) >= block else np.tile(clip.audio, -(-block // len(clip.audio)))
    loudness = pyloudnorm.Meter(clip.rate).integrated_loudness(measured.astype(np.float64))
    if not np.isfinite(loudness):
        return clip
    gain = 10 ** ((target - loudness) / 20)
    ceiling = 10 ** (peak / 20) / float(np.max(np.abs(clip.audio)))
    return Clip((clip.audio * np.float32(min(gain, ceiling))).astype(np.float32), clip.rate)


def master(clip: Clip, role: Role, config: AudioConfig) -> Clip:
    """A raw clip as it goes onto its track: trimmed, resampled, loudness-normalised, rounded to 16 bit."""
    rate = config.user_rate if role == "user" else config.assistant_rate
    clip = normalize_loudness(resample(trim(clip, config.trim_below), rate), config.loudness, config.peak)
    return Clip(from_pcm(to_pcm(clip.audio)), rate)


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


def encode_flac(pcm: np.ndarray, rate: int) -> bytes:
    """int16 (mono [n] or stereo [n, 2]) to FLAC bytes; the same samples always give the same bytes."""
    buffer = io.BytesIO()
    sf.write(buffer, pcm, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def save(clip: Clip, file: BinaryIO, kind: str) -> None:
    """Write a clip as a file of its own; kind: FLAC, WAV, MP3 or OGG."""
    sf.write(file, clip.audio, clip.rate, format=kind)


def decode(data: bytes, name: str = "audio") -> tuple[np.ndarray, int]:
    """Encoded bytes to (int16 mono samples, rate). Raises DataError naming `name` if they cannot be decoded whole."""
    try:
        with sf.SoundFile(io.BytesIO(data)) as file:
            expected = file.frames
            samples = file.read(dtype="int16")
            rate = file.samplerate
    except sf.SoundFileError as error:
        raise DataError(f"{name}: not decodable: {_why(error)}") from None
    if samples.ndim != 1 or len(samples) != expected:
        raise DataError(f"{name}: {len(samples)} samples decoded where its header says {expected}")
    return samples, rate


def _why(error: sf.SoundFileError) -> str:
    """libsndfile's words without the address of the buffer that it read from."""
    return str(getattr(error, "error_string", error))


def header(data: bytes, name: str = "audio") -> tuple[int, int]:
    """(frames, rate) as the header says, without decoding. Raises DataError."""
    try:
        info = sf.info(io.BytesIO(data))
    except sf.SoundFileError as error:
        raise DataError(f"{name}: no readable audio header: {_why(error)}") from None
    return info.frames, info.samplerate
