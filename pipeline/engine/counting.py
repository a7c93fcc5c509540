"""How far it is, where things are counted that take seconds each."""

from __future__ import annotations

import sys
import time


class CountProgress:
    """Tells how far a long count is, on standard error: over and over in one line of a terminal, else now and then.

    done: what was done to them ("measured"); thing: what they are, one of them ("voice").
    """

    INTERVAL = 10.0

    def __init__(self, done: str, thing: str) -> None:
        self._words = done, thing
        self._live = sys.stderr.isatty()
        self._started = self._told = time.monotonic()
        self._before = -1

    def __call__(self, done: int, count: int, cpu: float) -> None:
        """done of count are done; cpu: seconds that those of this call took together."""
        now = time.monotonic()
        if self._before < 0:
            self._before = done
        fresh, elapsed = done - self._before, now - self._started
        if not self._live and fresh and done < count and now - self._told < self.INTERVAL:
            return
        self._told = now
        verb, thing = self._words
        line = f"{verb} {done} of {count} {thing}s"
        if fresh:
            left = elapsed / fresh * (count - done)
            line += f" · {_clock(elapsed)} elapsed, {_clock(left)} left · {cpu / fresh:.1f} CPU s a {thing}"
        end = "\r" if self._live and done < count else "\n"
        print(line.ljust(100 if self._live else 0), end=end, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
