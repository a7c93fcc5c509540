"""Shortest alignments of two sequences (Levenshtein, 1966), by the library that jiwer counts with."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

Span = tuple[int, int, int, int]
"""Begin and end in the one sequence, begin and end in the other."""


def distance(said: Sequence[Hashable], heard: Sequence[Hashable]) -> int:
    """Edits (substitutions, deletions, insertions) that make `heard` of `said`."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(*_numbered(said, heard))


def rate(said: Sequence[Hashable], heard: Sequence[Hashable]) -> float:
    """Edits a token of `said`, at least one."""
    return distance(said, heard) / max(1, len(said))


def runs(said: Sequence[Hashable], heard: Sequence[Hashable]) -> Iterator[tuple[str, Span]]:
    """The runs of a shortest alignment in order: "equal", "replace" (as many of each), "delete" or "insert"."""
    from rapidfuzz.distance import Levenshtein

    for code in Levenshtein.opcodes(*_numbered(said, heard)):
        yield code.tag, (code.src_start, code.src_end, code.dest_start, code.dest_end)


def blocks(said: Sequence[Hashable], heard: Sequence[Hashable]) -> Iterator[tuple[bool, Span]]:
    """The runs of equal items (True), and what is between two of them as one (False)."""
    open_ = (0, 0, 0, 0)
    for tag, span in runs(said, heard):
        if tag == "equal":
            if open_[1] > open_[0] or open_[3] > open_[2]:
                yield False, open_
            yield True, span
            open_ = (span[1], span[1], span[3], span[3])
        else:
            open_ = (open_[0], span[1], open_[2], span[3])
    if open_[1] > open_[0] or open_[3] > open_[2]:
        yield False, open_


def _numbered(said: Sequence[Hashable], heard: Sequence[Hashable]) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    """Both with a number for each token: what is compared is no hash, which other processes would have another of."""
    if isinstance(said, str) and isinstance(heard, str):
        return said, heard
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(item, len(numbers)) for item in said], [
        numbers.setdefault(item, len(numbers)) for item in heard
    ]
