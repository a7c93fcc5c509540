"""What both engines share: the job, how a worker is made of it, and how the driver is told what happens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline import __version__, backends, models
from pipeline.backends.llm.embedded import SLOTS, EmbeddedServer, request_extras
from pipeline.config import Config, digest
from pipeline.dialogue import ModelUse
from pipeline.errors import ConfigError
from pipeline.plan import Unit
from pipeline.shards.store import Manifest, RunFolder
from pipeline.sources import ChatterbotSource
from pipeline.stages import cast, judge, listen, pack, speak
from pipeline.stages.cast import Casting
from pipeline.stages.pack import Origin
from pipeline.stages.studio import Progress, Studio
from pipeline.stages.write import TextStage, text_digest_parts
from pipeline.text.rates import warm
from prompts import load
from speakers import load_library

EMBEDDED = "gemma-3-270m"


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, picklable. root: the run folder, seen by every worker under the same path."""

    config: Config
    root: Path
    origin: Origin

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root)


@dataclass
class Done:
    """Finished units, summed up. seconds: of accepted audio."""

    units: int = 0
    planned: int = 0
    accepted: int = 0
    seconds: float = 0.0

    def add(self, manifest: Manifest) -> None:
        self.units += 1
        self.planned += manifest.planned
        self.accepted += manifest.accepted
        self.seconds += manifest.seconds


class Observer(Protocol):
    """Told by the driver; each call returns at once."""

    def planned(self, config: Config, done: Done) -> None: ...
    def wrote(self, unit: int, seconds: float) -> None:
        """The text of a unit is there; seconds: it took, other units beside it included."""
        ...

    def written(self, dialogues: int) -> None:
        """dialogues: texts written in this session so far."""
        ...

    def progress(self, studios: list[Progress]) -> None: ...
    def finished(self, manifest: Manifest, progress: Progress) -> None: ...
    def trouble(self, message: str) -> None: ...


class Engine(Protocol):
    """Takes every unit through text and speech. Units that cannot be made are quarantined and named to the observer;
    an error that no other unit would escape (a dead endpoint, a full disk, a missing model) is raised."""

    def run(self, job: Job, units: Iterator[Unit], observer: Observer) -> None: ...


def make_job(config: Config, root: Path) -> Job:
    """The job, with the digest of each stage. Checks on the way all that can be checked before work begins:
    voices, topics, templates, model files. Raises ConfigError, ModelError."""
    library = load_library()
    Casting(config, library)
    writer_models = (writer_use(config),)
    speech_models = backends.speech_models(config)
    content = config.content()
    templates = [load(config.writer.prompt, language) for language in config.active_languages]
    text = digest(*text_digest_parts(config, templates, ChatterbotSource(config)), _plain(writer_models))
    speech_keys = {key: content[key] for key in ("cast", "tts", "audio", "asr", "quality")}
    versions = [cast.VERSION, speak.VERSION, listen.VERSION, pack.VERSION]
    digests = {
        "text": text,
        "speech": digest(versions, speech_keys, library.digest, _plain(speech_models)),
        "judge": digest(judge.VERSION, content["judge"]),
    }
    return Job(config, root, Origin(f"speechchat {__version__}", digests, writer_models + speech_models))


def writer_use(config: Config) -> ModelUse:
    if config.writer.base_url is None:
        if config.writer.model != EMBEDDED:
            raise ConfigError(
                f"writer.model={config.writer.model!r} needs writer.base_url: without it {EMBEDDED} writes"
            )
        return models.uses(EMBEDDED, "writer", config.writer.model_path)
    return ModelUse(role="writer", name=config.writer.model, sha256="", license="as stated by the endpoint")


def _plain(uses: tuple[ModelUse, ...]) -> list[dict[str, str]]:
    return [item.model_dump() for item in uses]


@asynccontextmanager
async def open_text(job: Job) -> AsyncIterator[TextStage]:
    """The text stage of one worker; without an endpoint in the configuration it starts the embedded one beside it."""
    # Here and not above: the client takes seconds to import, and only a worker that writes needs it.
    from pipeline.backends.llm.openai import OpenAIWriter

    config = job.config.writer
    source = ChatterbotSource(job.config)
    with ExitStack() as stack:
        stack.enter_context(job.folder.worker_lock())
        if config.base_url is None:
            model = models.main_file(EMBEDDED, config.model_path)
            server = stack.enter_context(contextlib.closing(EmbeddedServer(model)))
            # One slot serves one request at a time: a longer queue would only run into the timeout, and dialogues
            # that are written one after the other let the first unit be spoken while the second is written.
            config = config.model_copy(update={"concurrency": SLOTS})
            writer = OpenAIWriter(config, server.base_url, request_extras, deterministic=True)
        else:
            writer = OpenAIWriter(config, config.base_url, None, deterministic=False)
        try:
            yield TextStage(job.config.model_copy(update={"writer": config}), writer, source, job.folder)
        finally:
            await writer.close()


def open_studio(job: Job) -> tuple[Studio, BinaryIO]:
    """A studio with its models, and the lock that says that it may write to the run."""
    config, library = job.config, load_library()
    lock = job.folder.worker_lock()
    for language in config.active_languages:
        warm(language)
    synthesizer = backends.make_synthesizer(config, library)
    if not synthesizer.stochastic and len(set(config.tts.speeds)) < len(config.tts.speeds):
        raise ConfigError(
            f"tts.speeds: {synthesizer.name} knows no chance, so the same speed twice is the same take twice"
        )
    studio = Studio(
        config,
        job.folder,
        Casting(config, library),
        synthesizer,
        backends.make_recognizer(config),
        backends.make_quality(config),
        job.origin,
    )
    return studio, lock
