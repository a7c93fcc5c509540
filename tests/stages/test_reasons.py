"""Every reason for which a turn can be refused, each with real speech: the same gate passes what is right and refuses
what was spoilt in just that way.

Two clips of Kokoro are all the speech there is. What is wrong is the text that is asked for, the clip, or the voice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio, backends
from pipeline.config import JudgeConfig, load_config
from pipeline.dialogue import Clip, Language
from pipeline.listening_sections import SCORES
from pipeline.stages.judge import verdict
from pipeline.stages.listen import Listener, Spoken
from speakers import load_library

pytestmark = pytest.mark.embedded

DATA = Path(__file__).parents[1] / "backends" / "data"
HER, HIM = (audio.read_clip(DATA / f"{name}.flac") for name in ("af_heart", "zm_yunxi"))
EN = "We walked along the river until the sun went down. Please bring me a glass of cold water and some bread."
ZH = "我们下午一起去公园散步吧。这家饭店的菜又便宜又好吃。"
SHORTER = EN.replace("glass of cold ", "")
LONGER = EN.replace("the river", "the wide blue river")


def noisy(clip: Clip, decibels: float) -> Clip:
    level = 10 ** (decibels / 20)
    noise = np.random.default_rng(3).standard_normal(len(clip.audio)) * level
    return Clip((clip.audio + noise).astype(np.float32), clip.rate)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * HER.rate), np.float32)


def joined(*parts: np.ndarray) -> Clip:
    return Clip(np.concatenate(parts), HER.rate)


MIDDLE = len(HER.audio) // 2
STUCK = HER.audio[round(0.8 * HER.rate) : round(1.1 * HER.rate)]
CLIPS: dict[str, Clip] = {
    "her": HER,
    "him": HIM,
    "faint": Clip(np.zeros_like(HER.audio[:0]), HER.rate),
    "hiss": noisy(Clip(silence(2), HER.rate), -60),
    "noisy": noisy(HER, -35),
    "stuck": joined(*[STUCK] * 10),
    "hurried": Clip(audio.resample(HER, HER.rate * 5 // 8).audio, HER.rate),
    "twice": joined(HER.audio, HER.audio),
    "torn": Clip((HER.audio * (np.arange(len(HER.audio)) % 1200 < 600)).astype(np.float32), HER.rate),  # dropouts
    "late": joined(silence(1.5), HER.audio),
    "lasting": joined(HER.audio, silence(1.5)),
    "halting": joined(HER.audio[:MIDDLE], silence(2.5), HER.audio[MIDDLE:]),
}


@cache
def listener() -> Listener:
    config = load_config("quickstart", ["quality.speaker=resemblyzer"])
    encoder = backends.make_encoder(config)
    assert encoder is not None
    rows = encoder.embed([audio.resample(clip, encoder.rate) for clip in (HER, HIM)])
    references = dict(zip(("af_heart", "zm_yunxi"), rows, strict=True))
    # Gates on every word, so that the recogniser is asked again, and for its doubts, wherever a text is not followed.
    judge = JudgeConfig(limits={"en": {"wer": 0.0}, "zh": {"per": 0.0}})
    config = config.model_copy(update={"judge": judge})
    return Listener(
        config,
        backends.make_recognizer(config),
        quality=backends.make_quality(config),
        encoder=encoder,
        references=references,
    )


@cache
def scores(name: str, text: str, language: Language, voice: str = "af_heart") -> Mapping[str, float]:
    """Of a clip that should say `text` in `voice`; the other speaker of the dialogue has the other voice."""
    other = Spoken(HIM if voice == "af_heart" else HER, ("",), "assistant", 0.0, _other(voice))
    spoken = Spoken(CLIPS[name], (text,), "user", load_library().voice(voice).rate, voice)
    [found] = listener().listen([spoken], language, [other])
    return {score.name: score.value for score in found.scores}


def _other(voice: str) -> str:
    return "zm_yunxi" if voice == "af_heart" else "af_heart"


@dataclass(frozen=True)
class Wrong:
    """limit or floor: of the gate. clip, text, language, voice: what is wrong, and the rest as it should be."""

    limit: float | None = None
    floor: float | None = None
    clip: str = "her"
    text: str = EN
    language: Language = "en"
    voice: str = "af_heart"


OTHER_ZH = ZH.replace("公园散步", "学校上课")
WRONG: dict[str, Wrong] = {
    "wer": Wrong(limit=0.1, text=SHORTER),
    "cer": Wrong(limit=0.05, text=LONGER),
    "mer": Wrong(limit=0.1, clip="him", text=OTHER_ZH, language="zh", voice="zm_yunxi"),
    "ser": Wrong(limit=0.1, clip="him", text=OTHER_ZH, language="zh", voice="zm_yunxi"),
    "tser": Wrong(limit=0.1, clip="him", text=OTHER_ZH, language="zh", voice="zm_yunxi"),
    "per": Wrong(limit=0.1, clip="him", text=OTHER_ZH, language="zh", voice="zm_yunxi"),
    "gap": Wrong(limit=3, text=LONGER),
    "dropped": Wrong(limit=0, text=LONGER),
    "added": Wrong(limit=0, text=SHORTER),
    "longer": Wrong(limit=0, text=SHORTER),
    "figures": Wrong(limit=0, text=EN.replace("a glass", "twelve glasses")),
    "logprob": Wrong(floor=-0.7, clip="hiss"),
    "no_speech": Wrong(limit=0.2, clip="hiss"),
    "compression_ratio": Wrong(limit=1.8, clip="twice"),
    "language": Wrong(floor=0.5, clip="him"),
    "doubt": Wrong(limit=3, text=EN.replace("bread", "sugar")),
    "surprise": Wrong(limit=6, text=EN.replace("bread", "sugar")),
    "chars_per_second": Wrong(limit=25, clip="hurried"),
    "pace": Wrong(limit=1.35, clip="hurried"),
    "lead": Wrong(limit=0.5, clip="late"),
    "tail": Wrong(limit=0.5, clip="lasting"),
    "hush": Wrong(limit=1.5, clip="halting"),
    "snr": Wrong(floor=25, clip="noisy"),
    "mos_sig": Wrong(floor=3.0, clip="torn"),
    "mos_bak": Wrong(floor=3.0, clip="noisy"),
    "mos_ovr": Wrong(floor=2.9, clip="noisy"),
    "similarity": Wrong(floor=0.7, clip="him", text=ZH, language="zh"),
    "swap": Wrong(limit=0.0, clip="him", text=ZH, language="zh"),
}


def right(language: Language) -> Mapping[str, float]:
    return scores("her", EN, "en") if language == "en" else scores("him", ZH, "zh", "zm_yunxi")


def gate(name: str, wrong: Wrong) -> JudgeConfig:
    """Nothing but one gate."""
    kind, bound = ("limits", wrong.limit) if wrong.floor is None else ("floors", wrong.floor)
    return JudgeConfig.model_validate({"limits": {"en": {}, "zh": {}}, kind: {wrong.language: {name: bound}}})


def test_every_score_has_its_case() -> None:
    assert set(WRONG) == set(SCORES)


@pytest.mark.parametrize("name", SCORES)
def test_a_gate_refuses_what_is_wrong_and_nothing_else(name: str) -> None:
    wrong = WRONG[name]
    config = gate(name, wrong)
    spoilt = scores(wrong.clip, wrong.text, wrong.language, wrong.voice)
    assert verdict(right(wrong.language), wrong.language, config) == ""
    assert name in spoilt and verdict(spoilt, wrong.language, config) == name, spoilt


def test_the_lowest_mos_of_all() -> None:
    config = JudgeConfig(limits={"en": {}}, min_mos=2.9)
    assert verdict(right("en"), "en", config) == ""
    assert verdict(scores("noisy", EN, "en"), "en", config) == "mos"


def test_silence() -> None:
    assert verdict(scores("faint", EN, "en"), "en", JudgeConfig()) == "silence"


def test_repetition() -> None:
    assert verdict(scores("stuck", EN, "en"), "en", JudgeConfig()) == "repetition"
