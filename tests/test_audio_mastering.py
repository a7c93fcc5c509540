"""From a raw clip to what lies on a track: direct current, ends, loudness, peaks."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import audio
from pipeline.config import AudioConfig
from pipeline.dialogue import Clip, Role
from pipeline.voice import Recipe, SpeechRequest, Voice
from tests.fakes import EN_LINES, ZH_LINES
from tests.synthetic import ToneSynthesizer


def noise(samples: int, rate: int, seed: int = 0, level: float = 0.1) -> Clip:
    """White noise, at least one 16-bit step away from zero, so that a track shows where it lies."""
    drawn = np.random.default_rng(seed).uniform(0.01, 1, samples) * level
    return Clip(drawn.astype(np.float32), rate)


def speech(seconds: float, rate: int, level: float = 0.3) -> Clip:
    """Harmonics of a voice under an envelope of four syllables a second."""
    time = np.arange(int(seconds * rate)) / rate
    voiced = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in (1, 2, 3, 5, 8))
    return Clip((level * 0.4 * voiced * (0.15 + np.sin(np.pi * 4 * time) ** 2)).astype(np.float32), rate)


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
    assert np.array_equal(np.sign(loud.audio), np.sign(clip.audio))


def test_a_clip_without_high_peaks_is_changed_in_loudness_alone() -> None:
    clip = speech(2, 16000, level=0.6)
    loud = audio.normalize_loudness(clip, -23.0, -1.0)
    said = np.abs(clip.audio) > 1e-4
    gains = loud.audio[said] / clip.audio[said]
    assert gains[0] < 0.7 and np.allclose(gains, gains[0], rtol=1e-4)


def test_a_click_does_not_hold_a_clip_below_its_loudness() -> None:
    clip = speech(3, 24000, level=0.02)
    clip.audio[36000] = 1.0
    loud = audio.normalize_loudness(clip, -23.0, -1.0)
    assert abs(pyloudnorm.Meter(24000).integrated_loudness(loud.audio.astype(np.float64)) + 23) < 0.5
    assert abs(loud.audio[36000]) == pytest.approx(10 ** (-1 / 20), rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(places=st.lists(st.integers(0, 7999), min_size=1, max_size=3, unique=True), rate=st.sampled_from([8000, 24000]))
def test_the_limiter_touches_what_is_near_a_peak_and_nothing_else(places: list[int], rate: int) -> None:
    clip = noise(8000, rate, level=0.2)
    clip.audio[places] = 0.9
    limited = audio.limit(clip, -6.0)
    assert limited.audio[places] == pytest.approx(10 ** (-6 / 20), rel=1e-6)
    far = np.min(np.abs(np.arange(8000)[:, None] - places), axis=1) > 0.011 * rate
    assert np.array_equal(limited.audio[far], clip.audio[far])
    gain = limited.audio / clip.audio
    # Smooth: no step of the gain is above what 5 ms of a Hann window allow.
    assert np.max(np.abs(np.diff(gain))) < 2 / (0.005 * rate)


def test_the_limiter_leaves_alone_what_is_not_too_loud() -> None:
    clip = noise(4000, 16000, level=0.4)
    assert np.array_equal(audio.limit(clip, -6.0).audio, clip.audio)


@pytest.mark.parametrize("samples", [0, 10, 16000])
def test_silence_stays_silence(samples: int) -> None:
    loud = audio.normalize_loudness(Clip(np.zeros(samples, np.float32), 16000), -23.0, -1.0)
    assert len(loud.audio) == samples and not loud.audio.any()


class Heard:
    """A detector that hears speech where it is told to."""

    name = "told"
    rate = 16000

    def __init__(self, *spans: tuple[float, float]):
        self.spans = list(spans)
        self.asked: list[Clip] = []

    def speech(self, clip: Clip) -> list[tuple[float, float]]:
        self.asked.append(clip)
        return self.spans


def parts(*levels: tuple[float, float], rate: int = 24000) -> Clip:
    """Noise of one level after the other: (seconds, dBFS)."""
    drawn = np.random.default_rng(3).uniform(-1, 1, round(sum(seconds for seconds, _ in levels) * rate)) * 3**0.5
    scale = np.concatenate([np.full(round(seconds * rate), 10 ** (level / 20)) for seconds, level in levels])
    return Clip((drawn * scale).astype(np.float32), rate)


def test_what_is_quieter_than_speech_and_is_none_goes() -> None:
    clip = parts((0.5, -45), (1.0, -10), (0.6, -45))
    vad = Heard((0.544, 1.472))  # late, and on its grid of 32 ms
    kept = audio.trim_to_speech(clip, vad)
    assert [item.rate for item in vad.asked] == [16000]
    assert kept.seconds == pytest.approx(1.2, abs=0.011)
    start = round(0.4 * 24000)
    assert np.array_equal(kept.audio, clip.audio[start : start + len(kept.audio)])
    # The same by its level alone: nothing is as quiet as silence, all stays.
    assert len(audio.trim(clip, -50.0).audio) == len(clip.audio)


@settings(max_examples=30, deadline=None)
@given(start=st.floats(0.5, 1.4), length=st.floats(0.05, 0.5), level=st.floats(-30, -12))
def test_what_is_as_loud_as_speech_is_never_cut(start: float, length: float, level: float) -> None:
    """Whatever the detector heard: it may have missed a whisper, or the fricative of the first syllable."""
    clip = parts((0.5, -80), (0.6, level), (0.8, -10), (0.2, level), (0.4, -80))
    kept = audio.trim_to_speech(clip, Heard((start, start + length))).audio
    first = round(0.5 * 24000)
    said = clip.audio[first : first + round(1.6 * 24000)]
    at = np.flatnonzero(kept == said[0])[0]
    assert np.array_equal(kept[at : at + len(said)], said)


def test_where_no_speech_is_found_the_level_decides() -> None:
    clip = parts((0.4, -80), (1.0, -20), (0.4, -80))
    assert np.array_equal(audio.trim_to_speech(clip, Heard()).audio, clip.audio)
    by_level = audio.master(clip, "user", AudioConfig(trim="level"))
    assert by_level.seconds == pytest.approx(1.06, abs=0.011)
    assert np.array_equal(audio.master(clip, "user", AudioConfig(), Heard()).audio, by_level.audio)
    assert np.array_equal(audio.master(clip, "user", AudioConfig()).audio, by_level.audio)


def test_the_configuration_chooses_how_a_clip_is_trimmed() -> None:
    clip = parts((0.5, -45), (1.0, -10), (0.5, -45))
    vad = Heard((0.5, 1.5))
    assert audio.master(clip, "assistant", AudioConfig(), vad).seconds == pytest.approx(1.2, abs=0.011)
    asked = len(vad.asked)
    assert audio.master(clip, "assistant", AudioConfig(trim="level"), vad).seconds == pytest.approx(2.0, abs=0.011)
    assert len(vad.asked) == asked == 1


@settings(max_examples=20, deadline=None)
@given(offset=st.floats(-0.5, 0.5), samples=st.integers(1, 5000))
def test_direct_current_goes(offset: float, samples: int) -> None:
    clip = noise(samples, 16000)
    centred = audio.centre(Clip(clip.audio + np.float32(offset), 16000)).audio
    assert centred.dtype == np.float32 and abs(centred.mean(dtype=np.float64)) < 1e-6
    assert np.allclose(centred, clip.audio - clip.audio.mean(dtype=np.float64), atol=1e-6)


def test_silence_on_a_direct_current_is_silence() -> None:
    hum = Clip(np.full(24000, 0.2, np.float32), 24000)
    assert len(audio.master(hum, "assistant", AudioConfig()).audio) == 0
    assert len(audio.centre(Clip(hum.audio[:0], 24000)).audio) == 0


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


def test_the_tones_of_the_other_tests_are_speech_to_these_functions() -> None:
    """They go through trim, loudness and faults like the real thing, or what is tested with them would be empty."""
    recipe = Recipe(timbre=(("tone", 1.0),))
    voice = Voice(id="tone", gender="female", languages=("en", "zh"), engine="tones", license="CC0-1.0", recipe=recipe)
    for language, lines in (("en", EN_LINES), ("zh", ZH_LINES)):
        for text in lines:
            [clip] = ToneSynthesizer().synthesize([SpeechRequest(text, language, voice, 0, 1.0, 0)])
            assert isinstance(clip, Clip) and audio.check_raw(clip, AudioConfig()) is None
            mastered = audio.master(clip, "assistant", AudioConfig())
            assert 0.9 * clip.seconds < mastered.seconds <= clip.seconds
            assert audio.check(mastered, text, AudioConfig()) is None
