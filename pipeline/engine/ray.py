"""The Ray engine: a pool of asynchronous writers, a pool of studios, a bounded window of units between them.

The driver hands out whole units and keeps every promise about them: a worker that dies is replaced (a finite number of
times), its unit is done again, a dialogue that keeps killing workers is rejected alone. Ray's own restarts and
retries stay off, so that there is one place that counts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError, RayTaskError

from pipeline.config import EngineConfig
from pipeline.engine.base import Job, Observer, open_studio, open_text
from pipeline.engine.failures import quarantine
from pipeline.errors import DataError, EndpointError, RunIncomplete, SpeechchatError
from pipeline.plan import Unit
from pipeline.shards.store import Manifest
from pipeline.stages.studio import Progress

UNITS_PER_WRITER = 2  # so that a writer's endpoint never waits for the last dialogue of a unit


@ray.remote
class TextActor:
    """Holds a text stage (and the embedded LLM server, where there is no endpoint)."""

    def __init__(self, job: Job):
        self._job = job
        self._stack = AsyncExitStack()
        self._stage: Any = None

    async def open(self) -> None:
        self._stage = await self._stack.enter_async_context(open_text(self._job))

    async def run(self, unit: Unit) -> float:
        started = time.perf_counter()
        await self._stage.run(unit)
        return time.perf_counter() - started

    async def progress(self) -> int:
        return self._stage.written if self._stage else 0

    async def close(self) -> None:
        await self._stack.aclose()


@ray.remote
class StudioActor:
    """Holds a studio; its second thread answers `progress` while the first one works."""

    def __init__(self, job: Job):
        self._job = job
        self._studio: Any = None

    def open(self) -> None:
        self._studio, self._lock = open_studio(self._job)

    def run(self, unit: Unit, poisoned: dict[str, str]) -> tuple[Manifest, Progress]:
        manifest = self._studio.run(unit, poisoned)
        return manifest, self._studio.progress

    def progress(self) -> Progress:
        return self._studio.progress if self._studio else Progress()


class RayEngine:
    def run(self, job: Job, units: Iterator[Unit], observer: Observer) -> None:
        connected = ray.is_initialized()
        if not connected:
            connect(job.config.engine)
        schedule = _Schedule(job, units, observer)
        try:
            schedule.run()
        finally:
            schedule.close()
            if not connected:
                ray.shutdown()


def connect(config: EngineConfig) -> None:
    """Join the cluster at `address` (or in RAY_ADDRESS); without one start Ray here, on loopback only."""
    stop = signal.getsignal(signal.SIGTERM)
    _connect(config)
    # Ray takes SIGTERM for itself and ends the process with a stack trace; who set a handler wants to be heard.
    if stop is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _connect(config: EngineConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if config.address or os.environ.get("RAY_ADDRESS"):
        use_token()
        try:
            ray.init(address=config.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EndpointError(
                f"engine.address={config.address or os.environ['RAY_ADDRESS']}: no Ray cluster of this version answers "
                f"({' '.join(str(error).split())[:200]}); start one with `ray start --head`, or leave the address out"
            ) from None
        return
    # Ray listens on every interface unless it takes this machine for one that cannot be in a cluster: it reads the
    # variable in the processes that it starts, and the constant in this one, which has imported it already.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        address="local",  # without it, Ray joins whatever cluster was last started on this machine
        include_dashboard=False,
        object_store_memory=100 * 2**20,  # only plans and manifests travel
        **options,
    )


def use_token() -> None:
    """Show the cluster the token that lies here (~/.ray/auth_token or RAY_AUTH_TOKEN), unless RAY_AUTH_MODE is set.

    A cluster started on a machine with a token asks for it; a client has to be told to send it.
    """
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


@dataclass
class _Worker:
    """A worker and what it does. tasks: reference → unit (None while it opens)."""

    kind: str
    handle: Any
    restarts: int = 0
    tasks: dict[Any, Unit | None] = field(default_factory=dict)


class _Schedule:
    def __init__(self, job: Job, units: Iterator[Unit], observer: Observer):
        self._job = job
        self._engine = job.config.engine
        self._units = units
        self._more = True
        self._observer = observer
        self._workers: list[_Worker] = []
        self._unwritten: deque[Unit] = deque()
        self._unspoken: deque[Unit] = deque()
        self._tries: Counter[int] = Counter()
        self._crashes: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()
        self._poisoned: dict[str, str] = {}
        self._polls: dict[Any, _Worker] = {}
        self._seen: dict[int, Any] = {}
        self._told_to_wait = False

    def run(self) -> None:
        while True:
            self._pull()
            self._assign()
            running = {ref: worker for worker in self._workers for ref in worker.tasks}
            if not running and not self._unwritten and not self._unspoken and not self._more:
                return
            ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0.5)
            for ref in ready:
                self._settle(running[ref], ref)
            self._poll()

    def close(self) -> None:
        for worker in self._workers:
            ray.kill(worker.handle)

    def _in_flight(self) -> int:
        working = sum(unit is not None for worker in self._workers for unit in worker.tasks.values())
        return working + len(self._unwritten) + len(self._unspoken)

    def _pull(self) -> None:
        """Take units from the plan while the window has room; a text that is there already needs no writer."""
        while self._more and self._in_flight() < self._engine.window:
            unit = next(self._units, None)
            if unit is None:
                self._more = False
            elif self._job.folder.text(unit.number).exists():
                self._unspoken.append(unit)
            else:
                self._unwritten.append(unit)

    def _assign(self) -> None:
        """Give waiting units to workers with room, opening workers as long as there is work for them."""
        self._open("text", len(self._unwritten), self._engine.writers)
        self._open("studio", len(self._unwritten) + len(self._unspoken) + self._writing(), self._studios())
        for kind, queue, room in (("text", self._unwritten, UNITS_PER_WRITER), ("studio", self._unspoken, 1)):
            # Not before it has opened: an asynchronous actor may begin a unit while it still opens.
            pool = [worker for worker in self._workers if worker.kind == kind and None not in worker.tasks.values()]
            while queue:
                worker = min(pool, key=lambda item: len(item.tasks), default=None)
                if worker is None or len(worker.tasks) >= room:
                    break
                unit = queue.popleft()
                poisoned = {item.id: self._poisoned[item.id] for item in unit.dialogues if item.id in self._poisoned}
                arguments = (unit,) if kind == "text" else (unit, poisoned)
                worker.tasks[worker.handle.run.remote(*arguments)] = unit

    def _writing(self) -> int:
        return sum(
            unit is not None for worker in self._workers if worker.kind == "text" for unit in worker.tasks.values()
        )

    def _studios(self) -> int:
        """As many as the configuration says, or as the cluster can hold now."""
        have = ray.cluster_resources()
        fits = have.get("CPU", 0) / self._engine.studio_cpus
        if self._engine.studio_gpus:
            fits = min(fits, have.get("GPU", 0) / self._engine.studio_gpus)
        if fits < 1 and not self._told_to_wait:
            self._told_to_wait = True
            self._observer.trouble(
                f"the cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs, no room for a studio of "
                f"{self._engine.studio_cpus:g} and {self._engine.studio_gpus:g} "
                "(engine.studio_cpus, engine.studio_gpus): waiting for a node"
            )
        return self._engine.studios or max(1, int(fits))

    def _open(self, kind: str, work: int, limit: int) -> None:
        pool = sum(worker.kind == kind for worker in self._workers)
        busy = sum(bool(worker.tasks) for worker in self._workers if worker.kind == kind)
        for _ in range(pool, min(limit - self._given_up[kind], busy + work)):
            worker = _Worker(kind, self._create(kind))
            worker.tasks[worker.handle.open.remote()] = None
            self._workers.append(worker)

    def _create(self, kind: str) -> Any:
        if kind == "text":
            return TextActor.options(  # type: ignore[attr-defined]
                num_cpus=0, max_restarts=0, max_task_retries=0
            ).remote(self._job)
        return StudioActor.options(  # type: ignore[attr-defined]
            num_cpus=self._engine.studio_cpus,
            num_gpus=self._engine.studio_gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,
        ).remote(self._job)

    def _settle(self, worker: _Worker, ref: Any) -> None:
        """A task has ended: pass its unit on, do it again, or quarantine it."""
        if ref not in worker.tasks:
            return  # its worker died in another of its tasks, which has settled this one too
        unit = worker.tasks.pop(ref)
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, SpeechchatError) and not isinstance(cause, DataError):
                raise cause from None
            if unit is None:
                raise
            self._again(worker.kind, unit, error)
            return
        except RayError as error:
            self._died(worker, unit, error)
            return
        if unit is None:
            return
        worker.restarts = 0  # only deaths in a row use up a worker
        if worker.kind == "text":
            self._observer.wrote(unit.number, result)
            self._unspoken.append(unit)
        else:
            self._observer.finished(*result)

    def _again(self, kind: str, unit: Unit, error: Exception) -> None:
        self._tries[unit.number] += 1
        if self._tries[unit.number] >= self._engine.tries:
            self._observer.trouble(quarantine(self._job.folder, unit, error, self._tries[unit.number]))
        else:
            (self._unwritten if kind == "text" else self._unspoken).appendleft(unit)

    def _died(self, worker: _Worker, unit: Unit | None, error: RayError) -> None:
        """Replace a dead worker, find out who killed it, and give its units to others."""
        units = [lost for lost in (unit, *worker.tasks.values()) if lost is not None]
        suspected = [self._blame(worker.kind, lost, error) for lost in units]
        worker.tasks.clear()
        with contextlib.suppress(RayError):
            ray.kill(worker.handle)  # one that cannot be reached may still be at work
        # Deaths with a suspect are counted on the dialogue, which ends them; only the others use up the worker.
        worker.restarts += not any(suspected)
        if worker.restarts > self._engine.restarts:
            self._workers.remove(worker)
            self._given_up[worker.kind] += 1
            self._observer.trouble(f"a {worker.kind} worker died {worker.restarts} times and is given up")
            if not any(item.kind == worker.kind for item in self._workers):
                first = " ".join(str(error).split())[:300]
                raise RunIncomplete(
                    f"all {worker.kind} workers were lost; run the same command again to resume: {first}"
                )
            return
        worker.handle = self._create(worker.kind)
        worker.tasks[worker.handle.open.remote()] = None

    def _blame(self, kind: str, unit: Unit, error: RayError) -> bool:
        """Whoever was in hand when the worker died is a suspect; at `tries` deaths it is rejected alone.

        Returns whether there is a suspect; without one it counts as a try of the unit.
        """
        journal = self._job.folder.crash_journal(unit.number)
        suspects = journal.read_text().split() if kind == "studio" and journal.exists() else []
        if not suspects:
            self._again(kind, unit, error)
            return False
        for suspect in suspects:
            self._crashes[suspect] += 1
            if self._crashes[suspect] >= self._engine.tries:
                self._poisoned[suspect] = "its worker died each time that it was spoken"
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
        self._observer.written(sum(value for kind, value in seen if kind == "text"))
        self._observer.progress([value for kind, value in seen if kind == "studio"])
