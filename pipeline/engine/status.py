"""How far a run is and how it goes, from its folder alone: for whoever sees the folder, on any machine, at any time.

What is done is counted by the manifests' names. What they hold, and when it was made, comes from the driver's log; a
manifest is opened only where the log does not tell of it. A `Watch` that looks again reads what is new.
"""

from __future__ import annotations

import json
import os
import socket
import time
from bisect import bisect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pipeline.dialogue import Record, Split
from pipeline.engine.heartbeat import (
    INTERVAL,
    RECENT,
    TROUBLES,
    Beat,
    Busy,
    Session,
    Trouble,
    process_namespace,
    read_beat,
)
from pipeline.engine.run import load_frozen
from pipeline.engine.status_files import Log, Made, Names
from pipeline.errors import DataError
from pipeline.plan import unit_count
from pipeline.shards.store import RunFolder

STALE = 30.0  # seconds without a heartbeat after which a driver counts as gone
FEW = 3  # units below which the recent rate says little

State = Literal["running", "finished", "stopped", "killed", "not begun"]


class Rate(Record):
    """Per hour, over the last `seconds`. hours: of accepted audio."""

    seconds: float
    units: float
    hours: float


class Driver(Record):
    """age: seconds since its last heartbeat. alive: it beats, and where its process can be looked up, that is there.

    outcome: how it ended, "" where it lives or was killed. phase: see `Beat`.
    """

    host: str
    pid: int
    started: float
    age: float
    alive: bool
    phase: str
    outcome: str


class Utilisation(Record):
    """Shares of their time. writers, studios: with a unit in hand. stages: of the studios' slots."""

    writers: float | None
    studios: float | None
    stages: dict[str, float]


class Cost(Record):
    """cpu_hours: of the studios' own processes, for finished units. driver_cpu_hours: of the driver (where it is the
    local engine, that is the studio too). tokens: as billed. dollars: as billed; with a budget, what may be as well."""

    cpu_hours: float
    driver_cpu_hours: float
    tokens: int
    dollars: float


class Status(Record):
    """Where a run stands.

    units_written: that have their text. in_flight: in the hands of a living driver's workers. dialogues: of finished
    units, of which `accepted` were kept (their share is `share`, None before the first); spoken: of units in hand.
    hours: of accepted audio. recent, overall: None where nothing is known; overall counts the time of all drivers.
    seconds_left: at the recent rate, else at the overall one; in the phase `writing`, until all text is there.
    """

    run: str
    state: State
    driver: Driver | None
    units_planned: int
    units_done: int
    units_written: int
    in_flight: int
    quarantined: int
    dialogues_planned: int
    dialogues: int
    spoken: int
    accepted: int
    share: float | None
    hours: float
    recent: Rate | None
    overall: Rate | None
    seconds_left: float | None
    busy: Utilisation | None
    busy_recent: Utilisation | None
    cost: Cost
    errors: tuple[Trouble, ...]


class Watch:
    """Looks at a run, again and again. Raises RunFolderError where there is none, ConfigError for a damaged one.

    clock: seconds since 1970.
    """

    def __init__(self, run: Path, clock: Callable[[], float] = time.time):
        self._folder = RunFolder(run).require()
        self._clock = clock
        self._log = Log(self._folder.timings)
        self._manifests = Names(self._folder.root / "shards", depth=2, suffix=".json")
        self._texts = Names(self._folder.root / "dialogues", depth=1, suffix=".jsonl")
        self._lost = Names(self._folder.root / "quarantine", depth=1, suffix=".json")
        self._opened: dict[int, Made] = {}
        self._pulse: tuple[float, float] | None = None  # what the last beat says, and when it was by our clock

    def look(self) -> Status:
        """Raises DataError for a damaged manifest that no line of the log stands for."""
        config, _ = load_frozen(self._folder)
        beat = read_beat(self._folder)
        done = self._manifests.look()
        self._log.read()
        lost = {unit: path for unit, path in self._lost.look().items() if unit not in done}
        made = [self._made(unit, path) for unit, path in done.items()]
        driver = self._driver(beat) if beat else None
        alive = driver is not None and driver.alive
        planned = unit_count(config)
        written = len(self._texts.look().keys() | done.keys())
        sessions = dict(self._log.sessions)
        if beat is not None:
            sessions[beat.started] = beat
        recent = _recent(beat, [item for item in made if item.time]) if beat and alive else None
        overall = _overall(sessions.values(), made)
        dialogues, accepted = sum(item.planned for item in made), sum(item.accepted for item in made)
        return Status(
            run=str(self._folder.root),
            state=_state(len(done) >= planned, driver, bool(done) or written > 0),
            driver=driver,
            units_planned=planned,
            units_done=len(done),
            units_written=written,
            in_flight=beat.writers.units + beat.studios.units if beat and alive else 0,
            quarantined=len(lost),
            dialogues_planned=config.dialogues,
            dialogues=dialogues,
            spoken=beat.spoken if beat and alive else 0,
            accepted=accepted,
            share=round(accepted / dialogues, 6) if dialogues else None,
            hours=round(sum(item.seconds for item in made) / 3600, 6),
            recent=recent,
            overall=overall,
            seconds_left=self._left(beat, planned, len(done), written, recent, overall) if beat and alive else None,
            busy=_utilisation(beat.busy) if beat else None,
            busy_recent=_utilisation(beat.recent) if beat and alive else None,
            cost=self._cost(sessions.values()),
            errors=_errors(lost, beat),
        )

    def _made(self, unit: int, path: Path) -> Made:
        """What the log says of a unit; if nothing, its driver was killed before it could tell, or the log is gone."""
        found = self._log.made.get(unit) or self._opened.get(unit)
        if found is None:
            split: Split = path.parent.parent.name  # type: ignore[assignment]
            manifest = self._folder.load_manifest(unit, split)
            if manifest is None:
                raise DataError(f"{path}: went while it was looked at; give the command again")
            found = self._opened[unit] = Made(manifest.planned, manifest.accepted, manifest.seconds, 0.0)
        return found

    def _driver(self, beat: Beat) -> Driver:
        now = self._clock()
        if self._pulse is None:
            self._pulse = beat.time, min(beat.time, now)
        elif beat.time != self._pulse[0]:
            self._pulse = beat.time, now  # one that was seen to beat lives, however the clocks of two machines differ
        age = now - self._pulse[1]
        alive = not beat.outcome and age <= STALE and not _gone(beat)
        return Driver(
            host=beat.host,
            pid=beat.pid,
            started=beat.started,
            age=round(age, 3),
            alive=alive,
            phase=beat.phase,
            outcome=beat.outcome,
        )

    def _left(
        self, beat: Beat, planned: int, done: int, written: int, recent: Rate | None, overall: Rate | None
    ) -> float | None:
        if beat.phase == "writing":
            ours = [moment for moment in self._log.written if moment >= beat.started]
            rate, todo = len(ours) / max(1e-9, beat.time - beat.started), planned - written
            return round(todo / rate, 3) if ours else None
        told = recent if recent and round(recent.units * recent.seconds / 3600) >= FEW else overall or recent
        return round((planned - done) / told.units * 3600, 3) if told and told.units else None

    def _cost(self, sessions: Iterable[Session]) -> Cost:
        used = list(sessions)
        dollars = sum(item.cost for item in used)
        try:
            ledger = json.loads(self._folder.ledger.read_bytes())
            dollars = max(dollars, (ledger["spent"] + ledger["unsettled"]) / 1e9)  # nano-dollars
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is no budget, or the ledger is being written
        return Cost(
            cpu_hours=round(self._log.cpu / 3600, 6),
            driver_cpu_hours=round(sum(item.cpu for item in used) / 3600, 6),
            tokens=sum(item.tokens for item in used),
            dollars=round(dollars, 6),
        )


