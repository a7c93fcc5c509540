"""A voice: who speaks, what an engine needs to make it, and what an engine is asked for and may answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.dialogue import Language, Record, Split

Gender = Literal["female", "male"]
Age = Literal["child", "adult", "old"]
VoiceKind = Literal["styles", "name", "clip", "embedding"]

Weights = tuple[tuple[str, Annotated[float, Field(ge=-1, le=2)]], ...]


class Recipe(Record):
    """How a voice is made. One of four kinds:

    styles: `timbre`, a weighted sum of styles of the engine; its manner of speaking (durations, pitch, stress) comes
        from `prosody`, another such sum, or from `timbre` where that is empty. Weights sum to 1; below 0 extrapolates.
    name: a speaker that the engine knows by this name.
    clip: a reference clip (a path), what is said in it (clip_text, "" if unknown) and its SHA-256.
    embedding: a speaker embedding, shape [n], as the engine wants it.

    shift: semitones by which pitch and formants are moved together. speed: the voice's own rate, 1 = as it comes out.
    """

    timbre: Weights = ()
    prosody: Weights = ()
    name: str = ""
    clip: str = ""
    clip_text: str = ""
    clip_sha256: str = ""
    embedding: tuple[float, ...] = ()
    shift: Annotated[float, Field(ge=-8, le=8)] = 0.0
    speed: Annotated[float, Field(ge=0.5, le=2)] = 1.0

    @field_validator("timbre", "prosody", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        # Sorted, because floats are summed in this order and the bytes of a clip depend on it.
        return tuple(sorted(value.items(), key=str)) if isinstance(value, Mapping) else value

    @field_validator("timbre", "prosody")
    @classmethod
    def _whole(cls, value: Weights) -> Weights:
        total = math.fsum(weight for _, weight in value)
        if value and abs(total - 1) > 1e-6:
            raise ValueError(f"the weights sum to 1, these to {total:g}")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Recipe:
        kinds = [kind for kind, value in self._given().items() if value]
        if len(kinds) != 1:
            raise ValueError(
                f"a recipe has one of timbre, name, clip, embedding (this one: {', '.join(kinds) or 'none'})"
            )
        if self.prosody and not self.timbre:
            raise ValueError("prosody goes with timbre")
        return self

    def _given(self) -> dict[VoiceKind, object]:
        return {"styles": self.timbre, "name": self.name, "clip": self.clip, "embedding": self.embedding}

    @property
    def kind(self) -> VoiceKind:
        return next(kind for kind, value in self._given().items() if value)

    @property
    def text(self) -> str:
        """The recipe as JSON, without what it leaves at its default; the same recipe is the same text."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, ensure_ascii=False)

    @property
    def parents(self) -> tuple[str, ...]:
        """Styles that it is mixed of, in alphabetical order; of another kind: the name, or the SHA-256 of the clip."""
        if self.kind == "styles":
            return tuple(sorted({name for name, _ in (*self.timbre, *self.prosody)}))
        return tuple(filter(None, [self.name or self.clip_sha256 or self.clip]))


class Voice(Record):
    """A speaker.

    accent: "us", "gb" (English) or "cn" (Mandarin); the engine chooses the pronunciation by it; "" where it does not.
    rate: characters of text a second at speed 1 (letters and spaces of English, Han characters), 0 if not measured.
    pitch: median F0 in Hz, 0 if not measured.
    engine: name of an engine in `tts.engines`. license: SPDX identifier of what the voice is made of.
    consent: why a person's voice may be used; "synthetic" for voices of nobody.
    split: the part of a data set whose dialogues it may speak in; voices of two splits share no parent.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    gender: Gender
    languages: Annotated[tuple[Language, ...], Field(min_length=1)]
    accent: Literal["us", "gb", "cn", ""] = ""
    age: Age = "adult"
    rate: Annotated[float, Field(ge=0)] = 0.0
    pitch: Annotated[float, Field(ge=0)] = 0.0
    engine: str
    license: str
    consent: str = "synthetic"
    split: Split = "train"
    recipe: Recipe


@dataclass(frozen=True)
class SpeechRequest:
    """One turn to be spoken. `take` counts from 0; an engine makes each take differ from the last.

    speed: 1 is the voice's own rate, above is faster. seed: for stochastic engines.
    """

    text: str
    language: Language
    voice: Voice
    take: int
    speed: float
    seed: int


Fault = Literal["empty", "symbols", "too_long", "voice", "refused", "silence", "not_a_number", "clipping", "length"]


@dataclass(frozen=True)
class Unsaid:
    """Why a request has no clip; another take, text or voice may have one.

    empty: nothing in the text can be said; symbols: it holds some that the engine does not know; too_long: and it
    cannot be cut; voice: the engine cannot make this voice, or not in this language; refused: an engine's own no.
    Of the sound: silence, not_a_number, clipping, length (seconds that the text cannot take).
    """

    reason: Fault
    detail: str
