"""What the Ray engine asks of Ray, in one thread and with a clock of its own: a run of hours takes milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from pipeline.config import Config, EngineConfig
from pipeline.engine import ray as ray_engine
from pipeline.engine.base import Job, Observer
from pipeline.engine.watch import Watch
from pipeline.plan import Unit, plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.pack import Origin
from pipeline.stages.studio import Progress
from pipeline.stages.write import TextProgress

NEVER = float("inf")
HOURS = 50.0


@dataclass(eq=False)
class Ref:
    due: float
    outcome: Any


@dataclass
class Actor:
    """Of a kind. answers: whether it still says where it stands."""

    world: World
    kind: str
    refs: list[tuple[Ref, Unit | None]] = field(default_factory=list)
    dead: bool = False
    answers: bool = True

    @property
    def units(self) -> list[int]:
        return [unit.number for ref, unit in self.refs if unit and ref.due > self.world.now]

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=partial(self._call, name))

    def _call(self, name: str, unit: Unit | None = None, poisoned: object = None) -> Ref:
        now = self.world.now
        if self.dead:
            return Ref(now, ActorDiedError())
        if name == "progress":
            units = [Progress(unit=number, dialogues=4) for number in self.units]
            ref = Ref(now if self.answers else NEVER, TextProgress() if self.kind == "text" else units)
        elif unit is None:
            seconds, outcome = self.world.opens(self)
            ref = Ref(now + seconds, outcome)
        else:
            seconds, outcome = self.world.works(self, unit)
            ref = Ref(now + seconds, outcome)
        self.refs.append((ref, unit))
        return ref


class World:
    """works: (seconds, outcome) of a unit in the hands of an actor, a RayError for one that it dies of. opens: of an
    actor that begins."""

    def __init__(self, works: Callable[[Actor, Unit], tuple[float, Any]]):
        self.now = 0.0
        self.actors: list[Actor] = []
        self.gone: set[str] = set()
        self.works = works
        self.opens: Callable[[Actor], tuple[float, Any]] = lambda actor: (1.0, "node")

    def monotonic(self) -> float:
        return self.now

    def create(self, kind: str, job: Job, units: int) -> Actor:
        assert len(self.actors) < 200, "the run does not end"
        self.actors.append(Actor(self, kind))
        return self.actors[-1]

    def is_initialized(self) -> bool:
        return True

    def wait(self, refs: Sequence[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        assert self.now < HOURS * 3600, "the run does not end"
        until = self.now + timeout
        while len(ready := [ref for ref in refs if ref.due <= self.now]) < num_returns and self.now < until:
            self.now = min([until, *(ref.due for ref in refs if ref.due > self.now)])
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Ref) -> Any:
        if isinstance(ref.outcome, RayTaskError) or not isinstance(ref.outcome, Exception):
            if isinstance(ref.outcome, Exception):
                raise ref.outcome
            return ref.outcome
        for actor in self.actors:
            if any(own is ref for own, _ in actor.refs):
                self.kill(actor)
        raise ref.outcome

    def kill(self, actor: Actor) -> None:
        actor.dead = True
        for ref, _ in actor.refs:
            if ref.due > self.now:
                ref.due, ref.outcome = self.now, ActorDiedError()


def spoken(unit: Unit) -> tuple[Any, Progress]:
    return SimpleNamespace(unit=unit.number), Progress(unit=unit.number)


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("run", "", error, proctitle="worker", ip="127.0.0.1")


def make_job(root: Path, units: int = 4, written: int = 0, **engine: Any) -> Job:
    """Units of four dialogues; the text of the first ones is there."""
    section = EngineConfig(**{"kind": "ray", "studios": 1, "studio_units": 1, "writers": 1, **engine})
    job = Job(Config(dialogues=4 * units, unit_size=4, languages={"en": 1}, engine=section), root, Origin("", {}, ()))
    for number in range(written):
        write(job.folder, number)
    return job


def write(folder: RunFolder, number: int) -> None:
    folder.text(number).parent.mkdir(parents=True, exist_ok=True)
    folder.text(number).touch()


def run(
    patch: pytest.MonkeyPatch, world: World, job: Job, observer: Observer, nodes: Sequence[dict[str, float]] = ()
) -> None:
    """nodes: resources; one that has room for all, if none is named."""

    def live_nodes() -> list[dict[str, Any]]:
        return [{"Resources": item, "NodeID": "node"} for item in nodes or [{"CPU": 100.0}]]

    patch.setattr("pipeline.engine.nodes.live_nodes", live_nodes)
    patch.setattr("pipeline.engine.nodes.Nodes.gone", lambda self, node: node in world.gone)
    patch.setattr(ray_engine, "ray", world)
    patch.setattr(ray_engine, "create", world.create)
    patch.setattr(ray_engine, "time", SimpleNamespace(monotonic=world.monotonic, sleep=time.sleep))
    patch.setattr(ray_engine, "Watch", partial(Watch, clock=world.monotonic))
    patch.setattr(ray_engine, "Metered", lambda told: told)
    patch.setattr(ray_engine.preflight, "check", lambda engine, folder: None)
    # The driver has looked at what a unit holds, to draw its rows.
    units = (unit for unit in plan_units(job.config) if unit.dialogues)
    ray_engine.RayEngine().run(job, units, observer)
