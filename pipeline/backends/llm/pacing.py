"""Limits a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_MINUTE = 60.0
_BURST = 1.0  # seconds' worth that may go at once: servers count by the second, too


class Pacer:
    """Lets at most `limit` go in any minute, evenly, first come first served (the generic cell rate algorithm of
    ITU-T I.371, as a virtual schedule). An amount can be corrected afterwards, which a bucket that only fills cannot.

    A single amount above the limit goes too, and the next one waits the longer for it. clock: seconds.
    """

    def __init__(
        self,
        limit: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        # The burst comes on top of what a minute lets through, so the pace is that much slower.
        self._seconds = (_MINUTE + _BURST) / limit
        self._clock = clock
        self._sleep = sleep
        self._next = clock() - _BURST

    @property
    def delay(self) -> float:
        """Seconds that a new one would wait."""
        return max(0.0, self._next - self._clock())

    async def admit(self, amount: float) -> None:
        """Wait for the turn of `amount`."""
        self._next = max(self._next, self._clock() - _BURST)
        wait = self._next - self._clock()
        self._next += amount * self._seconds
        if wait > 0:
            try:
                await self._sleep(wait)
            except asyncio.CancelledError:
                self.correct(-amount)
                raise

    def correct(self, amount: float) -> None:
        """So much more (or less) went than was said."""
        self._next += amount * self._seconds
