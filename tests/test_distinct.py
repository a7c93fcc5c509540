"""Cosines, sets and bounds of `speakers.distinct`, on cases whose answers are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speakers.distinct import (
    at_least,
    at_most,
    distinct_set,
    equal_error,
    flat,
    nearest,
    pairs_at_most,
    stratified,
    unit,
)


def graph(size: int, *edges: tuple[int, int]) -> np.ndarray:
    alike = np.eye(size, dtype=bool)
    for one, other in edges:
        alike[one, other] = alike[other, one] = True
    return alike


def test_the_mean_has_length_one() -> None:
    assert unit(np.array([[2.0, 0.0], [0.0, 2.0]])) == pytest.approx([2**-0.5, 2**-0.5])
    for rows in (np.zeros((0, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])):
        with pytest.raises(ValueError, match="no direction"):
            unit(rows)


def test_the_nearest_is_another() -> None:
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert nearest(rows, rows, [0, 1, 2]) == [(1, pytest.approx(0.6)), (2, pytest.approx(0.8)), (1, pytest.approx(0.8))]
    assert nearest(rows, rows)[0] == (0, pytest.approx(1))
    assert nearest(rows[:1], rows[:1], [0]) == [(-1, 0.0)]
    assert nearest(rows, np.zeros((0, 2))) == [(-1, 0.0)] * 3


CYCLE = [(place, (place + 1) % 7) for place in range(7)]

STAR = [(0, leaf) for leaf in range(1, 6)]
CLIQUES = [(a, b) for low in (0, 4, 8) for a in range(low, low + 4) for b in range(a + 1, low + 4)]
PETERSEN = [
    *[(place, (place + 1) % 5) for place in range(5)],
    *[(place, place + 5) for place in range(5)],
    *[(5 + place, 5 + (place + 2) % 5) for place in range(5)],
]


@pytest.mark.parametrize(
    ("alike", "size"),
    [
        (graph(0), 0),
        (graph(1), 1),
        (graph(6), 6),
        (graph(7, *CYCLE), 3),
        (graph(6, *STAR), 5),
        (graph(12, *CLIQUES), 3),
        (graph(10, *PETERSEN), 4),
    ],
)
def test_the_largest_distinct_set_is_found(alike: np.ndarray, size: int) -> None:
    found = distinct_set(alike, rounds=200)
    assert len(found) == size == len(set(found))
    assert not any(alike[a, b] for a in found for b in found if a != b)
    assert distinct_set(alike, rounds=200) == found


def test_the_search_finds_a_hidden_set() -> None:
    """60 voices, two in five pairs alike, but for 16 hidden among them of which none are."""
    draw = np.random.default_rng(3)
    alike = np.triu(draw.random((60, 60)) < 0.4, 1)
    hidden = np.sort(draw.choice(60, 16, replace=False))
    alike[np.ix_(hidden, hidden)] = False
    alike |= alike.T
    found = distinct_set(alike)
    assert len(found) >= 16
    assert not alike[np.ix_(found, found)].any()
    assert len(distinct_set(alike, rounds=0)) <= len(found)


# One-sided 95 % bounds: closed forms for none and for all, the last from tables of the F distribution.
@pytest.mark.parametrize(
    ("hits", "trials", "bound"),
    [(0, 10, 0.0), (0, 0, 0.0), (10, 10, 0.05**0.1), (200, 200, 0.05**0.005), (1, 1, 0.05), (8, 10, 0.4930987)],
)
def test_bounds_of_shares(hits: int, trials: int, bound: float) -> None:
    assert at_least(hits, trials) == pytest.approx(bound, abs=1e-6)
    assert at_most(trials - hits, trials) == pytest.approx(1 - bound, abs=1e-6)


def test_bounds_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for hits, trials, confidence in ((1, 200, 0.95), (187, 200, 0.95), (3, 7, 0.9), (40_000, 42_002, 0.99)):
        expected = stats.beta.ppf(1 - confidence, hits, trials - hits + 1)
        assert at_least(hits, trials, confidence) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{hits} hits of {trials}"):
        at_least(hits, trials)


def test_the_bound_of_pairs_counts_disjoint_ones() -> None:
    assert pairs_at_most(0.0, 200) == pytest.approx(1 - 0.05**0.01)  # none of 100 pairs
    assert pairs_at_most(0.0, 1) == 1
    bounds = [pairs_at_most(share, 200) for share in (0.0, 0.01, 0.1, 1.0)]
    assert bounds == sorted(bounds) and bounds[-1] == 1
    assert pairs_at_most(0.1, 20) > pairs_at_most(0.1, 200) > 0.1


def test_the_bound_of_pairs_holds() -> None:
    """Voices of 20 kinds: pairs of one kind are alike, 1 in 20. The bound is broken in 5 % of draws at most."""
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        counts = np.bincount(draw.integers(0, 20, 40), minlength=20)
        held += pairs_at_most(float((counts * (counts - 1)).sum() / (40 * 39)), 40) >= 1 / 20
    assert held >= 190


def test_equal_error() -> None:
    assert equal_error([0.9, 0.95], [0.3, 0.5]).rate == 0
    assert 0.5 < equal_error([0.9, 0.95], [0.3, 0.5]).threshold <= 0.9
    assert equal_error([0.9, 0.4], [0.3, 0.6]) == (0.5, 0.6)
    assert equal_error([0.1], [0.9]).rate == 1
    rate, threshold = equal_error(np.linspace(0.5, 1, 101).tolist(), np.linspace(0, 0.625, 101).tolist())
    assert rate == pytest.approx(1 / 9, abs=0.01) and threshold == pytest.approx(0.5 + 0.5 / 9, abs=0.01)
    with pytest.raises(ValueError, match="both kinds"):
        equal_error([], [0.1])


GROUPS = ["en f"] * 500 + ["en m"] * 300 + ["zh f"] * 199 + ["zh m"] * 1


def test_a_sample_has_the_proportions_of_the_whole() -> None:
    chosen = stratified(GROUPS, 20, seed=1)
    assert Counter(GROUPS[place] for place in chosen) == {"en f": 10, "en m": 6, "zh f": 4}
    assert chosen == sorted(set(chosen)) == stratified(GROUPS, 20, seed=1)
    assert chosen != stratified(GROUPS, 20, seed=2)
    assert set(chosen) <= set(stratified(GROUPS, 40, seed=1))
    assert stratified(GROUPS, 5000, seed=1) == list(range(1000))
    assert stratified([], 3, seed=1) == stratified(GROUPS, 0, seed=1) == []


def test_everybody_may_be_drawn() -> None:
    seen = Counter(place for seed in range(60) for place in stratified(["a"] * 8 + ["b"] * 4, 6, seed))
    assert set(seen) == set(range(12)) and max(seen.values()) < 2 * min(seen.values()) + 10


@given(st.lists(st.sampled_from("abcd"), max_size=60), st.integers(0, 70), st.integers(0, 3))
def test_no_group_is_off_by_one_voice(groups: list[str], size: int, seed: int) -> None:
    chosen = stratified(groups, size, seed)
    assert len(chosen) == min(size, len(groups))
    counts = Counter(groups[place] for place in chosen)
    for name, count in Counter(groups).items():
        assert abs(counts[name] - len(chosen) * count / len(groups)) < 1


def test_a_map_keeps_the_distances_of_a_plane() -> None:
    draw = np.random.default_rng(1)
    plane, axes = draw.standard_normal((9, 2)), np.linalg.qr(draw.standard_normal((5, 2)))[0]
    points = flat(plane @ axes.T + 3)
    apart = np.linalg.norm(plane[:, None] - plane, axis=2)
    assert np.linalg.norm(points[:, None] - points, axis=2) == pytest.approx(apart)
    assert flat(plane @ axes.T + 3) == pytest.approx(flat(plane @ axes.T))
    assert flat(np.ones((1, 5))).tolist() == [[0, 0]] and flat(np.zeros((3, 1))).shape == (3, 2)
