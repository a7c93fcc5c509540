"""The only room that touches soundfile, pyloudnorm and pydub: resample, trim, loudness, faults, tracks, files."""

from __future__ import annotations

from pipeline.audio.faults import check, check_raw, expected_seconds
from pipeline.audio.files import check_flac, decode, encode_flac, encode_wav, header, read_clip, write_preview
from pipeline.audio.mastering import limit, master, measure_loudness, normalize_loudness
from pipeline.audio.samples import centre, from_pcm, quantize, resample, to_pcm
from pipeline.audio.timeline import GRID, START_GRID, Timeline, draw, lay_out
from pipeline.audio.trim import Vad, trim, trim_to_speech

__all__ = [
    "GRID",
    "START_GRID",
    "Timeline",
    "Vad",
    "centre",
    "check",
    "check_flac",
    "check_raw",
    "decode",
    "draw",
    "encode_flac",
    "encode_wav",
    "expected_seconds",
    "from_pcm",
    "header",
    "lay_out",
    "limit",
    "master",
    "measure_loudness",
    "normalize_loudness",
    "quantize",
    "read_clip",
    "resample",
    "to_pcm",
    "trim",
    "trim_to_speech",
    "write_preview",
]
