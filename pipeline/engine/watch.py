"""Notices a studio that hangs: the same dialogue of a unit is in hand for longer than the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence

from pipeline.stages.studio import Progress


class Watch:
    """deadline: seconds, None for never. clock: monotonic, so that one that is set while the run goes on kills nobody.

    hung: units that were found stuck, with what to say of the dialogue that they had in hand.
    """

    def __init__(self, deadline: float | None, clock: Callable[[], float] = time.monotonic):
        self._deadline = deadline
        self._clock = clock
        self._seen: dict[Hashable, dict[int, tuple[int, float]]] = {}
        self.hung: dict[int, str] = {}

    def stuck(self, studio: Hashable, units: Sequence[Progress]) -> str:
        """What to say of a studio with these units under way; "" where all of them move, or none is there. A studio
        that no longer answers is to be asked about with its last answer."""
        if self._deadline is None:
            return ""
        now, before = self._clock(), self._seen.get(studio, {})
        seen = {}
        for item in units:
            done, since = before.get(item.unit, (-1, now))
            seen[item.unit] = (item.done, since if done == item.done else now)
        self._seen[studio] = seen
        stuck = [unit for unit, (_, since) in seen.items() if now - since >= self._deadline]
        if not stuck:
            return ""
        self.forget(studio)
        self.hung |= dict.fromkeys(stuck, f"hung for {self._deadline:g} s")
        names = ", ".join(map(str, stuck))
        return f"a dialogue of unit {names} hung for {self._deadline:g} s (engine.deadline): its worker is replaced"

    def forget(self, studio: Hashable) -> None:
        """It died, or begins anew."""
        self._seen.pop(studio, None)
