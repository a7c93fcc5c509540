"""What a speech server sent, as a clip: WAV, FLAC, MP3, Ogg (Opus, Vorbis), bare PCM, or one of them in JSON."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.dialogue import Clip

_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")
# Frames of MPEG layer III. As the first sample of 16-bit PCM they would be a loud click.
_MP3_FRAMES = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
_PCM_TYPES = ("", "application/octet-stream", "audio/pcm", "audio/x-pcm", "audio/raw", "audio/l16")
_RATES = range(4000, 192001)
# A WAV that is written while it is spoken cannot know its length: its header says 0 or the most that it can.
_ENDLESS = 1 << 29
_END = 39  # libsndfile's SFE_BAD_SEEK: beyond the last sample of a FLAC whose header has no length, for the same reason
_LONGEST = 300  # seconds; a model that goes on for longer has lost its way


class BadAnswer(ValueError):
    """An answer that is no whole clip; again may help."""


def read_clip(data: bytes, headers: Mapping[str, str], rate: int) -> Clip:
    """Mono, resampled to `rate` Hz. headers: with small letters (or a mapping that does not care).

    The format is what the data shows, then what the content type says. Bare PCM is little-endian 16 bit (L16 too:
    servers that say so do not keep to its network order) at the rate that a parameter of the content type or a header
    names (`rate=`, `X-Sample-Rate`), else at `rate`. Raises BadAnswer.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not data:
        raise BadAnswer("an empty answer")
    if kind.endswith("json"):
        return _from_json(data, rate)
    if kind.startswith("text/") or kind.endswith(("html", "xml")):
        raise BadAnswer(f"{kind} where a clip should be: {_words(data)}")
    known = data.startswith(_MAGIC) or (data.startswith(_MP3_FRAMES) and kind not in _PCM_TYPES[2:])
    audio, found = _from_pcm(data, headers, rate) if kind in _PCM_TYPES and not known else _from_file(data, kind)
    if not len(audio):
        raise BadAnswer("a clip without a sample")
    if found not in _RATES:
        raise BadAnswer(f"a clip of {found} Hz")
    if found != rate:
        import soxr

        audio = soxr.resample(audio, found, rate, quality="HQ")
    return Clip(np.clip(audio, -1, 1).astype(np.float32), rate)


def _from_pcm(data: bytes, headers: Mapping[str, str], rate: int) -> tuple[np.ndarray, int]:
    said = dict(re.findall(r"([\w-]+)\s*=\s*\"?(\d+)", headers.get("content-type", "")))
    said |= {name: value for name, value in headers.items() if value.isdecimal()}
    rates = [int(value) for name, value in said.items() if re.search(r"(?i)^rate$|sample[-_]?rate$", name)]
    channels = int(said.get("channels", 1))
    if not channels or len(data) % (2 * channels):
        raise BadAnswer(f"{len(data)} bytes of PCM, which end within a sample")
    samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return samples.reshape(-1, channels).mean(axis=1), rates[0] if rates else rate


def _from_file(data: bytes, kind: str) -> tuple[np.ndarray, int]:
    import soundfile as sf

    if data.startswith(b"RIFF"):
        data = _with_length(data)
    try:
        with sf.SoundFile(io.BytesIO(data)) as file:
            limit = _LONGEST * file.samplerate
            expected = min(file.frames, limit)
            audio = np.full((expected, file.channels), np.nan, np.float32)
            try:
                audio = file.read(out=audio)
            except sf.LibsndfileError as error:
                if error.code != _END:
                    raise
                expected = int(np.count_nonzero(~np.isnan(audio[:, 0])))
            rate = int(file.samplerate)
    except sf.SoundFileError as error:
        what = getattr(error, "error_string", "") or "cut off or damaged"
        raise BadAnswer(f"{kind or 'data'} that cannot be decoded ({what.strip()}): ask for wav") from None
    if expected == limit:
        raise BadAnswer(f"a clip of more than {_LONGEST} s")
    # An MP3 without an index says its length by a guess.
    if len(audio) < 0.95 * expected:
        raise BadAnswer(f"a clip that was cut off: {len(audio)} samples of {expected}")
    return audio[:expected].mean(axis=1), rate


def _with_length(data: bytes) -> bytes:
    """A WAV whose header has the length of what is there."""
    place = 12
    while place + 8 <= len(data):
        size, rest = int.from_bytes(data[place + 4 : place + 8], "little"), len(data) - place - 8
        if data[place : place + 4] == b"data":
            if size == 0 or size >= _ENDLESS:
                total = (len(data) - 8).to_bytes(4, "little")
                return data[:4] + total + data[8 : place + 4] + rest.to_bytes(4, "little") + data[place + 8 :]
            if size > rest:
                raise BadAnswer(f"a WAV that was cut off: {rest} bytes of {size}")
            return data
        place += 8 + size + size % 2
    raise BadAnswer("a WAV without sound")


def _from_json(data: bytes, rate: int) -> Clip:
    """The longest string in it is the clip, as Base64 or a data URI."""
    try:
        answer = json.loads(data)
    except ValueError:
        raise BadAnswer(f"broken JSON: {_words(data)}") from None
    texts = dict(_leaves(answer))
    longest = max((value for value in texts.values() if isinstance(value, str)), key=len, default="")
    head, comma, tail = longest.partition(";base64,")
    try:
        sound = base64.b64decode(tail if comma else longest, validate=True)
    except (binascii.Error, ValueError):
        sound = b""
    if len(sound) < 32:
        raise BadAnswer(f"JSON without a clip: {_words(data)}")
    kind = head.removeprefix("data:") if comma else ""
    named = {name: str(value) for name, value in texts.items() if isinstance(value, int)}
    return read_clip(sound, {**named, "content-type": "" if kind.endswith("json") else kind}, rate)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value in nested JSON by its own name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, name)
    else:
        yield name, value


def _words(data: bytes) -> str:
    text = re.sub(r"<[^>]*>", " ", data[:2000].decode(errors="replace"))
    return " ".join(text.split())[:120]
