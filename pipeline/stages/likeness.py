"""likeness: whether a turn is in its speaker's voice, by speaker embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pipeline import audio
from pipeline.audio.measures import trim_silence
from pipeline.backends.speaker.base import SpeakerEncoder
from pipeline.backends.speaker.likeness import mean
from pipeline.dialogue import Clip, Role
from pipeline.errors import ConfigError
from pipeline.voice import Voice

REMEMBERED = 4096
"""Embeddings of clips that are remembered, about 1 kB each."""


@dataclass(frozen=True)
class Voiced:
    """A clip that is not empty, and who speaks in it. voice: id of the voice, "" if it is not known."""

    clip: Clip
    role: Role
    voice: str


class Likeness:
    """Scores turns by their speakers. A clip is embedded once, however often it is compared; threads may share one.

    references: by id of a voice, of length 1, float32 [dim].
    """

    def __init__(self, encoder: SpeakerEncoder, references: Mapping[str, np.ndarray]):
        self._encoder = encoder
        self._references = references
        self._known: dict[bytes, np.ndarray] = {}

    def scores(self, turns: Sequence[Voiced], company: Sequence[Voiced]) -> list[dict[str, float]]:
        """similarity and swap of each of `turns`, each as far as there is something to compare it to; in [-1, 1] and
        [-2, 2]. company: other turns of the same dialogue.

        A speaker is known by the reference of the voice, without one by the mean of the speaker's other turns in that
        voice.
        """
        everyone = [*turns, *company]
        rows = self._embed([item.clip for item in everyone])
        found = []
        for number, (turn, row) in enumerate(zip(turns, rows, strict=False)):
            rest = [
                (item, other) for place, (item, other) in enumerate(zip(everyone, rows, strict=True)) if place != number
            ]
            own = self._speaker(
                turn.voice, [other for item, other in rest if (item.role, item.voice) == (turn.role, turn.voice)]
            )
            others = [(item, other) for item, other in rest if item.role != turn.role]
            their = self._speaker(others[-1][0].voice, [other for _, other in others]) if others else None
            scores: dict[str, float] = {}
            if own is not None:
                scores["similarity"] = float(row @ own)
                if their is not None:
                    scores["swap"] = float(row @ their) - scores["similarity"]
            found.append(scores)
        return found

    def _speaker(self, voice: str, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        """float32 [dim], of length 1; None where there is nothing to know the speaker by."""
        reference = self._references.get(voice)
        if reference is not None:
            return reference
        return mean(np.stack(rows)) if rows else None

    def _embed(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        keys = [blake2b(clip.audio.tobytes(), digest_size=16, salt=str(clip.rate).encode()).digest() for clip in clips]
        known = {key: row for key in keys if (row := self._known.get(key)) is not None}
        new = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in known}
        rows = self._encoder.embed([audio.resample(clip, self._encoder.rate) for clip in new.values()])
        known |= dict(zip(new, rows, strict=True))
        if len(self._known) + len(new) > REMEMBERED:
            self._known.clear()
        self._known.update(known)
        return [known[key] for key in keys]


class References(Mapping[str, np.ndarray]):
    """Embeddings of voices by id, float32 [dim], of length 1: those measured in the table that the library was read
    from, and for voices of a reference clip that clip's, made when it is first asked for. Others have none.

    Raises ConfigError where a table's embeddings are not of this encoder, DataError where a clip cannot be read.
    """

    def __init__(self, voices: Iterable[Voice], library: Path | None, encoder: SpeakerEncoder):
        self._encoder = encoder
        voices = list(voices)
        self._clips = {voice.id: voice.recipe.clip for voice in voices if voice.recipe.kind == "clip"}
        self._known: dict[str, np.ndarray] = {}
        if library is not None and library.suffix == ".parquet":
            from speakers.table import read_embeddings

            ids = {voice.id for voice in voices}
            for id, row in read_embeddings(library).items():
                if id in ids:
                    self._known[id] = self._unit(row, f"{library}: embedding ({id})")

    def __getitem__(self, id: str) -> np.ndarray:
        if id not in self._known:
            clip = audio.resample(audio.read_clip(Path(self._clips[id])), self._encoder.rate)
            self._known[id] = self._encoder.embed([trim_silence(clip)])[0]
        return self._known[id]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._known, **self._clips})

    def __len__(self) -> int:
        return len({**self._known, **self._clips})

    def _unit(self, row: np.ndarray, where: str) -> np.ndarray:
        if row.shape != (self._encoder.dim,):
            raise ConfigError(
                f"{where}: {len(row)} numbers where {self._encoder.name} has {self._encoder.dim}; measure them anew "
                "with `speechchat voices audit`, or leave the embeddings out of the table"
            )
        return mean(row[None])
