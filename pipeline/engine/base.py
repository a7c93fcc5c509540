"""What both engines share: the job, how a worker is made of it, and how the driver is told what happens."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline import __version__, backends, models
from pipeline.backends.asr.router import close
from pipeline.backends.llm.base import Unasked, Writer
from pipeline.backends.llm.embedded import SLOTS, EmbeddedServer, request_extras
from pipeline.config import Config, TtsEngineConfig, digest
from pipeline.dialogue import ModelUse, Record
from pipeline.errors import ConfigError
from pipeline.licences import check_licences
from pipeline.listening_sections import AsrConfig, RecognizerConfig
from pipeline.plan import Unit
from pipeline.shards.manifest import Manifest
from pipeline.shards.store import RunFolder
from pipeline.stages import cast, judge, listen, pack, repair, rephrase, speak
from pipeline.stages.cast import Casting
from pipeline.stages.likeness import References
from pipeline.stages.listen import Listener
from pipeline.stages.pack import Origin
from pipeline.stages.rephrase import LlmRephraser
from pipeline.stages.replies import Ledger
from pipeline.stages.speak import Speaking
from pipeline.stages.studio import Progress, Studio
from pipeline.stages.write import TextProgress, TextStage, text_digest_parts
from pipeline.text.rates import warm
from prompts import load as load_prompt
from speakers import load_library

EMBEDDED = "gemma-3-270m"
TURNS = 4
"""Of a dialogue, about: they are spoken together."""
GPU_BATCH = 16
"""What a model of Coqui takes at once on a GPU."""
WINDOW = 16
"""Units in flight, where few workers need no more."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, picklable. root: the run folder, seen by every worker under the same path.

    voices: digest of the voice library that the run was begun with, "" where nothing is spoken.
    """

    config: Config
    root: Path
    origin: Origin
    voices: str = ""

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


class Pool(Record):
    """Workers of a kind. open: that are ready; busy: those of them that have a unit in hand; units: in their hands."""

    open: int = 0
    busy: int = 0
    units: int = 0


class Observer(Protocol):
    """Told by the driver; each call returns at once."""

    def planned(self, config: Config, done: Done) -> None: ...
    def writing(self, dialogues: int) -> None:
        """So many texts are to be written before anything is spoken."""
        ...

    def wrote(self, unit: int, seconds: float) -> None:
        """The text of a unit is there; seconds: it took, other units beside it included."""
        ...

    def written(self, progress: TextProgress) -> None:
        """What all writers together have done in this session."""
        ...

    def compared(self, done: int, total: int) -> None:
        """The barrier between text and speech has gone through `done` of `total` units."""
        ...

    def workers(self, writers: Pool, studios: Pool) -> None:
        """Who is there now; told about twice a second while an engine is at work."""
        ...

    def progress(self, studios: list[Progress]) -> None: ...
    def finished(self, manifest: Manifest, progress: Progress) -> None: ...
    def trouble(self, message: str) -> None: ...


class Engine(Protocol):
    """Takes every unit through text and speech. Units that cannot be made are quarantined and named to the observer;
    an error that no other unit would escape (a dead endpoint, a full disk, a missing model) is raised.

    A context manager: whatever it starts lives until it is left.
    """

    def __enter__(self) -> Engine: ...
    def __exit__(self, *_: object) -> None: ...

    def run(self, job: Job, units: Iterator[Unit], observer: Observer, text_only: bool = False) -> None:
        """text_only: stop where a unit's text is published."""
        ...


def make_job(config: Config, root: Path) -> Job:
    """The job, with the digest of each stage. Checks on the way all that can be checked before work begins:
    voices, topics, templates, model files. Raises ConfigError, ModelError."""
    library = load_library(config.cast.library)
    casting = Casting(config, library)
    config = _seen_from_anywhere(config)
    writer_models = writer_uses(config)
    speech_models = backends.speech_models(config)
    heard = dict.fromkeys(voice for group in casting.voices.values() for voice in group)
    check_licences(config, heard, writer_models + speech_models)
    content = config.content()
    text = digest(*text_digest_parts(config), _plain(writer_models if config.llm_steps else ()))
    speech_keys = {key: content[key] for key in ("cast", "tts", "audio", "watermark", "asr", "quality", "repair")}
    versions = [cast.VERSION, speak.VERSION, listen.VERSION, pack.VERSION, repair.VERSION]
    digests = {
        "text": text,
        "speech": digest(
            versions, speech_keys, library.digest, _plain(speech_models), *_rephrased(config, writer_models)
        ),
        "judge": digest(judge.VERSION, content["judge"]),
    }
    origin = Origin(f"speechchat {__version__}", digests, writer_models + speech_models)
    return Job(config, root, origin, library.digest)


def rephrases(config: Config) -> bool:
    return "rephrase" in config.repair.ladder


