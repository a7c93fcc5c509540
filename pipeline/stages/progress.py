"""Where a studio stands, for the driver to read while the work goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.dialogue import Repair


@dataclass
class Cost:
    """Seconds spent by a stage (wall and CPU of this process), and seconds of audio that went through it.

    held: of the wall seconds, this unit's share of the studio: units at work beside it have the rest.
    """

    wall: float = 0.0
    held: float = 0.0
    cpu: float = 0.0
    audio: float = 0.0


@dataclass
class Repaired:
    """What a rung of the ladder did. takes: spoken for it, and their seconds of audio; saved: turns of accepted
    dialogues that failed at first and whose kept take is one of them."""

    takes: int = 0
    audio: float = 0.0
    saved: int = 0


@dataclass
class Progress:
    """Where a studio stands in a unit. held: bytes of the clips of its largest dialogue, all takes, so far."""

    unit: int = -1
    dialogues: int = 0
    done: int = 0
    accepted: int = 0
    seconds: float = 0.0
    held: int = 0
    costs: dict[str, Cost] = field(default_factory=dict)
    repairs: dict[Repair, Repaired] = field(default_factory=dict)

    @property
    def repaired(self) -> int:
        """Turns that were saved, by whatever rung."""
        return sum(item.saved for item in list(self.repairs.values()))
