"""Every reason that listening can give, by real models on real speech that was spoilt in just that way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio, backends
from pipeline.backends.asr.base import Spellings
from pipeline.config import Config, JudgeConfig, load_config
from pipeline.dialogue import Clip, Language, Transcript
from pipeline.stages.judge import failure
from pipeline.stages.listen import Hearing, Listener, Spoken
from speakers import load_library

pytestmark = pytest.mark.embedded

DATA = Path(__file__).parents[1] / "backends" / "data"
HER, HIM = (audio.read_clip(DATA / f"{name}.flac") for name in ("af_heart", "zm_yunxi"))
SAID: dict[Language, str] = {
    "en": "We walked along the river until the sun went down. Please bring me a glass of cold water and some bread.",
    "zh": "我们下午一起去公园散步吧。这家饭店的菜又便宜又好吃。",
}
GATES = JudgeConfig(
    limits={"en": {"wer": 0.1}, "zh": {"per": 0.1}},
    floors={"en": {"snr": 25, "language": 0.5}, "zh": {"snr": 25, "language": 0.5}},
    min_mos=2.9,
)


@pytest.fixture(scope="module")
def config() -> Config:
    section = load_config("quickstart")
    return section.model_copy(update={"judge": GATES, "asr": section.asr.model_copy(update={"words": True})})


@pytest.fixture(scope="module")
def listener(config: Config) -> Listener:
    return Listener(config, backends.make_recognizer(config), quality=backends.make_quality(config))


class Echo:
    """Hears the English text whatever is said."""

    name = "echo"
    rate = 16000
    deterministic = True
    careful = True

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        return [Transcript(SAID["en"], -0.1, 0.0, 1.2) for _ in clips]


def hear(listener: Listener, clip: Clip, language: Language, voice: str = "af_heart") -> Hearing:
    rate = load_library().voice(voice).rate
    [found] = listener.listen([Spoken(clip, (SAID[language],), "user", rate, voice)], language)
    return found


def reason(hearing: Hearing, language: Language, gates: JudgeConfig = GATES) -> str:
    broken = failure({score.name: score.value for score in hearing.scores}, language, gates)
    return broken.reason if broken else ""


def noise(samples: int, level: float) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal(samples) * 10 ** (level / 20)).astype(np.float32)


@pytest.mark.parametrize(("clip", "language", "voice"), [(HER, "en", "af_heart"), (HIM, "zh", "zm_yunxi")])
def test_good_speech_passes_every_gate_and_has_its_words(
    listener: Listener, clip: Clip, language: Language, voice: str
) -> None:
    found = hear(listener, clip, language, voice)
    assert reason(found, language) == "", found
    assert found.transcript.recognizer == "whisper-base"
    words = found.transcript.words
    assert len(words) > 10 and words[0].text
    assert all(0 <= word.start <= word.end <= clip.seconds for word in words)


def test_text_on_silence(listener: Listener) -> None:
    assert reason(hear(listener, Clip(noise(32000, -60), 16000), "en"), "en") == "wer"


def test_noise(listener: Listener) -> None:
    noisy = Clip(HER.audio + noise(len(HER.audio), -40), HER.rate)
    found = hear(listener, noisy, "en")
    assert found.score("wer") == 0
    assert reason(found, "en") == "snr"
    assert reason(found, "en", GATES.model_copy(update={"floors": {}})) == "mos"


def test_another_language(listener: Listener) -> None:
    found = hear(listener, HIM, "en")
    assert reason(found, "en") == "wer"
    assert reason(found, "en", GATES.model_copy(update={"limits": {"en": {}}})) == "language"


@pytest.mark.parametrize(("speed", "expected"), [(1.0, ""), (1.6, "pace"), (0.6, "pace")])
def test_another_speed(config: Config, speed: float, expected: str) -> None:
    gates = JudgeConfig(limits={"en": {"pace": 1.35}}, floors={"en": {"pace": 0.75}})
    spoilt = Clip(audio.resample(HER, round(HER.rate / speed)).audio, HER.rate)
    assert reason(hear(Listener(config, Echo()), spoilt, "en"), "en", gates) == expected


def test_an_engine_that_repeats_itself(listener: Listener) -> None:
    start = round(0.8 * HER.rate)
    stuck = Clip(np.tile(HER.audio[start : start + round(0.3 * HER.rate)], 10), HER.rate)
    assert reason(hear(listener, stuck, "en"), "en") == "repetition"
