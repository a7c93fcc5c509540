"""The things that walk through the pipeline. All are frozen; every unit is documented here.

Times are seconds, audio is float32 in [-1, 1] (mono, shape [samples]), rates are Hz, error rates are
edits per reference token (0 is perfect, above 1 is possible), loudness is LUFS or dBFS as named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

Language = Literal["en", "zh"]
Role = Literal["user", "assistant"]
Author = Literal["source", "llm", "human"]
Split = Literal["train", "validation", "test"]
Disfluent = Literal["filler", "restart", "repair"]
Repair = Literal["", "again", "slow", "spell", "split", "voice", "engine", "rephrase"]
Stage = Literal["source", "rewrite", "converse", "style", "filter", "review", "dedup", "speak", "listen", "judge"]

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


class SourceRow(Record):
    """A row that was selected, as it was read. lines alternate user, assistant, …, from the user; an instruction with
    its input is one line. ready: to be spoken as it is.

    topic, persona, scenario: what the LLM is to write about, "" where the row says nothing of it.
    """

    source: Source
    lines: tuple[str, ...]
    system: str = ""
    topic: str = ""
    persona: str = ""
    scenario: str = ""
    ready: bool = False


class PlannedDialogue(Record):
    """A dialogue before anything was paid for. `ordinal` counts the dialogues of its language in the run."""

    id: str
    unit: int
    index: int
    ordinal: int
    split: Split
    language: Language
    seed: int


class Disfluency(Record):
    """A stretch of a turn's spoken text that a fluent speaker would leave out: characters start to end (exclusive).

    filler: "um, "; restart: one of the two in "I, I think"; repair: what is taken back with its "no, " or "I mean, ".
    """

    kind: Disfluent
    start: int
    end: int


class Turn(Record):
    """One utterance as text.

    written: as the source or the LLM wrote it. spoken: as it is to be said (numbers and symbols in words).
    emotion, style: labels of how, "" for none.
    """

    role: Role
    written: str
    spoken: str
    author: Author
    emotion: str = ""
    style: str = ""
    disfluencies: tuple[Disfluency, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Turn:
        end = 0
        for item in self.disfluencies:
            if not end <= item.start < item.end <= len(self.spoken):
                raise ValueError("disfluencies must lie in `spoken`, in order, without overlap: mend or remove them")
            end = item.end
        return self

    @property
    def fluent(self) -> str:
        """`spoken` without its disfluencies."""
        return fluent(self.spoken, self.disfluencies)


def fluent(spoken: str, disfluencies: Iterable[Disfluency]) -> str:
    """`spoken` without the stretches named; they may lie in any order."""
    for item in sorted(disfluencies, key=lambda item: item.start, reverse=True):
        spoken = spoken[: item.start] + spoken[item.end :]
    return spoken


class Score(Record):
    """A named number. Of a text: coherence, naturalness, consistency, safety, self_contained (the LLM's review, 1 to
    5). Of a turn: those of `pipeline.listening_sections.SCORES`, which says what each is."""

    name: str
    value: float


class Dialogue(Record):
    """The text of a dialogue: at least two turns, the first is the user's, the last is the assistant's.

    instruction: what the source asked for before it was rewritten into the first turn, "" if it was not.
    code_switch: a Mandarin dialogue that mixes in English. scores: the review's.
    """

    plan: PlannedDialogue
    system: str
    source: Source
    turns: tuple[Turn, ...]
    instruction: str = ""
    topic: str = ""
    persona: str = ""
    scenario: str = ""
    code_switch: bool = False
    scores: tuple[Score, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Dialogue:
        roles = [turn.role for turn in self.turns]
        if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(f"turns must alternate user, assistant, and end with the assistant's (they are {roles})")
        return self


class TextAttempt(Record):
    """A text that did not pass, at which step and why; turn (0-based): which it was for, -1 for the whole dialogue."""

    step: Stage
    turn: int
    author: Author
    text: str
    reason: str


class Take(Record):
    """One attempt at speaking a turn. `error_rate` is in the metric of the turn (1 where nothing came out of the
    engine); `reason` is "" if it passed.

    repair: which rung of the ladder led to it, "" for the first attempt. text: what the engine was asked to say, where
    it is not the turn's `spoken`. recognizer: whose transcript it is. seconds: of audio.
    """

    take: int
    engine: str
    voice: str
    speed: float
    seed: int
    transcript: str
    error_rate: float
    reason: str
    repair: Repair = ""
    text: str = ""
    recognizer: str = ""
    seconds: float = 0.0


class RejectedTurn(Record):
    """What was heard of a turn of a rejected dialogue, in the take that was the best of it, and all takes of it."""

    turn: int
    spoken: str
    transcript: str
    scores: tuple[Score, ...]
    takes: tuple[Take, ...] = ()
    disfluencies: tuple[Disfluency, ...] = ()


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
    """What became of a planned dialogue in the text campaign: `dialogue` or `reject`, and what failed before.

    Neither of the two: somebody set `dialogue` to null to have it rejected by hand.
    """

    plan: PlannedDialogue
    dialogue: Dialogue | None
    reject: Reject | None
    failed: tuple[TextAttempt, ...]

    @model_validator(mode="after")
    def _check(self) -> TextLine:
        if self.dialogue is not None and self.reject is not None:
            raise ValueError("a line holds a dialogue or a reject, not both: set one to null")
        if self.dialogue is not None and self.dialogue.plan != self.plan:
            raise ValueError("dialogue.plan is not the plan of its line")
        return self


@dataclass(frozen=True)
class Clip:
    """Mono audio, float32 in [-1, 1], shape [samples], at `rate` Hz."""

    audio: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.rate


class Word(Record):
    """A word as a recogniser heard it, from start to end seconds: of its clip in a Transcript, of the sample in a
    SampleTurn."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """What a recogniser heard. logprob: mean log-probability a token; no_speech: probability in [0, 1].

    language: probability in [0, 1] that the clip is in the language that it was asked for, None where the recogniser
    does not say. words: in order, empty where it gives no times or was not asked for them. recognizer: who heard it.

    doubt: nats by which the recogniser finds its words likelier than the text that was to be said; surprise: nats of
    that text's least likely token. None where it was not asked, or cannot tell.
    """

    text: str
    logprob: float
    no_speech: float
    compression_ratio: float
    language: float | None = None
    words: tuple[Word, ...] = ()
    recognizer: str = ""
    doubt: float | None = None
    surprise: float | None = None


class SampleTurn(Record):
    """A turn in a sample. start and end are seconds on the common timeline of both tracks.

    metric: the error rate that `error_rate` is ("wer" or "cer"); scores: of the take that was kept; take: which it is.
    words: of its transcript, on the timeline; empty unless `asr.words` asked for them.
    """

    role: Role
    speaker: str
    written: str
    spoken: str
    author: Author
    emotion: str
    style: str
    disfluencies: tuple[Disfluency, ...]
    voice: str
    start: float
    end: float
    transcript: str
    metric: str
    error_rate: float
    scores: tuple[Score, ...]
    take: int
    takes: tuple[Take, ...]
    words: tuple[Word, ...] = ()


class SampleVoice(Record):
    """Who spoke. engine: its name in `tts.engines`. recipe: JSON of what the engine made the voice of."""

    id: str
    role: Role
    engine: str
    gender: str
    age: str
    license: str
    consent: str
    recipe: str


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


class ChannelStep(Record):
    """One thing that happened to the user track of a view. kind: which of the step's kinds, or the file that was used.

    parameters: what was drawn. Names: factor (of speed); rt60 (seconds); length, width, height, distance (metres);
    snr (dB, over the user's turns); voices (of babble); low, high, rate (Hz); gain (dB).
    """

    name: str
    kind: str
    parameters: tuple[Score, ...]


class Sample(Record):
    """`KEY.json`: a closed schema. Every key is always there and always of one type (no nulls, no open maps),
    because readers infer types from the first samples. `system` is "" where there is no system prompt.

    duration: seconds, of both tracks, a multiple of 0.08. view: its name, "" for the clean sample, which has the same
    key; channel: the user track's way through it (transcripts and scores are of the clean clips).
    """

    version: int
    key: str
    language: Language
    split: Split
    system: str
    source: Source
    instruction: str
    topic: str
    persona: str
    scenario: str
    code_switch: bool
    text_scores: tuple[Score, ...]
    duration: float
    user_rate: int
    assistant_rate: int
    turns: tuple[SampleTurn, ...]
    voices: tuple[SampleVoice, ...]
    provenance: Provenance
    view: str = ""
    channel: tuple[ChannelStep, ...] = ()
