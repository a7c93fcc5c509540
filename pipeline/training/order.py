"""The order of an epoch, and who takes what of it: pure, the same on every machine.

An epoch is a list of items (dialogues, turns or batches) in an order that depends on the seed and the epoch alone,
never on the number of ranks or workers: those take turns along it. So whoever stops knows which items are left, and any
other number of ranks and workers can share those out.

Chance is Philox, whose raw output numpy keeps as it is, and stable sorting: no version draws otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UsageError


@dataclass(frozen=True)
class Leg:
    """A stretch of an epoch in which `world` consumers took turns along what was left: consumer c took the items c,
    c + world, c + 2 world, … done: how many of them each has taken."""

    world: int
    done: tuple[int, ...]


def draw(count: int, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """uint64 [count], uniform."""
    text = f"{seed}\x1f{epoch}\x1f{purpose}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return np.random.Philox(key=key).random_raw(count)


def repeats(weights: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """int64 [n]: how often each item comes in an epoch: its weight, rounded up or down by chance, so that over the
    epochs it comes as often as its weight says. weights: float64 [n], at least 0."""
    whole = np.floor(weights)
    chance = draw(len(weights), seed, epoch, "weights").astype(np.float64) / 2.0**64
    return (whole + (chance < weights - whole)).astype(np.int64)


def shuffled(groups: np.ndarray, window: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [n]: a permutation of n items. groups: int64 [n], ascending, which shard each is from.

    The shards come in random order, and then each window of so many items is shuffled by itself: neighbours in the
    order are from a few shards only, which keeps reading local. window 0 shuffles nothing.
    """
    order = np.arange(len(groups))
    if not window or not len(groups):
        return order
    first = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))  # of each shard
    sizes = np.diff(first, append=len(groups))
    order = np.argsort(np.repeat(draw(len(first), seed, epoch, "shards"), sizes), kind="stable")
    chance = draw(len(order), seed, epoch, "window")
    whole = len(order) // window * window
    sort = np.argsort(chance[:whole].reshape(-1, window), axis=1, kind="stable") + np.arange(0, whole, window)[:, None]
    rest = whole + np.argsort(chance[whole:], kind="stable")
    return order[np.concatenate([sort.ravel(), rest])]


def batched(
    lengths: np.ndarray, budget: float, pool: int, most: int, padded: bool, chance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Batches of items of like length: (order, edges); order is an int64 [n] permutation of places, and batch b is
    order[edges[b]:edges[b + 1]].

    lengths: float64 [n], in the order of the epoch. budget: what a batch may hold, in the unit of the lengths: with
    `padded` its longest item times their number, else their sum. pool: so many items are sorted together. most: items
    of a batch. chance: uint64 [n], by which the batches of a pool are ordered; None: by their earliest item.
    """
    orders: list[np.ndarray] = []
    sizes: list[int] = []
    for start in range(0, len(lengths), pool):
        own = lengths[start : start + pool]
        sort = np.argsort(own, kind="stable")
        batches = np.split(sort, _cuts(own[sort], budget, most, padded))
        place = [int(batch.min()) for batch in batches]
        if chance is not None:
            place = [int(chance[start + first]) for first in place]
        for number in np.argsort(np.array(place), kind="stable"):
            orders.append(batches[number] + start)
            sizes.append(len(batches[number]))
    order = np.concatenate(orders) if orders else np.empty(0, np.int64)
    return order, np.cumsum([0, *sizes], dtype=np.int64)


def _cuts(lengths: np.ndarray, budget: float, most: int, padded: bool) -> list[int]:
    """Where ascending lengths are cut; each stretch holds as much as it may."""
    cuts: list[int] = []
    start, total = 0, 0.0
    for place, length in enumerate(lengths.tolist()):
        count = place - start
        total += length
        if count and (count == most or (length * (count + 1) if padded else total) > budget):
            cuts.append(place)
            start, total = place, length
    return cuts


def left(count: int, legs: Sequence[Leg]) -> np.ndarray:
    """int64: the items that nobody has taken, in the order of the epoch. Raises UsageError for legs that took more
    than there was."""
    items = np.arange(count)
    for leg in legs:
        if any(not 0 <= done <= len(items[c :: leg.world]) for c, done in enumerate(leg.done)):
            raise UsageError("this state says of more items that they were taken than there are: it is damaged")
        place = np.arange(len(items))
        items = items[place // leg.world >= np.array(leg.done)[place % leg.world]]
    return items


def consumer(rank: int, ranks: int, worker: int, workers: int) -> int:
    """Which consumer of ranks × workers a worker of a rank is. The ranks take turns first: what a rank gets does not
    depend on the number of its workers."""
    return worker * ranks + rank


def rounds(most: Sequence[int], taken: int) -> list[int]:
    """Of `taken` batches how many each worker gave, where a loader goes round them and passes over who has none left.
    most: batches that each has; their sum is at least `taken`."""
    low, high = 0, max(most, default=0)
    while low < high:  # the number of whole rounds
        middle = (low + high + 1) // 2
        if sum(min(own, middle) for own in most) <= taken:
            low = middle
        else:
            high = middle - 1
    given = [min(own, low) for own in most]
    for worker, own in enumerate(most):
        if sum(given) < taken and own > low:
            given[worker] += 1
    return given
