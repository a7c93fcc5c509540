"""Sound files: the shards' FLAC and its tags, reference clips in any format, previews."""

from __future__ import annotations

import math
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import audio
from pipeline.dialogue import Clip
from pipeline.errors import DataError, UsageError

RATE = 16000
TONE = Clip((0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32), RATE)
SYNTHETIC = {"comment": "synthetic speech; 合成语音", "license": "CC0-1.0", "title": "zh-000001-02.user"}


@pytest.fixture
def without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which nothing lies."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def ffmpeg(without_ffmpeg: Path) -> None:
    """A PATH on which FFmpeg lies, and nothing else: no ffprobe."""
    (without_ffmpeg / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())


def pitch(clip: Clip) -> float:
    """Hz of the strongest component."""
    return float(np.argmax(np.abs(np.fft.rfft(clip.audio))) * clip.rate / len(clip.audio))


def is_the_tone(clip: Clip, rate: int = RATE) -> None:
    # Lossy formats add silence at the ends and change the level a little.
    assert clip.rate == rate and clip.audio.dtype == np.float32 and clip.audio.ndim == 1
    assert 0.99 <= clip.seconds < 1.2 and pitch(clip) == pytest.approx(440, abs=2)
    assert 0.4 < np.max(np.abs(clip.audio)) < 0.6


# ---- the shards' own ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 5000),
    seed=st.integers(0, 2**16),
    rate=st.sampled_from([8000, 16000, 22050, 24000, 48000]),
    level=st.sampled_from([0.0, 1e-4, 0.1, 4.0]),
    tags=st.sampled_from([{}, SYNTHETIC]),
)
def test_flac_is_lossless_and_deterministic(
    samples: int, seed: int, rate: int, level: float, tags: dict[str, str]
) -> None:
    pcm = audio.to_pcm(np.random.default_rng(seed).standard_normal(samples) * level)
    data = audio.encode_flac(pcm, rate, tags)
    decoded, found = audio.decode(data)
    assert found == rate and decoded.dtype == np.int16 and np.array_equal(decoded, pcm)
    assert audio.header(data) == (samples, rate)
    assert audio.encode_flac(pcm.copy(), rate, dict(reversed(tags.items()))) == data


def vorbis_comments(data: bytes) -> list[str]:
    """NAME=value of the comment block of a FLAC file (RFC 9639, sections 8 and 8.6)."""
    assert data[:4] == b"fLaC"
    place, last = 4, False
    while not last:
        last, kind = bool(data[place] & 0x80), data[place] & 0x7F
        length = int.from_bytes(data[place + 1 : place + 4], "big")
        block = data[place + 4 : place + 4 + length]
        place += 4 + length
        if kind == 4:
            break
    else:
        return []

    def field(start: int) -> tuple[bytes, int]:
        end = start + 4 + int.from_bytes(block[start : start + 4], "little")
        return block[start + 4 : end], end

    _, place = field(0)  # the name of the encoder
    count, place = int.from_bytes(block[place : place + 4], "little"), place + 4
    found = []
    for _ in range(count):
        comment, place = field(place)
        found.append(comment.decode())
    assert place == len(block)
    return found


def test_a_flac_carries_its_tags_where_every_player_looks_for_them() -> None:
    pcm = audio.to_pcm(TONE.audio)
    names = {comment.partition("=")[0].lower(): comment.partition("=")[2] for comment in _comments(pcm, SYNTHETIC)}
    assert names == SYNTHETIC
    assert _comments(pcm, {}) == []


def _comments(pcm: np.ndarray, tags: dict[str, str]) -> list[str]:
    return vorbis_comments(audio.encode_flac(pcm, RATE, tags))


@pytest.mark.parametrize("name", ["synthetic", "software", "Comment"])
def test_a_tag_that_would_not_be_written_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"no FLAC tag is called '{name}'; tags: album, artist, comment"):
        audio.encode_flac(np.zeros(10, np.int16), RATE, {name: "x"})


@pytest.fixture(scope="module")
def flac() -> bytes:
    return audio.encode_flac(audio.to_pcm(TONE.audio[:8000]), RATE, SYNTHETIC)


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_found(flac: bytes, share: float) -> None:
    cut = flac[: math.floor(len(flac) * share)]
    with pytest.raises(DataError, match=r"^zh-000001-02\.user\.flac: "):
        audio.decode(cut, "zh-000001-02.user.flac")


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_the_last_byte_counts(flac: bytes, lost: int) -> None:
    with pytest.raises(DataError, match=r"^audio: "):
        audio.decode(flac[:-lost])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.sampled_from([b"fLaC", b"RIFF\0\0\0\0WAVE", b"ID3", b"OggS"]))
def test_garbage_is_found(data: bytes) -> None:
    for read in (audio.decode, audio.header):
        with pytest.raises(DataError) as caught:
            read(data, "some.flac")
        message = str(caught.value)
        assert message.startswith("some.flac: ") and "\n" not in message and "0x" not in message