def _rephrased(config: Config, writers: tuple[ModelUse, ...]) -> Iterator[object]:
    """What speech depends on where the LLM may say a turn in other words."""
    if rephrases(config):
        content = config.content()
        prompts = {language: load_prompt("rephrase", language).digest for language in config.active_languages}
        yield [rephrase.VERSION, prompts, content["writer"], content["text"], _plain(writers)]


def _seen_from_anywhere(config: Config) -> Config:
    """The same configuration with the paths that workers open made absolute: a worker may stand in another folder."""
    steps = {}
    for name in ("rewrite", "converse", "style", "review"):
        step = getattr(config.text, name)
        if step.prompt and "/" in step.prompt:
            steps[name] = step.model_copy(update={"prompt": str(Path(step.prompt).absolute())})
    text = config.text.model_copy(update=steps)
    reuse = config.writer.reuse and config.writer.reuse.absolute()
    voices = config.cast.library and config.cast.library.absolute()
    engines = {}
    for name, section in config.tts.engines.items():
        environment = section.environment.model_copy(update={"path": _placed(section.environment.path)})
        update = {"model_path": _placed(section.model_path), "environment": environment}
        engines[name] = section.model_copy(update=update)
    mark = {name: _placed(getattr(config.watermark, name)) for name in ("model_path", "detector_path")}
    writer = {"reuse": reuse, "model_path": _placed(config.writer.model_path)}
    return config.model_copy(
        update={
            "text": text,
            "writer": config.writer.model_copy(update=writer),
            "cast": config.cast.model_copy(update={"library": voices}),
            "tts": config.tts.model_copy(update={"engines": engines}),
            "asr": _placed_asr(config.asr),
            "watermark": config.watermark.model_copy(update=mark),
        }
    )


def _placed_asr(asr: AsrConfig) -> AsrConfig:
    def placed(section: RecognizerConfig) -> RecognizerConfig:
        return section.model_copy(update={"model_path": _placed(section.model_path)})

    own = {language: placed(section) for language, section in asr.by_language.items()}
    update = {"model_path": _placed(asr.model_path), "by_language": own, "second": asr.second and placed(asr.second)}
    return asr.model_copy(update=update)


def _placed(path: Path | None) -> Path | None:
    return path and path.expanduser().absolute()


def writer_uses(config: Config) -> tuple[ModelUse, ...]:
    """The LLMs that write and review. Raises ConfigError where one is named that nobody serves, ModelError."""
    writer, review = config.writer, config.text.review
    asked = bool(config.llm_steps) or rephrases(config)
    if config.embedded:
        if writer.model != EMBEDDED:
            raise ConfigError(f"writer.model={writer.model!r} needs writer.base_url: without it {EMBEDDED} writes")
        uses = {writer.model: models.uses(EMBEDDED, "writer", writer.model_path)} if asked else {}
    else:
        names = sorted({item.model for item in writer.endpoints.values()}) or [writer.model]
        uses = {name: _served("writer", name) for name in names if asked}
    if review.enabled and (review.base_url or review.model):
        name = review.model or writer.model
        uses.setdefault(name, _served("reviewer", name))
    return tuple(uses.values())


def _served(role: str, name: str) -> ModelUse:
    return ModelUse(role=role, name=name, sha256="", license="as stated by the endpoint")


def _plain(uses: tuple[ModelUse, ...]) -> list[dict[str, str]]:
    return [item.model_dump() for item in uses]


@asynccontextmanager
async def open_writer(job: Job, asks: bool) -> AsyncIterator[tuple[Writer, Ledger | None]]:
    """The LLM of one worker, and the run's ledger where there is a budget. asks: whether the LLM will be asked at all:
    then, without an endpoint in the configuration, the embedded one is started."""
    config = job.config
    async with AsyncExitStack() as stack:
        ledger = None
        if config.writer.budget:
            ledger = Ledger(job.folder.ledger, config.writer.budget, 2 * config.writer.timeout)
            stack.callback(ledger.close)
        writer = _writer(config, stack) if asks else Unasked()
        stack.push_async_callback(writer.close)
        yield writer, ledger


def _writer(config: Config, stack: AsyncExitStack) -> Writer:
    # Here and not above: the client takes a second to import, and only a worker that asks an LLM needs it.
    from pipeline.backends.llm.openai import make_writer

    served = None
    if config.embedded:
        model = models.main_file(EMBEDDED, config.writer.model_path)
        served = stack.enter_context(contextlib.closing(EmbeddedServer(model))).base_url, request_extras
    return make_writer(config, served)


