"""What takes add up to: by hand, over dialogues whose takes say all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.dialogue import Reject, RejectedTurn, Repair, Take
from pipeline.shards.tally import LengthSum, RefusalSum, RepairSum, bucket, bucket_name, bucket_order, tally

Tried = tuple[Repair, str, str]
"""Rung, voice, reason."""


def takes(*tried: Tried) -> tuple[Take, ...]:
    return tuple(
        Take(
            take=number,
            engine="e",
            voice=voice,
            speed=1.0,
            seed=number,
            transcript="",
            error_rate=0.0,
            reason=reason,
            repair=repair,
            seconds=1.5,
        )
        for number, (repair, voice, reason) in enumerate(tried)
    )


def reject(*turns: Sequence[Tried], spoken: str = "Said so.") -> Reject:
    heard = tuple(
        RejectedTurn(turn=number, spoken=spoken, transcript="", scores=(), takes=takes(*tried))
        for number, tried in enumerate(turns)
    )
    return Reject(id="en-000000-00", language="en", stage="judge", reason="wer", detail="", turns=heard)


GOOD: tuple[Tried, ...] = (("", "a", ""),)


def repairs(*turns: Sequence[Tried]) -> dict[str, tuple[int, int, int, float]]:
    found = tally([reject(*turns)]).repairs
    return {item.rung: (item.turns, item.saved, item.takes, item.seconds) for item in found}


def test_a_rung_saves_a_turn_if_the_take_that_passed_came_from_it() -> None:
    tried: list[Tried] = [("", "a", "wer"), ("again", "a", "wer"), ("again", "a", "wer"), ("slow", "a", "")]
    assert repairs(tried, GOOD) == {"again": (1, 0, 2, 3.0), "slow": (1, 1, 1, 1.5)}


def test_a_saved_turn_is_saved_though_its_dialogue_is_lost() -> None:
    lost: list[Tried] = [("", "b", "wer"), ("again", "b", "wer")]
    assert repairs([("", "a", "wer"), ("again", "a", "")], lost) == {"again": (2, 1, 2, 3.0)}


def test_another_voice_counts_the_speaker_once() -> None:
    first: list[Tried] = [("", "a", ""), ("voice", "b", "")]
    third: list[Tried] = [("", "a", "wer"), ("voice", "b", "")]
    assert repairs(first, GOOD, third, GOOD) == {"voice": (1, 1, 2, 3.0)}


def test_another_voice_saves_nobody_while_a_turn_of_the_speaker_fails() -> None:
    first: list[Tried] = [("", "a", "wer"), ("voice", "b", "")]
    third: list[Tried] = [("", "a", "wer"), ("voice", "b", "wer"), ("slow", "b", "wer")]
    assert repairs(first, GOOD, third, GOOD) == {"voice": (1, 0, 2, 3.0), "slow": (1, 0, 1, 1.5)}


def test_a_take_of_a_voice_that_was_given_up_stands_no_more() -> None:
    """Of three turns two pass in the second voice and one in the first: the speaker keeps the second."""
    turns: list[Sequence[Tried]] = [
        [("", "a", ""), ("voice", "b", "wer")],
        GOOD,
        [("", "a", "wer"), ("voice", "b", "")],
        GOOD,
        [("", "a", "wer"), ("voice", "b", "")],
        GOOD,
    ]
    [length] = tally([reject(*turns)]).lengths
    assert (length.turns, length.first, length.passed) == (6, 4, 5)


def test_lengths_and_reasons() -> None:
    long = "one two three four five six"
    found = tally(
        [
            reject(GOOD, [("", "b", "gap"), ("again", "b", "")]),
            reject([("", "a", "gap")], [("", "b", "wer")], spoken=long),
        ]
    )
    assert found.lengths == (
        LengthSum(language="en", bucket="1-5", turns=2, first=1, passed=2),
        LengthSum(language="en", bucket="6-10", turns=2, first=0, passed=0),
    )
    assert found.refusals == (
        RefusalSum(reason="gap", turns=2, saved=1),
        RefusalSum(reason="wer", turns=1, saved=0),
    )


def test_what_was_never_spoken_counts_nothing() -> None:
    empty = tally([reject([], [])])
    assert empty.repairs == empty.lengths == empty.refusals == ()


def test_rungs_are_told_in_the_order_of_the_ladder() -> None:
    tried: list[Tried] = [("", "a", "x"), *((rung, "a", "x") for rung in ("rephrase", "split", "slow", "again"))]
    assert [item.rung for item in tally([reject(tried)]).repairs] == ["again", "slow", "split", "rephrase"]
    assert tally([reject(tried)]).repairs[0] == RepairSum(rung="again", turns=1, saved=0, takes=1, seconds=1.5)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hi.", "1-5"),
        ("It's a well-known 3.5 problem.", "1-5"),
        ("a b c d e f", "6-10"),
        ("我们去散步好吗？", "6-10"),
        ("我用 Python 写。", "1-5"),
        (" ".join("x" * 40), "21-40"),
        ("字" * 41, "41+"),
        ("…", "1-5"),
    ],
)
def test_the_length_of_a_turn_is_in_words_and_characters(text: str, name: str) -> None:
    assert bucket_name(bucket(text)) == name


def test_buckets_are_in_order() -> None:
    names = [bucket_name(place) for place in range(5)]
    assert names == ["1-5", "6-10", "11-20", "21-40", "41+"]
    shuffled = [names[place] for place in (3, 1, 4, 0, 2)]
    assert sorted(shuffled, key=bucket_order) == names
