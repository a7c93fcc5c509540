"""A view's steps over one user track, with what is drawn for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.channel.codecs import bandpass, codec_rate, transcode
from pipeline.channel.noise import Span, add_noise, babble, looped, pink, power, white
from pipeline.channel.recordings import read_recording
from pipeline.channel.rooms import draw_room, measured, require_simulator, reverberate, simulate
from pipeline.dialogue import ChannelStep, Score, derive_seed
from pipeline.errors import ConfigError
from pipeline.view_sections import FolderConfig, StepName, ViewConfig


def check_view(name: str, view: ViewConfig, rate: int) -> None:
    """Raises ConfigError for a view that no track of `rate` Hz can go through here."""
    if "band" in view.steps and view.band.high >= rate / 2:
        raise ConfigError(
            f"views.{name}.band.high={view.band.high:g}: a track of {rate} Hz ends at {rate / 2:g} Hz; lower it, or "
            "leave the step out"
        )
    for step, config in view.folders.items():
        if config.files and config.folder is None:
            raise ConfigError(
                f"views.{name}.{step}.folder: where do its {len(config.files)} files lie? "
                f"--set views.{name}.{step}.folder=FOLDER"
            )
    if "rir" in view.steps and not view.rir.files:
        require_simulator(f"views.{name}.rir")


def step_draw(seed: int, step: str) -> np.random.Generator:
    """What a step draws hangs on no other step."""
    return np.random.default_rng(derive_seed(seed, step))


def drawn_step(name: str, kind: str = "", **parameters: float) -> ChannelStep:
    return ChannelStep(
        name=name, kind=kind, parameters=tuple(Score(name=key, value=value) for key, value in parameters.items())
    )


@dataclass
class Chain:
    """One user track on its way. track: float64 in [-1, 1], shape [samples], at `rate` Hz.

    spans: where the user speaks, one or more. seed: of the dialogue in this view. ceiling: highest amplitude of a
    sample. talkers: what babble may be made of, one track a talker. taken: what was done so far, in order.
    """

    track: np.ndarray
    rate: int
    spans: Sequence[Span]
    view: ViewConfig
    seed: int
    ceiling: float
    talkers: Sequence[np.ndarray] = ()
    taken: list[ChannelStep] = field(default_factory=list)

    def run(self) -> tuple[np.ndarray, tuple[ChannelStep, ...]]:
        """The track behind the channel, as long as it was, and what was drawn. speed is the timeline's, not ours.

        Raises DataError for a recording that cannot be read.
        """
        steps: Mapping[StepName, Callable[[np.random.Generator], ChannelStep]] = {
            "rir": self._rir,
            "noise": self._noise,
            "band": self._band,
            "codec": self._codec,
            "gain": self._gain,
        }
        for name in self.view.steps:
            if name in steps:
                self.taken.append(steps[name](step_draw(self.seed, name)))
        self._limit()
        return self.track, tuple(self.taken)

    def _rir(self, draw: np.random.Generator) -> ChannelStep:
        before = power(self.track, self.spans)
        config = self.view.rir
        if config.files:
            name = _drawn_file(config, draw)
            response = measured(_read(config, name, self.rate))
            step = drawn_step("rir", name)
        else:
            room = draw_room(config, draw)
            response = simulate(room, self.rate, derive_seed(self.seed, "rays"))
            length, width, height = room.sides
            step = drawn_step(
                "rir", "room", rt60=room.rt60, length=length, width=width, height=height, distance=room.distance
            )
        wet = reverberate(self.track, response)
        after = power(wet, self.spans)
        self.track = wet * np.sqrt(before / after) if after else wet  # as loud as it was
        return step

    def _noise(self, draw: np.random.Generator) -> ChannelStep:
        config, length = self.view.noise, len(self.track)
        snr = round(float(draw.uniform(*config.snr)), 2)
        drawn: dict[str, float] = {"snr": snr}
        if config.files:
            kind = _drawn_file(config, draw)
            recording = _read(config, kind, self.rate)
            noise = looped(recording, length, int(draw.integers(len(recording))))
            if not power(noise, self.spans):
                # A recording with long silences: its loudest sample comes with the first word.
                noise = looped(recording, length, int(np.argmax(np.abs(recording))) - self.spans[0][0])
        elif config.kind == "babble" and self.talkers:
            kind = "babble"
            count = min(config.voices, len(self.talkers))
            drawn["voices"] = count
            chosen = draw.choice(len(self.talkers), count, replace=False)
            noise = babble(length, [self.talkers[number] for number in chosen], draw)
        else:
            kind = "white" if config.kind == "white" else "pink"
            noise = white(length, draw) if kind == "white" else pink(length, draw)
        self.track = add_noise(self.track, noise, self.spans, snr)
        return drawn_step("noise", kind, **drawn)

    def _band(self, draw: np.random.Generator) -> ChannelStep:
        low, high = self.view.band.low, self.view.band.high
        self.track = bandpass(self.track, self.rate, low, high)
        return drawn_step("band", low=low, high=high)

    def _codec(self, draw: np.random.Generator) -> ChannelStep:
        self._limit()  # what is too loud would be cut off inside the codec
        name = self.view.codec.names[int(draw.integers(len(self.view.codec.names)))]
        self.track = transcode(self.track, self.rate, name)
        return drawn_step("codec", name, rate=codec_rate(name, self.rate))

    def _gain(self, draw: np.random.Generator) -> ChannelStep:
        gain = round(float(draw.uniform(*self.view.gain.db)), 2)
        self.track = self.track * 10 ** (gain / 20)
        return drawn_step("gain", gain=gain)

    def _limit(self) -> None:
        """Turn the whole track down where a sample would pass the ceiling: ratios stay as they were drawn."""
        peak = float(np.max(np.abs(self.track)))
        if peak > self.ceiling:
            self.track = self.track * (self.ceiling / peak)
            self.taken.append(drawn_step("limit", gain=round(20 * float(np.log10(self.ceiling / peak)), 3)))


def _drawn_file(config: FolderConfig, draw: np.random.Generator) -> str:
    return sorted(config.files)[int(draw.integers(len(config.files)))]


def _read(config: FolderConfig, name: str, rate: int) -> np.ndarray:
    return read_recording(Path(config.folder or "") / name, config.files[name], rate)
