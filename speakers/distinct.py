"""How many voices are told apart, from their embeddings alone: cosines, sets, bounds. No voice, no file, no model.

Embeddings are float, shape [voices, dim], each row of length 1, so that a cosine is a product of two rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.dialogue import derive_seed

CONFIDENCE = 0.95


def unit(rows: np.ndarray) -> np.ndarray:
    """float64 [dim]: the mean of embeddings [n, dim], of length 1. Raises ValueError for none, or where they cancel."""
    mean = np.asarray(rows, np.float64).mean(axis=0) if len(rows) else np.zeros(1)
    length = float(np.linalg.norm(mean))
    if not length:
        raise ValueError("the mean of these embeddings has no direction")
    return np.asarray(mean / length)


class Nearest(NamedTuple):
    """place: of the nearest among the others, -1 where there is none. cosine: to it, then 0."""

    place: int
    cosine: float


def nearest(rows: np.ndarray, others: np.ndarray, same: Sequence[int] | None = None) -> list[Nearest]:
    """For each of `rows` the nearest of `others`, but for the place in `same` (its own, -1 for none)."""
    if not len(others):
        return [Nearest(-1, 0.0)] * len(rows)
    cosines = np.asarray(rows, np.float64) @ np.asarray(others, np.float64).T
    for row, place in enumerate(same or ()):
        if place >= 0:
            cosines[row, place] = -np.inf
    places = cosines.argmax(axis=1) if len(rows) else ()
    found = [Nearest(int(place), float(cosines[row, place])) for row, place in enumerate(places)]
    return [item if math.isfinite(item.cosine) else Nearest(-1, 0.0) for item in found]


def distinct_set(alike: np.ndarray, rounds: int = 1500, seed: int = 0) -> list[int]:
    """Places of a large set of voices no two of which are alike: an independent set of a graph, in order.

    alike: bool [n, n], symmetric. Greedy by fewest neighbours, then an iterated local search that forces a voice in,
    lets out those like it and fills up (Andrade, Resende, Werneck 2012, "Fast local search for the maximum independent
    set problem"). What is found is a lower bound: a larger set may exist. The same input gives the same set.
    """
    graph = np.array(alike, bool)
    np.fill_diagonal(graph, False)
    draw = np.random.default_rng(seed)
    inside = np.zeros(len(graph), bool)
    tight = np.zeros(len(graph), int)  # neighbours inside
    _fill(graph, inside, tight, draw)
    best = inside.copy()
    for _ in range(rounds if graph.any() else 0):
        outside = np.flatnonzero(~inside)
        once = outside[tight[outside] == 1]  # these cost one voice only
        forced = int(draw.choice(once if len(once) and draw.random() < 0.8 else outside))
        before = inside.copy(), tight.copy()
        leave = np.flatnonzero(graph[forced] & inside)
        inside[leave], inside[forced] = False, True
        tight += graph[forced].astype(int) - graph[leave].sum(axis=0)
        _fill(graph, inside, tight, draw)
        if inside.sum() < before[0].sum() and draw.random() > 0.02:
            inside, tight = before
        elif inside.sum() > best.sum():
            best = inside.copy()
    return [int(place) for place in np.flatnonzero(best)]


def _fill(graph: np.ndarray, inside: np.ndarray, tight: np.ndarray, draw: np.random.Generator) -> None:
    """Take in what is like nobody inside, those first that are like the fewest of such; ties by chance."""
    while len(free := np.flatnonzero(~inside & (tight == 0))):
        crowd = graph[np.ix_(free, free)].sum(axis=1) + draw.random(len(free))
        chosen = free[crowd.argmin()]
        inside[chosen] = True
        tight += graph[chosen]


def at_least(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The share that a trial hits with at least, at this confidence: the lower bound of Clopper and Pearson 1934,
    one-sided. 0 without trials.

    For a sample without replacement out of a finite library it is on the safe side.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials")
    low, high = (0.0, 1.0) if hits else (0.0, 0.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(hits, trials, middle) < 1 - confidence else (low, middle)
    return low


def at_most(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The share that a trial hits with at most; see `at_least`. 1 without trials."""
    return 1 - at_least(trials - hits, trials, confidence)


def _tail(hits: int, trials: int, share: float) -> float:
    """The chance of so many hits or more."""
    if not 0 < share < 1:
        return float(share >= 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])  # of factorials
    count = np.arange(hits, trials + 1)
    log = logs[trials] - logs[count] - logs[trials - count] + count * math.log(share)
    return float(np.exp(log + (trials - count) * math.log1p(-share)).sum())


def pairs_at_most(share: float, voices: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the share of all pairs that are alike, where `share` of the pairs of `voices` random ones are.

    Pairs that have a voice in common are not independent; what counts are voices // 2 pairs that have none (Hoeffding
    1963, "Probability inequalities for sums of bounded random variables", section 5a, with his bound of theorem 1).
    """
    pairs = voices // 2
    if not pairs:
        return 1.0
    limit = -math.log(1 - confidence) / pairs
    low, high = share, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(share, middle) < limit else (low, middle)
    return high


def _divergence(share: float, other: float) -> float:
    """Kullback and Leibler's, of two coins, in nats."""
    terms = ((share, other), (1 - share, 1 - other))
    return math.fsum(a * math.log(a / b) if b > 0 else math.inf for a, b in terms if a > 0)


class EqualError(NamedTuple):
    """rate: of both errors; threshold: the cosine from which on two clips are called one voice."""

    rate: float
    threshold: float


def equal_error(same: Sequence[float], different: Sequence[float]) -> EqualError:
    """Where as many of the cosines `same` are below the threshold as of `different` are not; halfway where no
    threshold makes them equal. Raises ValueError if one of the two is empty."""
    if not len(same) or not len(different):
        raise ValueError("an equal error rate takes cosines of both kinds")
    mine, others = np.sort(np.asarray(same)), np.sort(np.asarray(different))
    thresholds = np.unique(np.concatenate([mine, others, [np.nextafter(others[-1], np.inf)]]))
    missed = np.searchsorted(mine, thresholds) / len(mine)
    taken = 1 - np.searchsorted(others, thresholds) / len(others)
    place = int(np.abs(missed - taken).argmin())
    return EqualError(float(missed[place] + taken[place]) / 2, float(thresholds[place]))


def stratified(groups: Sequence[Hashable], size: int, seed: int) -> list[int]:
    """Places of `size` members drawn by `seed`, in order, each group by its share (largest remainders first).

    All of them where there are no more. Within a group a larger draw holds the smaller one.
    """
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    names = sorted(members, key=str)
    size = min(size, len(groups))
    quotas = {name: size * len(members[name]) / max(1, len(groups)) for name in names}
    counts = {name: int(quotas[name]) for name in names}
    for name in sorted(names, key=lambda name: counts[name] - quotas[name])[: size - sum(counts.values())]:
        counts[name] += 1
    chosen: list[int] = []
    for name in names:
        random.Random(derive_seed(seed, "audit", name)).shuffle(members[name])
        chosen += members[name][: counts[name]]
    return sorted(chosen)


def flat(rows: np.ndarray) -> np.ndarray:
    """float64 [n, 2]: the two main components of embeddings [n, dim], for a map (distances are only roughly kept).

    For points of length 1 this is classical multidimensional scaling of their distances. Of either sign the one is
    taken that makes the component's largest weight positive.
    """
    rows = np.asarray(rows, np.float64)
    if len(rows) < 2:
        return np.zeros((len(rows), 2))
    centred = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.array([[np.sign(axis[np.abs(axis).argmax()]) or 1.0] for axis in axes[:2]])
    points = centred @ axes.T
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
