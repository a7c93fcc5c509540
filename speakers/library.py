"""The voice library: who can speak, in which language, and how an engine makes each voice.

The library is data (`voices.yaml` beside this file). Its form:

    defaults: {engine: kokoro, license: Apache-2.0}        # of every voice that does not say otherwise
    voices:
      - {id: zf_xiaoxiao, gender: female, languages: [zh], accent: cn, recipe: {zf_xiaoxiao: 1}}
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from pipeline.config import digest, parse_yaml
from pipeline.dialogue import Language, Record
from pipeline.errors import ConfigError

Gender = Literal["female", "male"]


class Voice(Record):
    """A speaker.

    recipe: (name of one of the engine's styles, weight) in the order of the names, weights in (0, 1] that
    sum to 1. One style is a stock voice, several are a mix: the weighted sum of their style arrays.
    accent: "us", "gb" (English) or "cn" (Mandarin); the engine chooses the pronunciation by it.
    license: SPDX identifier of the styles, which is also that of a mix.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    gender: Gender
    languages: Annotated[tuple[Language, ...], Field(min_length=1)]
    accent: Literal["us", "gb", "cn"]
    engine: str
    license: str
    recipe: Annotated[tuple[tuple[str, Annotated[float, Field(gt=0, le=1)]], ...], Field(min_length=1)]

    @field_validator("recipe", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        # Sorted, because floats are summed in this order and the bytes of a clip depend on it.
        return tuple(sorted(value.items(), key=str)) if isinstance(value, Mapping) else value

    @field_validator("recipe")
    @classmethod
    def _whole(cls, value: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
        total = math.fsum(weight for _, weight in value)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights of a recipe sum to 1, these to {total:g}")
        return value


class VoiceLibrary(Record):
    """The voices, in the order of their file. Ids are unique."""

    voices: Annotated[tuple[Voice, ...], Field(min_length=1)]

    @field_validator("voices")
    @classmethod
    def _unique(cls, value: tuple[Voice, ...]) -> tuple[Voice, ...]:
        ids = [voice.id for voice in value]
        twice = sorted({id for id in ids if ids.count(id) > 1})
        if twice:
            raise ValueError(f"the id {twice[0]!r} is there more than once")
        return value

    @cached_property
    def digest(self) -> str:
        """16 hex digits over every voice; comments and layout of the file do not reach it."""
        return digest(self.model_dump(mode="json"))

    @cached_property
    def _by_id(self) -> dict[str, Voice]:
        return {voice.id: voice for voice in self.voices}

    def voice(self, id: str) -> Voice:
        """The voice called `id`; ConfigError naming the nearest one if there is none."""
        if id in self._by_id:
            return self._by_id[id]
        near = difflib.get_close_matches(id, self._by_id, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no voice {id!r}; {hint}`speechchat voices` lists them")

    def select(self, language: Language, gender: Gender | None = None) -> tuple[Voice, ...]:
        """The voices that speak `language` (and are of `gender`), in the order of the library."""
        return tuple(v for v in self.voices if language in v.languages and gender in (None, v.gender))


def load_library(path: Path | None = None) -> VoiceLibrary:
    """The library in `path`, or the one that ships. Raises ConfigError naming the file and the field."""
    name = str(path) if path else "speakers/voices.yaml"
    try:
        text = (
            path.read_text("utf-8") if path else resources.files("speakers").joinpath("voices.yaml").read_text("utf-8")
        )
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{name}: the voice library cannot be read ({reason})") from None
    data = parse_yaml(text, name)
    unknown = sorted(set(data) - {"defaults", "voices"}, key=str)
    if unknown:
        raise ConfigError(f"{name}: unknown key {unknown[0]!r}; a voice library has `defaults` and `voices`")
    defaults, voices = data.get("defaults") or {}, data.get("voices")
    if not isinstance(defaults, dict):
        raise ConfigError(f"{name}: defaults: a map of fields is wanted (it is {defaults!r})")
    if not isinstance(voices, list) or not all(isinstance(voice, dict) for voice in voices):
        raise ConfigError(f"{name}: voices: a list of maps is wanted, one a voice")
    try:
        return VoiceLibrary.model_validate({"voices": [{**defaults, **voice} for voice in voices]})
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_explain(item, voices) for item in error.errors())) from None


def _explain(item: Any, voices: list[dict[str, Any]]) -> str:
    """`voices.3.gender (af_bella): what is wrong (it is 'x')`."""
    loc = [part for part in item["loc"] if part != "[key]"]
    who = voices[loc[1]].get("id", "no id") if len(loc) > 1 and isinstance(loc[1], int) else None
    where = ".".join(str(part) for part in loc) + (f" ({who})" if who else "")
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], (dict, list, tuple)) else f" (it is {item['input']!r})"
    return f"{where}: {message}{shown}"
