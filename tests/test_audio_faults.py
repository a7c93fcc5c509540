"""What is found without a recogniser, and how the silences between turns are drawn."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import audio
from pipeline.config import AudioConfig, load_config
from pipeline.dialogue import Clip
from pipeline.errors import ConfigError
from pipeline.speech_sections import FaultConfig, Spread

CONFIG = AudioConfig()


def lasting(seconds: float) -> Clip:
    return Clip(np.full(round(seconds * 16000), 0.1, np.float32), 16000)


def reason(clip: Clip, text: str, speed: float = 1.0) -> str:
    fault = audio.check(clip, text, CONFIG, speed)
    return fault.reason if fault else ""


# ---- the raw clip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7999, -1])
def test_one_sample_that_is_no_number_is_found(value: float, place: int) -> None:
    clip = lasting(1)
    assert audio.check_raw(clip, CONFIG) is None
    clip.audio[place] = value
    fault = audio.check_raw(clip, CONFIG)
    assert fault is not None and (fault.reason, fault.detail) == (
        "not_a_number",
        "1 of 16000 samples are no numbers",
    )


@pytest.mark.parametrize("full", [1.0, -1.0, 32767 / 32768, 1.7])
def test_clipping_is_a_share_of_the_samples(full: float) -> None:
    clip = lasting(1)
    clip.audio[:15] = full
    assert audio.check_raw(clip, CONFIG) is None  # 15 of 16,000 are under a thousandth
    clip.audio[:16] = full
    fault = audio.check_raw(clip, CONFIG)
    assert fault is not None and fault.reason == "clipping" and "16 of 16000" in fault.detail
    assert audio.check_raw(clip, AudioConfig(faults=FaultConfig(clipping=0.01))) is None


def test_a_loud_clip_is_not_a_clipped_one() -> None:
    assert audio.check_raw(Clip(np.full(100, 0.99, np.float32), 16000), CONFIG) is None
    assert audio.check_raw(Clip(np.zeros(0, np.float32), 16000), CONFIG) is None


# ---- the mastered clip ----------------------------------------------------------------------------------------------


def test_nothing_that_is_loud_enough_is_silence() -> None:
    hiss = np.random.default_rng(0).standard_normal(24000).astype(np.float32) * 1e-4
    mastered = audio.master(Clip(hiss, 24000), "user", CONFIG)
    fault = audio.check(mastered, "Hello.", CONFIG)
    assert fault is not None and (fault.reason, fault.detail) == ("silence", "no sound above -50 dBFS")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("I believe that the museum opens at half past nine in the morning.", 3.6),
        ("Hello.", 0.5),
        ("Thanks.", 1.0),
        ("F B I", 1.2),
        ("这个问题比较复杂，我们可以从历史、经济和文化三个方面来讨论。", 6.0),
        ("好。", 0.3),
        ("我用 Visual Studio Code 写程序。", 3.0),
    ],
)
def test_length_of_speech(text: str, seconds: float) -> None:
    assert reason(lasting(seconds), text) == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("I believe that the museum opens at half past nine in the morning.", 1.0),  # cut off
        ("I believe that the museum opens at half past nine in the morning.", 12.0),  # goes on and on
        ("Hello.", 3.0),
        ("这个问题比较复杂，我们可以从历史、经济和文化三个方面来讨论。", 1.0),
        ("好。", 2.0),
        ("?!", 1.0),
    ],
)
def test_length_that_the_text_cannot_have(text: str, seconds: float) -> None:
    fault = audio.check(lasting(seconds), text, CONFIG)
    assert fault is not None and fault.reason == "length"
    low, high = audio.expected_seconds(text, CONFIG)
    assert fault.detail == f"{seconds:.2f} s for a text that takes {low:.2f} to {high:.2f} s: {text}"


def test_a_slow_voice_may_take_its_time() -> None:
    text = "I believe that the museum opens at half past nine in the morning."
    assert reason(lasting(11), text) == "length"
    assert reason(lasting(11), text, speed=0.6) == ""
    assert reason(lasting(1.7), text) == "" and reason(lasting(1.7), text, speed=0.6) == "length"


@pytest.mark.parametrize(
    ("text", "seconds", "speed"),
    [("好。", 0.66, 1.58), ("好。", 0.81, 1.26), ("好。", 0.47, 2.52), ("Oh.", 0.38, 2.52)],  # Kokoro's, whole words
)
def test_a_word_alone_at_a_high_speed(text: str, seconds: float, speed: float) -> None:
    assert reason(lasting(seconds), text, speed) == ""
    assert reason(lasting(1.3), text, speed) == "length"


@given(st.text(), st.text())
def test_more_text_never_takes_less(text: str, more: str) -> None:
    low, high = audio.expected_seconds(text, CONFIG)
    longer = audio.expected_seconds(f"{text} {more}", CONFIG)
    assert 0 <= low < high and longer[0] >= low - 1e-9 and longer[1] >= high - 1e-9


def test_each_script_has_its_own_pace() -> None:
    config = AudioConfig(faults=FaultConfig(pace={"en": (0.1, 0.2), "zh": (1, 2)}, slack=0))
    assert audio.expected_seconds("ab, cde! 好2。", config) == pytest.approx((2.5, 5.0))
    assert audio.expected_seconds("F b FBI Fbi", config) == pytest.approx((0.8, 10.6))  # five may be said by name
    one = AudioConfig(faults=FaultConfig(pace={"en": (0.1, 0.2)}))
    assert one.faults.pace["zh"] == CONFIG.faults.pace["zh"]


# ---- silences -------------------------------------------------------------------------------------------------------

SPREADS = {
    "uniform": Spread(low=0.2, high=0.8),
    "normal": Spread(kind="normal", mean=0.6, sd=0.1, low=0, high=5),
    "lognormal": Spread(kind="lognormal", mean=0.5, sd=0.3, low=0, high=10),
    "gamma": Spread(kind="gamma", mean=0.5, sd=0.25, low=0, high=10),
}
MEDIANS = {"uniform": 0.5, "normal": 0.6, "lognormal": 0.5 / math.sqrt(1 + 0.36), "gamma": 0.459}


def drawn(spread: Spread, seed: int = 0, count: int = 4000) -> list[float]:
    chance = random.Random(seed)
    return [audio.draw(spread, chance) for _ in range(count)]


@pytest.mark.parametrize("name", SPREADS)
def test_what_is_drawn_is_spread_as_asked(name: str) -> None:
    spread, values = SPREADS[name], drawn(SPREADS[name])
    mean = spread.mean or (spread.low + spread.high) / 2
    deviation = spread.sd or (spread.high - spread.low) / math.sqrt(12)
    assert statistics.fmean(values) == pytest.approx(mean, abs=5 * deviation / math.sqrt(len(values)))
    assert statistics.stdev(values) == pytest.approx(deviation, rel=0.1)
    assert statistics.median(values) == pytest.approx(MEDIANS[name], rel=0.05)


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    kind = draw(st.sampled_from(["uniform", "normal", "lognormal", "gamma"]))
    low, mean, high = sorted(draw(st.floats(0.001, 10)) for _ in range(3))
    if kind == "uniform":
        return Spread(low=low, high=high)
    return Spread(kind=kind, mean=mean, sd=draw(st.floats(0.01, 10)), low=low, high=high)


@given(spreads(), st.integers(0, 2**31))
def test_what_is_drawn_lies_within_the_limits_and_comes_from_the_seed(spread: Spread, seed: int) -> None:
    values = drawn(spread, seed, 3)
    assert all(spread.low <= value <= spread.high for value in values)
    assert drawn(spread, seed, 3) == values


def test_the_limits_cut_and_nothing_piles_up_at_them() -> None:
    values = drawn(Spread(kind="normal", mean=0.3, sd=0.3, low=0.2, high=0.4))
    assert len(set(values)) > 150  # in whole milliseconds there are 201
    assert max(values.count(0.2), values.count(0.4)) < 40
    assert all(value == round(value, 3) for value in values)
    assert drawn(Spread(low=0.25, high=0.25), count=3) == [0.25] * 3


def test_the_defaults_are_those_of_conversation() -> None:
    """Most gaps are of a few hundred milliseconds, few of more than a second, none is an overlap."""
    for spread in (CONFIG.response, CONFIG.pause):
        values = drawn(spread)
        assert min(values) >= 0.1 and 0.25 < statistics.median(values) < 0.5
        assert sum(value > 1 for value in values) < 0.12 * len(values)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("audio.pause={kind: gamma, low: 0, high: 1}", "audio.pause: kind=gamma needs mean and sd"),
        ("audio.pause={kind: uniform, low: 0, high: 1, mean: 0.5}", "mean and sd belong to the other kinds"),
        ("audio.pause={kind: uniform, low: 2, high: 1}", "audio.pause: low=2 is above high=1"),
        ("audio.response={kind: normal, mean: 3, sd: 1, low: 0, high: 1}", "mean=3 must lie between low=0 and high=1"),
        ("audio.response={kind: normal, mean: 0.3, sd: 0.1, low: -1, high: 1}", "audio.response.low: "),
        ("audio.response={kind: cauchy, low: 0, high: 1}", "audio.response.kind: "),
        ("audio.faults.pace={en: [0.2, 0.1]}", "pace.en must be two numbers of seconds, 0 <= low < high"),
        ("audio.trim=both", "audio.trim: "),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(setting: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [setting])
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_of_a_spread_changes_the_default_and_a_kind_replaces_it() -> None:
    config = load_config("quickstart", ["audio.response.mean=0.7", "audio.pause={kind: uniform, low: 0.2, high: 0.3}"])
    assert config.audio.response == CONFIG.response.model_copy(update={"mean": 0.7})
    assert config.audio.pause == Spread(low=0.2, high=0.3)


def test_a_spread_needs_its_limits() -> None:
    with pytest.raises(ValidationError, match="low"):
        Spread.model_validate({"high": 1})
