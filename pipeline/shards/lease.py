"""Who may write to a run on a store: one driver by its lease, and one worker a unit by its claim.

No clock of another machine is trusted: a lease is alive if it is seen to change.

Why nothing is doubled or mixed, though workers of a dead driver may live on: whatever is published is put on the
condition that nothing is there, so a late put changes nothing. What could harm is removing: of what an interrupted try
left, a late worker may think that it lies there, and publish the manifest that names it. So before anything of a unit
is removed, a claim, which no two processes write alike, is put in the manifest's place, on the condition that nothing
is there or that it is the claim that was seen. The late worker's manifest is refused from then on: its condition, that
nothing is there, or its own claim, does not hold. The claim's owner puts its manifest on the condition that its claim
still stands, so that nobody has removed anything since. Readers take a claim for a missing manifest. What remains is
one request to remove a leftover that is under way for longer than it takes to find its driver dead, and for the unit to
be made anew: `verify` finds such a unit damaged, and `repair` has it made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.dialogue import Split
from pipeline.errors import RunFolderError, StorageError
from pipeline.shards.remote import Refused, StorePath

if TYPE_CHECKING:
    from pipeline.shards.store import RunFolder

RENEW = 5.0
"""Seconds between two renewals of a lease."""
WATCH = 6
"""Renewals that do not come, after which a lease is taken over."""
CLAIM = b"claim "
_CLAIM_BYTES = len(CLAIM) + 33


def put_own(path: StorePath, data: bytes, **condition: str) -> str:
    """The ETag of `data`, which nobody else ever puts: if a put is refused, its answer may have been lost, and this
    was the second try. Raises Refused."""
    try:
        return path.put(data, **condition)
    except (Refused, FileNotFoundError):
        with contextlib.suppress(FileNotFoundError):
            etag = str(path.head()["ETag"])
            if path.read_bytes() == data:
                return etag
        raise Refused(17, "exists, or was changed", str(path)) from None


# ---- claims ----


def is_claim(size: int) -> bool:
    """Whether what lies in the place of a manifest is a claim, by its size: a manifest is longer."""
    return size == _CLAIM_BYTES


def discard(folder: RunFolder, unit: int, split: Split) -> str:
    """Remove what an interrupted try of a unit left; returns the claim on which its manifest is to be put, "" where
    nothing was left. Raises FileExistsError for a unit that has a manifest, or that somebody else has just claimed."""
    manifest = cast(StorePath, folder.manifest(unit, split))
    condition = {"IfNoneMatch": "*"}
    try:
        head = manifest.head()
    except FileNotFoundError:
        if not any(path.exists() for path in folder.unit_files(unit, split)):
            return ""
    else:
        if not is_claim(head["ContentLength"]):
            raise FileExistsError(17, "a published unit is never removed", str(manifest))
        condition = {"IfMatch": str(head["ETag"])}
    etag = put_own(manifest, CLAIM + uuid.uuid4().hex.encode() + b"\n", **condition)
    for path in folder.unit_files(unit, split):
        path.unlink(missing_ok=True)
    return etag


# ---- the driver's lease ----


class Lease:
    """An object that says who the driver is, put anew every few seconds.

    renew: seconds. lost: somebody else has taken it over; the main thread is interrupted then.
    """

    def __init__(self, path: StorePath, renew: float = RENEW):
        self._path = path
        self._renew = renew
        self._token = uuid.uuid4().hex
        self._beat = 0
        self._etag = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.lost = False

    def take(self) -> None:
        """Raises RunFolderError where another driver is alive, or the store heeds no conditions."""
        try:
            self._etag = put_own(self._path, self._line(), IfNoneMatch="*")
        except Refused:
            self._take_over()
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
            try:
                self._etag = self._path.put(self._line(), **condition)
            except (Refused, FileNotFoundError):
                continue
            raise RunFolderError(
                f"{self._path.parent.parent}: this store puts an object also where it was told not to "
                f"({next(iter(condition))}), so that exactly once cannot be promised; use another store, or a folder"
            )
        self._thread.start()

    def release(self) -> None:
        self._over.set()
        self._thread.join()
        if not self.lost:
            with contextlib.suppress(OSError, StorageError):  # who comes next has to watch it for a while
                put_own(self._path, self._line(released=True), IfMatch=self._etag)

    def _take_over(self) -> None:
        refusal = RunFolderError(
            f"{self._path.parent.parent}: another speechchat run is writing to this folder; wait for it or stop it"
        )
        seen = str(self._path.head()["ETag"])
        if not _ended(self._path.read_bytes()):
            deadline = time.monotonic() + WATCH * self._renew
            while time.monotonic() < deadline:
                time.sleep(self._renew / 4)
                if self._path.head()["ETag"] != seen:
                    raise refusal
        try:
            self._etag = put_own(self._path, self._line(), IfMatch=seen)
        except Refused:
            raise refusal from None

    def _line(self, released: bool = False) -> bytes:
        line = {"token": self._token, "beat": self._beat, "machine": _machine(), "pid": os.getpid()}
        return json.dumps({**line, "released": released}).encode()

    def _keep(self) -> None:
        while not self._over.wait(self._renew):
            self._beat += 1
            try:
                self._etag = put_own(self._path, self._line(), IfMatch=self._etag)
            except Refused:
                if self._is_ours():
                    continue
                self.lost = True
                _interrupt()
                return
            except StorageError:
                continue  # the store is away: what is published finds that too, and ends the run

    def _is_ours(self) -> bool:
        """Whether an earlier renewal lies there, whose answers were all lost: the next one is then put over it."""
        try:
            etag = str(self._path.head()["ETag"])
            if f'"token": "{self._token}"'.encode() not in self._path.read_bytes():
                return False
        except FileNotFoundError:
            return False
        except StorageError:
            return True  # nobody knows yet
        self._etag = etag
        return True


@contextlib.contextmanager
def driver_lease(folder: RunFolder) -> Iterator[None]:
    """Be the one driver of a run on a store. Raises RunFolderError, also when another has taken over."""
    lease = Lease(cast(StorePath, folder.logs) / "driver.lease", RENEW)
    lease.take()
    try:
        yield
    except KeyboardInterrupt:
        if not lease.lost:
            raise
        raise RunFolderError(
            f"{folder.root}: another speechchat run has taken this one over, as it had not been heard of for "
            f"{WATCH * RENEW:.0f} s; this one ends, and the other goes on with what is there"
        ) from None
    finally:
        lease.release()


def _interrupt() -> None:
    """As Ctrl-C does, whatever the main thread waits for."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # a background job of some shells hears none
        print("speechchat: another speechchat run has taken this one over; this one ends", file=sys.stderr, flush=True)
        os._exit(RunFolderError.exit_code)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _machine() -> str:
    """This boot of this machine and its space of process ids: within it, a process can be looked up. "" for none."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _ended(line: bytes) -> bool:
    """Whether a lease was given back, or its owner was a process of this machine that is gone."""
    try:
        holder: dict[str, Any] = json.loads(line)
        released, machine, pid = holder["released"], holder["machine"], int(holder["pid"])
    except (ValueError, KeyError, TypeError):
        return False
    if released or not machine or machine != _machine():
        return bool(released)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's
    return False
