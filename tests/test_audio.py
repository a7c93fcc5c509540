"""Samples and their rate, and the timeline that they are laid on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import audio
from pipeline.config import AudioConfig
from pipeline.dialogue import Clip, Role

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


# ---- samples ---------------------------------------------------------------------------------------------------------


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
