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
from pipeline.backends.asr.router import ByLanguage, Named, renamed
from pipeline.backends.quality.base import QualityModel
from pipeline.backends.speaker.base import SpeakerEncoder
from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.router import ANY, Router
from pipeline.backends.watermark.base import Watermark
from pipeline.config import Config, TtsEngineConfig
from pipeline.dialogue import Language, ModelUse
from pipeline.errors import ConfigError, ModelError
from pipeline.listening_sections import RecognizerConfig

Room = Literal["tts", "asr", "quality", "speaker", "vad", "watermark"]

ENGINES: dict[Room, dict[str, str]] = {
    "tts": {
        "kokoro": "pipeline.backends.tts.kokoro:build",
        "hibari": "pipeline.backends.tts.hibari:build",
        "coqui": "pipeline.backends.tts.coqui:build",
        "http": "pipeline.backends.tts.http:build",
    },
    "asr": {
        "faster-whisper": "pipeline.backends.asr.faster_whisper:build",
        "http": "pipeline.backends.asr.http:build",
        "sherpa": "pipeline.backends.asr.sherpa:build",
    },
    "quality": {"dnsmos": "pipeline.backends.quality.dnsmos:build"},
    "speaker": {"resemblyzer": "pipeline.backends.speaker.resemblyzer:build"},
    "vad": {"silero": "pipeline.backends.vad.silero:build"},
    "watermark": {"audioseal": "pipeline.backends.watermark.audioseal:build"},
}
"""By room and name: "module:function". Signatures: build(section) in the rooms tts and asr, which may have
several sections; build(config) in the others."""

EXTRAS = {"coqui": "coqui", "sherpa": "sherpa", "audioseal": "watermark"}
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
    """Who listens first: `asr`, or for a language that has one of its own `asr.by_language`. Raises as
    `make_synthesizer`, and ConfigError where one does not understand the language that it is to hear."""
    sections = _sections(config)
    made = {key: _open_recognizer(key, section) for key, section in dict(sections.values()).items()}
    if len(made) == 1:
        return next(iter(made.values()))
    return ByLanguage({language: made[key] for language, (key, _) in sections.items()})


def make_second(config: Config) -> Recognizer | None:
    """Who is asked where the first disagrees with the text: `asr.second`, or None. Raises as `make_synthesizer`."""
    return _open_recognizer("asr.second", config.asr.second) if config.asr.second else None


def _sections(config: Config) -> dict[Language, tuple[str, RecognizerConfig]]:
    """Whose ears a language of the run has first: the key of its section, and the section."""
    found: dict[Language, tuple[str, RecognizerConfig]] = {}
    for language in config.active_languages:
        own = config.asr.by_language.get(language)
        key, section = (f"asr.by_language.{language}", own) if own else ("asr", config.asr)
        if language not in section.languages:
            way_out = "" if own else f", or give it one of its own in asr.by_language.{language}"
            raise ConfigError(
                f"{key}.languages: {section.engine} is to hear {language} (languages.{language}), which is not in "
                f"{list(section.languages)}: take a recogniser that understands it{way_out}"
            )
        found[language] = key, section
    return found


def _open_recognizer(key: str, section: RecognizerConfig) -> Recognizer:
    with renamed(key):
        recognizer: Recognizer = _make("asr", section.engine, section, key=f"{key}.engine")
    return recognizer if key == "asr" else Named(key, recognizer)


def make_quality(config: Config) -> QualityModel | None:
    """The engine that `quality.engine` names, None for "none". Raises as `make_synthesizer`."""
    return None if config.quality.engine == "none" else _make("quality", config.quality.engine, config)


def make_encoder(config: Config) -> SpeakerEncoder | None:
    """The engine that `quality.speaker` names, None for "none". Raises as `make_synthesizer`."""
    name = config.quality.speaker
    return None if name == "none" else _make("speaker", name, config)


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
        models = _models("tts", section.kind, f"tts.engines.{name}.kind")
        # An engine may have several models, and several engines may have one of the same role.
        with _named(name):
            uses = models(section)
        found += tuple(use.model_copy(update={"role": f"{use.role}:{name}"}) for use in uses)
    found += _recognizer_models(config)
    others: dict[Room, str] = {
        "vad": "silero" if config.audio.trim == "vad" else "none",
        "watermark": config.watermark.engine,
        "quality": config.quality.engine,
        "speaker": config.quality.speaker,
    }
    for room, name in others.items():
        if name != "none":
            found += _models(room, name, _key(room))(config)
    return found


def _recognizer_models(config: Config) -> tuple[ModelUse, ...]:
    sections = dict(_sections(config).values()) | ({"asr.second": config.asr.second} if config.asr.second else {})
    found: tuple[ModelUse, ...] = ()
    for key, section in sections.items():
        models = _models("asr", section.engine, f"{key}.engine")
        with renamed(key):
            uses = models(section)
        role = key.replace("asr.by_language.", "asr:").replace("asr.second", "asr:second")
        found += tuple(use.model_copy(update={"role": role}) for use in uses)
    return found


def engine_names(room: Room) -> list[str]:
    """The names that `<room>.engine` (`tts.engines.NAME.kind`, `quality.speaker`) may have, in alphabetical order."""
    own = ["none"] if room in ("quality", "speaker", "watermark") else []
    return sorted({*own, *ENGINES[room], *_foreign(room)})


def _key(room: Room) -> str:
    return "quality.speaker" if room == "speaker" else f"{room}.engine"


def _foreign(room: Room) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"speechchat.backends.{room}")}


def _make(room: Room, name: str, *args: object, key: str = "") -> Any:
    key = key or _key(room)
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


def _models(room: Room, name: str, key: str) -> Callable[..., tuple[ModelUse, ...]]:
    """The function `models` beside the engine's `build`. Raises ConfigError where there is none."""
    module = getattr(_builder(room, name, key), "__module__", None) or "builtins"
    models = getattr(import_module(module), "models", None)
    if not callable(models):
        raise ConfigError(
            f"{key}: {name!r} is no engine: {module} has no function `models`, which says what the engine loads"
        )
    return models


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
    # Checked before the import, whose errors of this kind may as well be bugs of the module.
    if not all([*module.split("."), function]):
        raise ConfigError(f"{key}: {name!r} names no function: write package.module:function")
    try:
        found = getattr(import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"{key}: {name!r} cannot be imported: {error}") from None
    if not callable(found):
        raise ConfigError(f"{key}: {name!r} is no function but {type(found).__name__}: write package.module:function")
    return found
