"""The sections of the configuration that are about voices and speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.dialogue import Language
from pipeline.sections import EXECUTION, Positive, Section, by_language
from pipeline.voice import VoiceKind


class CastConfig(Section):
    """Who speaks. agents: the few voices of the assistant, by language; users: the user's, all others if null."""

    library: Path | None = Field(
        None,
        json_schema_extra=EXECUTION,
        description="voices: a .yaml, or a .parquet of `speechchat voices build`; null: the shipped ones",
    )
    agents: Annotated[
        dict[Language, tuple[str, ...]],
        by_language(en=("af_heart", "am_michael"), zh=("zf_xiaoxiao", "zm_yunxi")),
    ] = Field({})
    users: dict[Language, tuple[str, ...]] | None = None
    disjoint: bool = Field(
        True, description="users of train, validation and test are different voices, down to the parents of a mix"
    )
    persona: bool = Field(True, description="where the text says the user's gender or age, the voice has it")


class EnvironmentConfig(Section):
    """An environment of its own for an engine whose packages disagree with ours: at most one of the three.

    packages: for pip, installed by Ray once a node; path: a virtual environment that is there (its folder or its
    python); image: a container image, run by Ray.
    """

    packages: tuple[str, ...] = ()
    path: Path | None = None
    image: str | None = None

    @model_validator(mode="after")
    def _one(self) -> EnvironmentConfig:
        if sum(map(bool, (self.packages, self.path, self.image))) > 1:
            raise ValueError("name packages, a path or an image, only one of them")
        return self

    @property
    def given(self) -> bool:
        return bool(self.packages or self.path or self.image)


class TtsEngineConfig(Section):
    """An engine. kind: kokoro, hibari, coqui, http, or one of another package (entry point, or `package.module:build`).

    What belongs to one kind says so.
    """

    kind: str = "kokoro"
    model_path: Path | None = Field(
        None, json_schema_extra=EXECUTION, description="folder of the model's files (kokoro, coqui)"
    )
    threads: Positive = Field(1, json_schema_extra=EXECUTION)
    batch: Positive | None = Field(
        None,
        json_schema_extra=EXECUTION,
        description="requests that go to the model at once; null: as the engine likes",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=EXECUTION, description="coqui")
    environment: EnvironmentConfig = Field(EnvironmentConfig(), json_schema_extra=EXECUTION)
    model: str = Field("", description="coqui: a model name of Coqui; http: the model that the server is asked for")
    accept_terms: bool = Field(
        False,
        json_schema_extra=EXECUTION,
        description="coqui: the terms of use of the model's weights have been read and accepted",
    )
    base_url: str | None = Field(
        None, json_schema_extra=EXECUTION, description="http: a server with OpenAI's /audio/speech"
    )
    key: str = Field(
        "OPENAI_API_KEY", json_schema_extra=EXECUTION, description="http: environment variable that holds the key"
    )
    concurrency: Positive = Field(8, json_schema_extra=EXECUTION, description="http: requests in flight of one worker")
    timeout: float = Field(
        60,
        gt=0,
        json_schema_extra=EXECUTION,
        description="seconds for one request; http, and an engine in an environment of its own, which has some minutes "
        "more for each batch",
    )
    retries: int = Field(3, ge=0, le=20, json_schema_extra=EXECUTION, description="http")
    path: str = Field("/audio/speech", description="http: below base_url")
    body: dict[str, Any] = Field({}, description="http: template of the request, see README; OpenAI's if empty")
    takes: tuple[VoiceKind, ...] = Field(
        ("name",), min_length=1, description="http: kinds of voice that the server takes"
    )
    languages: tuple[Language, ...] = Field(
        ("en", "zh"), min_length=1, description="http, coqui: what the model speaks"
    )
    stochastic: bool = Field(True, description="http: the same request may sound different")
    license: str = Field("", description="of the model's weights, as an SPDX identifier; http, coqui: needed")
    options: dict[str, Any] = Field({}, description="of an engine of another package")


class TtsConfig(Section):
    """engines: by the name that voices call them by. speeds: take n is spoken at speeds[n]; an engine with chance
    speaks all its takes at the first, each with another seed."""

    engines: dict[str, TtsEngineConfig] = Field({"kokoro": TtsEngineConfig()}, min_length=1)
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field((1.0, 0.88), min_length=1)


