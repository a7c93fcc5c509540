"""Sound files: the shards' own FLAC, reference clips that come in, previews that leave."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import warnings
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import soundfile as sf

from pipeline.audio.samples import to_pcm
from pipeline.dialogue import Clip
from pipeline.errors import DataError, UsageError

TAGS = frozenset({"title", "copyright", "artist", "comment", "date", "album", "license", "tracknumber", "genre"})
"""The tags that a FLAC of ours may have. (libsndfile puts its own version into another one, `software`.)"""

_NO_TAGS: Mapping[str, str] = MappingProxyType({})
_MARKER = b"fLaC"
_STREAMINFO = 8  # where its content begins: behind the marker and the head of its block
_INSTALL = "install FFmpeg (Debian: apt install ffmpeg)"

# Files that libsndfile writes, and what FFmpeg calls those of other endings.
_WRITTEN = {".flac": "FLAC", ".wav": "WAV", ".mp3": "MP3", ".ogg": "OGG"}
_MUXERS = {".m4a": "ipod", ".aac": "adts", ".wma": "asf"}


def encode_flac(pcm: np.ndarray, rate: int, tags: Mapping[str, str] = _NO_TAGS) -> bytes:
    """int16 (mono [n] or stereo [n, 2]) to FLAC bytes; the same samples and tags always give the same bytes.

    tags: Vorbis comments, names out of TAGS. Raises ValueError for another name.
    """
    if unknown := sorted(tags.keys() - TAGS):
        raise ValueError(f"no FLAC tag is called {unknown[0]!r}; tags: {', '.join(sorted(TAGS))}")
    buffer = io.BytesIO()
    channels = 1 if pcm.ndim == 1 else pcm.shape[1]
    with sf.SoundFile(buffer, "w", rate, channels, "PCM_16", format="FLAC") as file:
        for name in sorted(tags):
            setattr(file, name, tags[name])
        file.write(pcm)
    return buffer.getvalue()


def encode_wav(pcm: np.ndarray, rate: int) -> bytes:
    """int16 (mono [n] or stereo [n, 2]) to a WAV file of 16-bit PCM; the same samples always give the same bytes."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if pcm.ndim == 1 else pcm.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(pcm, "<i2").tobytes())
    return buffer.getvalue()


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


def header(data: bytes, name: str = "audio") -> tuple[int, int]:
    """(frames, rate) of a mono FLAC as its STREAMINFO says, without decoding (RFC 9639, section 8.2). Raises DataError.

    libsndfile says the same in twenty times the time, which is what a check of a whole run would then take.
    """
    blocks = list(_metadata(data))
    if not blocks or blocks[0] != (0, _STREAMINFO, 34):
        raise DataError(f"{name}: no readable audio header: not a FLAC file")
    info = int.from_bytes(data[18:26], "big")
    rate, channels, frames = info >> 44, (info >> 41 & 7) + 1, info & (1 << 36) - 1
    end = blocks[-1][1] + blocks[-1][2]
    if not rate or end > len(data) or (frames and data[end : end + 1] != b"\xff"):  # each frame begins so
        raise DataError(f"{name}: no readable audio header: damaged")
    if channels != 1:
        raise DataError(f"{name}: {channels} channels where one belongs")
    return frames, rate


def check_flac(data: bytes, name: str = "audio") -> None:
    """Decode a FLAC and compare its samples with the MD5 that its header has of them. Raises DataError.

    Each frame has a checksum of its own, so that this finds what those cannot: whole frames of another clip.
    """
    samples, _ = decode(data, name)
    if hashlib.md5(samples.astype("<i2", copy=False).data, usedforsecurity=False).digest() != data[26:42]:
        raise DataError(f"{name}: its samples are not those that it was made of: their MD5 is another one")


