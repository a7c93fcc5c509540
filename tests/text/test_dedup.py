"""Exact and near duplicates: the lowest id wins, and nothing but the texts before a dialogue decides on it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dialogue import Language
from pipeline.text import dedup
from pipeline.text.dedup import KEPT, OPEN, OUT, RECALL, SLOTS, Duplicates, Likeness, bands_for
from pipeline.text.ngrams import UnitHasher, split_units

NGRAM: dict[Language, int] = {"en": 3, "zh": 4}
Dialogue = tuple[Language, tuple[str, ...]]


def judge(
    dialogues: Sequence[Dialogue],
    states: Sequence[int] | None = None,
    similarity: float = 0.8,
    batch: int = 1000,
    ngram: Mapping[Language, int] = NGRAM,
) -> Likeness:
    with tempfile.TemporaryDirectory() as scratch:
        duplicates, hasher = Duplicates(Path(scratch), similarity, ngram), UnitHasher()
        states = states or [OPEN] * len(dialogues)
        for start in range(0, len(dialogues), batch):
            some = dialogues[start : start + batch]
            turns = hasher.hash([split_units(turn) for _, texts in some for turn in texts])
            counts, languages = [len(texts) for _, texts in some], [language for language, _ in some]
            duplicates.add(turns, counts, languages, states[start : start + batch])
        return duplicates.resolve()


def en(*words: object) -> Dialogue:
    return "en", (" ".join(map(str, words)),)


def numbered(count: int, changed: Sequence[int] = (), mark: str = "x") -> Dialogue:
    """Words that are all different, those at `changed` in another version."""
    return en(*(f"{mark}{place}" if place in changed else f"w{place}" for place in range(count)))


def shingles(dialogue: Dialogue) -> set[str]:
    language, turns = dialogue
    units = [unit for turn in turns for unit in split_units(turn)]
    width = min(NGRAM[language], len(units))
    return {" ".join(units[start : start + width]) for start in range(len(units) - width + 1)}


def jaccard(one: Dialogue, other: Dialogue) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("en", ("Do you like tea?", "I don't.")), ("en", ("do you like TEA", "I don’t!"))),
        (("zh", ("你喜欢喝茶吗？", "喜欢，AI 也喜欢。")), ("zh", ("你喜欢喝茶吗", "喜欢 ａｉ也喜欢!"))),
        (("en", ("Hi.", "Hi.")), ("en", ("Hi", "hi"))),
    ],
)
def test_exact_duplicates_are_told_by_their_units(one: Dialogue, other: Dialogue) -> None:
    found = judge([one, numbered(30), other])
    assert found.of.tolist() == [-1, -1, 0] and found.exact.tolist() == [False, False, True]
    assert found.similarity[2] == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (en("do", "you", "like", "tea"), en("do", "you", "like", "coffee")),
        (("zh", ("你喜欢喝茶吗",)), ("zh", ("他讨厌吃饭吧",))),
        (("zh", ("你喜欢喝茶吗", "喜欢")), ("zh", ("你喜欢喝水吗", "不"))),
        (numbered(60), numbered(60, changed=range(0, 60, 5))),
    ],
)
def test_other_texts_are_kept(one: Dialogue, other: Dialogue) -> None:
    assert judge([one, other]).of.tolist() == [-1, -1]


def test_where_a_turn_ends_tells_exact_from_near() -> None:
    found = judge([("en", ("one two three", "four")), ("en", ("one two", "three four"))])
    assert found.of.tolist() == [-1, 0] and not found.exact.any() and found.similarity[1] == 1


def test_near_duplicates_say_how_like_they_are() -> None:
    one, other = numbered(80), numbered(80, changed=[40])
    found = judge([one, other])
    assert found.of.tolist() == [-1, 0] and not found.exact[1]
    assert found.similarity[1] == pytest.approx(jaccard(one, other), abs=0.1)


def test_the_limit_is_obeyed() -> None:
    pair = [numbered(80), numbered(80, changed=[10, 30, 50])]  # Jaccard 69 / 87
    assert judge(pair, similarity=0.6).of.tolist() == [-1, 0]
    assert judge(pair, similarity=0.95).of.tolist() == [-1, -1]
    assert judge([numbered(80), numbered(80)], similarity=1).of.tolist() == [-1, 0]


def test_each_language_has_its_own_ngram() -> None:
    """The same words in another order have all single words in common and no three in a row."""
    there, back = "one two three four five six", "six five four three two one"
    en_pair: list[Dialogue] = [("en", (there,)), ("en", (back,))]
    zh_pair: list[Dialogue] = [("zh", (there,)), ("zh", (back,))]
    cases: list[tuple[dict[Language, int], list[Dialogue]]] = [
        ({"en": 1, "zh": 3}, en_pair),
        ({"en": 3, "zh": 1}, zh_pair),
    ]
    for ngram, like in cases:
        for pair in (en_pair, zh_pair):
            assert judge(pair, ngram=ngram).of.tolist() == [-1, 0 if pair is like else -1]


def test_what_was_dropped_drops_nobody() -> None:
    """b is like a, c is like b but not like a: c stays."""
    a, b, c = numbered(100), numbered(100, changed=[10, 20, 30]), numbered(100, changed=[10, 20, 30, 60, 70, 80])
    assert jaccard(b, c) > 0.8 > 0.7 > jaccard(a, c)
    assert judge([a, b, c], similarity=0.76).of.tolist() == [-1, 0, -1]
    assert judge([b, c], similarity=0.76).of.tolist() == [-1, 0]


def test_a_copy_of_what_was_dropped_is_dropped_for_the_same_reason() -> None:
    found = judge([numbered(80), numbered(80, changed=[3]), numbered(80, changed=[3])])
    assert found.of.tolist() == [-1, 0, 0] and found.exact.tolist() == [False] * 3
    assert found.similarity[1] == found.similarity[2] < 1


def test_all_of_a_large_cluster_go_but_the_lowest() -> None:
    crowd = [numbered(80, changed=[place], mark="v") for place in range(80)]
    assert judge([numbered(80), *crowd]).of.tolist() == [-1] + [0] * 80


def test_what_is_known_beforehand_counts() -> None:
    same = [numbered(50)] * 4
    assert judge(same, [OUT, OPEN, KEPT, OPEN]).of.tolist() == [-1, -1, -1, 1]
    near = [numbered(80), numbered(80, changed=[9]), numbered(80, changed=[9])]
    assert judge(near, [OPEN, KEPT, OPEN]).of.tolist() == [-1, -1, 1]
    assert judge(near, [OUT, OPEN, OPEN]).of.tolist() == [-1, -1, 1]


def test_a_kept_copy_of_a_dropped_one_still_drops_others() -> None:
    a, b, c = numbered(100), numbered(100, changed=[10, 20, 30]), numbered(100, changed=[10, 20, 30, 60, 70, 80])
    assert judge([a, b, b, c], [OPEN, OPEN, KEPT, OPEN], similarity=0.76).of.tolist() == [-1, 0, -1, 2]


def test_nothing_gives_nothing() -> None:
    assert len(judge([]).of) == 0


# Few words, so that copies and near copies are frequent.
_WORDS = st.lists(st.sampled_from(["tea", "milk", "rain", "茶", "水"]), min_size=1, max_size=6).map(" ".join)
_MADE = st.tuples(st.sampled_from(["en", "zh"]), st.lists(_WORDS, min_size=1, max_size=2).map(tuple))
_EDITED = st.tuples(st.integers(0, 59), st.integers(0, 2)).map(
    lambda item: numbered(60, changed=range(item[0], 60, 25)[: item[1]])
)
DIALOGUES = st.lists(st.one_of(_MADE, _EDITED), max_size=14)


@given(DIALOGUES, st.integers(1, 14), st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=60, deadline=None)
def test_more_dialogues_change_no_earlier_verdict(dialogues: list[Dialogue], cut: int, similarity: float) -> None:
    whole, part = judge(dialogues, similarity=similarity), judge(dialogues[:cut], similarity=similarity, batch=3)
    assert whole.of[:cut].tolist() == part.of.tolist()
    assert whole.similarity[:cut].tolist() == part.similarity.tolist()
    assert whole.exact[:cut].tolist() == part.exact.tolist()


@given(DIALOGUES, st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=60, deadline=None)
def test_the_reason_is_a_kept_lower_one_and_true(dialogues: list[Dialogue], similarity: float) -> None:
    found = judge(dialogues, similarity=similarity)
    units = [[split_units(turn) for turn in turns] for _, turns in dialogues]
    for number, other in enumerate(found.of.tolist()):
        copies = [lower for lower in range(number) if units[lower] == units[number]]
        if other < 0:
            assert not copies
            continue
        assert other < number and found.of[other] == -1
        assert bool(found.exact[number]) == (units[other] == units[number])
        assert found.similarity[number] >= similarity - 1 / SLOTS
        if number not in copies and dialogues[number][0] == dialogues[other][0]:
            true = jaccard(dialogues[number], dialogues[other])
            assert abs(true - found.similarity[number]) < 0.25  # six standard errors


@given(DIALOGUES)
@settings(max_examples=20, deadline=None)
def test_blocks_change_nothing(dialogues: list[Dialogue]) -> None:
    whole = judge(dialogues)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_BLOCK", 2)
        patch.setattr(dedup, "_PAIRS", 1)
        blocks = judge(dialogues)
    assert whole.of.tolist() == blocks.of.tolist() and whole.similarity.tolist() == blocks.similarity.tolist()


@pytest.mark.parametrize("similarity", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_find_pairs_at_the_limit_and_as_few_others_as_they_can(similarity: float) -> None:
    def found(rows: int) -> float:
        return 1 - (1 - similarity**rows) ** (SLOTS // rows)

    bands, rows = bands_for(similarity)
    assert bands * rows <= SLOTS and bands == SLOTS // rows and found(rows) >= RECALL
    assert all(found(more) < RECALL for more in range(rows + 1, SLOTS + 1))


def test_clear_near_duplicates_are_found() -> None:
    chance = random.Random(5)
    dialogues = [en(*(chance.randrange(10**6) for _ in range(80))) for _ in range(400)]
    changed = []
    for _, (text,) in dialogues:
        words = text.split()
        words[chance.randrange(80)] = "other"
        changed.append(en(*words))
    found = judge([*dialogues, *changed])
    assert found.of[:400].max() == -1
    assert (found.of[400:] == np.arange(400)).mean() > 0.995


SCRIPT = """
import hashlib, pathlib, sys, tempfile
from tests.text.test_dedup import NGRAM, numbered
from pipeline.text.dedup import Duplicates
from pipeline.text.ngrams import UnitHasher, split_units

with tempfile.TemporaryDirectory() as scratch:
    duplicates = Duplicates(pathlib.Path(scratch), 0.8, NGRAM)
    texts = [numbered(80, changed=[place % 70]) for place in range(200)] + [("zh", ("你喜欢喝茶吗？",))]
    turns = UnitHasher().hash([split_units(turn) for _, turns in texts for turn in turns])
    duplicates.add(turns, [1] * 201, [language for language, _ in texts], [0] * 201)
    data = b"".join(path.read_bytes() for path in sorted(pathlib.Path(scratch).iterdir()))
    print(len(data), hashlib.sha256(data).hexdigest(), duplicates.resolve().of.tolist())
"""


def test_signatures_are_the_same_in_any_process() -> None:
    said = set()
    for seed, threads in (("0", "1"), ("12345", "4")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        said.add(done.stdout)
    assert len(said) == 1
    assert int(said.pop().split()[0]) == 201 * (4 * SLOTS + 8 * bands_for(0.8)[0] + 8)
