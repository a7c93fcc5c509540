"""Independent units on every CPU: of this machine in processes of their own, or of a Ray cluster as tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from pipeline.config import EngineConfig
from pipeline.errors import RunIncomplete, SpeechchatError

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcomes = Generator[tuple[Item, Result | Exception], None, None]


def each(work: Callable[[Item], Result], items: Iterable[Item], engine: EngineConfig) -> Outcomes[Item, Result]:
    """(item, what work made of it or the exception that it raised), as they are done. Close it where it is left early.

    engine.kind says where; engine.studios bounds the processes of this machine. work and items are picklable. Raises
    RunIncomplete if a process was killed from outside: what it had in hand is not done.
    """
    if engine.kind == "ray":
        yield from _on_ray(work, iter(items), engine)
        return
    waiting = iter(items)
    first = list(islice(waiting, engine.studios or _cpus()))
    if first:
        yield from _here(work, chain(first, waiting), len(first))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(work: Callable[[Item], Result], waiting: Iterator[Item], workers: int) -> Outcomes[Item, Result]:
    pool: Executor
    if workers == 1:
        pool = ThreadPoolExecutor(1)  # a process would spend seconds on its imports
    else:
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        running: dict[Future[Any], Item] = {}
        while True:
            # A few ahead, so that no process waits for the driver, and no more: a plan may be long.
            while len(running) < 2 * workers and (item := next(waiting, None)) is not None:
                running[pool.submit(work, item)] = item
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if isinstance(error, BrokenProcessPool) or not isinstance(error, Exception | None):
                    raise error
                yield running.pop(future), error or future.result()
    except BrokenProcessPool:
        raise RunIncomplete(
            "a worker process was killed (out of memory?); what is finished is kept: run the same command again, with "
            "engine.studios=1 if it happens again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker leaves Ctrl-C to the driver, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # nothing is lost: what is not published does not exist


def _on_ray(work: Callable[[Item], Result], waiting: Iterator[Item], engine: EngineConfig) -> Outcomes[Item, Result]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    from pipeline.engine.cluster import connect

    mine = not ray.is_initialized()
    if mine:
        connect(engine)
    task = ray.remote(_call).options(num_cpus=1, max_retries=engine.tries - 1)
    shared = ray.put(work)  # it may hold the checksums of many recordings
    running: dict[Any, Item] = {}
    try:
        while True:
            room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while len(running) < room and (item := next(waiting, None)) is not None:
                running[task.remote(shared, item)] = item
            if not running:
                return
            done, _ = ray.wait(list(running), timeout=1.0)
            for reference in done:
                item = running.pop(reference)
                try:
                    yield item, ray.get(reference)
                except RayTaskError as error:
                    yield item, error.cause if isinstance(error.cause, SpeechchatError) else error
                except RayError as error:
                    yield item, RunIncomplete(f"its worker died each time: {' '.join(str(error).split())[:200]}")
    finally:
        for reference in running:
            ray.cancel(reference)
        if mine:
            ray.shutdown()


def _call(work: Callable[[Item], Result], item: Item) -> Result:
    return work(item)
