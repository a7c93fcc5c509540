"""How many workers a cluster has room for: each claims shares of the CPUs and GPUs of one node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.config import EngineConfig

SHARE = 10_000
"""Parts of a CPU or a GPU: Ray counts in whole numbers of them, so that ten times 0.1 is 1."""


@dataclass(frozen=True)
class Claim:
    """What a worker takes of its node, in parts of SHARE. Up to one GPU it is a share of a single one, above that whole
    ones."""

    cpus: int
    gpus: int

    @property
    def any(self) -> bool:
        return bool(self.cpus or self.gpus)


def studio_claim(engine: EngineConfig) -> Claim:
    # What is less than a part is one: a claim of nothing would have room anywhere, as often as one likes.
    return Claim(max(1, _parts(engine.studio_cpus)), _parts(engine.studio_gpus))


def writer_claim(engine: EngineConfig) -> Claim:
    return Claim(_parts(engine.writer_cpus), _parts(engine.writer_gpus))


def studios(nodes: Iterable[Mapping[str, float]], engine: EngineConfig, at_worst: bool = False) -> int:
    """How many studios there is room for beside the writers. nodes: their resources as Ray names them (CPU, GPU).

    at_worst: where Ray, which does not ask what comes after them, places the writers so that the fewest are left.
    """
    rooms = [_Room(_parts(node.get("CPU", 0)), [SHARE] * int(node.get("GPU", 0))) for node in nodes]
    writer, studio = writer_claim(engine), studio_claim(engine)
    for _ in range(engine.writers if writer.any else 0):
        having = [room for room in rooms if room.count(writer)]
        if not writer.gpus:
            having = [room for room in having if not room.gpus] or having  # as Ray does it
        if having:
            (max(having, key=lambda room: room.loss(writer, studio)) if at_worst else having[0]).take(writer)
    return sum(room.count(studio) for room in rooms)


def fits(node: Mapping[str, float], claim: Claim) -> bool:
    """Whether an empty node has room for one such worker."""
    room = _Room(_parts(node.get("CPU", 0)), [SHARE] * int(node.get("GPU", 0)))
    return not claim.any or room.count(claim) > 0


def _parts(count: float) -> int:
    return round(count * SHARE)


@dataclass
class _Room:
    """What is left of a node. gpus: of each of them."""

    cpus: int
    gpus: list[int]

    def count(self, claim: Claim) -> int:
        """How many of these there is room for."""
        rooms = [self.cpus // claim.cpus] if claim.cpus else []
        if claim.gpus > SHARE:
            rooms.append(self.gpus.count(SHARE) // (claim.gpus // SHARE))
        elif claim.gpus:
            rooms.append(sum(left // claim.gpus for left in self.gpus))
        return min(rooms)

    def loss(self, claim: Claim, other: Claim) -> int:
        """How many of `other` there is no more room for beside the claim."""
        left = _Room(self.cpus, list(self.gpus))
        left.take(claim)
        return self.count(other) - left.count(other)

    def take(self, claim: Claim) -> None:
        self.cpus -= claim.cpus
        left = claim.gpus
        # The fullest that has room, as Ray does it.
        for place in sorted(range(len(self.gpus)), key=lambda place: self.gpus[place]):
            share = min(left, SHARE)
            if share and self.gpus[place] >= share:
                self.gpus[place] -= share
                left -= share
