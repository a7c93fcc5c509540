from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import audio
from pipeline.config import AudioConfig
from pipeline.dialogue import Clip, Role
from pipeline.errors import DataError
from tests.fakes import EN_LINES
from tests.synthetic import ToneSynthesizer

RATES = [(16000, 24000), (24000, 24000), (16000, 48000), (8000, 44100), (22050, 24000), (11025, 22050)]
Talk = list[tuple[Role, int, float]]  # role, length in samples, gap in seconds before it

talks = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant"]),
        st.integers(1, 9000),
        st.integers(0, 900).map(lambda ms: ms / 1000),
    ),
    min_size=1,
    max_size=6,
)


def noise(samples: int, rate: int, seed: int = 0, level: float = 0.1) -> Clip:
    """White noise, at least one 16-bit step away from zero, so that a track shows where it lies."""
    drawn = np.random.default_rng(seed).uniform(0.01, 1, samples) * level
    return Clip(drawn.astype(np.float32), rate)


def speech(seconds: float, rate: int, level: float = 0.3) -> Clip:
    """Harmonics of a voice under an envelope of four syllables a second."""
    time = np.arange(int(seconds * rate)) / rate
    voiced = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in (1, 2, 3, 5, 8))
    return Clip((level * 0.4 * voiced * (0.15 + np.sin(np.pi * 4 * time) ** 2)).astype(np.float32), rate)


# ---- the timeline ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", RATES, ids=str)
@settings(max_examples=30, deadline=None)
@given(talk=talks, tail=st.integers(0, 500).map(lambda ms: ms / 1000))
def test_each_turn_lies_where_its_span_says_and_nowhere_else(rates: tuple[int, int], talk: Talk, tail: float) -> None:
    config = AudioConfig(user_rate=rates[0], assistant_rate=rates[1], tail=tail)
    by_role: dict[Role, int] = {"user": rates[0], "assistant": rates[1]}
    clips = [(role, noise(length, by_role[role], seed)) for seed, (role, length, _) in enumerate(talk)]
    gaps = [gap for _, _, gap in talk]
    timeline = audio.lay_out(clips, gaps, config)
    tracks: dict[Role, np.ndarray] = {"user": timeline.user, "assistant": timeline.assistant}

    # Equal duration, whole frames of 80 ms, exact in samples at both rates.
    duration = Fraction(timeline.duration).limit_denominator(10**6)
    assert duration % Fraction(80, 1000) == 0
    for role, rate in by_role.items():
        assert tracks[role].dtype == np.int16 and len(tracks[role]) == duration * rate

    expected = {role: np.zeros_like(track) for role, track in tracks.items()}
    now = 0.0
    for (role, clip), gap, (start, end) in zip(clips, gaps, timeline.spans, strict=True):
        assert now + gap <= start + 1e-9 < now + gap + 0.04 + 2e-9  # the grid is 10 ms, 40 ms at 11,025 Hz
        first, last = round(start * clip.rate), round(end * clip.rate)
        assert start * clip.rate == pytest.approx(first, abs=1e-6)
        assert last - first == len(clip.audio)
        expected[role][first:last] = audio.to_pcm(clip.audio)
        now = end
    for role, track in tracks.items():
        assert np.array_equal(track, expected[role])
    assert now + tail <= timeline.duration + 1e-9 < now + tail + 0.08 + 2e-9


def test_a_decimal_number_of_seconds_is_taken_at_its_word() -> None:
    """The float 0.2 is above 1/5: rounded up to the grid it must stay 0.2."""
    clips: list[tuple[Role, Clip]] = [("user", noise(1600, 16000)), ("assistant", noise(2400, 24000))]
    timeline = audio.lay_out(clips, [0.2, 0.3], AudioConfig(tail=0.2))
    assert timeline.spans == ((0.2, 0.3), (0.6, 0.7))
    assert timeline.duration == pytest.approx(0.96)


def test_a_gap_for_every_turn() -> None:
    with pytest.raises(ValueError):
        audio.lay_out([("user", noise(160, 16000))], [0.2, 0.3], AudioConfig())


# ---- trim, loudness, rounding ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(head=st.integers(0, 8000), tail=st.integers(0, 8000), length=st.integers(1600, 16000))
def test_trim_keeps_the_speech_and_a_little_silence(head: int, tail: int, length: int) -> None:
    rate = 16000
    said = noise(length, rate).audio
    clip = Clip(np.concatenate([np.zeros(head, np.float32), said, np.zeros(tail, np.float32)]), rate)
    kept = audio.trim(clip, -50.0).audio
    places = np.flatnonzero(kept)
    assert np.array_equal(kept[places[0] : places[-1] + 1], said)
    step = rate // 100  # it looks in steps of 10 ms
    assert places[0] <= min(head, 480 + step) and len(kept) - 1 - places[-1] <= min(tail, 480 + step)
    assert places[0] >= min(head, 480 - step)


@pytest.mark.parametrize("samples", [0, 3, 159, 5000])
def test_trim_empties_silence(samples: int) -> None:
    hiss = (np.random.default_rng(1).standard_normal(samples) * 1e-4).astype(np.float32)  # -80 dBFS
    assert len(audio.trim(Clip(hiss, 16000), -50.0).audio) == 0