def test_a_cut_header_is_found(flac: bytes) -> None:
    for size in range(42):  # the marker and STREAMINFO
        with pytest.raises(DataError, match=r"^some: no readable audio header"):
            audio.header(flac[:size], "some")


def test_two_channels_are_not_a_track() -> None:
    stereo = np.zeros((100, 2), np.int16)
    with pytest.raises(DataError, match=r"^some: "):
        audio.decode(audio.encode_flac(stereo, RATE), "some")


# ---- in and out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "A.MP3"])
@pytest.mark.usefixtures("without_ffmpeg")
def test_what_libsndfile_knows_needs_no_ffmpeg(tmp_path: Path, name: str) -> None:
    audio.write_preview(TONE, tmp_path / name)
    is_the_tone(audio.read_clip(tmp_path / name))


@pytest.mark.parametrize("name", ["a.m4a", "a.opus", "-a.webm", "a b:c.aac"])
@pytest.mark.usefixtures("ffmpeg")
def test_ffmpeg_knows_the_others(tmp_path: Path, name: str) -> None:
    audio.write_preview(TONE, tmp_path / name)
    # What decodes Opus may do so at 48 kHz whatever went in.
    is_the_tone(audio.read_clip(tmp_path / name), 48000 if name.endswith("webm") else RATE)


@pytest.mark.usefixtures("without_ffmpeg")
def test_a_missing_ffmpeg_is_told_with_the_way_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with pytest.raises(UsageError, match=r"a\.m4a: only \.flac, \.wav, \.mp3, \.ogg can be .*apt install ffmpeg"):
        audio.write_preview(TONE, path)
    assert not path.exists()
    path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    with pytest.raises(UsageError, match=r"a\.m4a: libsndfile cannot read it \(.+\); .*apt install ffmpeg") as caught:
        audio.read_clip(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("ffmpeg")
def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    for name, data in (("text.wav", b"RIFF is what this file is not"), ("empty.mp3", b""), ("noise.m4a", bytes(999))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"/{name}: damaged, or no sound file: .+") as caught:
            audio.read_clip(tmp_path / name)
        assert "\n" not in str(caught.value)


JUNK = {
    "text.mp3": b"This is a text, and no sound at all.\n" * 50,
    "page.mp3": b"<!doctype html>" + b"<p>Not found</p>" * 500,
    "empty.mp3": b"",
    "text.ogg": b"no sound",
    "text.raw": b"no sound",
    "text.au": b"no sound" * 20,
}


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize("installed", [False, True])
def test_what_is_renamed_is_no_sound_and_says_so_in_one_line(
    tmp_path: Path, without_ffmpeg: Path, installed: bool, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if installed:
        (without_ffmpeg / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    (tmp_path / name).write_bytes(JUNK[name])
    with pytest.raises((DataError, UsageError)) as caught:
        audio.read_clip(tmp_path / name)
    said, known = str(caught.value), name.endswith((".mp3", ".ogg"))
    assert said.startswith(f"{tmp_path / name}: ") and "\n" not in said and "0x" not in said
    assert "does not exist" not in said
    assert isinstance(caught.value, DataError) == (installed or known)
    assert ("damaged, or no sound file" if installed else "FFmpeg") in said
    if known and not installed:
        assert f"damaged, or no {name[-3:].upper()} file (Format not recognised" in said
    assert capfd.readouterr() == ("", "")  # a decoder that searches it for sound talks about it


@pytest.mark.usefixtures("ffmpeg")
def test_a_cut_file_is_no_clip(tmp_path: Path) -> None:
    for name in ("a.m4a", "a.flac"):
        path = tmp_path / name
        audio.write_preview(TONE, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match=rf"{name}: damaged"):
            audio.read_clip(path)


@pytest.mark.usefixtures("without_ffmpeg")
def test_a_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.wav: no such file"):
        audio.read_clip(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r": no such file"):
        audio.read_clip(tmp_path)
    sf.write(tmp_path / "b.wav", np.zeros(0), RATE)
    with pytest.raises(DataError, match=r"b\.wav: holds no sound"):
        audio.read_clip(tmp_path / "b.wav")


def test_channels_are_averaged_and_the_rate_is_the_files(tmp_path: Path) -> None:
    left, right = np.full(50, 0.5), np.full(50, -0.25)
    sf.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44100, subtype="FLOAT")
    clip = audio.read_clip(tmp_path / "a.wav")
    assert clip.rate == 44100 and clip.audio.tolist() == [0.125] * 50


@pytest.mark.usefixtures("ffmpeg")
def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.xyz: FFmpeg cannot write it: .+") as caught:
        audio.write_preview(TONE, tmp_path / "a.xyz")
    assert "\n" not in str(caught.value) and not (tmp_path / "a.xyz").exists()
    with pytest.raises(UsageError, match=r"a\.mp3: MP3 at 16025 Hz cannot be written: "):
        audio.write_preview(Clip(TONE.audio, 16025), tmp_path / "a.mp3")
    assert not (tmp_path / "a.mp3").exists()


def test_a_folder_that_is_missing_is_the_callers_to_tell(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        audio.write_preview(TONE, tmp_path / "none" / "a.wav")
