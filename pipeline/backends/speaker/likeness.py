"""What speaker embeddings say about who speaks."""

from __future__ import annotations

import numpy as np

DENSITY = 2.5
"""Windows a second that `unity` wants; with 1.3 it misses several times as many."""
LEAST = 3
"""Windows (2.4 s) of each of two people, below which one cannot be told from somebody who varies."""


def unity(windows: np.ndarray) -> float:
    """How alike the two parts are that the windows of a clip fall into best; near 1 if one person speaks throughout.

    windows: [windows, dim] of length 1, in order, DENSITY a second. The lesser of two cosines between the parts' means:
    of what is before and after the best cut, and, for people who take turns, of two clusters (spherical 2-means from
    the two windows that differ most). 1 where a part would have fewer than LEAST windows.
    """
    if len(windows) < 2 * LEAST:
        return 1.0
    return min(_best_cut(windows), _two_clusters(windows))


def _best_cut(windows: np.ndarray) -> float:
    places = range(LEAST, len(windows) - LEAST + 1)
    return min(float(mean(windows[:place]) @ mean(windows[place:])) for place in places)


def _two_clusters(windows: np.ndarray, rounds: int = 20) -> float:
    alike = windows @ windows.T
    centres = windows[list(np.unravel_index(alike.argmin(), alike.shape))]
    for _ in range(rounds):
        second = (windows @ centres.T).argmax(axis=1) == 1
        if not LEAST <= np.count_nonzero(second) <= len(windows) - LEAST:
            return 1.0
        centres = np.stack([mean(windows[~second]), mean(windows[second])])
    return float(centres[0] @ centres[1])


def mean(embeddings: np.ndarray) -> np.ndarray:
    """The mean of [n, dim], of length 1: float32 [dim]."""
    total = embeddings.sum(axis=0, dtype=np.float64)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), np.float32)
