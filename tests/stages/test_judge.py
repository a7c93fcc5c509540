from __future__ import annotations

import pytest

from pipeline.config import JudgeConfig
from pipeline.dialogue import Disfluency, Language, SampleTurn, Score, Take
from pipeline.errors import ConfigError
from pipeline.stages.judge import Failure, failure, judge_turns, keeps_clips, verdict

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


FLOORS = JudgeConfig(limits={"en": {"wer": 0.1}}, floors={"en": {"mos_ovr": 3.0, "snr": 20.0}, "zh": {"tail": 0.05}})
SWAP = JudgeConfig(limits={"en": {"wer": 0.1, "swap": 0.0}}, floors={"en": {"similarity": 0.6}})


@pytest.mark.parametrize(
    ("scores", "config", "expected"),
    [
        (EN | {"mos_ovr": 3.0, "snr": 20.0}, FLOORS, None),  # a floor is the last value that passes
        (EN | {"mos_ovr": 2.999, "snr": 30.0}, FLOORS, Failure("mos_ovr", 2.999, 3.0)),
        (EN | {"mos_ovr": 4.0, "snr": 19.0}, FLOORS, Failure("snr", 19.0, 20.0)),
        (EN | {"mos_ovr": 1.0, "snr": -5.0}, FLOORS, Failure("mos_ovr", 1.0, 3.0)),  # the first by name
        (EN | {"mos_ovr": 1.0, "wer": 0.2}, FLOORS, Failure("wer", 0.2, 0.1)),  # what was heard before how it sounds
        (EN | {"mos_ovr": 4.0}, FLOORS, None),  # too little pause to measure the noise in
        (EN, SWAP, None),  # a speaker's only turn has nothing to be like
        (EN | {"similarity": 0.59, "swap": -0.2}, SWAP, Failure("similarity", 0.59, 0.6)),
        (EN | {"similarity": 0.7, "swap": 0.01}, SWAP, Failure("swap", 0.01, 0.0)),
        (EN | {"similarity": 0.6, "swap": 0.0}, SWAP, None),
    ],
)
def test_floors_and_limits_say_what_was_broken(
    scores: dict[str, float], config: JudgeConfig, expected: Failure | None
) -> None:
    assert failure(scores, "en", config) == expected


@pytest.mark.parametrize(("kind", "score"), [("limits", "hush"), ("floors", "mos_bak")])
def test_a_gate_on_what_was_not_measured_is_a_mistake_of_the_configuration(kind: str, score: str) -> None:
    config = JudgeConfig.model_validate({"limits": {"en": {}, "zh": {}}, kind: {"en": {score: 3.0}}})
    with pytest.raises(ConfigError, match=rf"judge\.{kind}\.en\.{score}: {score} was not measured.*wer, cer") as told:
        failure(EN, "en", config)
    assert len(str(told.value).splitlines()) == 1
    assert failure(ZH, "zh", config) is None  # the other language has no such gate


@pytest.mark.parametrize(
    "scores", [{"wer": 1.0, "mos_ovr": 1.0}, {"chars_per_second": 0.0}, {"compression_ratio": 9.0}]
)
def test_score_only_refuses_nothing(scores: dict[str, float]) -> None:
    gates = {"limits": {"en": {"wer": 0.1}}, "floors": {"en": {"mos_ovr": 3.0}}, "min_mos": 3.0}
    measured = EN | {"mos_ovr": 4.0, "wer": 0.2} | scores
    assert failure(measured, "en", JudgeConfig.model_validate(gates)) is not None
    only = JudgeConfig.model_validate({**gates, "mode": "score_only"})
    assert failure(measured, "en", only) is None
    assert judge_turns("en-000000-00", "en", (turn(1.0, mos_ovr=1.0),), only) is None


@pytest.mark.parametrize(
    ("ratio", "wer", "expected"),
    [(2.4, 1.0, "wer"), (2.41, 1.0, "repetition"), (2.41, 0.0, ""), (9.0, 0.1, "")],
)
def test_a_loop_of_the_recogniser_is_told_from_an_error_of_the_voice(ratio: float, wer: float, expected: str) -> None:
    """A turn that says the same again and again may be right: only where a gate breaks is the loop to blame."""
    assert verdict(EN | {"compression_ratio": ratio, "wer": wer}, "en", JudgeConfig()) == expected


APPEAL = JudgeConfig.model_validate(
    {
        "limits": {"en": {"wer": 0.1, "pace": 1.5}},
        "floors": {"en": {"snr": 20}},
        "appeal": {"en": {"doubt": 2.0, "surprise": 6.0}},
    }
)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"wer": 0.5}, "wer"),  # nobody was asked how likely the text is
        ({"wer": 0.5, "doubt": 2.0, "surprise": 6.0}, ""),
        ({"wer": 0.5, "doubt": 2.0}, "wer"),  # all of it must be known
        ({"wer": 0.5, "doubt": 2.1, "surprise": 0.0}, "wer"),
        ({"wer": 0.5, "doubt": 0.0, "surprise": 6.1}, "wer"),
        ({"wer": 0.5, "doubt": 0.0, "surprise": 0.0, "pace": 2.0}, "pace"),  # the words are excused, the sound is not
        ({"wer": 0.5, "doubt": 0.0, "surprise": 0.0, "snr": 10.0}, "snr"),
        ({"wer": 0.0, "doubt": 9.0, "surprise": 9.0}, ""),  # no gate of its own
    ],
)
def test_words_that_were_heard_otherwise_are_excused_where_the_text_is_as_likely(
    scores: dict[str, float], expected: str
) -> None:
    assert verdict(EN | scores, "en", APPEAL) == expected


def test_a_loop_is_told_with_its_ratio() -> None:
    reject = judge_turns("en-000000-00", "en", (turn(1.0, compression_ratio=5.5),), JudgeConfig())
    assert reject is not None and "turn 0: repetition 5.500, limit 2.4" in reject.detail


def test_silence_comes_before_all_else() -> None:
    scores = {"chars_per_second": 0.0, "wer": 1.0, "compression_ratio": 9.0}
    assert failure(scores, "en", FLOORS) == Failure("silence", 0.0, 0.0)  # and nothing else need have been measured


def test_the_reject_tells_of_every_turn_and_take() -> None:
    stumble = Disfluency(start=0, end=2, kind="filler")
    turns = (turn(0.0), turn(0.25).model_copy(update={"disfluencies": (stumble,)}))
    reject = judge_turns("en-000000-00", "en", turns, JudgeConfig())
    assert reject is not None
    assert [(item.turn, item.spoken, item.transcript) for item in reject.turns] == [
        (0, "Said.", "heard"),
        (1, "Said.", "heard"),
    ]
    assert [(item.scores, item.takes) for item in reject.turns] == [(item.scores, item.takes) for item in turns]
    assert [item.disfluencies for item in reject.turns] == [(), (stumble,)]


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
