"""The reference engine: one process, one unit after the other. What it makes is what every engine must make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from pipeline.engine.base import Job, Observer, open_studio, open_text
from pipeline.engine.failures import quarantine
from pipeline.errors import DataError, SpeechchatError
from pipeline.plan import Unit
from pipeline.shards.store import Manifest
from pipeline.stages.studio import Studio
from pipeline.stages.write import TextStage


class LocalEngine:
    def run(self, job: Job, units: Iterator[Unit], observer: Observer) -> None:
        asyncio.run(self._run(job, units, observer))

    async def _run(self, job: Job, units: Iterator[Unit], observer: Observer) -> None:
        studio, lock = open_studio(job)
        with lock:
            async with open_text(job) as text:
                for unit in units:
                    await self._unit(job, unit, text, studio, observer)

    async def _unit(self, job: Job, unit: Unit, text: TextStage, studio: Studio, observer: Observer) -> None:
        for attempt in range(1, job.config.engine.tries + 1):
            try:
                started = time.perf_counter()
                if await text.run(unit):
                    observer.wrote(unit.number, time.perf_counter() - started)
                observer.written(text.written)
                observer.finished(await _watch(studio, unit, observer), studio.progress)
                return
            except Exception as error:  # a bug, or a damaged file, fails its unit loudly, never the run
                if isinstance(error, SpeechchatError) and not isinstance(error, DataError):
                    raise
                if attempt == job.config.engine.tries:
                    observer.trouble(quarantine(job.folder, unit, error, attempt))


async def _watch(studio: Studio, unit: Unit, observer: Observer) -> Manifest:
    """Run the unit in a thread, so that progress shows and Ctrl-C is heard between two dialogues."""
    work = asyncio.create_task(asyncio.to_thread(studio.run, unit))
    try:
        while not work.done():
            await asyncio.wait([work], timeout=0.5)
            observer.progress([studio.progress])
    except asyncio.CancelledError:
        studio.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise
    return work.result()
