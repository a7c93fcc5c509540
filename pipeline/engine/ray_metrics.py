"""The counters of a run for Ray's Prometheus endpoints and its dashboard, where they are `ray_speechchat_…`."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Gauge

from pipeline.engine.base import Observer, Pool
from pipeline.shards.manifest import Manifest
from pipeline.stages.studio import Progress
from pipeline.stages.write import TextProgress


class Metered:
    """An Observer that counts what it passes on, from the moment that it was made. Made where Ray is up.

    Counters: units, dialogues (tag `outcome`: accepted or rejected), audio_seconds (accepted), stage_seconds (tags
    `stage`, `clock`: wall or cpu; of finished units), texts (units written), troubles. Gauges: workers and busy_workers
    (tag `kind`: writer or studio), units_in_flight, tokens and dollars (of the writers, in this pass).
    """

    def __init__(self, observer: Observer):
        self._observer = observer
        self._units = Counter("speechchat_units", "units finished")
        self._dialogues = Counter("speechchat_dialogues", "dialogues of finished units", ("outcome",))
        self._audio = Counter("speechchat_audio_seconds", "seconds of accepted audio")
        self._stages = Counter("speechchat_stage_seconds", "seconds in a stage", ("stage", "clock"))
        self._texts = Counter("speechchat_texts", "units written")
        self._troubles = Counter("speechchat_troubles", "units quarantined, workers given up, and the like")
        self._workers = Gauge("speechchat_workers", "workers that are ready", ("kind",))
        self._busy = Gauge("speechchat_busy_workers", "workers that have a unit in hand", ("kind",))
        self._flying = Gauge("speechchat_units_in_flight", "units in the hands of workers")
        self._tokens = Gauge("speechchat_tokens", "tokens billed to the writers")
        self._dollars = Gauge("speechchat_dollars", "dollars billed to the writers")

    def __getattr__(self, name: str) -> Any:
        """What is not counted is passed on as it is."""
        return getattr(self._observer, name)

    def wrote(self, unit: int, seconds: float) -> None:
        self._texts.inc()
        self._observer.wrote(unit, seconds)

    def written(self, progress: TextProgress) -> None:
        self._tokens.set(progress.tokens)
        self._dollars.set(progress.cost)
        self._observer.written(progress)

    def workers(self, writers: Pool, studios: Pool) -> None:
        for kind, pool in (("writer", writers), ("studio", studios)):
            self._workers.set(pool.open, {"kind": kind})
            self._busy.set(pool.busy, {"kind": kind})
        self._flying.set(writers.units + studios.units)
        self._observer.workers(writers, studios)

    def finished(self, manifest: Manifest, progress: Progress) -> None:
        self._units.inc()
        _add(self._dialogues, manifest.accepted, outcome="accepted")
        _add(self._dialogues, sum(manifest.rejected.values()), outcome="rejected")
        _add(self._audio, manifest.seconds)
        for stage, cost in progress.costs.items():
            _add(self._stages, cost.wall, stage=stage, clock="wall")
            _add(self._stages, cost.cpu, stage=stage, clock="cpu")
        self._observer.finished(manifest, progress)

    def trouble(self, message: str) -> None:
        self._troubles.inc()
        self._observer.trouble(message)


def _add(counter: Counter, value: float, **tags: str) -> None:
    if value > 0:  # Ray refuses to add nothing
        counter.inc(value, tags)
