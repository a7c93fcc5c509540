"""What the tests of exports ask of a run and of a folder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from pipeline.dialogue import Sample, SampleTurn
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder


@dataclass(frozen=True)
class Spoken:
    """A turn and its samples, int16, cut from the run's track here, by the words of the format's page."""

    turn: SampleTurn
    pcm: np.ndarray
    rate: int


def samples_of(run: RunFolder, split: str | None = None) -> Iterator[tuple[Sample, list[Spoken], bytes, bytes]]:
    for manifest in run.manifests():
        if split in (None, manifest.split):
            for item in read_unit(run, manifest):
                tracks = {"user": sound(item.user), "assistant": sound(item.assistant)}
                turns = []
                for turn in item.sample.turns:
                    pcm, rate = tracks[turn.role]
                    turns.append(Spoken(turn, pcm[round(turn.start * rate) : round(turn.end * rate)], rate))
                yield item.sample, turns, item.user, item.assistant


def sound(data: bytes | Path) -> tuple[np.ndarray, int]:
    """As libsndfile reads it: (int16, Hz)."""
    pcm, rate = sf.read(io.BytesIO(data) if isinstance(data, bytes) else data, dtype="int16")
    return pcm, rate


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, temporaries too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
