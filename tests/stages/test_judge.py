from __future__ import annotations

import pytest

from pipeline.config import JudgeConfig
from pipeline.dialogue import Language, SampleTurn, Score, Take
from pipeline.stages.judge import judge_turns, keeps_clips, verdict

EN = {"wer": 0.0, "cer": 0.0, "chars_per_second": 14.0}
ZH = {"cer": 0.0, "per": 0.0, "chars_per_second": 5.0}
BOTH = JudgeConfig(limits={"en": {"wer": 0.1, "cer": 0.05}, "zh": {"per": 0.1, "cer": 0.4}})
MOS = JudgeConfig(limits={"en": {"wer": 0.1}}, min_mos=3.0)


@pytest.mark.parametrize(
    ("scores", "language", "config", "expected"),
    [
        (EN, "en", BOTH, ""),
        (EN | {"wer": 0.1}, "en", BOTH, ""),  # a limit is the last value that passes
        (EN | {"wer": 0.1001}, "en", BOTH, "wer"),
        (EN | {"cer": 0.06}, "en", BOTH, "cer"),
        (EN | {"wer": 1.0, "cer": 1.0}, "en", BOTH, "cer"),  # the first by name, however the limits are listed
        (EN | {"cer": 9.0}, "en", JudgeConfig(), ""),  # what has no limit gates nothing
        (ZH | {"cer": 0.4, "per": 0.1}, "zh", BOTH, ""),
        (ZH | {"cer": 0.41, "per": 0.11}, "zh", BOTH, "cer"),
        (ZH | {"per": 0.11}, "zh", BOTH, "per"),
        (ZH | {"cer": 0.41}, "zh", BOTH, "cer"),
        (ZH | {"cer": 0.2}, "zh", JudgeConfig(), "cer"),
        (EN | {"chars_per_second": 0.0}, "en", BOTH, "silence"),
        (EN | {"chars_per_second": 0.0, "wer": 1.0}, "en", BOTH, "silence"),
        (EN | {"mos_ovr": 3.0}, "en", MOS, ""),
        (EN | {"mos_ovr": 2.99}, "en", MOS, "mos"),
        (EN, "en", MOS, "mos"),  # not measured is not passed
        (EN | {"mos_ovr": 1.0, "wer": 0.2}, "en", MOS, "wer"),
        (EN | {"mos_ovr": 1.0}, "en", BOTH, ""),
        (EN | {"wer": 9.0}, "en", JudgeConfig(limits={"en": {}}), ""),
    ],
)
def test_verdict(scores: dict[str, float], language: Language, config: JudgeConfig, expected: str) -> None:
    assert verdict(scores, language, config) == expected


def turn(wer: float, **others: float) -> SampleTurn:
    takes = tuple(
        Take(take=n, engine="e", voice="v", speed=1.0, seed=n, transcript="heard", error_rate=wer, reason="")
        for n in range(2)
    )
    scores = {"wer": wer, "cer": wer, "chars_per_second": 14.0, **others}
    return SampleTurn(
        role="user",
        speaker="user",
        written="Said.",
        spoken="Said.",
        author="source",
        emotion="",
        style="",
        disfluencies=(),
        voice="af_sky",
        start=0.0,
        end=1.0,
        transcript="heard",
        metric="wer",
        error_rate=wer,
        scores=tuple(Score(name=name, value=value) for name, value in scores.items()),
        take=1,
        takes=takes,
    )


def test_a_dialogue_is_accepted_if_every_turn_is() -> None:
    assert judge_turns("en-000000-00", "en", (turn(0.0), turn(0.1)), JudgeConfig()) is None


def test_the_first_turn_that_fails_gives_the_reason() -> None:
    reject = judge_turns("en-000000-00", "en", (turn(0.0), turn(0.25), turn(1.0)), JudgeConfig())
    assert reject is not None
    assert (reject.id, reject.language, reject.stage, reject.reason) == ("en-000000-00", "en", "judge", "wer")
    assert reject.detail == "turn 1: wer 0.250, limit 0.1; said 'Said.', heard 'heard', 2 takes"


def test_a_poor_sound_is_told_with_its_score() -> None:
    reject = judge_turns("en-000000-00", "en", (turn(0.0, mos_ovr=2.5),), MOS)
    assert reject is not None and reject.reason == "mos" and "mos 2.500, limit 3.0" in reject.detail


def test_which_clips_of_the_rejected_are_kept() -> None:
    keys = [f"en-{number:06d}-00" for number in range(1000)]
    kept = {
        keep: [key for key in keys if keeps_clips(key, JudgeConfig.model_validate({"keep": keep}))]
        for keep in ("none", "sample", "all")
    }
    assert kept["none"] == [] and kept["all"] == keys
    assert 60 <= len(kept["sample"]) <= 140  # one in ten, by the key alone
