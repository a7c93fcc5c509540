"""The models, behind Protocols (`*/base.py`), and the registry that finds them by the name in the configuration.

A backend is one file with the functions `build` and `models`, and one line here. A package of somebody else's has such
a file too and names its `build` in an entry point of the group `speechchat.backends.tts` (or `.asr` and so on); the
entry point's name is then what `tts.engines.NAME.kind`, `asr.engine` and so on say. A name with a colon is the function
itself, `package.module:build`: what can be imported needs no registration.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pipeline.audio import Vad
from pipeline.backends.asr.base import Recognizer
from pipeline.backends.quality.base import QualityModel
from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.router import ANY, Router
from pipeline.backends.watermark.base import Watermark
from pipeline.config import Config, TtsEngineConfig
from pipeline.dialogue import ModelUse
from pipeline.errors import ConfigError, ModelError

Room = Literal["tts", "asr", "quality", "vad", "watermark"]

ENGINES: dict[Room, dict[str, str]] = {
    "tts": {
        "kokoro": "pipeline.backends.tts.kokoro:build",
        "hibari": "pipeline.backends.tts.hibari:build",
        "coqui": "pipeline.backends.tts.coqui:build",
        "http": "pipeline.backends.tts.http:build",
    },
    "asr": {"faster-whisper": "pipeline.backends.asr.faster_whisper:build"},
    "quality": {"dnsmos": "pipeline.backends.quality.dnsmos:build"},
    "vad": {"silero": "pipeline.backends.vad.silero:build"},
    "watermark": {"audioseal": "pipeline.backends.watermark.audioseal:build"},
}
"""By room and name: "module:function". Signatures: build(section of tts.engines); build(config) in the other rooms."""

EXTRAS = {"coqui": "coqui", "audioseal": "watermark"}
"""The extra that an engine's packages are in, where that is not `embedded`."""


def make_synthesizer(config: Config, names: Iterable[str] | None = None) -> Router:
    """The engines in `tts.engines` (only those of `names`, if given) behind one door.

    Raises ConfigError where there is none of that kind, ModelError where one does not load.
    """
    return Router({name: open_engine(name, config) for name in (config.tts.engines if names is None else names)})


def open_engine(name: str, config: Config) -> Synthesizer:
    """The engine of this name, here or in its own environment. Raises as `make_synthesizer`."""
    section = config.tts.engines[name]
    if section.environment.given:
        from pipeline.backends.tts.outside import open_outside

        return open_outside(name, section, config.engine.kind == "ray")
    return build_engine(name, section)


def build_engine(name: str, section: TtsEngineConfig) -> Synthesizer:
    """The engine of this section in this very process. Raises as `make_synthesizer`."""
    with _named(name):
        return _make("tts", section.kind, section, key=f"tts.engines.{name}.kind")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors say which engine they are about: it does not know what the configuration calls it."""
    try:
        yield
    except (ConfigError, ModelError) as error:
        said = str(error).replace(ANY, f"tts.engines.{name}")
        raise type(error)(said if f"tts.engines.{name}" in said else f"tts.engines.{name}: {said}") from error


def make_recognizer(config: Config) -> Recognizer:
    """The engine that `asr.engine` names. Raises as `make_synthesizer`."""
    return _make("asr", config.asr.engine, config)


def make_quality(config: Config) -> QualityModel | None:
    """The engine that `quality.engine` names, None for "none". Raises as `make_synthesizer`."""
    return None if config.quality.engine == "none" else _make("quality", config.quality.engine, config)


def make_vad(config: Config) -> Vad | None:
    """What tells speech from the rest, None where `audio.trim` goes by level alone. Raises as `make_synthesizer`."""
    return _make("vad", "silero", config) if config.audio.trim == "vad" else None


def make_watermark(config: Config) -> Watermark | None:
    """The engine that `watermark.engine` names, None for "none". Raises as `make_synthesizer`."""
    return None if config.watermark.engine == "none" else _make("watermark", config.watermark.engine, config)


def speech_models(config: Config) -> tuple[ModelUse, ...]:
    """The models that speak, listen and judge, without loading them. Raises as `make_synthesizer`."""
    found: tuple[ModelUse, ...] = ()
    for name, section in config.tts.engines.items():
        module = import_module(_builder("tts", section.kind, f"tts.engines.{name}.kind").__module__)
        # An engine may have several models, and several engines may have one of the same role.
        with _named(name):
            uses = module.models(section)
        found += tuple(use.model_copy(update={"role": f"{use.role}:{name}"}) for use in uses)
    others: dict[Room, str] = {
        "vad": "silero" if config.audio.trim == "vad" else "none",
        "watermark": config.watermark.engine,
        "asr": config.asr.engine,
        "quality": config.quality.engine,
    }
    for room, name in others.items():
        if name != "none":
            module = import_module(_builder(room, name, f"{room}.engine").__module__)
            found += module.models(config)
    return found


def engine_names(room: Room) -> list[str]:
    """The names that `<room>.engine` (`tts.engines.NAME.kind`) may have, in alphabetical order."""
    own = ["none"] if room in ("quality", "watermark") else []
    return sorted({*own, *ENGINES[room], *_foreign(room)})


def _foreign(room: Room) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"speechchat.backends.{room}")}


def _make(room: Room, name: str, *args: object, key: str = "") -> Any:
    key = key or f"{room}.engine"
    try:
        return _builder(room, name, key)(*args)
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("pipeline", "speakers", ""):
            raise
        way_out = (
            f"pip install 'speechchat[{EXTRAS.get(name, 'embedded')}]'"
            if name in ENGINES[room]
            else f"install {module!r}"
        )
        raise ModelError(
            f"{key}={name} needs the package {module!r}, which cannot be imported ({error}): {way_out}"
        ) from error


def _builder(room: Room, name: str, key: str) -> Callable[..., Any]:
    if name in ENGINES[room]:
        module, _, function = ENGINES[room][name].partition(":")
        return getattr(import_module(module), function)
    if ":" in name:
        return _imported(name, key)
    foreign = _foreign(room)
    if name in foreign:
        return foreign[name].load()
    known = engine_names(room)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{key}: unknown engine {name!r}; {hint}known: {', '.join(known)}")


def _imported(name: str, key: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"{key}: {name!r} cannot be imported: {error}") from None
