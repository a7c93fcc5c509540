"""Clips of single turns, for trainers that want a file a turn: cut from the tracks to the sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import Field

from pipeline import audio
from pipeline.dialogue import Clip, Record, SampleTurn, Split
from pipeline.errors import UsageError
from pipeline.shards.format import Encoded
from pipeline.training.formats.base import HIDDEN, Part, Piece

PER_FOLDER = 100
"""Dialogues whose clips lie in one folder: hubs want fewer than 10,000 files in it."""


class ClipOptions(Record):
    """text: what was said (numbers in words, with its disfluencies), or as it was written. rate: Hz of the user's
    clips, which are resampled where the run has another one. root: put before each path, for a trainer that does not
    look for them from the export's folder. files: of the clips."""

    text: Literal["spoken", "written"] = "spoken"
    rate: Annotated[int, Field(ge=8000, le=48000)] = 16000
    root: str = ""
    files: Literal["wav", "flac"] = "wav"

    def named(self, path: str) -> str:
        """A clip as the trainer finds it."""
        return f"{self.root.rstrip('/')}/{path}" if self.root else path


@dataclass(frozen=True)
class TurnClip:
    """A turn and its slice of its speaker's track: int16, shape [samples], at `rate` Hz. number: from 0."""

    number: int
    turn: SampleTurn
    pcm: np.ndarray
    rate: int


def cut_turns(encoded: Encoded) -> Iterator[TurnClip]:
    """The turns in order, each from round(start · rate) to round(end · rate) of its track. Raises DataError."""
    sample = encoded.sample
    tracks = {
        "user": audio.decode(encoded.user, f"{sample.key}.user.flac"),
        "assistant": audio.decode(encoded.assistant, f"{sample.key}.assistant.flac"),
    }
    for number, turn in enumerate(sample.turns):
        track, rate = tracks[turn.role]
        yield TurnClip(number, turn, track[round(turn.start * rate) : round(turn.end * rate)], rate)


def at_rate(clip: TurnClip, rate: int) -> np.ndarray:
    """Its samples at `rate` Hz, int16: as they are, or resampled by soxr (HQ)."""
    if clip.rate == rate:
        return clip.pcm
    return audio.to_pcm(audio.resample(Clip(audio.from_pcm(clip.pcm), clip.rate), rate).audio)


def encode(pcm: np.ndarray, rate: int, files: str) -> bytes:
    return audio.encode_wav(pcm, rate) if files == "wav" else audio.encode_flac(pcm, rate)


def clip_path(unit: int, place: int, key: str, clip: TurnClip, files: str) -> str:
    """place: of the dialogue in its unit, from 0."""
    folder = f"audio/{unit // 1000:03d}/unit-{unit:06d}/{place // PER_FOLDER:02d}"
    return f"{folder}/{key}.{clip.number:02d}.{clip.turn.role}.{files}"


def check_tags(key: str, texts: Iterable[str], tags: Sequence[str]) -> None:
    """A text that holds one of the tags would stand for a clip that is not there. Raises UsageError."""
    for text in texts:
        for tag in tags:
            if tag in text:
                raise UsageError(
                    f"{key}: a text holds {tag!r}, which the trainer takes for a file; give --set text=spoken, or mend "
                    "the text and make the run again"
                )


def rows_path(unit: int) -> str:
    """Where the rows of a unit wait to be joined."""
    return f"{HIDDEN}/rows/{unit // 1000:03d}/unit-{unit:06d}.jsonl"


def json_line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def joined(out: Path, parts: Iterable[Part], split: Split, array: bool = False) -> Iterator[bytes]:
    """The rows of a split: a line each, or as one JSON array with a row a line."""
    first = True
    for part in parts:
        if part.split != split or not part.samples:
            continue
        with (out / rows_path(part.unit)).open("rb") as rows:
            for line in rows:
                yield line if not array else (b"[\n" if first else b",\n") + line.rstrip(b"\n")
                first = False
    if array:
        yield b"\n]\n"


def joint_files(out: Path, parts: Iterable[Part], suffix: str, array: bool = False) -> Iterator[tuple[str, Piece]]:
    """A file a split that has a sample, called after it."""
    for split in present(parts):
        yield f"{split}{suffix}", joined(out, parts, split, array)


def present(parts: Iterable[Part]) -> list[Split]:
    """The splits that have a sample, in the order train, validation, test."""
    counts: Counter[Split] = Counter()
    for part in parts:
        counts[part.split] += part.samples
    return [split for split in get_args(Split) if counts[split]]