def _metadata(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, place of the content, its length) of each metadata block of a FLAC; none where it breaks off."""
    place, last = len(_MARKER), not data.startswith(_MARKER)
    while not last and place + 4 <= len(data):
        last, kind = bool(data[place] & 0x80), data[place] & 0x7F
        length = int.from_bytes(data[place + 1 : place + 4], "big")
        yield kind, place + 4, length
        place += 4 + length


def read_clip(path: Path) -> Clip:
    """A sound file of any format that libsndfile or FFmpeg knows, its channels averaged, at its own rate.

    Raises DataError, with the path, for a file that is missing, damaged, empty or no sound, and UsageError where it
    takes FFmpeg, which is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        # Without its name: by an ending alone libsndfile takes text for MP3, and asks for the rate of a .raw.
        file = sf.SoundFile(io.BytesIO(path.read_bytes()))
    except sf.SoundFileError as error:
        file = sf.SoundFile(_by_ffmpeg(path, _why(error)))
    with file:
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except sf.SoundFileError as error:
            raise DataError(f"{path}: damaged: {_why(error)}") from None
        if len(samples) < file.frames:
            raise DataError(f"{path}: damaged: {len(samples)} samples decoded where its header says {file.frames}")
    if not len(samples):
        raise DataError(f"{path}: holds no sound")
    return Clip(samples.mean(axis=1, dtype=np.float32), file.samplerate)


def write_preview(clip: Clip, path: Path) -> None:
    """The clip as a file of the kind that its ending names: .flac, .wav, .mp3, .ogg, or any that FFmpeg writes.

    Raises UsageError, with the path, for an ending or a rate that cannot be written, and where it takes FFmpeg, which
    is not installed. OSError (a full disk, a missing folder) is passed on.
    """
    kind = _WRITTEN.get(path.suffix.lower())
    if kind is None:
        _write_by_ffmpeg(clip, path)
        return
    buffer = io.BytesIO()
    try:
        sf.write(buffer, clip.audio, clip.rate, format=kind)
    except sf.SoundFileError as error:
        raise UsageError(f"{path}: {kind} at {clip.rate} Hz cannot be written: {_why(error)}") from None
    path.write_bytes(buffer.getvalue())


def _by_ffmpeg(path: Path, problem: str) -> BinaryIO:
    """The sound of a file that libsndfile cannot open, as an AU file."""
    # Not through pydub: it also asks ffprobe, which does not come with every FFmpeg, and it rounds to 16 bit.
    converter = shutil.which("ffmpeg")
    if converter is None and (kind := _WRITTEN.get(path.suffix.lower())):
        raise DataError(
            f"{path}: damaged, or no {kind} file ({problem}); FFmpeg, which is not installed, may know what it is"
        )
    if converter is None:
        raise UsageError(f"{path}: libsndfile cannot read it ({problem}); FFmpeg knows more formats: {_INSTALL}")
    # `file:` so that no path is taken for an option or for the name of a protocol. AU: may be of unknown length.
    # -xerror: a page of HTML is else five seconds of AMR.
    command = [
        converter,
        "-v",
        "error",
        "-xerror",
        "-nostdin",
        "-i",
        f"file:{path}",
        "-vn",
        "-c:a",
        "pcm_f32be",
        "-f",
        "au",
        "-",
    ]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise DataError(f"{path}: damaged, or no sound file: {_first_line(done.stderr)}")
    return io.BytesIO(done.stdout)


def _write_by_ffmpeg(clip: Clip, path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        raise UsageError(f"{path}: only {', '.join(_WRITTEN)} can be written without FFmpeg; {_INSTALL}")
    with warnings.catch_warnings():
        # pydub warns about its own strings on newer Pythons.
        warnings.simplefilter("ignore")
        from pydub import AudioSegment
        from pydub.exceptions import CouldntEncodeError
    suffix = path.suffix.lower()
    segment = AudioSegment(to_pcm(clip.audio).tobytes(), frame_rate=clip.rate, sample_width=2, channels=1)
    try:
        segment.export(str(path), format=_MUXERS.get(suffix, suffix[1:])).close()
    except CouldntEncodeError as error:
        path.unlink(missing_ok=True)
        said = str(error).partition("Output from ffmpeg/avlib:")[2].strip().splitlines()
        raise UsageError(f"{path}: FFmpeg cannot write it: {said[-1] if said else error}") from None


def _first_line(output: bytes) -> str:
    """Without the address of the decoder that says it."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return re.sub(r"^\[\S+ @ \w+\] ", "", lines[0]) if lines else "FFmpeg does not say why"


def _why(error: sf.SoundFileError) -> str:
    """libsndfile's words without the address of the buffer that it read from."""
    return str(getattr(error, "error_string", error))
