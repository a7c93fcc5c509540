"""The workers of the Ray engine: actors that hold a text stage or a studio, and what they ask of a node."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import RuntimeEnvSetupError

from pipeline.config import EngineConfig
from pipeline.engine.base import Job, open_studio, open_text
from pipeline.errors import ConfigError
from pipeline.plan import Unit
from pipeline.shards.manifest import Manifest
from pipeline.stages.studio import Progress
from pipeline.stages.write import TextProgress

Kind = Literal["text", "studio"]


@ray.remote
class TextActor:
    """Holds a text stage (and the embedded LLM server, where there is no endpoint)."""

    def __init__(self, job: Job):
        self._job = job
        self._stack = AsyncExitStack()
        self._stage: Any = None
        self._work: set[asyncio.Task[bool]] = set()

    async def open(self) -> str:
        """Returns the id of the node where it is."""
        self._stage = await self._stack.enter_async_context(open_text(self._job))
        return ray.get_runtime_context().get_node_id()

    async def run(self, unit: Unit) -> tuple[float, TextProgress]:
        started = time.perf_counter()
        work = asyncio.ensure_future(self._stage.run(unit))
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        await work
        return time.perf_counter() - started, self._stage.progress

    async def progress(self) -> TextProgress:
        return self._stage.progress if self._stage else TextProgress()

    async def close(self) -> None:
        """Stop; what was asked of an endpoint is given a moment to come in, because it may be paid for."""
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._stack.aclose()


@ray.remote
class StudioActor:
    """Holds a studio; one thread more than it has units answers `progress` while the others work."""

    def __init__(self, job: Job):
        self._job = job
        self._studio: Any = None

    def open(self) -> str:
        """Returns the id of the node where it is."""
        self._studio, self._held = open_studio(self._job)
        return ray.get_runtime_context().get_node_id()

    def run(self, unit: Unit, poisoned: dict[str, str]) -> tuple[Manifest, Progress]:
        return self._studio.run(unit, poisoned)

    def progress(self) -> list[Progress]:
        return self._studio.progress if self._studio else []


@dataclass
class Worker:
    """A worker and what it does. node: where it is, "" until it has opened. tasks: reference → unit (None while it
    opens)."""

    kind: Kind
    handle: Any
    node: str = ""
    restarts: int = 0
    tasks: dict[Any, Unit | None] = field(default_factory=dict)

    @property
    def units(self) -> list[Unit]:
        """In its hands."""
        return [unit for unit in self.tasks.values() if unit is not None]


def together(parts: list[TextProgress]) -> TextProgress:
    """Of several writers."""
    return TextProgress(
        dialogues=sum(part.dialogues for part in parts),
        kept=sum(part.kept for part in parts),
        replies=sum(part.replies for part in parts),
        tokens=sum(part.tokens for part in parts),
        cost=sum(part.cost for part in parts),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


ENVIRONMENTS: dict[Kind, str] = {"text": "engine.writer_runtime_env", "studio": "engine.studio_runtime_env"}


def create(kind: Kind, job: Job, units: int) -> Any:
    """The handle of a new actor, which Ray places where there is room, now or later. units: that it has at once."""
    return _class(kind, job.config.engine, units).remote(job)


def check_environments(engine: EngineConfig) -> None:
    """Raises ConfigError for a runtime_env that Ray would not take."""
    for kind, key in ENVIRONMENTS.items():
        try:
            _class(kind, engine, 1)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key}: {' '.join(str(error).split())[:300]}") from None


def root_cause(error: RuntimeEnvSetupError) -> str:
    """What Ray says of an environment, without the traceback of its agent: the last error that is named."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines)[-1][:400]


def _class(kind: Kind, engine: EngineConfig, units: int) -> Any:
    # Ray's own restarts and retries stay off, so that there is one place that counts.
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
    actor: Any
    if kind == "text":
        actor, environment = TextActor, engine.writer_runtime_env
        options |= {"num_cpus": engine.writer_cpus, "num_gpus": engine.writer_gpus}
    else:
        actor, environment = StudioActor, engine.studio_runtime_env
        options |= {"num_cpus": engine.studio_cpus, "num_gpus": engine.studio_gpus, "max_concurrency": units + 1}
    if environment.given:
        options["runtime_env"] = environment.given
    return actor.options(**options)
