"""Silences and signal-to-noise ratios of clips that were made to have them, and of real speech with known noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import read_clip
from pipeline.audio.measures import silences, snr, trim_silence
from pipeline.dialogue import Clip

RATE = 16000
SPEECH = read_clip(Path(__file__).parent / "backends" / "data" / "af_heart.flac")


def tone(seconds: float, amplitude: float = 0.1) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def quiet(seconds: float) -> np.ndarray:
    return tone(seconds, 0.0005)  # 46 dB under the tone


def clip(*parts: np.ndarray) -> Clip:
    return Clip(np.concatenate(parts), RATE)


def noisy(item: Clip, decibels: float) -> Clip:
    """The clip with white noise that is so far under its power, pauses left out."""
    loud = np.square(item.audio[np.abs(item.audio) > 0.01], dtype=np.float64).mean()
    noise = np.random.default_rng(7).standard_normal(len(item.audio)) * np.sqrt(loud) * 10 ** (-decibels / 20)
    return Clip((item.audio + noise).astype(np.float32), item.rate)


@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_silences_are_measured_at_any_level(gain: float) -> None:
    parts = (quiet(0.3), tone(0.5), quiet(0.2), tone(0.4), quiet(0.7), tone(0.5), quiet(0.15))
    found = silences(Clip(np.concatenate(parts) * np.float32(gain), RATE))
    assert found == pytest.approx((0.3, 0.15, 0.7), abs=0.011)


def test_speech_without_a_pause_has_no_silence() -> None:
    assert silences(clip(tone(0.8))) == pytest.approx((0, 0, 0), abs=0.011)


def test_noise_is_no_silence() -> None:
    loud = clip(tone(0.5), tone(0.5, 0.01), tone(0.5))  # 20 dB under the tone
    assert silences(loud).hush == 0


def test_one_click_does_not_make_speech_silent() -> None:
    clicked = clip(quiet(0.3), tone(1.0), quiet(0.3))
    clicked.audio[8000] = 1.0
    assert silences(clicked) == pytest.approx((0.3, 0.3, 0), abs=0.011)


def test_a_silent_clip_is_all_lead() -> None:
    assert silences(Clip(np.zeros(8000, np.float32), RATE)) == (0.5, 0, 0)
    assert silences(Clip(np.zeros(0, np.float32), RATE)) == (0, 0, 0)


def test_silence_is_trimmed() -> None:
    found = trim_silence(clip(quiet(0.3), tone(0.5), quiet(0.2), tone(0.4), quiet(0.4)))
    assert found.seconds == pytest.approx(1.1, abs=0.021)
    assert silences(found).hush == pytest.approx(0.2, abs=0.011)
    silent = Clip(np.zeros(8000, np.float32), RATE)
    assert len(trim_silence(silent).audio) == 8000


def test_silences_of_real_speech() -> None:
    padded = clip(np.zeros(8000, np.float32), SPEECH.audio, np.zeros(16000, np.float32))
    own, found = silences(SPEECH), silences(padded)
    assert found.lead - own.lead == pytest.approx(0.5, abs=0.011)
    assert found.tail - own.tail == pytest.approx(1.0, abs=0.011)
    assert 0 < found.hush < 1


@pytest.mark.parametrize("decibels", [25, 15, 5])
def test_the_noise_of_a_clip_is_found(decibels: float) -> None:
    assert snr(SPEECH) is not None and (snr(SPEECH) or 0) > 40
    assert snr(noisy(SPEECH, decibels)) == pytest.approx(decibels, abs=2.5)


def test_a_clip_without_room_for_a_pause_has_no_ratio() -> None:
    assert snr(clip(tone(0.1))) is None
    assert snr(clip(tone(0.3), np.zeros(4800, np.float32))) == 100