@settings(max_examples=15, deadline=None)
@given(
    seconds=st.floats(1.1, 4),
    rate=st.sampled_from([16000, 24000]),
    level=st.floats(0.01, 0.9),
    target=st.floats(-35, -20),
)
def test_loudness_reaches_its_target(seconds: float, rate: int, level: float, target: float) -> None:
    clip = audio.normalize_loudness(speech(seconds, rate, level), target, -1.0)
    reached = pyloudnorm.Meter(rate).integrated_loudness(clip.audio.astype(np.float64))
    assert abs(reached - target) < 0.5


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 20000),
    level=st.floats(0.001, 1),
    target=st.floats(-60, -5),
    peak=st.floats(-20, 0),
    clicks=st.booleans(),
)
def test_no_sample_exceeds_the_peak(samples: int, level: float, target: float, peak: float, clicks: bool) -> None:
    clip = noise(samples, 16000, level=level)
    if clicks:
        clip.audio[:: max(1, samples // 3)] = -1.0
    loud = audio.normalize_loudness(clip, target, peak)
    assert len(loud.audio) == samples and loud.audio.dtype == np.float32
    assert np.max(np.abs(loud.audio)) <= 10 ** (peak / 20) * (1 + 1e-6)
    # One gain for all samples: loudness is changed, nothing else is.
    gains = loud.audio / clip.audio
    assert np.allclose(gains, gains[0], rtol=1e-5)


@pytest.mark.parametrize("samples", [0, 10, 16000])
def test_silence_stays_silence(samples: int) -> None:
    loud = audio.normalize_loudness(Clip(np.zeros(samples, np.float32), 16000), -23.0, -1.0)
    assert len(loud.audio) == samples and not loud.audio.any()


@pytest.mark.parametrize(("role", "rate"), [("user", 16000), ("assistant", 24000)])
def test_a_mastered_clip_is_at_the_rate_of_its_track_and_survives_the_file(role: Role, rate: int) -> None:
    raw = speech(2.0, 24000)
    padded = Clip(np.concatenate([np.zeros(24000, np.float32), raw.audio, np.zeros(24000, np.float32)]), 24000)
    clip = audio.master(padded, role, AudioConfig())
    assert clip.rate == rate and 2.0 <= clip.seconds < 2.1
    assert np.array_equal(audio.from_pcm(audio.to_pcm(clip.audio)), clip.audio)
    heard, _ = audio.decode(audio.encode_flac(audio.to_pcm(clip.audio), rate))
    assert np.array_equal(audio.from_pcm(heard), clip.audio)


def test_an_engine_that_says_nothing_is_mastered_to_nothing() -> None:
    assert len(audio.master(Clip(np.zeros(24000, np.float32), 24000), "user", AudioConfig()).audio) == 0


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_resampling_keeps_duration_and_pitch(rate: int) -> None:
    time = np.arange(24000) / 24000
    clip = audio.resample(Clip(np.sin(2 * np.pi * 440 * time).astype(np.float32), 24000), rate)
    assert clip.rate == rate and clip.audio.dtype == np.float32
    assert clip.seconds == pytest.approx(1.0, abs=1 / rate)
    spectrum = np.abs(np.fft.rfft(clip.audio))
    assert np.argmax(spectrum) * rate / len(clip.audio) == pytest.approx(440, abs=1)


@settings(deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), max_size=50))
def test_to_pcm_clips_and_rounds_to_the_nearest_step(values: list[float]) -> None:
    for value, pcm in zip(values, audio.to_pcm(np.array(values, np.float32)), strict=True):
        assert abs(pcm - min(max(value * 32768, -32768), 32767)) <= 0.5


# ---- files ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 5000),
    seed=st.integers(0, 2**16),
    rate=st.sampled_from([8000, 16000, 22050, 24000, 48000]),
    level=st.sampled_from([0.0, 1e-4, 0.1, 4.0]),
)
def test_flac_is_lossless_and_deterministic(samples: int, seed: int, rate: int, level: float) -> None:
    pcm = audio.to_pcm(np.random.default_rng(seed).standard_normal(samples) * level)
    data = audio.encode_flac(pcm, rate)
    decoded, found = audio.decode(data)
    assert found == rate and decoded.dtype == np.int16 and np.array_equal(decoded, pcm)
    assert audio.header(data) == (samples, rate)
    assert audio.encode_flac(pcm.copy(), rate) == data


@pytest.fixture(scope="module")
def flac() -> bytes:
    return audio.encode_flac(audio.to_pcm(speech(0.5, 16000).audio), 16000)


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
        audio.decode(audio.encode_flac(stereo, 16000), "some")


def test_the_tones_of_the_other_tests_are_speech_to_these_functions() -> None:
    """They go through trim and loudness like the real thing, or what is tested with them would be empty."""
    from pipeline.dialogue import SpeechRequest

    request = SpeechRequest(EN_LINES[0], "en", "af_heart", 0, 1.0, 0)
    [clip] = ToneSynthesizer().synthesize([request])
    mastered = audio.master(clip, "assistant", AudioConfig())
    assert 0.9 * clip.seconds < mastered.seconds <= clip.seconds
