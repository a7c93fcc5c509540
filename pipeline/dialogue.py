"""The things that walk through the pipeline. All are frozen; every unit is documented here.

Times are seconds, audio is float32 in [-1, 1] (mono, shape [samples]), rates are Hz, error rates are
edits per reference token (0 is perfect, above 1 is possible), loudness is LUFS or dBFS as named.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

Language = Literal["en", "zh"]
Role = Literal["user", "assistant"]
Author = Literal["source", "llm"]
Split = Literal["train", "validation", "test"]
Stage = Literal["text", "speak", "listen", "judge"]

SAMPLE_VERSION = 1


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) that depends on nothing but `parts` (stable over processes and machines)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class Record(BaseModel):
    """Base of what is written to disk: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Record):
    """Where the text of a dialogue comes from. `row` names it within the source, e.g. `english/ai.yml#12`."""

    name: str
    license: str
    row: str


class PlannedDialogue(Record):
    """A dialogue before anything was paid for. `ordinal` counts the dialogues of its language in the run."""

    id: str
    unit: int
    index: int
    ordinal: int
    split: Split
    language: Language
    seed: int


class Turn(Record):
    """One utterance as text.

    written: as the source or the LLM wrote it. spoken: as it is to be said (numbers and symbols in words).
    """

    role: Role
    written: str
    spoken: str
    author: Author


class Dialogue(Record):
    """The text of a dialogue: at least two turns, the first is the user's, the last is the assistant's."""

    plan: PlannedDialogue
    system: str
    source: Source
    turns: tuple[Turn, ...]


class TextAttempt(Record):
    """A text that did not pass, why, and which turn (0-based) it was written for."""

    turn: int
    author: Author
    text: str
    reason: str


class Score(Record):
    """A named number. Names: wer, cer, per (edit rates); mos_sig, mos_bak, mos_ovr (DNSMOS, 1 to 5);
    logprob, no_speech, compression_ratio (the recogniser's own); chars_per_second."""

    name: str
    value: float


class RejectedTurn(Record):
    """What was heard of a turn of a rejected dialogue, in the take that was the best of it."""

    turn: int
    spoken: str
    transcript: str
    scores: tuple[Score, ...]


class Reject(Record):
    """A planned dialogue that is not in the shards. reason: one of a few words to count by; detail: for people.

    turns: empty where it was refused before it was heard. clips: whether they were kept.
    """

    id: str
    language: Language
    stage: Stage
    reason: str
    detail: str
    turns: tuple[RejectedTurn, ...] = ()
    clips: bool = False


class TextLine(Record):
    """What became of a planned dialogue in the text campaign: `dialogue` or `reject`, and what failed before."""

    plan: PlannedDialogue
    dialogue: Dialogue | None
    reject: Reject | None
    failed: tuple[TextAttempt, ...]


@dataclass(frozen=True)
class SpeechRequest:
    """One turn to be spoken. `take` counts from 0; an engine makes each take differ from the last.

    speed: 1 is the voice's own rate, above is faster. seed: for stochastic engines.
    """

    text: str
    language: Language
    voice: str
    take: int
    speed: float
    seed: int


@dataclass(frozen=True)
class Clip:
    """Mono audio, float32 in [-1, 1], shape [samples], at `rate` Hz."""

    audio: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.rate


@dataclass(frozen=True)
class Transcript:
    """What a recogniser heard. logprob: mean log-probability a token; no_speech: probability in [0, 1]."""

    text: str
    logprob: float
    no_speech: float
    compression_ratio: float


class Take(Record):
    """One attempt at speaking a turn. `error_rate` is in the metric of the turn; `reason` is "" if it passed."""

    take: int
    speed: float
    seed: int
    transcript: str
    error_rate: float
    reason: str


class SampleTurn(Record):
    """A turn in a sample. start and end are seconds on the common timeline of both tracks.

    metric: the error rate that `error_rate` is ("wer" or "cer"); scores: of the take that was kept; take: which it is.
    """

    role: Role
    speaker: str
    written: str
    spoken: str
    author: Author
    voice: str
    start: float
    end: float
    transcript: str
    metric: str
    error_rate: float
    scores: tuple[Score, ...]
    take: int
    takes: tuple[Take, ...]


class SampleVoice(Record):
    id: str
    role: Role
    engine: str
    gender: str
    license: str


class ModelUse(Record):
    """A model that had a hand in a sample. sha256 is "" where an endpoint does not tell."""

    role: str
    name: str
    sha256: str
    license: str


class Provenance(Record):
    """How a sample came to be: enough to make it again, and to know what it may be used for."""

    synthetic: bool
    generator: str
    seed: int
    text_digest: str
    speech_digest: str
    judge_digest: str
    models: tuple[ModelUse, ...]


class Sample(Record):
    """`KEY.json`: a closed schema. Every key is always there and always of one type (no nulls, no open maps),
    because readers infer types from the first samples. `system` is "" where there is no system prompt.

    duration: seconds, of both tracks, a multiple of 0.08.
    """

    version: int
    key: str
    language: Language
    split: Split
    system: str
    source: Source
    duration: float
    user_rate: int
    assistant_rate: int
    turns: tuple[SampleTurn, ...]
    voices: tuple[SampleVoice, ...]
    provenance: Provenance
