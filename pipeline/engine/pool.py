"""Independent units on every CPU: of this machine in processes of their own, or of a Ray cluster as tasks."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice, product
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Generic, TypeVar

from pipeline.config import EngineConfig
from pipeline.errors import RunIncomplete, SpeechchatError

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcomes = Generator[tuple[Item, Result | Exception], None, None]
ON_ITS_WAY = 0.5
"""Seconds that what a process has handed over is given to arrive, when nothing more is waited for."""


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """A process that starts in here does its algebra in one thread: the others have the other CPUs."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def each(work: Callable[[Item], Result], items: Iterable[Item], engine: EngineConfig) -> Outcomes[Item, Result]:
    """(item, what work made of it or the exception that it raised), as they are done. Close it where it is left early.

    engine.kind says where; engine.studios bounds the processes of this machine. work and items are picklable. Raises
    RunIncomplete if a process was killed from outside: what it had in hand is not done.

    What was done when Ctrl-C came is still given, before KeyboardInterrupt is raised; what is in hand is dropped at
    once. Where Ctrl-C finds the caller, `finished` has the rest.
    """
    return each_together(work, ((item,) for item in items), engine)


def each_together(
    work: Callable[[Item], Result], groups: Iterable[Sequence[Item]], engine: EngineConfig
) -> Outcomes[Item, Result]:
    """As `each`, where the items of a group go to one process, one after the other.

    On Ray a group is one task: its items are done together, and an exception is that of all of them.
    """
    waiting = iter(groups)
    if engine.kind == "ray":
        yield from _on_ray(work, waiting, engine)
        return
    first = list(islice(waiting, engine.studios or _cpus()))
    if len(first) == 1:
        yield from _in_turn(work, chain(first, waiting))
    elif first:
        yield from _here(work, chain(first, waiting), len(first))


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, group: int = 1
) -> Iterator[Result]:
    """`map` over `workers` processes of this machine, one a CPU for None, which take `group` items at a time.

    A process costs a second of imports, which a group must be worth; one group is worked off in this process. Raises
    what `work` raises, and RunIncomplete for a killed process.
    """
    numbered = enumerate(items)
    groups = iter(lambda: list(islice(numbered, group)), [])
    local = EngineConfig(kind="local", studios=workers)
    done: dict[int, Result] = {}
    place = 0
    try:
        with one_thread_each(), contextlib.closing(each_together(_Numbered(work), groups, local)) as outcomes:
            for (number, _), outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
                done[number] = outcome
                while place in done:
                    yield done.pop(place)
                    place += 1
    except RunIncomplete:
        raise RunIncomplete(
            "a worker process was killed (out of memory?): give the command again, with --workers 1 if it happens again"
        ) from None


class _Numbered(Generic[Item, Result]):
    """work, of items with their numbers."""

    def __init__(self, work: Callable[[Item], Result]):
        self._work = work

    def __call__(self, numbered: tuple[int, Item]) -> Result:
        return self._work(numbered[1])


def finished(outcomes: Outcomes[Item, Result]) -> Iterator[tuple[Item, Result | Exception]]:
    """After a KeyboardInterrupt, wherever it was raised: what was done and not given yet. Ends the work."""
    with contextlib.suppress(KeyboardInterrupt, StopIteration):
        found = outcomes.throw(KeyboardInterrupt())
        while True:
            yield found
            found = next(outcomes)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_turn(work: Callable[[Item], Result], groups: Iterator[Sequence[Item]]) -> Outcomes[Item, Result]:
    """In this process, as another one would spend seconds on its imports."""
    for item in chain.from_iterable(groups):
        try:
            outcome: Result | Exception = work(item)
        except Exception as error:  # noqa: BLE001  the caller's to judge
            outcome = error
        yield item, outcome


def _here(work: Callable[[Item], Result], groups: Iterator[Sequence[Item]], workers: int) -> Outcomes[Item, Result]:
    context = multiprocessing.get_context("spawn")
    life, end = context.Pipe(duplex=False)
    # Each by itself, so that it is known which of them has a group.
    pools = [ProcessPoolExecutor(1, context, initializer=_begin, initargs=(life,)) for _ in range(workers)]
    running: dict[Future[Result], tuple[Executor, Item]] = {}
    try:
        while True:
            load = Counter(pool for pool, _ in running.values())
            # Each has work first, and then one ahead, so that none waits for the driver; no more: a plan may be long.
            for room, pool in product((1, 2), pools):
                while load[pool] < room and (group := next(groups, None)) is not None:
                    load[pool] += len(group)
                    with _deaf_children():
                        running.update({pool.submit(work, item): (pool, item) for item in group})
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running[future][1], _outcome(future)
                del running[future]
    except (KeyboardInterrupt, BrokenProcessPool) as stop:
        wait(running, timeout=ON_ITS_WAY)
        for future, (_, item) in running.items():
            if future.done() and not isinstance(future.exception(), BrokenProcessPool):
                yield item, _outcome(future)
        if isinstance(stop, KeyboardInterrupt):
            raise
        raise RunIncomplete(
            "a worker process was killed (out of memory?); what is finished is kept: run the same command again, with "
            "engine.studios=1 if it happens again"
        ) from None
    finally:
        end.close()  # they end at once
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        life.close()


def _outcome(future: Future[Any]) -> Any:
    """Raises what is no exception of the work's."""
    error = future.exception()
    if isinstance(error, Exception) and not isinstance(error, BrokenProcessPool):
        return error
    return future.result()


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """A process that starts in here hears no Ctrl-C: it is for the driver, and would be answered by a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(life: Connection) -> None:
    """A worker does not outlive its driver, nor the work."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=([parent.sentinel, life],), daemon=True).start()


def _follow(ends: list[Any]) -> None:
    wait_for(ends)
    # The locks that libraries made here, tqdm does, are else told to the user as leaked.
    util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(1)  # nothing is lost: what is not published does not exist


def _on_ray(
    work: Callable[[Item], Result], groups: Iterator[Sequence[Item]], engine: EngineConfig
) -> Outcomes[Item, Result]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    from pipeline.engine.cluster import connect

    mine = not ray.is_initialized()
    if mine:
        connect(engine)
    task = ray.remote(_call).options(num_cpus=1, max_retries=engine.tries - 1)
    shared = ray.put(work)  # it may hold the checksums of many recordings

    def outcomes(reference: Any, group: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            results: Sequence[Result] = ray.get(reference)
        except RayTaskError as error:
            return [error.cause if isinstance(error.cause, SpeechchatError) else error] * len(group)
        except RayError as error:
            lost = RunIncomplete(f"its worker died each time: {' '.join(str(error).split())[:200]}")
            return [lost] * len(group)
        return results

    running: dict[Any, Sequence[Item]] = {}
    try:
        while True:
            room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while len(running) < room and (group := next(groups, None)) is not None:
                running[task.remote(shared, group)] = group
            if not running:
                return
            done, _ = ray.wait(list(running), timeout=1.0)
            for reference in done:
                yield from zip(running[reference], outcomes(reference, running[reference]), strict=True)
                del running[reference]
    except KeyboardInterrupt:
        ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0) if running else ([], [])
        for reference in ready:
            yield from zip(running[reference], outcomes(reference, running[reference]), strict=True)
        raise
    finally:
        for reference in running:
            ray.cancel(reference)
        if mine:
            ray.shutdown()


def _call(work: Callable[[Item], Result], group: Sequence[Item]) -> list[Result]:
    return [work(item) for item in group]