@asynccontextmanager
async def open_text(job: Job) -> AsyncIterator[TextStage]:
    """The text stage of one worker, with its writer."""
    config = job.config
    async with AsyncExitStack() as stack:
        stack.enter_context(job.folder.worker_lock())
        writer, ledger = await stack.enter_async_context(open_writer(job, bool(config.llm_steps)))
        stage = TextStage(config, writer, job.folder, ledger, writing_slots(config))
        notes = _Notes(stage)
        logging.getLogger("speechchat").addHandler(notes)
        stack.callback(logging.getLogger("speechchat").removeHandler, notes)
        yield stage


class _Notes(logging.Handler):
    """Hands a worker's warnings over to the driver, which shows them: nobody reads a worker's own output."""

    def __init__(self, stage: TextStage):
        super().__init__(logging.WARNING)
        self._stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        self._stage.progress.notes += (record.getMessage(),)


def writing_slots(config: Config) -> int:
    """Dialogues that a writer has under way: as many as its endpoints serve at once.

    The embedded LLM serves one request at a time: a longer queue would only run into the timeout, and dialogues that
    are written one after the other let the first unit be spoken while the second is written.
    """
    writer = config.writer
    if config.embedded:
        return SLOTS
    return sum(item.concurrency or writer.concurrency for item in writer.endpoints.values()) or writer.concurrency


def units_at_once(config: Config) -> int:
    """Units that a studio works on at once: as many as keep the engine's batches, or a server's slots, full."""
    if config.engine.studio_units is not None:
        return config.engine.studio_units
    wanted = max(map(_batch, config.tts.engines.values()))
    return min(-(-wanted // TURNS), config.engine.window or WINDOW)


def units_in_flight(config: Config, studios: int, of_writer: int) -> int:
    """The window of a run with so many studios and `of_writer` units in the hands of a writer: while one unit of a
    studio is spoken, the text of the next is there, or is being written."""
    if config.engine.window is not None:
        return config.engine.window
    return max(WINDOW, 2 * studios * units_at_once(config) + config.engine.writers * of_writer)


def _batch(section: TtsEngineConfig) -> int:
    """Requests that an engine likes at once, as far as that can be known before it is open."""
    if section.kind == "http":
        return section.concurrency
    return section.batch or (GPU_BATCH if section.kind == "coqui" and section.device != "cpu" else 1)


def open_studio(job: Job) -> tuple[Studio, ExitStack]:
    """A studio with its models, and what is to be closed after it: its engines, and the lock that says that it may
    write to the run."""
    with ExitStack() as stack:
        stack.enter_context(job.folder.worker_lock())
        studio = _studio(job, stack)
        return studio, stack.pop_all()


def _studio(job: Job, stack: ExitStack) -> Studio:
    config, library = job.config, load_library(job.config.cast.library)
    for language in config.active_languages:
        warm(language)
    if job.voices and library.digest != job.voices:
        place = config.cast.library or "the shipped ones"
        raise ConfigError(
            f"cast.library: {place}: the voices changed while the run was under way; put them back and give the same "
            "command again, or choose another --out"
        )
    casting = Casting(config, library)
    router = backends.make_synthesizer(config)
    stack.callback(router.close)
    for language, voices in casting.voices.items():
        for voice in voices:
            unfit = router.unfit(voice, language)
            if unfit:
                raise ConfigError(
                    f"cast.library: voice {voice.id!r} of tts.engines.{voice.engine} cannot speak {language} "
                    f"({unfit}); name others in cast.users and cast.agents, or take it out of the library"
                )
    listener = _listener(config, casting, stack)
    if not all(map(router.stochastic, casting.engines)) and len(set(config.tts.speeds)) < len(config.tts.speeds):
        certain = next(name for name in casting.engines if not router.stochastic(name))
        raise ConfigError(f"tts.speeds: {certain} knows no chance, so the same speed twice is the same take twice")
    return Studio(
        config,
        job.folder,
        casting,
        Speaking(router, config, backends.make_vad(config), backends.make_watermark(config)),
        listener,
        job.origin,
        _rephraser(job, stack),
    )


def _listener(config: Config, casting: Casting, stack: ExitStack) -> Listener:
    """Its recognisers are closed with `stack`."""
    recognizer = backends.make_recognizer(config)
    stack.callback(close, recognizer)
    second = backends.make_second(config)
    if second is not None:
        stack.callback(close, second)
    encoder = backends.make_encoder(config)
    heard = dict.fromkeys(voice for group in casting.voices.values() for voice in group)
    return Listener(
        config,
        recognizer,
        second,
        backends.make_quality(config),
        encoder,
        References(heard, config.cast.library, encoder) if encoder else None,
    )


def _rephraser(job: Job, stack: ExitStack) -> LlmRephraser | None:
    """None where the ladder has no such rung; otherwise closed with `stack`."""
    if not rephrases(job.config):
        return None
    return stack.enter_context(contextlib.closing(LlmRephraser(job.config, job.folder, lambda: open_writer(job, True))))