class Spread(Section):
    """A distribution of seconds: uniform from low to high, or one with this mean and standard deviation (sd) of which
    only what lies from low to high is drawn."""

    kind: Literal["uniform", "normal", "lognormal", "gamma"] = "uniform"
    mean: float | None = Field(None, gt=0, le=10, description="not of uniform")
    sd: float | None = Field(None, gt=0, le=10, description="not of uniform")
    low: float = Field(ge=0, le=10)
    high: float = Field(ge=0, le=10)

    @model_validator(mode="after")
    def _check(self) -> Spread:
        if self.low > self.high:
            raise ValueError(f"low={self.low:g} is above high={self.high:g}")
        if self.kind == "uniform":
            if self.mean is not None or self.sd is not None:
                raise ValueError("a uniform spread has low and high; mean and sd belong to the other kinds")
        elif self.mean is None or self.sd is None:
            raise ValueError(f"kind={self.kind} needs mean and sd")
        elif not self.low <= self.mean <= self.high:
            raise ValueError(f"mean={self.mean:g} must lie between low={self.low:g} and high={self.high:g}")
        return self


def _like(default: Spread) -> BeforeValidator:
    """A spread of which only some keys are given has the others of `default`; one of another kind is given whole."""
    return BeforeValidator(
        lambda given: default.model_dump() | given if isinstance(given, dict) and "kind" not in given else given
    )


_RESPONSE = Spread(kind="lognormal", mean=0.4, sd=0.25, low=0.1, high=2.0)
_PAUSE = Spread(kind="lognormal", mean=0.5, sd=0.35, low=0.1, high=2.5)


class FaultConfig(Section):
    """When a clip is faulty before anybody has listened to it.

    clipping: from this share of samples at full scale on. pace: fewest and most seconds that a letter (en) or a
    syllable (zh) takes at speed 1; with Kokoro's voices it is 0.06 to 0.11 and 0.18 to 0.26 in a sentence, and up to
    0.17 and 0.62 in a word alone. slack: seconds that a clip may be shorter or longer than its pace allows.
    """

    clipping: float = Field(0.001, gt=0, le=1)
    pace: Annotated[
        dict[Language, Annotated[tuple[float, float], Field(description="seconds a character")]],
        by_language(en=(0.035, 0.15), zh=(0.1, 0.35)),
    ] = Field({})
    slack: float = Field(0.6, ge=0, le=10)

    @model_validator(mode="after")
    def _check(self) -> FaultConfig:
        for language, (low, high) in self.pace.items():
            if not 0 <= low < high:
                raise ValueError(f"pace.{language} must be two numbers of seconds, 0 <= low < high")
        return self


class AudioConfig(Section):
    """Tracks and timeline. loudness: LUFS (ITU-R BS.1770); peak: dBFS.

    response, pause: seconds before a turn of the assistant, and of the user. In conversation most gaps are near 0.2 s,
    with a long tail to the right (Stivers et al. 2009; Heldner and Edlund 2010); here turns do not overlap.
    """

    user_rate: int = Field(16000, ge=8000, le=48000)
    assistant_rate: int = Field(24000, ge=8000, le=48000)
    loudness: float = Field(-23.0, ge=-60, le=-5)
    peak: float = Field(-1.0, ge=-20, le=0)
    trim: Literal["vad", "level"] = Field("vad", description="the ends of a clip go where no speech or no sound is")
    trim_below: float = Field(-50.0, ge=-90, le=-20, description="dBFS under which the ends of a clip are silence")
    faults: FaultConfig = FaultConfig()
    lead: float = Field(0.2, ge=0, le=5, description="seconds of silence before the first turn")
    response: Annotated[Spread, _like(_RESPONSE)] = _RESPONSE
    pause: Annotated[Spread, _like(_PAUSE)] = _PAUSE
    tail: float = Field(0.2, ge=0, le=5)

    @model_validator(mode="after")
    def _check(self) -> AudioConfig:
        for name in ("user_rate", "assistant_rate"):
            rate = getattr(self, name)
            if rate * 8 % 100:
                raise ValueError(f"{name}={rate} has no whole number of samples in 80 ms; use a multiple of 25")
        return self


class WatermarkConfig(Section):
    """A mark in the samples that says that they are synthetic. engine: "none", "audioseal", or one of another package.

    message: 16 bits to carry. strength: 1 is as the model was trained.
    """

    engine: str = "none"
    model_path: Path | None = Field(None, json_schema_extra=EXECUTION, description="file of the generator's weights")
    detector_path: Path | None = Field(
        None, json_schema_extra=EXECUTION, description="file of the detector's weights; marking does not need it"
    )
    message: int = Field(0, ge=0, lt=65536)
    strength: float = Field(1.0, gt=0, le=4)
