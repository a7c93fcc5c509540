"""Duplicates judged step by step, while what was judged before is spoken: as one judgement of it all."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.dedup import DROPPED, KEPT, OPEN, OUT, Likeness
from pipeline.text.ngrams import split_units
from tests.text.test_dedup import DIALOGUES, Dialogue, en, judge, numbered


def grown(
    dialogues: list[Dialogue], cuts: Sequence[int], similarity: float = 0.8, forgotten: int = DROPPED
) -> Likeness:
    """Judged step by step; what was said of dialogues below a cut stands, and all of them count as it said.
    forgotten: the state of those that were dropped."""
    of, share, exact = (np.empty(0, kind) for kind in (np.int32, np.float32, np.bool_))
    for end in [*sorted(cuts), len(dialogues)]:
        states = [*np.where(of >= 0, forgotten, KEPT).tolist(), *[OPEN] * (end - len(of))]
        found = judge(dialogues[:end], states, similarity)
        assert (found.of[: len(of)] == -1).all() and not found.similarity[: len(of)].any()
        new = slice(len(of), None)
        of, share = np.append(of, found.of[new]), np.append(share, found.similarity[new])
        exact = np.append(exact, found.exact[new])
    return Likeness(of, share, exact)


def same(one: Likeness, other: Likeness) -> bool:
    names = ("of", "similarity", "exact")
    return all(getattr(one, name).tolist() == getattr(other, name).tolist() for name in names)


@given(DIALOGUES, st.lists(st.integers(0, 14), max_size=3), st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=60, deadline=None)
def test_growth_step_by_step_says_what_one_judgement_does(
    dialogues: list[Dialogue], cuts: list[int], similarity: float
) -> None:
    cuts = [min(cut, len(dialogues)) for cut in cuts]
    assert same(grown(dialogues, cuts, similarity), judge(dialogues, similarity=similarity))


def crowd(seed: int, count: int) -> list[Dialogue]:
    """Copies of copies of one text, with or without a change: more in a bucket than are looked at."""
    chance = random.Random(seed)
    words = [f"w{number}" for number in range(400)]
    made = [[chance.choice(words) for _ in range(60)]]
    while len(made) < count:
        copy = list(chance.choice(made))
        for _ in range(chance.choice([0, 0, 1, 1])):
            copy[chance.randrange(60)] = chance.choice(words)
        made.append(copy)
    return [en(*copy) for copy in made]


def test_growth_in_a_crowd_says_what_one_judgement_does() -> None:
    for seed in (10, 11, 19):
        dialogues = crowd(seed, 200)
        whole = judge(dialogues)
        assert 50 < (whole.of >= 0).sum() < 195 and whole.exact.any()
        assert same(grown(dialogues, [100]), whole) and same(grown(dialogues, [40, 100, 170]), whole)
        # These are crowds in which it matters that the dropped ones are members.
        assert not same(grown(dialogues, [100], forgotten=OUT), whole)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([DROPPED, OPEN, OPEN, OPEN], [-1, -1, 1, 1]),
        ([DROPPED, KEPT, OPEN, OPEN], [-1, -1, 1, 1]),
        ([DROPPED, DROPPED, OPEN, OPEN], [-1, -1, -1, 2]),
        ([OPEN, DROPPED, OPEN, OPEN], [-1, -1, 0, 0]),
        ([DROPPED, OUT, OUT, OPEN], [-1, -1, -1, -1]),
    ],
)
def test_the_lowest_copy_stands_in_for_a_dropped_one_that_is_like_nobody(
    states: list[int], expected: list[int]
) -> None:
    text = numbered(80)
    found = judge([text, text, text, numbered(80, changed=[9])], states)
    assert found.of.tolist() == expected
    copies = [number for number in (1, 2) if expected[number] >= 0]
    assert np.flatnonzero(found.exact).tolist() == copies


def test_a_stand_in_is_judged_where_it_stands() -> None:
    """What lies between it and the one it stands in for counts, and its copies go its way."""
    text, near = numbered(80), numbered(80, changed=[9])
    found = judge([text, near, text, text], [DROPPED, OPEN, OPEN, OPEN])
    assert found.of.tolist() == [-1, -1, 1, 1] and not found.exact.any()
    # Where the one it stands in for has a reason, that is its copies' too.
    found = judge([near, text, numbered(80, changed=[50]), text], [KEPT, DROPPED, KEPT, OPEN])
    assert found.of.tolist() == [-1, -1, -1, 0]


@given(DIALOGUES, st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_known_beforehand_no_two_copies_are_kept(dialogues: list[Dialogue], data: st.DataObject) -> None:
    states = [data.draw(st.sampled_from([OPEN, OPEN, KEPT, OUT, DROPPED])) for _ in dialogues]
    found = judge(dialogues, states)
    units = [[split_units(turn) for turn in turns] for _, turns in dialogues]
    there = [state == KEPT or (state == OPEN and of < 0) for state, of in zip(states, found.of.tolist(), strict=True)]
    for number, other in enumerate(found.of.tolist()):
        if other >= 0:
            assert states[number] == OPEN and other < number and there[other]
        elif states[number] == OPEN:
            assert not [lower for lower in range(number) if there[lower] and units[lower] == units[number]]