def _gone(beat: Beat) -> bool:
    """Whether its process can be looked up here and is not there."""
    if beat.host != socket.gethostname() or not beat.namespace or beat.namespace != process_namespace():
        return False
    try:
        os.kill(beat.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's
    return False


def _state(complete: bool, driver: Driver | None, begun: bool) -> State:
    if driver is not None and driver.alive:
        return "running"
    if complete:
        return "finished"
    if driver is not None:
        return "stopped" if driver.outcome else "killed"
    return "stopped" if begun else "not begun"


def _recent(beat: Beat, made: Iterable[Made]) -> Rate | None:
    """By the driver's clock alone. None in the first minute of a driver that has finished nothing."""
    begin = max(beat.started, beat.time - RECENT)
    fresh = [item for item in made if item.time >= begin]
    span = max(beat.time, *(item.time for item in fresh)) - begin if fresh else beat.time - begin
    if span <= 0 or (not fresh and span < 60):
        return None
    return _rate(span, fresh)


def _overall(sessions: Iterable[Session], made: Iterable[Made]) -> Rate | None:
    """Of the units that a session made, over the time that a driver lived."""
    seconds, fresh = 0.0, [item for item in made if item.time]
    times = sorted(item.time for item in fresh)
    for session in sessions:
        # A session that was killed may have finished units after its last beat.
        after = bisect(times, session.time + INTERVAL)
        seconds += max(session.time, times[after - 1] if after else 0.0) - session.started
    return _rate(seconds, fresh) if fresh and seconds > 0 else None


def _rate(seconds: float, made: list[Made]) -> Rate:
    hours = seconds / 3600
    audio = sum(item.seconds for item in made) / 3600
    return Rate(seconds=round(seconds, 3), units=round(len(made) / hours, 3), hours=round(audio / hours, 6))


def _utilisation(busy: Busy) -> Utilisation:
    def share(part: float, whole: float) -> float | None:
        return round(part / whole, 4) if whole > 0 else None

    shares = {name: share(seconds, busy.slots) for name, seconds in sorted(busy.stages.items())}
    return Utilisation(
        writers=share(busy.writers_busy, busy.writers),
        studios=share(busy.studios_busy, busy.studios),
        stages={name: value for name, value in shares.items() if value is not None},
    )


def _errors(lost: dict[int, Path], beat: Beat | None) -> tuple[Trouble, ...]:
    """The last of what the driver told and of what lies in quarantine, the oldest first."""
    found = list(beat.troubles) if beat else []
    told = " ".join(item.message for item in found)
    for unit, path in lost.items():
        if f"unit {unit} is quarantined" in told:
            continue
        try:
            moment, error = path.stat().st_mtime, json.loads(path.read_bytes())["error"]
        except FileNotFoundError:
            continue  # it was made after all, since we looked
        except (OSError, ValueError, KeyError, TypeError):
            moment, error = 0.0, f"no readable record: {path}"
        found.append(Trouble(time=round(moment, 3), message=f"unit {unit} is quarantined: {error}"))
    if beat and beat.outcome not in ("", "done", "interrupted"):
        found.append(Trouble(time=beat.time, message=f"the driver ended: {beat.outcome}"))
    return tuple(sorted(found, key=lambda item: item.time)[-TROUBLES:])
