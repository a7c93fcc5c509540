"""Reverberation: a simulated room, or a measured impulse response."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from pipeline.errors import ConfigError
from pipeline.view_sections import RirConfig

SOUND = 343.0  # metres a second, in dry air at 20 °C
HEIGHT = 1.5  # metres, of mouth and microphone above the floor
WALL = 0.5  # metres that both keep from every wall
ABSORPTION = 0.9  # of walls, at most: what a room cannot be damper than


@dataclass(frozen=True)
class Room:
    """A shoebox room: sides in metres, length × width × height; places of mouth and microphone; rt60 in seconds."""

    sides: tuple[float, float, float]
    mouth: tuple[float, float, float]
    microphone: tuple[float, float, float]
    distance: float
    rt60: float


@dataclass(frozen=True)
class Response:
    """An impulse response, shape [samples]. delay: samples to its direct sound."""

    taps: np.ndarray
    delay: int


def draw_room(config: RirConfig, draw: np.random.Generator) -> Room:
    """A room in the ranges of `config`. Where it is too large for its rt60, that is raised to what the room allows."""
    length, width = (_uniform(draw, config.size) for _ in range(2))
    height = _uniform(draw, config.height)
    distance = _uniform(draw, config.distance)
    volume, walls = length * width * height, 2 * (length * width + length * height + width * height)
    shortest = 24 * math.log(10) / SOUND * volume / (walls * ABSORPTION)  # Sabine 1922
    rt60 = round(max(_uniform(draw, config.rt60), shortest), 3)
    angle = draw.uniform(0, 2 * math.pi)
    mouth, microphone = zip(
        *(_pair(side, distance * part, draw) for side, part in ((length, math.cos(angle)), (width, math.sin(angle)))),
        strict=True,
    )
    return Room((length, width, height), (*mouth, HEIGHT), (*microphone, HEIGHT), distance, rt60)


def _uniform(draw: np.random.Generator, bounds: tuple[float, float]) -> float:
    return round(float(draw.uniform(*bounds)), 3)


def _pair(side: float, step: float, draw: np.random.Generator) -> tuple[float, float]:
    """Places of the mouth and, `step` further on, the microphone along a side, both off the walls."""
    place = draw.uniform(WALL - min(0.0, step), side - WALL - max(0.0, step))
    return float(place), float(place + step)


def require_simulator(key: str) -> None:
    """Raises ConfigError where rooms cannot be simulated. key: that asks for it."""
    if find_spec("pyroomacoustics") is None:
        raise ConfigError(
            f"{key}: rooms are simulated by pyroomacoustics: pip install 'speechchat[views]', or name a folder of "
            f"impulse responses ({key}.folder)"
        )


def simulate(room: Room, rate: int, seed: int) -> Response:
    """Image sources to the third order, then ray tracing (Schröder 2011), by pyroomacoustics."""
    import pyroomacoustics as pra

    pra.constants.set("num_threads", 1)  # how many there are reaches the rounding
    pra.constants.set("c", SOUND)
    pra.random.seed(seed)
    absorption, _ = pra.inverse_sabine(room.rt60, room.sides)
    box = pra.ShoeBox(room.sides, fs=rate, materials=pra.Material(absorption), max_order=3, ray_tracing=True)
    box.set_ray_tracing(n_rays=5000)
    box.add_source(room.mouth)
    box.add_microphone(room.microphone)
    box.compute_rir()
    delay = pra.constants.get("frac_delay_length") // 2 + round(room.distance / SOUND * rate)
    return Response(np.asarray(box.rir[0][0], np.float64), delay)


def measured(taps: np.ndarray) -> Response:
    """A recorded response; its peak is taken for the direct sound, as Kaldi's wav-reverberate does."""
    return Response(taps, int(np.argmax(np.abs(taps))))


def reverberate(track: np.ndarray, response: Response) -> np.ndarray:
    """The track as it sounds in the room: as long, the direct sound where the dry sound was."""
    from scipy.signal import fftconvolve

    return fftconvolve(track, response.taps)[response.delay : response.delay + len(track)]
