"""The request to a speech server, made from a template: a map whose strings hold placeholders such as `{text}`.

A value that is one placeholder and nothing else keeps its type (`{speed}` is a number, `{voice.embedding}` a list);
`{{` and `}}` are braces. `{voice.clip_file}` makes the request an upload (multipart/form-data) with the clip as a file.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.voice import Recipe, SpeechRequest, VoiceKind

OPENAI: dict[str, Any] = {
    "model": "{model}",
    "input": "{text}",
    "voice": "{voice.name}",
    "response_format": "wav",
    "speed": "{speed}",
}
"""What OpenAI's own endpoint takes."""

_KEPT_CLIPS = 64  # reference clips in memory; a library may have tens of thousands, of some hundred kilobytes each
_MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
}

File = tuple[str, bytes, str]
"""Name, content and media type of an uploaded file."""


class UnfitVoice(Exception):
    """A voice lacks what the template wants of it."""


@dataclass(frozen=True)
class Form:
    """A filled template. files: by field; where there are any, the request is an upload."""

    fields: dict[str, Any]
    files: dict[str, File]


def _clip_text(request: SpeechRequest) -> str:
    if not request.voice.recipe.clip_text:
        raise UnfitVoice("its recipe has no clip_text (what is said in the clip)")
    return request.voice.recipe.clip_text


def _clip(request: SpeechRequest) -> File:
    recipe = request.voice.recipe
    path = Path(recipe.clip)
    return path.name, _read(path, recipe.clip_sha256), _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


