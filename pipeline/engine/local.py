"""The reference engine: one process. What it makes is what every engine must make."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import TypeVar

from pipeline.engine.base import Job, Observer, Pool, open_studio, open_text, units_at_once
from pipeline.engine.failures import quarantine
from pipeline.engine.sizes import Sizes
from pipeline.engine.tries import DeathNote, Tries
from pipeline.engine.watch import Watch
from pipeline.errors import ConfigError, DataError, RunIncomplete, SpeechchatError
from pipeline.plan import Unit
from pipeline.stages.studio import Studio
from pipeline.stages.write import TextStage

T = TypeVar("T")


class LocalEngine:
    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, job: Job, units: Iterator[Unit], observer: Observer, text_only: bool = False) -> None:
        for key in ("writer_runtime_env", "studio_runtime_env"):
            if getattr(job.config.engine, key).given:
                raise ConfigError(f"engine.{key} needs Ray (engine.kind=ray); without it leave it out")
        tries, note = Tries(job.folder, job.config), DeathNote(job.folder)
        for line in note.settle(tries):
            observer.trouble(line)
        note.open()
        try:
            asyncio.run(_Session(job, observer, text_only, tries).run(units))
        finally:
            note.close()


class _Session:
    """One pass over units. The models are opened when the first unit needs them, and closed at the end."""

    def __init__(self, job: Job, observer: Observer, text_only: bool, tries: Tries):
        self._job = job
        self._tries = tries
        self._watch = Watch(job.config.engine.deadline)
        self._observer = observer
        self._text_only = text_only
        self._text: TextStage | None = None
        self._studio: Studio | None = None
        self._stack = AsyncExitStack()
        self._pen = asyncio.Lock()
        self._hopeless = False
        self._stuck = False
        self._ended: SpeechchatError | None = None  # what no other unit would escape
        self._room = units_at_once(job.config)
        self._sizes = Sizes(job.config, job.folder)
        self._speaking: list[Unit] = []
        self._due = 0  # units that are spoken, or wait for it
        self._door = asyncio.Lock()
        self._left = asyncio.Event()

    async def run(self, units: Iterator[Unit]) -> None:
        """One unit after the other, or as many beside each other as the speech engines can use; the text of the next is
        written meanwhile."""
        room = self._room + (not self._text_only)
        work: set[asyncio.Task[None]] = set()
        async with self._stack:
            try:
                for unit in units:
                    work.add(asyncio.create_task(self._unit(unit)))
                    while len(work) >= room:
                        work = await _some(work)
                while work:
                    work = await _some(work)
            finally:
                if self._studio:
                    self._studio.cancel()
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)

    async def _unit(self, unit: Unit) -> None:
        job, observer = self._job, self._observer
        for attempt in range(1, job.config.engine.tries + 1):
            try:
                await self._written(unit)
                if not self._text_only:
                    await self._speak(unit)
                return
            except Exception as error:  # a bug, or a damaged file, fails its unit loudly, never the run
                if self._hopeless or (isinstance(error, SpeechchatError) and not isinstance(error, DataError)):
                    raise
                if attempt == job.config.engine.tries:
                    observer.trouble(quarantine(job.folder, unit, error, attempt))

    async def _enter(self, unit: Unit) -> None:
        """Wait until the studio has room for it; in the order of those who wait, so that a large one comes in too."""
        async with self._door:
            while len(self._speaking) >= self._room or not self._sizes.fits(self._speaking, unit):
                self._left.clear()
                await self._left.wait()
            self._speaking.append(unit)

    async def _speak(self, unit: Unit) -> None:
        self._due += 1
        try:
            studio = self._open_studio()
            await self._enter(unit)
            await self._speak_in(studio, unit)
        finally:
            self._due -= 1
            self._left.set()

    async def _speak_in(self, studio: Studio, unit: Unit) -> None:
        """Run the unit in a thread, so that progress shows and Ctrl-C is heard between two dialogues."""
        work = _in_thread(lambda: studio.run(unit, self._tries.poisoned(unit)))
        # Of a unit beside one that hangs nobody asks what became of it; asyncio would then show its traceback.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            while not work.done():
                self._tell()
                await asyncio.wait([work], timeout=0.5)
                self._observer.progress(studio.progress)
                self._sizes.told(studio.progress)
                own = [item for item in studio.progress if item.unit == unit.number]
                if not work.done() and self._watch.stuck(unit.number, own):
                    raise self._hung(unit)
        except asyncio.CancelledError:
            studio.cancel()
            if not self._stuck:
                await asyncio.gather(work, return_exceptions=True)
            raise
        finally:
            self._speaking.remove(unit)
            self._left.set()
            self._tell()
        manifest, progress = work.result()
        self._sizes.finished(progress)
        self._observer.finished(manifest, progress)

    def _hung(self, unit: Unit) -> RunIncomplete:
        """A thread cannot be ended: the program has to, and the next one knows whom to blame."""
        self._stuck = True
        suspects, seconds = self._tries.suspects(unit.number), self._job.config.engine.deadline
        self._tries.blame(unit.number, suspects, self._watch.hung.pop(unit.number))
        return RunIncomplete(
            f"{', '.join(suspects) or f'unit {unit.number}'} was being spoken for {seconds:g} s (engine.deadline); run "
            "the same command again: when that has happened as often as engine.tries says "
            f"({self._job.config.engine.tries} times), it is rejected alone"
        )

    async def _written(self, unit: Unit) -> None:
        """Raises what keeps it from being written when nobody speaks any more: a budget that is used up, or an endpoint
        that is down, is no reason to drop the units before it."""
        try:
            async with self._pen:  # in the order of the plan
                if self._ended is not None:
                    raise self._ended  # nobody asks, and pays, after an error that ends the run
                await self._write_one(unit)
        except SpeechchatError as error:
            if not isinstance(error, DataError):
                self._ended = error
            while self._due:
                self._left.clear()
                await self._left.wait()
            raise

    async def _write_one(self, unit: Unit) -> None:
        if self._job.folder.text(unit.number).exists():
            return
        if self._text is None:
            self._text = await self._stack.enter_async_context(open_text(self._job))
        text, started = self._text, time.perf_counter()
        work = asyncio.create_task(text.run(unit))
        try:
            while not work.done():
                self._tell()
                await asyncio.wait([work], timeout=0.5)
                self._observer.written(text.progress)
        finally:
            work.cancel()  # does nothing to one that is done
            await asyncio.gather(work, return_exceptions=True)
        if work.result():
            self._observer.wrote(unit.number, time.perf_counter() - started)

    def _tell(self) -> None:
        writing = int(self._text is not None and self._pen.locked())
        writers = Pool(open=int(self._text is not None), busy=writing, units=writing)
        studios = Pool(open=int(self._studio is not None), busy=min(1, len(self._speaking)), units=len(self._speaking))
        self._observer.workers(writers, studios)

    def _open_studio(self) -> Studio:
        if self._studio is None:
            try:
                self._studio, held = open_studio(self._job)
            except Exception:
                self._hopeless = True  # no unit is to blame for what keeps all of them from being spoken
                raise
            self._stack.enter_context(held)
        return self._studio


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """As `asyncio.to_thread`, in a thread that the program does not wait for at its end: it may hang."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on nobody can call it off

    def body() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  handed over, whatever it is
            done.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    return asyncio.wrap_future(done)


async def _some(work: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait for one to end; raises what it raised. Those that are still at work."""
    done, left = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return left
