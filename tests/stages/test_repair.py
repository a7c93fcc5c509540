"""The ladder by itself: what is tried next, given what was tried; how a text is spelled out and cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pipeline.config import RepairConfig
from pipeline.dialogue import Language
from pipeline.stages.repair import Attempt, Ladder, Tried, cut, spell_out
from speakers import load_library

LIBRARY = load_library()
ANN, BOB = LIBRARY.voice("af_heart"), LIBRARY.voice("am_michael")
TEXT = "NASA flies to the moon, they say, every year."


def ladder(*rungs: str, chance: bool = False, speeds: Sequence[float] = (1.0, 0.88), **config: object) -> Ladder:
    section = RepairConfig.model_validate({"ladder": rungs, **config} if rungs else config)
    return Ladder(section, speeds, lambda engine: chance)


def climb(
    steps: Ladder, text: str = TEXT, language: Language = "en", reason: Callable[[Attempt], str] = lambda _: "wer"
) -> list[Attempt | str]:
    """Every step of a turn that never passes; what is not the turn's own is said to have nothing."""
    tried, over = [Tried(first := steps.plain(text, ANN), reason(first))], set[str]()
    found: list[Attempt | str] = []
    while (step := steps.next(text, language, ANN, tried, over)) is not None:
        found.append(step)
        if isinstance(step, Attempt):
            tried.append(Tried(step, reason(step)))
        else:
            over.add(step)
    return found


def names(steps: Sequence[Attempt | str]) -> list[str]:
    return [step.rung if isinstance(step, Attempt) else step for step in steps]


def test_the_default_ladder_is_climbed_in_its_order() -> None:
    steps = climb(ladder())
    assert names(steps) == ["again", "slow", "spell", "split", "voice", "engine"]
    again, slow, spell, split = (step for step in steps if isinstance(step, Attempt))
    assert (again.speed, again.text, again.pieces) == (0.88, TEXT, ())
    assert (slow.speed, slow.text) == (0.8, TEXT)
    assert (spell.speed, spell.text) == (1.0, "N A S A flies to the moon, they say, every year.")
    assert [piece.text for piece in split.pieces] == ["NASA flies to the moon,", "they say, every year."]


def test_the_order_is_the_configurations() -> None:
    assert names(climb(ladder("split", "voice", "rephrase", "again"))) == ["split", "voice", "rephrase", "again"]
    assert climb(ladder(takes=1)) == []


@pytest.mark.parametrize("chance", [False, True])
def test_no_two_takes_are_the_same(chance: bool) -> None:
    """Without chance the speed at which it was slow already, and a text that stays as it is, are passed over."""
    steps = climb(ladder(chance=chance, speeds=(1.0, 0.8, 0.9)), "Two words.")
    own = [(step.rung, step.speed) for step in steps if isinstance(step, Attempt)]
    if chance:
        assert own == [("again", 1.0), ("again", 1.0), ("slow", 0.8)]
    else:
        assert own == [("again", 0.8), ("again", 0.9)]


def test_a_turn_has_so_many_takes_at_most() -> None:
    assert names(climb(ladder(takes=3))) == ["again", "slow"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("symbols", ["spell", "engine"]),
        ("too_long", ["split", "engine"]),
        ("voice", ["voice", "engine"]),
        ("empty", []),
        ("silence", ["again", "slow", "spell", "split", "voice", "engine"]),
        ("length", ["again", "slow", "spell", "split", "voice", "engine"]),
    ],
)
def test_what_an_engine_refuses_begins_where_it_can_help(fault: str, expected: list[str]) -> None:
    assert names(climb(ladder(), reason=lambda _: fault)) == expected


def test_signs_that_were_refused_do_not_come_back() -> None:
    """Once spelled out, the turn goes on from there: every later take is of that text."""
    text = "The sign ☃ is cold, very cold, in winter."
    steps = climb(ladder(), text, reason=lambda attempt: "symbols" if "☃" in attempt.text else "wer")
    own = [step for step in steps if isinstance(step, Attempt)]
    assert names(steps) == ["spell", "again", "slow", "split", "voice", "engine"]
    assert all("☃" not in attempt.asked and attempt.said == text for attempt in own)


def test_a_new_text_is_spoken_as_it_is_before_anything_else() -> None:
    steps = ladder()
    old = Tried(steps.plain(TEXT, ANN), "wer")
    new = steps.next("Other words.", "en", ANN, [old], ())
    assert new == Attempt("rephrase", "Other words.", "Other words.", ANN, 1.0)


def test_another_voice_takes_up_what_was_not_tried() -> None:
    steps = ladder()
    first = steps.plain(TEXT, ANN)
    again = steps.next(TEXT, "en", ANN, [Tried(first, "wer")], ())
    assert isinstance(again, Attempt) and again.rung == "again"
    tried = [Tried(first, "wer"), Tried(again, "wer"), Tried(steps.plain(TEXT, BOB, "voice"), "wer")]
    found = steps.next(TEXT, "en", BOB, tried, ("voice",))
    assert isinstance(found, Attempt) and (found.rung, found.voice) == ("slow", BOB)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("NASA has two GPS satellites.", "en", "N A S A has two G P S satellites."),
        ("Are PCs and TVs cheap?", "en", "Are P C's and T V's cheap?"),
        ("Ask Dr. Lee about 3 well-known apps.", "en", "Ask Doctor Lee about three well known apps."),
        ("I am SO glad it is NOT late.", "en", "I am SO glad it is NOT late."),
        ("GO HOME NOW", "en", "GO HOME NOW"),
        ("It's plain, isn't it?", "en", "It's plain, isn't it?"),
        ("你会用AI吗？", "zh", "你会用A I吗？"),
        ("现在有GPS，很方便。", "zh", "现在有G P S，很方便。"),
        ("他说“好的”。", "zh", "他说好的。"),
    ],
)
def test_spelling_out(text: str, language: Language, expected: str) -> None:
    assert spell_out(text, language) == expected


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Come in and sit down. Would you like tea?", "en", ["Come in and sit down.", "Would you like tea?"]),
        ("Oh, that is very kind of you, thanks.", "en", ["Oh, that is very kind of you, thanks."]),
        ("The quick brown fox jumps over the dog", "en", ["The quick brown fox", "jumps over the dog"]),
        ("Yes please.", "en", []),
        ("今天天气很好，我们去公园吧。", "zh", ["今天天气很好，", "我们去公园吧。"]),
        ("谁是美国第三十七届总统？", "zh", ["谁是美国", "第三十七届总统？"]),
        ("蓝色", "zh", []),
    ],
)
def test_cutting(text: str, language: Language, expected: list[str]) -> None:
    pieces = cut(text, language)
    if expected == [text]:  # the short clauses go with their neighbours, and the rest is cut near its middle
        assert len(pieces) == 2 and " ".join(piece.text for piece in pieces) == text
    else:
        assert [piece.text for piece in pieces] == expected
    assert all(piece.pause > 0 for piece in pieces[:-1])
