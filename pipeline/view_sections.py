"""The sections of the configuration that are about views: acoustic variants of finished samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.sections import EXECUTION, Section

StepName = Literal["speed", "rir", "noise", "band", "codec", "gain"]
CodecName = Literal["mulaw", "alaw", "gsm", "opus", "mp3"]


def _within(low: float, high: float) -> AfterValidator:
    """Of a range, from which a value is drawn evenly for each dialogue."""

    def check(value: tuple[float, float]) -> tuple[float, float]:
        if not low <= value[0] <= value[1] <= high:
            raise ValueError(f"a range is two numbers, {low:g} <= first <= second <= {high:g}")
        return value

    return AfterValidator(check)


class FolderConfig(Section):
    """Recordings of the user's own, one drawn for each dialogue."""

    folder: Path | None = Field(None, json_schema_extra=EXECUTION, description="audio files, also in folders below it")
    license: str = Field("", description="of the files; needed with a folder, travels into every sample")
    files: dict[str, str] = Field({}, description="SHA-256 by name below the folder; not set by hand")

    @model_validator(mode="after")
    def _licensed(self) -> FolderConfig:
        if self.folder is not None and not self.license:
            raise ValueError(f"name the license of the files in {self.folder}: it travels into every sample")
        return self


class SpeedConfig(Section):
    """Speed perturbation (Ko et al. 2015): the user's turns are resampled, so that tempo and pitch change together."""

    factors: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(
        (0.9, 1.0, 1.1), min_length=1, description="one is drawn for each dialogue; above 1 is faster"
    )


class RirConfig(FolderConfig):
    """A room: impulse responses from a folder, or of a simulated shoebox room (`pip install 'speechchat[views]'`)."""

    rt60: Annotated[tuple[float, float], _within(0.05, 3)] = Field(
        (0.2, 0.6), description="seconds in which the sound of the room falls by 60 dB"
    )
    size: Annotated[tuple[float, float], _within(2, 30)] = Field((3.0, 8.0), description="metres, length and width")
    height: Annotated[tuple[float, float], _within(2, 10)] = Field((2.4, 3.5), description="metres")
    distance: Annotated[tuple[float, float], _within(0.1, 10)] = Field(
        (0.3, 2.0), description="metres from the mouth to the microphone"
    )

    @model_validator(mode="after")
    def _fits(self) -> RirConfig:
        if self.distance[1] > self.size[0] - 1:
            raise ValueError(
                f"distance: {self.distance[1]:g} m do not fit into a room of {self.size[0]:g} m, half a metre from "
                "its walls; lower distance or raise size"
            )
        return self


class NoiseConfig(FolderConfig):
    """Additive noise over the whole track. kind, without a folder: white, pink (-3 dB an octave), or babble, which is
    made of the user's turns in other dialogues of the same unit (pink where there are none)."""

    kind: Literal["white", "pink", "babble"] = "pink"
    voices: int = Field(3, ge=1, le=20, description="babble: how many talk")
    snr: Annotated[tuple[float, float], _within(-20, 60)] = Field(
        (5.0, 20.0), description="dB, both measured over the user's turns"
    )


class BandConfig(Section):
    """A band-pass. The defaults are the telephone's."""

    low: float = Field(300, ge=0, description="Hz")
    high: float = Field(3400, gt=0, description="Hz")

    @model_validator(mode="after")
    def _check(self) -> BandConfig:
        if self.low >= self.high:
            raise ValueError(f"low must be below high ({self.low:g} and {self.high:g} Hz)")
        return self


class CodecConfig(Section):
    """mulaw, alaw (ITU-T G.711, 8 kHz), gsm (GSM 06.10 full rate, 8 kHz), opus (16 kHz or more), mp3."""

    names: tuple[CodecName, ...] = Field(("mulaw",), min_length=1, description="one is drawn for each dialogue")


class GainConfig(Section):
    """Level of the user track; where a peak would pass audio.peak, it is turned down by as much."""

    db: Annotated[tuple[float, float], _within(-60, 30)] = Field((-15.0, 0.0), description="dB")


class ViewConfig(Section):
    """A variant of each sample whose user track went through a channel: `steps`, in that order.

    Every range is drawn from for each dialogue, from its seed, the view's name and the step's.
    """

    steps: tuple[StepName, ...] = Field(min_length=1)
    speed: SpeedConfig = SpeedConfig()
    rir: RirConfig = RirConfig()
    noise: NoiseConfig = NoiseConfig()
    band: BandConfig = BandConfig()
    codec: CodecConfig = CodecConfig()
    gain: GainConfig = GainConfig()

    @model_validator(mode="after")
    def _check(self) -> ViewConfig:
        if len(set(self.steps)) < len(self.steps):
            raise ValueError("steps: each step once")
        if "speed" in self.steps[1:]:
            raise ValueError("steps: speed comes first, because it lays out the timeline anew")
        for name, field in type(self).model_fields.items():
            if name != "steps" and name not in self.steps and getattr(self, name) != field.default:
                raise ValueError(f"{name} is configured, but it is not in steps: {', '.join(self.steps)}")
        return self

    @property
    def folders(self) -> dict[StepName, FolderConfig]:
        """The steps that may take recordings."""
        taking: dict[StepName, FolderConfig] = {"rir": self.rir, "noise": self.noise}
        return {name: section for name, section in taking.items() if name in self.steps}

    def content(self) -> dict[str, Any]:
        """What reaches the samples, as plain data: the steps that are taken, without the places of their files."""
        plain = self.model_dump(mode="json", include={"steps", *self.steps})
        for name in self.folders:
            del plain[name]["folder"]
        return plain


# Views that need no configuration.
SHIPPED: dict[str, ViewConfig] = {
    "phone": ViewConfig(steps=("noise", "band", "codec"), codec=CodecConfig(names=("mulaw", "alaw", "gsm"))),
    "room": ViewConfig(steps=("rir", "noise"), noise=NoiseConfig(snr=(15.0, 30.0))),
    "crowd": ViewConfig(steps=("noise", "gain"), noise=NoiseConfig(kind="babble", snr=(5.0, 15.0))),
    "speed": ViewConfig(steps=("speed",)),
}
