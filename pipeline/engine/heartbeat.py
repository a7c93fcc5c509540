"""What a driver leaves in RUN/logs for whoever looks on: a heartbeat, and a line for each unit and each session.

RUN/logs/driver.json is written anew every few seconds while a driver lives. RUN/logs/timings.jsonl grows by a line for
each unit that was written or finished, and by one for each session when the next begins: so a killed one is counted
too. Both are logs: nothing that is published hangs on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType

from pydantic import Field, ValidationError

from pipeline.config import Config
from pipeline.dialogue import Record
from pipeline.engine.base import Done, Job, Observer, Pool, units_at_once
from pipeline.errors import StorageError
from pipeline.shards.disk import TEMPORARY
from pipeline.shards.manifest import Manifest
from pipeline.shards.parts import PartLog
from pipeline.shards.remote import is_remote
from pipeline.shards.store import RunFolder
from pipeline.stages.studio import Progress
from pipeline.stages.write import TextProgress

INTERVAL = 5.0  # seconds between beats
RECENT = 600.0  # seconds that "recent" looks back
TROUBLES = 5  # that a beat tells of
_GAP = 10.0  # seconds without a word of the engine, after which nothing is known of its workers


class Busy(Record):
    """Seconds, added up over workers: how long they were open, and how long they had a unit in hand.

    slots: of the studios, times the units that each works on at once. stages: wall seconds in them over all slots;
    one that waits for a batch that it shares counts as at work.
    """

    writers: float = 0.0
    writers_busy: float = 0.0
    studios: float = 0.0
    studios_busy: float = 0.0
    slots: float = 0.0
    stages: dict[str, float] = Field(default_factory=dict)

    def since(self, before: Busy) -> Busy:
        """What was added. A stage of a unit that was lost goes back; it counts as nothing."""
        stages = {name: max(0.0, value - before.stages.get(name, 0.0)) for name, value in self.stages.items()}
        names = ("writers", "writers_busy", "studios", "studios_busy", "slots")
        return Busy(**{name: getattr(self, name) - getattr(before, name) for name in names}, stages=stages)


class Trouble(Record):
    """time: seconds since 1970."""

    time: float
    message: str


class Session(Record):
    """What a driver has used. started, time: seconds since 1970, by its clock; time: when it last was heard of.

    cpu: seconds of the driver's own process. tokens, cost (dollars): of the writers, not of repairs.
    """

    started: float
    time: float
    cpu: float = 0.0
    tokens: int = 0
    cost: float = 0.0


class Beat(Session):
    """A driver, as it last said of itself.

    namespace: of process ids, "" where there are none: within one, `pid` can be looked up. outcome: "" while it lives,
    then "done", "interrupted" or why it ended. phase: starting, writing (all text first), comparing, working.
    """

    host: str
    pid: int
    namespace: str
    outcome: str = ""
    phase: str = "starting"
    writers: Pool = Pool()
    studios: Pool = Pool()
    spoken: int = 0  # dialogues of the units in hand
    busy: Busy = Busy()
    recent: Busy = Busy()
    troubles: tuple[Trouble, ...] = ()


def read_beat(folder: RunFolder) -> Beat | None:
    """The last heartbeat; None where there is none, or one that cannot be read: it is a log, and no data."""
    try:
        return Beat.model_validate_json(folder.heartbeat.read_bytes())
    except (OSError, ValidationError):
        return None


def process_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


class Recorder:
    """An Observer that keeps the logs and passes everything on; a context manager for who holds the driver's lock."""

    def __init__(self, job: Job, observer: Observer, interval: float = INTERVAL):
        self._folder = job.folder
        self._observer = observer
        self._interval = interval
        self._units_at_once = units_at_once(job.config)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        now = time.time()
        self._beat = Beat(
            started=now, time=now, host=socket.gethostname(), pid=os.getpid(), namespace=process_namespace()
        )
        self._gpus = job.config.engine.studio_gpus
        self._parts = PartLog(self._folder.timings) if is_remote(self._folder.root) else None
        self._lines: list[str] = []
        self._cpu = time.process_time()
        self._heard = time.monotonic()
        self._text = TextProgress()
        self._stages: dict[str, float] = {}
        self._history: deque[tuple[float, Busy]] = deque([(self._heard, Busy())])

    def __enter__(self) -> Recorder:
        before = read_beat(self._folder)
        if before is not None:
            # First the line, then the file that it is of: killed in between, a session is counted twice, not lost.
            self._append({"session": Session(**before.model_dump(include=set(Session.model_fields))).model_dump()})
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None or kind is KeyboardInterrupt:
            outcome = "interrupted" if kind else "done"
        else:
            outcome = " ".join(f"{kind.__name__}: {error}".split())[:500]
        self._update(outcome=outcome, writers=Pool(), studios=Pool(), spoken=0)
        self._write()

    # ---- Observer ----

    def planned(self, config: Config, done: Done) -> None:
        self._observer.planned(config, done)

    def writing(self, dialogues: int) -> None:
        self._update(phase="writing")
        self._observer.writing(dialogues)

    def wrote(self, unit: int, seconds: float) -> None:
        self._append({"unit": unit, "time": _now(), "stages": {"write": {"wall": seconds}}})
        self._observer.wrote(unit, seconds)

    def written(self, progress: TextProgress) -> None:
        """Counts what was added: a writer that was replaced, and another pass, begin at nothing."""
        old, self._text = self._text, TextProgress(tokens=progress.tokens, cost=progress.cost)
        with self._lock:
            tokens = self._beat.tokens + max(0, self._text.tokens - old.tokens)
            cost = self._beat.cost + max(0.0, self._text.cost - old.cost)
            self._beat = self._beat.model_copy(update={"tokens": tokens, "cost": cost})
        self._observer.written(progress)

    def compared(self, done: int, total: int) -> None:
        self._update(phase="comparing")
        self._observer.compared(done, total)

    def workers(self, writers: Pool, studios: Pool) -> None:
        """Adds the time since the last word to those that were open then."""
        now = time.monotonic()
        seconds, self._heard = min(now - self._heard, _GAP), now
        with self._lock:
            beat = self._beat
            busy = beat.busy.model_copy(
                update={
                    "writers": beat.busy.writers + beat.writers.open * seconds,
                    "writers_busy": beat.busy.writers_busy + beat.writers.busy * seconds,
                    "studios": beat.busy.studios + beat.studios.open * seconds,
                    "studios_busy": beat.busy.studios_busy + beat.studios.busy * seconds,
                    "slots": beat.busy.slots + beat.studios.open * seconds * self._units_at_once,
                }
            )
            phase = "working" if studios.open or beat.phase == "starting" else beat.phase
            update = {"busy": busy, "writers": writers, "studios": studios, "phase": phase}
            self._beat = beat.model_copy(update=update)
        self._observer.workers(writers, studios)

    def progress(self, studios: list[Progress]) -> None:
        stages = dict(self._stages)
        for item in studios:
            _add_walls(stages, item)
        with self._lock:
            busy = self._beat.busy.model_copy(update={"stages": stages})
            self._beat = self._beat.model_copy(update={"busy": busy, "spoken": sum(item.done for item in studios)})
        self._observer.progress(studios)

    def finished(self, manifest: Manifest, progress: Progress) -> None:
        _add_walls(self._stages, progress)
        counts = {"planned": manifest.planned, "accepted": manifest.accepted, "seconds": manifest.seconds}
        costs = {name: vars(cost) for name, cost in sorted(progress.costs.items())}
        self._append({"unit": manifest.unit, "time": _now(), **counts, "gpus": self._gpus, "stages": costs})
        self._observer.finished(manifest, progress)

    def trouble(self, message: str) -> None:
        trouble = Trouble(time=_now(), message=message)
        self._update(troubles=(*self._beat.troubles, trouble)[-TROUBLES:])
        self._observer.trouble(message)

    # ---- files ----

    def _update(self, **changes: object) -> None:
        with self._lock:
            self._beat = self._beat.model_copy(update=changes)

    def _beat_on(self) -> None:
        """In a thread: a driver that compares texts for an hour is alive too."""
        while not self._over.wait(self._interval):
            self._write()

    def _write(self) -> None:
        now = time.monotonic()
        with self._lock:
            busy = self._beat.busy
            while len(self._history) > 1 and self._history[1][0] <= now - RECENT:
                self._history.popleft()
            self._history.append((now, busy))
            cpu = time.process_time() - self._cpu
            update = {"time": _now(), "cpu": round(cpu, 3), "recent": busy.since(self._history[0][1])}
            self._beat = self._beat.model_copy(update=update)
            text = self._beat.model_dump_json()
        path = self._folder.heartbeat
        if self._parts is not None:
            with contextlib.suppress(StorageError):
                self._flush(self._parts)  # first the line, here too
                path.write_text(text + "\n", "utf-8")
            return
        temporary: Path = path.with_name(path.name + TEMPORARY)
        with contextlib.suppress(OSError):  # a full disk ends the run where something is published, not here
            temporary.write_text(text + "\n", "utf-8")
            temporary.replace(path)

    def _append(self, line: dict[str, object]) -> None:
        text = "\n" + json.dumps(line)  # a torn line ends here
        if self._parts is not None:
            with self._lock:
                self._lines.append(text)
            return
        with self._folder.timings.open("a", encoding="utf-8") as file:
            file.write(text)

    def _flush(self, parts: PartLog) -> None:
        """On a store a part a beat: one a unit would be too many to read."""
        with self._lock:
            lines = list(self._lines)
        if lines:
            parts.append("".join(lines).encode())
            with self._lock:
                del self._lines[: len(lines)]


def _add_walls(stages: dict[str, float], progress: Progress) -> None:
    for name, cost in list(progress.costs.items()):
        stages[name] = stages.get(name, 0.0) + cost.wall


def _now() -> float:
    return round(time.time(), 3)
