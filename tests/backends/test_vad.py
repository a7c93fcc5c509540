"""Silero finds speech, and only speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import audio
from pipeline.backends import build_engine
from pipeline.backends.vad import silero
from pipeline.backends.vad.silero import Silero, spans, windows
from pipeline.config import AudioConfig, Config, TtsEngineConfig
from pipeline.dialogue import Clip, Language
from pipeline.errors import ModelError
from pipeline.voice import Recipe, SpeechRequest, Voice

TEXTS: dict[Language, str] = {"en": "She sells fresh fish.", "zh": "喜欢吃西瓜。"}
STYLES: dict[Language, str] = {"en": "bf_emma", "zh": "zf_xiaoxiao"}


@pytest.fixture(scope="module")
def vad() -> Silero:
    return silero.build(Config())


@pytest.fixture(scope="module")
def spoken() -> dict[Language, Clip]:
    """Sentences that begin and end softly, without the silence around them, at 16 kHz."""
    engine = build_engine("kokoro", TtsEngineConfig())
    clips: dict[Language, Clip] = {}
    for language, text in TEXTS.items():
        style = STYLES[language]
        recipe = Recipe(timbre=((style, 1.0),))
        voice = Voice(
            id=style, gender="female", languages=(language,), engine="kokoro", license="Apache-2.0", recipe=recipe
        )
        [clip] = engine.synthesize([SpeechRequest(text, language, voice, 0, 1.0, 0)])
        assert isinstance(clip, Clip)
        clips[language] = audio.trim(audio.resample(clip, 16000), -50.0)
    return clips


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    """White noise of that many dBFS at 16 kHz."""
    drawn = np.random.default_rng(seed).standard_normal(round(seconds * 16000))
    return (drawn * 10 ** (level / 20)).astype(np.float32)


@pytest.mark.embedded
@pytest.mark.parametrize("language", ["en", "zh"])
def test_speech_is_found_where_it_is(vad: Silero, spoken: dict[Language, Clip], language: Language) -> None:
    said = spoken[language]
    clip = Clip(np.concatenate([noise(1.0, -60), said.audio, noise(1.5, -60)]), 16000)
    found = vad.speech(clip)
    assert found[0][0] == pytest.approx(1.0, abs=0.13) and found[-1][1] == pytest.approx(1.0 + said.seconds, abs=0.15)
    assert vad.speech(clip) == found


@pytest.mark.embedded
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_said_survives_the_trimming_and_the_noise_after_it_does_not(
    vad: Silero, spoken: dict[Language, Clip], language: Language
) -> None:
    said = spoken[language]
    clip = Clip(np.concatenate([noise(0.5, -45), said.audio, noise(1.0, -45)]), 16000)
    kept = audio.trim_to_speech(clip, vad)
    assert said.seconds < kept.seconds < said.seconds + 0.4
    assert len(audio.trim(clip, -50.0).audio) == len(clip.audio)
    level = audio.trim(said, -20.0).audio
    at = np.flatnonzero(kept.audio == level[0])[0]
    assert np.array_equal(kept.audio[at : at + len(level)], level)
    mastered = audio.master(clip, "user", AudioConfig(), vad)
    # The windows of the detector may lie elsewhere by then.
    assert mastered.seconds == pytest.approx(kept.seconds, abs=0.065)


@pytest.mark.embedded
def test_noise_and_tones_are_no_speech(vad: Silero) -> None:
    time = np.arange(32000) / 16000
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    for sound in (np.zeros(32000, np.float32), noise(2, -20), tone, np.zeros(0, np.float32), tone[:100]):
        assert vad.speech(Clip(sound, 16000)) == []
    mastered = audio.master(Clip(tone, 16000), "user", AudioConfig(), vad)
    assert len(mastered.audio) == len(tone)


@pytest.mark.embedded
def test_a_long_clip_goes_through_in_blocks(
    vad: Silero, spoken: dict[Language, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip(np.concatenate([spoken["en"].audio, spoken["zh"].audio]), 16000)
    whole = vad.probabilities(clip)
    assert len(whole) == -(-len(clip.audio) // 512) and 0 <= whole.min() < 0.5 < whole.max() <= 1
    monkeypatch.setattr(silero, "BLOCK", 7)
    assert np.array_equal(vad.probabilities(clip), whole)


@pytest.mark.embedded
def test_another_rate_is_refused(vad: Silero) -> None:
    with pytest.raises(ValueError, match="24000 Hz; silero wants 16000 Hz"):
        vad.speech(Clip(np.zeros(24000, np.float32), 24000))


@pytest.mark.embedded
def test_the_model_is_named_with_its_licence() -> None:
    [use] = silero.models(Config())
    assert (use.role, use.name, use.license, use.sha256[:8]) == ("vad", "silero-vad", "MIT", "9ccdacc4")


def test_a_missing_model_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHCHAT_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"silero_vad_16k_sequence.onnx is missing; .*models pull silero-vad"):
        silero.build(Config())


# ---- without the model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probabilities", "found"),
    [
        ([], []),
        ([0.1, 0.49, 0.2], []),
        ([0.1, 0.5, 0.9, 0.34, 0.1], [(1, 3)]),
        # Once it is speech it stays so down to 0.35.
        ([0.1, 0.9, 0.4, 0.36, 0.2], [(1, 4)]),
        ([0.4, 0.45, 0.9, 0.1], [(2, 3)]),
        # A silence of three windows, 96 ms, is part of the speech, one of four is not.
        ([0.9, 0, 0, 0, 0.9, 0], [(0, 5)]),
        ([0.9, 0, 0, 0, 0, 0.9, 0], [(0, 1), (5, 6)]),
        ([0.9] * 4, [(0, 4)]),
    ],
)
def test_spans_of_speech(probabilities: list[float], found: list[tuple[int, int]]) -> None:
    step = 512 / 16000
    seconds = len(probabilities) * step
    expected = [(pytest.approx(start * step), pytest.approx(end * step)) for start, end in found]
    assert spans(np.array(probabilities), seconds) == expected


def test_the_last_span_ends_with_the_clip() -> None:
    assert spans(np.array([0.1, 0.9]), 0.05) == [(0.032, 0.05)]


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 513, 1600])
def test_each_window_sees_the_end_of_the_one_before(samples: int) -> None:
    sound = np.arange(1, samples + 1, dtype=np.float32)
    seen = windows(sound)
    assert seen.shape == (-(-samples // 512), 576)
    for number, window in enumerate(seen):
        before, after = sound[: 512 * number][-64:], sound[512 * number :][:512]
        expected = np.concatenate([np.zeros(64 - len(before)), before, after, np.zeros(512 - len(after))])
        assert np.array_equal(window, expected)
