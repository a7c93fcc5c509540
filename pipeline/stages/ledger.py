"""The hard cap: what all workers of a run together have spent, and what they may still have to pay.

A small file that every worker changes under a lock (flock; NFS has it, an object store does not). Amounts are whole
nano-dollars, rounded up, so that no sum drifts.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import BudgetError, DataError
from pipeline.shards.disk import storage_errors

_NANO = 1_000_000_000
_POLL = 0.1  # seconds
_BYTES = 128  # the file's size; always written whole, by one call


@dataclass(frozen=True)
class Sums:
    """Nano-dollars. spent: told by the endpoints. reserved: the most that requests under way may cost. unsettled: the
    most that requests may have cost that ended without a bill (a timeout, a lost connection, a killed worker)."""

    spent: int = 0
    reserved: int = 0
    unsettled: int = 0

    @property
    def total(self) -> int:
        return self.spent + self.reserved + self.unsettled


class Ledger:
    """One worker's hand on the ledger of a run. budget: dollars; patience: seconds to wait for what other workers hold
    while nothing changes. Raises DataError for a file that is no ledger.

    The sum of all three amounts never passes the budget by a reservation, whatever else is killed and when: who dies
    leaves its reservations in the file.
    """

    def __init__(self, path: Path, budget: float, patience: float = 60.0):
        self._budget = budget
        self._patience = patience
        self._own = 0  # reservations under way
        self._waiting: set[asyncio.Future[None]] = set()
        self._path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        with self._locked():
            pass

    async def reserve(self, dollars: float) -> None:
        """Set the worst case of a request aside. Waits for own requests under way if there is no room, because most
        cost less than their worst case. Raises BudgetError."""
        amount = _nano(dollars)
        patience = _Patience(self._patience)
        while not self._take(amount):
            if not self._own:
                # Others may hold what they will not need; a dead one holds it for ever, and then nothing changes.
                if not self.sums().reserved or patience.ends(self.sums()):
                    raise BudgetError(self._refusal(amount))
                await asyncio.sleep(_POLL)
                continue
            settled = asyncio.get_running_loop().create_future()
            self._waiting.add(settled)
            try:
                await settled
            finally:
                self._waiting.discard(settled)
        self._own += 1

    def settle(self, reserved: float, cost: float | None) -> None:
        """The request ended. cost: dollars, None where it may have been billed and nobody said how much."""
        amount = _nano(reserved)
        with self._locked() as sums:
            if cost is None:
                after = replace(sums, unsettled=sums.unsettled + amount)
            else:
                after = replace(sums, spent=sums.spent + _nano(cost))
            self._write(replace(after, reserved=after.reserved - amount))
        self._own -= 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def sums(self) -> Sums:
        with self._locked() as sums:
            return sums

    def rebuild(self, spent: float, unsettled: float) -> Sums:
        """Start anew from what the journals of the run hold, in dollars. Only while no worker is at work.

        What the file knows to be gone beyond that (a reply that was lost before it was written down, reservations of
        the dead) stays counted, as unsettled.
        """
        with self._locked() as before:
            paid, doubtful = _nano(spent), _nano(unsettled)
            sums = Sums(paid, 0, max(doubtful, before.total - paid))
            self._write(sums)
            return sums

    def close(self) -> None:
        self._file.close()

    def _take(self, amount: int) -> bool:
        with self._locked() as sums:
            if sums.total + amount > self._budget * _NANO:
                return False
            self._write(replace(sums, reserved=sums.reserved + amount))
            return True

    def _refusal(self, amount: int) -> str:
        sums = self.sums()
        spent, held, doubt, next_one = (
            f"${part / _NANO:.4f}" for part in (sums.spent + sums.unsettled, sums.reserved, sums.unsettled, amount)
        )
        return (
            f"writer.budget={self._budget:g}: {spent} is spent"
            + (f" ({doubt} of it by requests that ended without a bill)" if sums.unsettled else "")
            + (f", {held} is held for requests of other workers" if sums.reserved else "")
            + f", the next request may cost {next_one}; what was written is kept: raise writer.budget and give the "
            "same command again"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Sums]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield self._read()
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _read(self) -> Sums:
        data = os.pread(self._file.fileno(), _BYTES, 0)
        if not data:
            return Sums()
        try:
            return Sums(**{name: int(value) for name, value in json.loads(data).items()})
        except (ValueError, TypeError, AttributeError):
            raise DataError(f"{self._path}: not a ledger: remove it, and what is spent is counted anew") from None

    def _write(self, sums: Sums) -> None:
        line = json.dumps({"spent": sums.spent, "reserved": sums.reserved, "unsettled": sums.unsettled})
        with storage_errors(self._path):
            os.pwrite(self._file.fileno(), line.ljust(_BYTES - 1).encode() + b"\n", 0)


class _Patience:
    """How long the sums have stayed as they are."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._seen: Sums | None = None
        self._since = 0.0

    def ends(self, sums: Sums) -> bool:
        if sums != self._seen:
            self._seen, self._since = sums, time.monotonic()
        return time.monotonic() - self._since >= self._seconds


def _nano(dollars: float) -> int:
    """Rounded up, but not for what a float has behind its last digit."""
    return math.ceil(round(dollars * _NANO, 3))
