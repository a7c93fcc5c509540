"""The models, behind Protocols (`*/base.py`), and the registry that finds them by the name in the configuration.

A backend is one file with the functions `build` and `models`, and one line here. A package of somebody else's has such
a file too and names its `build` in an entry point of the group `speechchat.backends.tts`, `.asr` or `.quality`; the
entry point's name is then what `tts.engine` says. A name with a colon is the function itself, `package.module:build`:
what can be imported needs no registration.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pipeline.backends.asr.base import Recognizer
from pipeline.backends.quality.base import QualityModel
from pipeline.backends.tts.base import Synthesizer
from pipeline.config import Config
from pipeline.dialogue import ModelUse
from pipeline.errors import ConfigError, ModelError
from speakers.library import VoiceLibrary

Room = Literal["tts", "asr", "quality"]

ENGINES: dict[Room, dict[str, str]] = {
    "tts": {"kokoro": "pipeline.backends.tts.kokoro:build"},
    "asr": {"faster-whisper": "pipeline.backends.asr.faster_whisper:build"},
    "quality": {"dnsmos": "pipeline.backends.quality.dnsmos:build"},
}
"""By room and name: "module:function". Signatures: build(config, library) for tts, build(config) for the others."""


def make_synthesizer(config: Config, library: VoiceLibrary) -> Synthesizer:
    """The engine that `tts.engine` names. Raises ConfigError where there is none, ModelError where it does not load."""
    return _make("tts", config.tts.engine, config, library)


def make_recognizer(config: Config) -> Recognizer:
    """The engine that `asr.engine` names. Raises as `make_synthesizer`."""
    return _make("asr", config.asr.engine, config)


def make_quality(config: Config) -> QualityModel | None:
    """The engine that `quality.engine` names, None for "none". Raises as `make_synthesizer`."""
    return None if config.quality.engine == "none" else _make("quality", config.quality.engine, config)


def speech_models(config: Config) -> tuple[ModelUse, ...]:
    """The models that speak, listen and judge, without loading them. Raises as `make_synthesizer`."""
    names: dict[Room, str] = {"tts": config.tts.engine, "asr": config.asr.engine, "quality": config.quality.engine}
    found: tuple[ModelUse, ...] = ()
    for room, name in names.items():
        if (room, name) != ("quality", "none"):
            module = import_module(_builder(room, name).__module__)
            found += module.models(config)
    return found


def engine_names(room: Room) -> list[str]:
    """The names that `<room>.engine` may have, in alphabetical order."""
    own = ["none"] if room == "quality" else []
    return sorted({*own, *ENGINES[room], *_foreign(room)})


def _foreign(room: Room) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"speechchat.backends.{room}")}


def _make(room: Room, name: str, *args: object) -> Any:
    key = f"{room}.engine={name}"
    try:
        return _builder(room, name)(*args)
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("pipeline", "speakers", ""):
            raise
        way_out = "pip install 'speechchat[embedded]'" if name in ENGINES[room] else f"install {module!r}"
        raise ModelError(
            f"{key} needs the package {module!r}, which cannot be imported ({error}): {way_out}"
        ) from error


def _builder(room: Room, name: str) -> Callable[..., Any]:
    if name in ENGINES[room]:
        module, _, function = ENGINES[room][name].partition(":")
        return getattr(import_module(module), function)
    if ":" in name:
        return _imported(room, name)
    foreign = _foreign(room)
    if name in foreign:
        return foreign[name].load()
    known = engine_names(room)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{room}.engine: unknown engine {name!r}; {hint}known: {', '.join(known)}")


def _imported(room: Room, name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"{room}.engine: {name!r} cannot be imported: {error}") from None
