"""The order of an epoch, and its sharing out, for any numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.training.order import Leg, batched, consumer, draw, left, repeats, rounds, shuffled


@given(st.integers(0, 400), st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), max_size=5), st.data())
def test_every_item_is_taken_once_whoever_comes(count: int, worlds: list[tuple[int, int]], data: st.DataObject) -> None:
    """Any number of legs, each with its ranks and workers, who stop when they like."""
    legs: list[Leg] = []
    taken: list[int] = []
    for ranks, workers in worlds:
        world = ranks * workers
        rest = left(count, legs)
        assert sorted(rest) == rest.tolist()  # in the order of the epoch
        shares = [rest[c::world] for c in range(world)]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        done = [data.draw(st.integers(0, len(share))) for share in shares]
        taken += [int(item) for share, own in zip(shares, done, strict=True) for item in share[:own]]
        legs.append(Leg(world, tuple(done)))
    taken += left(count, legs).tolist()
    assert sorted(taken) == list(range(count))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
def test_what_a_rank_gets_does_not_depend_on_its_workers(ranks: int, workers: int, more: int) -> None:
    def share(rank: int, count: int) -> list[int]:
        world = ranks * count
        own = [consumer(rank, ranks, worker, count) for worker in range(count)]
        return sorted(item for who in own for item in range(100)[who::world])

    assert [share(rank, workers) for rank in range(ranks)] == [share(rank, more) for rank in range(ranks)]
    assert sorted(consumer(r, ranks, w, workers) for r in range(ranks) for w in range(workers)) == list(
        range(ranks * workers)
    )


@pytest.mark.parametrize("legs", [[Leg(2, (6, 5))], [Leg(2, (5, 5)), Leg(1, (1,))], [Leg(1, (-1,))]])
def test_more_was_taken_than_there_is(legs: list[Leg]) -> None:
    with pytest.raises(UsageError, match="damaged"):
        left(10, legs)


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(0, 70), st.integers(0, 5), st.integers(0, 3))
def test_a_shuffle_is_a_permutation_near_its_shards(sizes: list[int], window: int, seed: int, epoch: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = shuffled(groups, window, seed, epoch)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    if not window:
        assert order.tolist() == sorted(order.tolist())
        return
    for start in range(0, len(order), window):  # those of a window are from neighbours in the order of shards
        own = groups[order[start : start + window]]
        whole = sum(sizes[shard] for shard in set(own.tolist()))
        assert len(own) <= whole < len(own) + 2 * max(sizes)


def test_chance_is_the_same_for_ever() -> None:
    """Whoever resumes with another version of numpy finds the same order."""
    assert draw(2, 7, 3, "window").tolist() == [1511895266107593109, 6328491451199936576]
    assert shuffled(np.repeat(np.arange(3), 4), 6, 7, 3).tolist() == [8, 11, 9, 10, 5, 4, 3, 1, 6, 2, 0, 7]


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_each_seed_and_epoch_has_its_own_order(seed: int, epoch: int) -> None:
    groups = np.repeat(np.arange(10), 10)
    assert shuffled(groups, 50, seed, epoch).tolist() != shuffled(groups, 50, 0, 0).tolist()


def test_weights_are_kept_over_the_epochs() -> None:
    weights = np.array([0.0, 0.25, 1.0, 2.5])
    times = np.array([repeats(weights, 0, epoch) for epoch in range(2000)])
    assert set(times[:, 1]) == {0, 1} and set(times[:, 2]) == {1} and set(times[:, 3]) == {2, 3}
    assert np.abs(times.mean(axis=0) - weights).max() < 0.05


@given(
    st.lists(st.floats(0.1, 10), max_size=60),
    st.integers(1, 20),
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
)
def test_batches_hold_what_they_may_and_everything_once(
    lengths: list[float], pool: int, most: int, padded: bool, by_chance: bool
) -> None:
    chance = draw(len(lengths), 0, 0, "batches") if by_chance else None
    order, edges = batched(np.array(lengths), 12.0, pool, most, padded, chance)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    batches = [order[a:b].tolist() for a, b in itertools.pairwise(edges)]
    for batch in batches:
        own = [lengths[item] for item in batch]
        assert 1 <= len(own) <= most
        assert len({item // pool for item in batch}) == 1
        assert (max(own) * len(own) if padded else sum(own)) <= 12.0 + 1e-9 or len(own) == 1
    assert [batch[0] // pool for batch in batches] == sorted(batch[0] // pool for batch in batches)


def test_a_batch_takes_as_many_as_fit() -> None:
    lengths = np.array([1.0, 5.0, 1.0, 2.0, 5.0, 2.0])
    order, edges = batched(lengths, 6.0, 6, 10, True, None)
    found = [sorted(lengths[order[a:b]].tolist()) for a, b in itertools.pairwise(edges)]
    assert sorted(found) == [[1.0, 1.0, 2.0], [2.0], [5.0], [5.0]]
    order, edges = batched(lengths, 6.0, 6, 10, False, None)
    found = [sorted(lengths[order[a:b]].tolist()) for a, b in itertools.pairwise(edges)]
    assert sorted(found) == [[1.0, 1.0, 2.0, 2.0], [5.0], [5.0]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_rounds_are_those_of_a_loader(most: list[int], data: st.DataObject) -> None:
    taken = data.draw(st.integers(0, sum(most)))
    given, worker = [0] * len(most), 0
    for _ in range(taken):  # one by one
        while given[worker] == most[worker]:
            worker = (worker + 1) % len(most)
        given[worker] += 1
        worker = (worker + 1) % len(most)
    assert rounds(most, taken) == given
