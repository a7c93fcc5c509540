"""Exact and near duplicates among dialogues: MinHash, locality-sensitive hashing, and the lowest id wins.

Two dialogues are exact duplicates if all their turns hold the same units (text/ngrams.py). They are near duplicates if
the share of equal slots in their MinHash signatures, which estimates the Jaccard similarity of their n-gram sets, is at
least `similarity` (Broder, "On the resemblance and containment of documents", 1997). With SLOTS = 128 the standard
error of the estimate is below 0.04.

The rule. Dialogues are numbered in the order in which they are added. j is dropped if some *kept* i < j is

- an exact duplicate of it, or
- a near duplicate of it and a candidate: in one of the bands j's bucket (all with the same slots in that band) holds i
  among its FIRST lowest members. Members are the lowest of each set of exact duplicates, and those that are known to
  be kept.

A dialogue that is known to have been dropped for a likeness (DROPPED: it was judged before, and its verdict stands) is
nobody's reason, but it is a member, so that a run judged step by step says what one judgement of it all would. If it
is like nobody any more, because the texts before it were edited, the lowest copy of it is judged in its own right and
stands in its place from there on.

So the verdict on j hangs on nothing but the texts up to j: more dialogues never change an earlier one, and neither
does the order of work. An exact duplicate of a dropped dialogue is dropped for the same reason.

Bands and rows (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3.4): two dialogues of similarity s
share a bucket in one of b bands of r slots with probability 1 - (1 - s^r)^b. `bands_for` takes the most rows that keep
this at least RECALL at the threshold; at 0.8 these are 21 bands of 6 rows, which find 99.8 % at 0.8 and 28 % at 0.5.

Memory. What was added lies in a scratch folder: for each dialogue a signature of 512 bytes, 8 bytes a band and 8 for
the exact duplicates; then the candidates of one band after the other, at most 8 * FIRST bytes a dialogue and band. In
memory there are a few numbers a dialogue, about 50 bytes while one band is sorted and 90 where all are alike, and the
signatures of one block of pairs. Measured: 7 million dialogues are resolved in 0.42 GB (0.68 where all are alike) and
36 CPU seconds (161), beside 4.9 GB of disk (at most 9.6).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.dialogue import Language
from pipeline.text.ngrams import Hashes, Units, mix, ngrams

SLOTS = 128
FIRST = 4
RECALL = 0.99
SEED = 42
OPEN, KEPT, OUT, DROPPED = 0, 1, 2, 3
"""What is known of a dialogue beforehand: nothing, that it is kept whatever it is like, that it is not there, that it
was dropped for a likeness."""

_BLOCK = 1 << 16
_PAIRS = 1 << 14
"""Pairs whose signatures are compared at a time: about 32 MB."""
_BYTES = 4 * SLOTS


def bands_for(similarity: float) -> tuple[int, int]:
    """(bands, rows): the most rows with which a pair of that similarity is found with a probability of RECALL."""
    for rows in range(SLOTS, 1, -1):
        bands = SLOTS // rows
        if 1 - (1 - similarity**rows) ** bands >= RECALL:
            return bands, rows
    return SLOTS, 1


@dataclass(frozen=True)
class Likeness:
    """Why each dialogue is dropped; arrays of shape [dialogues].

    of: number of the kept dialogue that it is like, -1 if it is not dropped. similarity: the estimate, in [0, 1].
    exact: whether it is an exact duplicate of it.
    """

    of: NDArray[np.int32]
    similarity: NDArray[np.float32]
    exact: NDArray[np.bool_]


class Duplicates:
    """Add all dialogues in the order of their ids, then ask once. `scratch`: an empty folder of its own."""

    def __init__(self, scratch: Path, similarity: float, ngram: Mapping[Language, int]):
        self._least = int(np.ceil(similarity * SLOTS - 1e-9))
        self._ngram = ngram
        self._bands, self._rows = bands_for(similarity)
        self._signatures = scratch / "signatures"
        self._exact = scratch / "exact"
        self._keys = [scratch / f"band-{number:03d}" for number in range(self._bands)]
        self._states: list[NDArray[np.uint8]] = []

    def add(self, turns: Units, counts: Sequence[int], languages: Sequence[Language], states: Sequence[int]) -> None:
        """A batch of dialogues: the units of all their turns, and of each how many turns it has, its language and
        what is known of it (OPEN, KEPT, OUT, DROPPED)."""
        import rensa

        ends = np.cumsum(counts)
        starts = turns.starts[np.concatenate([[0], ends])]
        shingles = ngrams(Units(turns.hashes, starts), [self._ngram[language] for language in languages])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.hashes, shingles.starts.astype(np.uint64), SLOTS, SEED
        )
        signatures = np.array(matrix.to_rows(), np.uint32).reshape(len(counts), SLOTS)
        known = np.array(states, np.uint8)
        _append(self._signatures, signatures)
        _append(self._exact, _text_keys(turns, ends))
        for number, path in enumerate(self._keys):
            _append(path, _band_keys(signatures[:, number * self._rows : (number + 1) * self._rows]))
        self._states.append(known)

    def resolve(self) -> Likeness:
        """The verdicts on all that was added; only OPEN ones are ever dropped here."""
        states = np.concatenate([*self._states, np.empty(0, np.uint8)])
        if not len(states):
            return Likeness(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.bool_))
        first = self._first_of_equal(states)
        members = np.flatnonzero((states != OUT) & ((first == np.arange(len(states))) | (states == KEPT)))
        stands = _stand_ins(first, states)
        # A stand-in is no member: the one whose place it may take is.
        waiting = np.unique(stands[(stands >= 0) & (states[stands] == OPEN)])
        found = [pairs for path in self._keys for pairs in self._band(path, members.astype(np.int32), waiting, states)]
        likeness = self._greedy(found, states, stands)
        return _with_exact(likeness, first, stands, states)

    def _first_of_equal(self, states: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Of each dialogue the lowest with the same text; itself where it is OUT."""
        first = np.arange(len(states), dtype=np.int32)
        there = np.flatnonzero(states != OUT)
        keys = np.fromfile(self._exact, np.uint64)[there]
        order = np.argsort(keys, kind="stable")
        first[there[order]] = there[order[_bucket_starts(keys[order])]]
        return first

    def _band(
        self, path: Path, members: NDArray[np.int32], waiting: NDArray[np.int32], states: NDArray[np.uint8]
    ) -> Iterator[_Pairs]:
        """The candidates of one band: each member, and each stand-in that waits, with the bucket's lowest members, rank
        by rank."""
        keys = np.fromfile(path, np.uint64)
        asked, keys = keys[waiting], keys[members]
        order = np.argsort(keys, kind="stable")  # members ascend, so a bucket does too
        keys = keys[order]
        starts, begins = _bucket_starts(keys), np.searchsorted(keys, asked)
        ends = np.searchsorted(keys, asked, "right")
        del keys
        rank = np.arange(len(order)) - starts
        known = states[members[order]]
        judged = (known == OPEN) | (known == DROPPED)
        for number in range(FIRST):
            at = np.flatnonzero((rank > number) & judged)
            there = np.flatnonzero(begins + number < ends)
            lowest = members[order[begins[there] + number]]
            before = lowest < waiting[there]
            if not len(at) and not before.any():
                return
            later = np.concatenate([members[order[at]], waiting[there][before]])
            lower = np.concatenate([members[order[starts[at] + number]], lowest[before]])
            yield _Pairs.save(path.with_name(f"{path.name}-{number}"), later, lower, len(states))

    def _greedy(self, found: Sequence[_Pairs], states: NDArray[np.uint8], stands: NDArray[np.int32]) -> Likeness:
        """Blocks in the order of ids; what is already dropped is nobody's reason, and need not be compared."""
        total = len(states)
        of, similarity = np.full(total, -1, np.int32), np.zeros(total, np.float32)
        for block in range(-(-total // _BLOCK)):
            packed = np.unique(np.concatenate([np.empty(0, np.int64), *(item.block(block) for item in found)]))
            pairs = np.column_stack([packed >> 32, packed & 0xFFFFFFFF])
            pairs = pairs[of[pairs[:, 1]] < 0]
            equal = self._equal_slots(pairs)
            near = equal >= self._least
            pairs, equal = pairs[near], equal[near]
            known = (states[pairs[:, 1]] == DROPPED).tolist()
            for (later, lower), slots, dropped in zip(pairs.tolist(), equal.tolist(), known, strict=True):
                if dropped and of[lower] < 0:
                    lower = int(stands[lower])
                    if not 0 <= lower < later:
                        continue
                if of[later] < 0 and of[lower] < 0:  # pairs ascend: all about `lower` is settled
                    of[later], similarity[later] = lower, slots / SLOTS
        return Likeness(of, similarity, np.zeros(total, np.bool_))

    def _equal_slots(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        equal = np.zeros(len(pairs), np.int64)
        with self._signatures.open("rb") as file:
            for start in range(0, len(pairs), _PAIRS):
                numbers, place = np.unique(pairs[start : start + _PAIRS], return_inverse=True)
                # Read, not mapped: each page that is touched would bring its neighbours and stay in memory.
                data = b"".join(os.pread(file.fileno(), _BYTES, _BYTES * number) for number in numbers.tolist())
                slots = np.frombuffer(data, np.uint32).reshape(-1, SLOTS)[place]
                equal[start : start + _PAIRS] = (slots[:, 0] == slots[:, 1]).sum(axis=1)
        return equal


@dataclass(frozen=True)
class _Pairs:
    """Pairs of numbers in a file, ascending, each as later * 2^32 + lower; bounds: where each block of later begins."""

    path: Path
    bounds: NDArray[np.int64]

    @classmethod
    def save(cls, path: Path, later: NDArray[np.int32], lower: NDArray[np.int32], total: int) -> _Pairs:
        pairs = np.sort(later.astype(np.int64) << 32 | lower)
        pairs.tofile(path)
        return cls(path, np.searchsorted(pairs, np.arange(0, total + _BLOCK, _BLOCK) << 32))

    def block(self, number: int) -> NDArray[np.int64]:
        start, end = (int(bound) for bound in self.bounds[number : number + 2])
        return np.fromfile(self.path, np.int64, end - start, offset=8 * start)


def _stand_ins(first: NDArray[np.int32], states: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Of each DROPPED dialogue that is the lowest of its copies, the next lowest one that is not DROPPED; else -1."""
    stands = np.full(len(states), -1, np.int32)
    copies = np.flatnonzero((states[first] == DROPPED) & (states != DROPPED))
    lowest, place = np.unique(first[copies], return_index=True)
    stands[lowest] = copies[place]
    return stands


def _with_exact(
    near: Likeness, first: NDArray[np.int32], stands: NDArray[np.int32], states: NDArray[np.uint8]
) -> Likeness:
    """Exact duplicates go the way of the lowest of them: they are like it, or like what it was dropped for."""
    alone = (stands >= 0) & (near.of < 0)
    first = np.where(alone[first], stands[first], first)
    copies = np.flatnonzero((first != np.arange(len(first))) & (states == OPEN))
    lowest = first[copies]
    kept = near.of[lowest] < 0
    near.of[copies] = np.where(kept, lowest, near.of[lowest])
    near.similarity[copies] = np.where(kept, 1.0, near.similarity[lowest])
    near.exact[copies] = kept
    settled = states != OPEN
    near.of[settled], near.similarity[settled] = -1, 0
    return near


def _bucket_starts(keys: Hashes) -> NDArray[np.int64]:
    """Of each of the sorted keys, where the run of equal ones begins."""
    starts = np.arange(len(keys))
    starts[1:][keys[1:] == keys[:-1]] = 0
    return np.maximum.accumulate(starts, out=starts)


def _text_keys(turns: Units, ends: NDArray[np.int64]) -> Hashes:
    """64 bits for the units of all turns and where each turn ends."""
    starts, data, keys = turns.starts, turns.hashes.tobytes(), []
    begin = 0
    for end in ends.tolist():
        lengths = np.diff(starts[begin : end + 1]).tobytes()
        text = data[8 * int(starts[begin]) : 8 * int(starts[end])]
        keys.append(int.from_bytes(blake2b(lengths + text, digest_size=8).digest(), "little"))
        begin = end
    return np.array(keys, np.uint64)


def _band_keys(slots: NDArray[np.uint32]) -> Hashes:
    """64 bits for the slots of a band, shape [dialogues, rows]."""
    keys = np.zeros(len(slots), np.uint64)
    for column in slots.T:
        keys = mix(keys ^ column) + np.uint64(0x9E3779B97F4A7C15)
    return keys


def _append(path: Path, values: NDArray[np.generic]) -> None:
    with path.open("ab") as file:
        values.tofile(file)
