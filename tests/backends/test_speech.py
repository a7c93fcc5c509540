"""The embedded speech models, for real: what Kokoro says, Whisper hears and DNSMOS judges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from jiwer import cer, wer

from pipeline.audio import resample
from pipeline.backends import make_quality, make_recognizer, make_synthesizer, speech_models
from pipeline.backends.asr.faster_whisper import FasterWhisper
from pipeline.backends.quality.dnsmos import Dnsmos, windows
from pipeline.config import load_config
from pipeline.dialogue import Clip, Language
from pipeline.voice import Recipe, SpeechRequest, Voice

pytestmark = pytest.mark.embedded

CONFIG = load_config("quickstart")


def ask(text: str, language: Language, accent: str, **timbre: float) -> SpeechRequest:
    """Of a voice that is mixed of these styles."""
    recipe = Recipe.model_validate({"timbre": timbre})
    who = {"id": "v", "gender": "female", "languages": [language], "accent": accent, "license": "Apache-2.0"}
    voice = Voice.model_validate({**who, "engine": "kokoro", "recipe": recipe})
    return SpeechRequest(text, language, voice, take=0, speed=1.0, seed=7)


REQUESTS = (
    ask("The weather is lovely today, and we will walk in the park.", "en", "us", af_heart=1),
    ask("I think that is a wonderful idea.", "en", "gb", bm_george=1),
    ask("今天的天气非常好。", "zh", "cn", zf_xiaoxiao=1),
    ask("我们一起去公园散步吧。", "zh", "cn", zm_yunxi=0.5, zm_yunyang=0.5),
)


@pytest.fixture(scope="module")
def asr() -> FasterWhisper:
    engine = make_recognizer(CONFIG)
    assert isinstance(engine, FasterWhisper)
    return engine


@pytest.fixture(scope="module")
def dnsmos() -> Dnsmos:
    engine = make_quality(CONFIG)
    assert isinstance(engine, Dnsmos)
    return engine


@pytest.fixture(scope="module")
def spoken() -> list[Clip]:
    said = make_synthesizer(CONFIG).synthesize(REQUESTS)
    return [clip for clip in said if isinstance(clip, Clip)]


def plain(text: str) -> str:
    """Letters and digits only; enough for these sentences, whose characters are the same in both scripts but these."""
    simplified = text.translate(str.maketrans("氣們園", "气们园"))
    return "".join(c for c in simplified.lower() if c.isalnum() or c == " ")


def test_what_is_said_is_heard(spoken: list[Clip], asr: FasterWhisper) -> None:
    heard = asr.transcribe([resample(clip, asr.rate) for clip in spoken], [r.language for r in REQUESTS])
    for request, transcript in zip(REQUESTS, heard, strict=True):
        rate = wer if request.language == "en" else cer
        assert rate(plain(request.text), plain(transcript.text)) <= 0.1, transcript.text
        assert -1 < transcript.logprob < 0
        assert 0 <= transcript.no_speech < 0.5
        assert transcript.compression_ratio < 2.4


def test_models_are_named_with_checksums() -> None:
    used = speech_models(CONFIG)
    names = [use.name for use in used]
    assert names[:2] == ["kokoro", "kokoro-voices"] and {"whisper-base", "dnsmos"} <= set(names)
    assert used[0].sha256.startswith("6e742170d309")
    assert all(len(use.sha256) == 64 and use.license in ("Apache-2.0", "MIT") for use in used)


def noise(seconds: float, level: float) -> np.ndarray:
    return (np.random.default_rng(5).standard_normal(int(16000 * seconds)) * level).astype(np.float32)


def test_silence_and_nothing_are_no_words(asr: FasterWhisper) -> None:
    nothing = asr.transcribe([Clip(np.zeros(0, np.float32), 16000)], ["zh"])[0]
    assert (nothing.text, nothing.no_speech) == ("", 1.0)


def test_clips_of_another_rate_are_a_bug(asr: FasterWhisper, dnsmos: Dnsmos) -> None:
    clip = Clip(np.zeros(24000, np.float32), 24000)
    with pytest.raises(ValueError, match="24000 Hz; faster-whisper wants 16000"):
        asr.transcribe([clip], ["en"])
    with pytest.raises(ValueError, match="24000 Hz; dnsmos wants 16000"):
        dnsmos.score([clip])


def test_dnsmos_hears_noise(dnsmos: Dnsmos, spoken: list[Clip]) -> None:
    clean = resample(spoken[0], 16000)
    noisy = Clip(clean.audio + noise(clean.seconds + 1, 0.05)[: len(clean.audio)], 16000)
    scores = [{score.name: score.value for score in scores} for scores in dnsmos.score([clean, noisy])]
    assert [list(names) for names in scores] == [["mos_sig", "mos_bak", "mos_ovr"]] * 2
    assert all(1 <= value <= 5 for names in scores for value in names.values())
    assert scores[0]["mos_ovr"] > 2.5
    assert scores[1]["mos_bak"] < scores[0]["mos_bak"] - 1
    assert scores[1]["mos_ovr"] < scores[0]["mos_ovr"] - 0.5


def test_dnsmos_windows_are_those_of_the_reference() -> None:
    def reference(audio: np.ndarray) -> Iterator[np.ndarray]:
        """speechmos/dnsmos.py, DNSMOS.__call__, for clips of at least 9.01 s."""
        for idx in range(int(np.floor(len(audio) / 16000) - 9.01) + 1):
            segment = audio[int(idx * 16000) : int((idx + 9.01) * 16000)]
            if len(segment) >= 144160:
                yield segment

    for seconds in (9.01, 10.0, 10.5, 12.02, 14.99):
        audio = noise(seconds, 0.1)
        expected = list(reference(audio))
        found = windows(audio)
        assert expected
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    short = noise(2, 0.1)
    (window,) = windows(short)
    assert window.shape == (144160,)
    assert np.array_equal(window[32000:64000], short)