@lru_cache(_KEPT_CLIPS)
def _read(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnfitVoice(f"reference clip {path}: {error.strerror}") from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise UnfitVoice(f"reference clip {path} is not the one of its recipe (SHA-256): build the library again")
    return data


def _base64(request: SpeechRequest) -> str:
    return base64.b64encode(_clip(request)[1]).decode()


def _timbre(request: SpeechRequest) -> dict[str, float]:
    recipe = request.voice.recipe
    if recipe.prosody and recipe.prosody != recipe.timbre:
        raise UnfitVoice("its recipe has a prosody of its own")
    return dict(recipe.timbre)


def _mix(request: SpeechRequest) -> str:
    """As Kokoro-FastAPI writes it, `af_heart(0.7)+af_bella(0.3)`; it cannot begin with a sign."""
    weights = sorted(_timbre(request).items(), key=lambda item: item[1] < 0)
    return "".join(f"{'-' if weight < 0 else '+'}{name}({abs(weight):g})" for name, weight in weights).lstrip("+")


PLACEHOLDERS: dict[str, Callable[[SpeechRequest], Any]] = {
    "text": lambda request: request.text,
    "language": lambda request: request.language,
    "language.name": lambda request: {"en": "English", "zh": "Chinese"}[request.language],
    "speed": lambda request: request.speed,
    "seed": lambda request: request.seed,
    "voice.id": lambda request: request.voice.id,
    "voice.gender": lambda request: request.voice.gender,
    "voice.age": lambda request: request.voice.age,
    "voice.accent": lambda request: request.voice.accent,
    "voice.name": lambda request: request.voice.recipe.name,
    "voice.clip": lambda request: request.voice.recipe.clip,
    "voice.clip_text": _clip_text,
    "voice.clip_base64": _base64,
    "voice.clip_uri": lambda request: f"data:{_clip(request)[2]};base64,{_base64(request)}",
    "voice.clip_file": _clip,
    "voice.embedding": lambda request: list(request.voice.recipe.embedding),
    "voice.timbre": _timbre,
    "voice.mix": _mix,
}
"""`{model}`, which is the configuration's, comes on top. clip: its path, for a server that sees the same files;
clip_uri: a data URI (RFC 2397); timbre: weights by style; mix: those as one string. accent may be empty."""

_KINDS: dict[str, VoiceKind] = {
    "voice.name": "name",
    **{name: "clip" for name in PLACEHOLDERS if name.startswith("voice.clip")},
    "voice.embedding": "embedding",
    "voice.timbre": "styles",
    "voice.mix": "styles",
}
"""The placeholders that only voices of one kind can fill."""

# What a voice is told from another by; servers may also know voices by our ids.
_WHO = {"voice.id", *_KINDS} - {"voice.clip_text"}
_WHOLE = ("voice.clip_file", "voice.embedding", "voice.timbre")


class Template:
    """body: the map. takes: kinds of voice that it must serve. model: of the configuration.

    where: names the section in messages. Raises ConfigError for a body that no request can be made of.
    """

    def __init__(self, body: Mapping[str, Any], takes: Sequence[VoiceKind], model: str, where: str = "tts.engines.*"):
        self._body = dict(body)
        self._model = model
        try:
            found = list(_placeholders(self._body))
        except ValueError as error:
            raise ConfigError(f"{where}.body: {error}; a brace that is no placeholder is written twice") from None
        self.names = frozenset(name for name, _ in found)
        for name, alone in found:
            _check_name(name, alone, takes, f"{where}.body")
        self._files = {field for field, value in self._body.items() if value == "{voice.clip_file}"}
        if "text" not in self.names:
            raise ConfigError(f"{where}.body: no value holds {{text}}, so the server would not know what to say")
        if not self.names & _WHO:
            fitting = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS if name in _WHO and _KINDS.get(name) in takes)
            raise ConfigError(f"{where}.body: all voices would sound alike: let a value hold {{voice.id}} or {fitting}")
        if "voice.clip_file" in self.names and not self._files:
            raise ConfigError(f"{where}.body: {{voice.clip_file}} is a field of the form, not part of another value")
        nested = [field for field, value in self._body.items() if self._files and isinstance(value, dict | list)]
        if nested:
            raise ConfigError(f"{where}.body.{nested[0]}: an upload (voice.clip_file) has plain fields only")

    def fill(self, request: SpeechRequest) -> Form:
        """Raises UnfitVoice where the request's voice lacks what a placeholder is to show."""
        recipe: Recipe = request.voice.recipe
        for name in sorted(self.names):
            if name in _KINDS and _KINDS[name] != recipe.kind:
                raise UnfitVoice(f"{{{name}}} needs one of the kind {_KINDS[name]}, this is one of {recipe.kind}")
        fields = {field: self._fill(value, request) for field, value in self._body.items()}
        return Form(fields, {field: fields.pop(field) for field in sorted(self._files)})

    def _fill(self, value: Any, request: SpeechRequest) -> Any:
        if isinstance(value, Mapping):
            return {key: self._fill(item, request) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._fill(item, request) for item in value]
        if not isinstance(value, str):
            return value
        parts = list(_parts(value))
        if [literal for literal, _ in parts] == [""] and parts[0][1] is not None:
            return self._value(parts[0][1], request)
        return "".join(f"{text}{'' if name is None else self._value(name, request)}" for text, name in parts)

    def _value(self, name: str, request: SpeechRequest) -> Any:
        return self._model if name == "model" else PLACEHOLDERS[name](request)


def _placeholders(value: Any) -> Iterator[tuple[str, bool]]:
    """Names, and whether each is a value alone. Raises ValueError for braces that do not match."""
    if isinstance(value, str):
        parts = list(_parts(value))
        for literal, name in parts:
            if name is not None:
                yield name, literal == "" and len(parts) == 1
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _placeholders(item)


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    """(literal, the placeholder after it or None) …, as `str.format` would read it."""
    for literal, name, spec, conversion in string.Formatter().parse(text):
        if spec or conversion:
            raise ValueError(f"{text!r} formats a placeholder, and only its name may stand in the braces")
        yield literal, name


def _check_name(name: str, alone: bool, takes: Sequence[VoiceKind], where: str) -> None:
    known = ["model", *PLACEHOLDERS]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {{{near[0]}}}? " if near else ""
        raise ConfigError(f"{where}: unknown placeholder {{{name}}}; {hint}known: {', '.join(known)}")
    if name in _WHOLE and not alone:
        raise ConfigError(f"{where}: {{{name}}} must be a value of its own, not part of a text")
    others = [kind for kind in takes if name in _KINDS and kind != _KINDS[name]]
    if others:
        raise ConfigError(
            f"{where}: only voices of the kind {_KINDS[name]} have a {{{name}}}, and takes names {others[0]}: "
            "give each kind of voice an engine of its own (two engines may have one base_url)"
        )
