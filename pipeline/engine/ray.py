"""The Ray engine: a pool of asynchronous writers, a pool of studios, a bounded window of units between them.

The driver hands out whole units and keeps every promise about them: a worker that dies is replaced (a finite number of
times), its unit is done again, a dialogue that keeps killing workers is rejected alone. Ray's own restarts and
retries stay off, so that there is one place that counts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, RuntimeEnvSetupError

from pipeline.engine import preflight
from pipeline.engine.actors import ENVIRONMENTS, Kind, Worker, create, root_cause, together
from pipeline.engine.base import Job, Observer, Pool, units_at_once, units_in_flight, writing_slots
from pipeline.engine.cluster import connect
from pipeline.engine.failures import quarantine
from pipeline.engine.nodes import Nodes
from pipeline.engine.placement import writer_claim
from pipeline.engine.ray_metrics import Metered
from pipeline.engine.sizes import Sizes
from pipeline.engine.tries import DeathNote, Tries
from pipeline.engine.watch import Watch
from pipeline.errors import BudgetError, ConfigError, DataError, RunIncomplete, SpeechchatError
from pipeline.plan import Unit, unit_count
from pipeline.stages.studio import Progress
from pipeline.stages.write import DRAIN, TextProgress

POLL = 0.5
"""Seconds between two looks at where the workers stand."""


class RayEngine:
    """Ray is joined or started when the first pass begins, and left at the end."""

    def __init__(self) -> None:
        self._connected = False
        self._checked = False

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connected:
            ray.shutdown()

    def run(self, job: Job, units: Iterator[Unit], observer: Observer, text_only: bool = False) -> None:
        if not ray.is_initialized():
            connect(job.config.engine)
            self._connected = True
        if not self._checked:
            preflight.check(job.config.engine, job.folder)
            for line in DeathNote(job.folder).settle(Tries(job.folder, job.config)):
                observer.trouble(line)
            self._checked = True
        schedule = _Schedule(job, units, Metered(observer), text_only)
        try:
            schedule.run()
        except BudgetError:
            schedule.drain()
            raise
        finally:
            schedule.close()


class _Schedule:
    def __init__(self, job: Job, units: Iterator[Unit], observer: Observer, text_only: bool):
        self._job = job
        self._engine = job.config.engine
        if writer_claim(self._engine).any and not any(True for _ in job.folder.missing(job.folder.text, _all(job))):
            # Nobody will write, so no place is kept for that.
            self._engine = self._engine.model_copy(update={"writer_cpus": 0.0, "writer_gpus": 0.0})
        self._text_only = text_only
        # One more than its slots need, so that a writer's endpoint never waits for the last dialogue of a unit.
        self._units_per_writer = 1 + math.ceil(writing_slots(job.config) / job.config.unit_size)
        self._units_per_studio = units_at_once(job.config)
        self._sizes = Sizes(job.config, job.folder)
        self._nodes = Nodes(self._engine)
        self._units = units
        self._more = True
        self._observer = observer
        self._workers: list[Worker] = []
        self._unwritten: deque[Unit] = deque()
        self._unspoken: deque[Unit] = deque()
        self._tries: Counter[int] = Counter()
        self._deaths = Tries(job.folder, job.config)
        self._watch = Watch(self._engine.deadline)
        self._alone: set[int] = set()
        self._given_up: Counter[str] = Counter()
        self._polls: dict[Any, Worker] = {}
        self._seen: dict[int, Any] = {}
        self._told_to_wait = False
        self._polled = 0.0
        self._stop: SpeechchatError | None = None
        self._look()

    def run(self) -> None:
        while True:
            self._pull()
            self._assign()
            if self._stop and not self._to_speak():
                raise self._stop from None
            if not self._more and not self._in_flight():  # a worker that still opens may wait for a node for ever
                self._poll()  # for the last time, so that the observer hears of all
                return
            running = {ref: worker for worker in self._workers for ref in worker.tasks}
            # Back as soon as one has ended, so that no worker waits for its next unit; then all that have.
            ray.wait(list(running), num_returns=1, timeout=POLL)
            ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            for ref in ready:
                self._settle(running[ref], ref)
            if time.monotonic() - self._polled >= POLL:
                self._polled = time.monotonic()
                self._look()
                self._poll()

    def drain(self) -> None:
        """Let the writers have the replies that are on their way, which are paid; they find no room for another."""
        writing = [ref for worker in self._workers if worker.kind == "text" for ref in worker.tasks]
        if writing:
            ray.wait(writing, num_returns=len(writing), timeout=self._job.config.writer.timeout)

    def close(self) -> None:
        busy = [item for item in self._workers if item.kind == "text" and item.units]
        closing = [worker.handle.close.remote() for worker in busy]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=DRAIN + 2)
        for worker in self._workers:
            ray.kill(worker.handle)

    def _in_flight(self) -> int:
        return self._in_hand("text") + len(self._unwritten) + self._to_speak()

    def _to_speak(self) -> int:
        return self._in_hand("studio") + len(self._unspoken)

    def _in_hand(self, kind: Kind) -> int:
        return sum(len(worker.units) for worker in self._workers if worker.kind == kind)

    def _pull(self) -> None:
        """Take units from the plan while the window has room; a text that is there already needs no writer."""
        window = units_in_flight(self._job.config, self._studios, self._units_per_writer)
        while self._more and self._in_flight() < window:
            unit = next(self._units, None)
            if unit is None:
                self._more = False
                return
            unit = replace(unit)  # without its dialogues, which are made again where they are asked for
            if self._job.folder.text(unit.number).exists():
                self._hand_over(unit)
            else:
                self._unwritten.append(unit)

    def _hand_over(self, unit: Unit) -> None:
        """The text of a unit is there."""
        if not self._text_only:
            self._unspoken.append(unit)

    def _assign(self) -> None:
        """Give waiting units to workers with room, opening workers as long as there is work for them."""
        if self._stop:
            self._unwritten.clear()
        else:
            # Writers that claim a place take it before studios have all of them, and nobody would write.
            claims = writer_claim(self._engine).any
            self._open("text", self._engine.writers if claims else len(self._unwritten), self._engine.writers)
            self._hand_out("text", self._unwritten, self._units_per_writer)
        if not self._text_only:
            waiting = len(self._unwritten) + len(self._unspoken) + self._in_hand("text")
            self._open("studio", waiting, self._studios)
            self._hand_out("studio", self._unspoken, self._units_per_studio)

    def _hand_out(self, kind: Kind, queue: deque[Unit], room: int) -> None:
        """Each to the worker that has least to do. For the first that fits nowhere that worker is left to itself until
        it does; the others go on, so that nobody waits for one large unit, nor that for all the small ones."""
        # Not before it has opened: an asynchronous actor may begin a unit while it still opens.
        pool = [worker for worker in self._workers if worker.kind == kind and None not in worker.tasks.values()]
        passed: list[Unit] = []
        while queue:
            worker = min(pool, key=lambda item: self._load(item, room), default=None)
            if worker is None or self._load(worker, room) >= room:
                break
            unit = queue.popleft()
            if not self._fits(worker, unit):
                if not passed:
                    pool.remove(worker)
                passed.append(unit)
                continue
            arguments = (unit,) if kind == "text" else (unit, self._deaths.poisoned(unit))
            worker.tasks[worker.handle.run.remote(*arguments)] = unit
        queue.extendleft(reversed(passed))

    def _load(self, worker: Worker, room: int) -> int:
        """Units of a worker; one that may be killing workers wants the whole of it, so that nobody else is blamed."""
        suspicious = any(unit.number in self._alone for unit in worker.units)
        return max(room, 1) if suspicious else len(worker.tasks)

    def _fits(self, worker: Worker, unit: Unit) -> bool:
        if worker.kind == "text":
            return True
        alone = unit.number in self._alone
        return not (alone and worker.tasks) and self._sizes.fits(worker.units, unit)

    def _look(self) -> None:
        """How many studios there may be: as many as the configuration says, or as the nodes have room for now."""
        fits = self._nodes.look()
        if fits < 1 and not self._told_to_wait and not self._text_only:
            self._observer.trouble(self._nodes.lack())
        self._told_to_wait = fits < 1
        self._studios = self._engine.studios or max(1, fits)

    def _open(self, kind: Kind, work: int, limit: int) -> None:
        pool = sum(worker.kind == kind for worker in self._workers)
        busy = sum(bool(worker.tasks) for worker in self._workers if worker.kind == kind)
        for _ in range(pool, min(max(1, limit - self._given_up[kind]), busy + work)):
            worker = Worker(kind, self._create(kind))
            worker.tasks[worker.handle.open.remote()] = None
            self._workers.append(worker)

    def _create(self, kind: Kind) -> Any:
        return create(kind, self._job, self._units_per_studio)

    def _settle(self, worker: Worker, ref: Any) -> None:
        """A task has ended: pass its unit on, do it again, or quarantine it."""
        if ref not in worker.tasks:
            return  # its worker died in another of its tasks, which has settled this one too
        unit = worker.tasks.pop(ref)
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, SpeechchatError) and not isinstance(cause, DataError):
                self._fail(worker.kind, cause)
                return
            if unit is None:
                raise
            self._again(worker.kind, unit, error)
            return
        except RuntimeEnvSetupError as error:
            raise ConfigError(f"{ENVIRONMENTS[worker.kind]} cannot be made on a node: {root_cause(error)}") from None
        except RayError as error:
            self._died(worker, unit, error)
            return
        if unit is None:
            worker.node = result
            return
        worker.restarts = 0  # only deaths in a row use up a worker
        if worker.kind == "text":
            seconds, progress = result
            self._advance(worker, progress)
            self._observer.wrote(unit.number, seconds)
            self._hand_over(unit)
        else:
            self._sizes.finished(result[1])
            self._observer.finished(*result)

    def _fail(self, kind: Kind, error: SpeechchatError) -> None:
        """No other unit would escape it: the run ends; where nobody can write, when what is written is spoken."""
        if kind == "studio":
            raise error from None
        if self._stop is None and self._to_speak():
            self._observer.trouble(f"nothing more is written: {error}")
        self._stop, self._more = self._stop or error, False

    def _advance(self, worker: Worker, progress: TextProgress) -> None:
        """What a writer says with a unit may be the last that is heard of it, and answers overtake each other."""
        seen = self._seen.get(id(worker), progress)
        self._seen[id(worker)] = max(seen, progress, key=lambda item: item.dialogues)
        self._polls = {poll: asked for poll, asked in self._polls.items() if asked is not worker}

    def _again(self, kind: Kind, unit: Unit, error: Exception) -> None:
        self._tries[unit.number] += 1
        if self._tries[unit.number] >= self._engine.tries:
            self._observer.trouble(quarantine(self._job.folder, unit, error, self._tries[unit.number]))
        else:
            (self._unwritten if kind == "text" else self._unspoken).appendleft(unit)

    def _died(self, worker: Worker, unit: Unit | None, error: RayError) -> None:
        """Replace a dead worker, find out who killed it, and give its units to others."""
        units = [*([unit] if unit else []), *worker.units]
        left = getattr(error, "preempted", False) or (bool(worker.node) and self._nodes.gone(worker.node))
        crowded = isinstance(error, OutOfMemoryError)  # somebody else on its node may have taken the memory
        if left:
            # Nobody's fault, but a dialogue that takes its node along must not do so for ever.
            for lost in units:
                self._watch.hung.pop(lost.number, None)
                self._again(worker.kind, lost, error)
        elif worker.kind == "studio" and len(units) > 1:
            self._alone.update(lost.number for lost in units)
            for lost in units:
                self._unspoken.appendleft(lost)
                self._watch.hung.pop(lost.number, None)
            suspected = [not crowded]
        elif crowded and worker.kind == "text":
            self._unwritten.extendleft(units)
            suspected = [False]
        elif crowded:
            # As above: it was alone, and may be what fills its node each time.
            for lost in units:
                self._watch.hung.pop(lost.number, None)
                self._again("studio", lost, error)
            suspected = [False]
        else:
            suspected = [self._blame(worker.kind, lost, error) for lost in units]
        worker.tasks.clear()
        self._seen.pop(id(worker), None)
        self._polls = {poll: asked for poll, asked in self._polls.items() if asked is not worker}
        self._watch.forget(id(worker))
        with contextlib.suppress(RayError):
            ray.kill(worker.handle)  # one that cannot be reached may still be at work
        if left:
            # Another is opened where there is room now, or when there is.
            self._workers.remove(worker)
            self._observer.trouble(f"a {worker.kind} worker is gone with its node; its units go to others")
            return
        # Deaths with a suspect are counted on the dialogue, which ends them; only the others use up the worker.
        worker.restarts += not any(suspected)
        if worker.restarts > self._engine.restarts:
            self._workers.remove(worker)
            self._given_up[worker.kind] += 1
            self._observer.trouble(f"a {worker.kind} worker died {worker.restarts} times and is given up")
            if not any(item.kind == worker.kind for item in self._workers):
                first = " ".join(str(error).split())[:300]
                lost_all = f"all {worker.kind} workers were lost; run the same command again to resume: {first}"
                self._fail(worker.kind, RunIncomplete(lost_all))
            return
        worker.handle, worker.node = self._create(worker.kind), ""
        worker.tasks[worker.handle.open.remote()] = None

    def _blame(self, kind: Kind, unit: Unit, error: RayError) -> bool:
        """Whoever was in hand when the worker died is a suspect; at `tries` deaths it is rejected alone.

        Returns whether there is a suspect; without one it counts as a try of the unit.
        """
        # One that is rejected unheard already cannot have been in hand.
        known = self._deaths.poisoned(unit)
        suspects = [id for id in self._deaths.suspects(unit.number) if id not in known] if kind == "studio" else []
        if not suspects:
            self._again(kind, unit, error)
            return False
        self._deaths.blame(unit.number, suspects, self._watch.hung.pop(unit.number, "died"))
        self._unspoken.appendleft(unit)
        return True

    def _poll(self) -> None:
        """Ask the workers where they stand; an answer that is late is taken next time."""
        asked = set(map(id, self._polls.values()))
        for worker in self._workers:
            if worker.tasks and id(worker) not in asked:
                self._polls[worker.handle.progress.remote()] = worker
        ready, _ = ray.wait(list(self._polls), num_returns=len(self._polls), timeout=0) if self._polls else ([], [])
        for ref in ready:
            worker = self._polls.pop(ref)
            try:
                self._seen[id(worker)] = ray.get(ref)
            except RayError:
                self._seen.pop(id(worker), None)  # its death is settled where its unit is
        seen = [(worker.kind, self._seen[id(worker)]) for worker in self._workers if id(worker) in self._seen]
        self._observer.written(together([value for kind, value in seen if kind == "text"]))
        self._observer.workers(self._pool("text"), self._pool("studio"))
        studios = {id(worker): self._under_way(worker) for worker in self._workers if worker.kind == "studio"}
        told = [item for items in studios.values() for item in items if item.dialogues]
        self._sizes.told(told)
        self._observer.progress(told)
        for worker in self._workers:
            if worker.kind == "studio" and (stuck := self._watch.stuck(id(worker), studios[id(worker)])):
                self._observer.trouble(stuck)
                ray.kill(worker.handle)  # its death is settled where its units are

    def _under_way(self, worker: Worker) -> list[Progress]:
        """Where a studio stands in what it has in hand, as far as it said: its last answer may be older than that."""
        said = {item.unit: item for item in self._seen.get(id(worker), [])}
        return [said.get(unit.number, Progress(unit=unit.number)) for unit in worker.units]

    def _pool(self, kind: Kind) -> Pool:
        ready = [item for item in self._workers if item.kind == kind and None not in item.tasks.values()]
        units = [len(item.tasks) for item in ready]
        return Pool(open=len(ready), busy=sum(map(bool, units)), units=sum(units))


def _all(job: Job) -> range:
    return range(unit_count(job.config))
