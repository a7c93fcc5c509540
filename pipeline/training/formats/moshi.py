"""Moshi (kyutai-labs/moshi-finetune): stereo WAV at 24 kHz, beside each the words of the assistant and their times.

The rule: README.md, "Prepare dataset", `finetune/data/dataset.py`, `finetune/data/interleaver.py` and `annotate.py`
(commit 2acc879): the left channel is Moshi's, the right one the user's; a JSONL of path (from its own folder) and
duration in seconds; KEY.json has `alignments`, [word, [start, end], "SPEAKER_MAIN"] of the left channel alone, sorted
by their start, which the reader searches by halves. The words are those of what was said, for Moshi is to write what it
says and not what a recogniser made of it; their times are the recogniser's. The reader puts the tokens of a word from
its start on, one a frame of 80 ms, and drops those that are left when the next one starts: so Han characters are joined
to words of about 0.3 s.

    OUT/train/dialogues.jsonl  000/unit-000000/00/KEY.wav  KEY.json     `train_data` is OUT/train/dialogues.jsonl
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline import audio
from pipeline.config import Config
from pipeline.dialogue import Clip, Record, Sample, Split
from pipeline.errors import UsageError
from pipeline.shards.format import Encoded
from pipeline.shards.store import RunFolder
from pipeline.training.formats.base import Format, Part, Piece
from pipeline.training.formats.clips import PER_FOLDER, joint_files, json_line, rows_path
from pipeline.training.formats.origin import origin
from pipeline.training.formats.word_times import time_words

RATE = 24000
MAIN = "SPEAKER_MAIN"
_EVEN = (
    "the times of the words are not measured: each turn's letters share its time evenly; for measured ones make the "
    "run with --set asr.words=true and export it again"
)


class Options(Record):
    """times: of the words: as the recogniser heard them (asr.words), or even over each turn."""

    times: Literal["words", "even"] = "words"


class Moshi(Format):
    name: ClassVar[str] = "moshi"
    Options: ClassVar[type[Record]] = Options

    def check(self, folder: RunFolder, config: Config) -> None:
        listening = (config.asr, *config.asr.by_language.values())
        if self.options.times == "words" and not any(section.words for section in listening):
            raise UsageError(
                f"{folder.config}: asr.words is false, and Moshi needs to know when each word is said; make the run "
                "with --set asr.words=true, or give --set times=even to spread the words of each turn evenly over it"
            )

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        rows: list[bytes] = []
        for place, encoded in enumerate(samples):
            key = encoded.sample.key
            folder = f"{unit // 1000:03d}/unit-{unit:06d}/{place // PER_FOLDER:02d}"
            stereo = _stereo(encoded)
            yield f"{split}/{folder}/{key}.wav", audio.encode_wav(stereo, RATE)
            yield f"{split}/{folder}/{key}.json", json_line(self._words(encoded.sample))
            rows.append(json_line({"path": f"{folder}/{key}.wav", "duration": len(stereo) / RATE}))
        yield rows_path(unit), b"".join(rows)

    def _words(self, sample: Sample) -> dict[str, Any]:
        heard = self.options.times == "words"
        words = []
        for number, turn in enumerate(sample.turns):
            if turn.role != "assistant":
                continue
            if heard and not turn.words:
                raise UsageError(
                    f"{sample.key}: the recogniser gave no word times for turn {number + 1}; give --set times=even, or "
                    "make the run with a recogniser that gives them"
                )
            words += time_words(turn, heard)
        words.sort(key=lambda word: word.start)
        return {"alignments": [[word.text, [word.start, word.end], MAIN] for word in words], **origin(sample)}

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        yield from joint_files(out, parts, "/dialogues.jsonl")
        if self.options.times == "even":
            yield "README.md", f"# For Moshi\n\nLook out: {_EVEN}.\n".encode()

    def notes(self) -> tuple[str, ...]:
        return (_EVEN,) if self.options.times == "even" else ()


def _stereo(encoded: Encoded) -> np.ndarray:
    """int16, shape [samples, 2] at RATE: left the assistant, right the user; resampled by soxr (HQ) where the run has
    another rate. Raises DataError."""
    tracks = []
    for role, flac in (("assistant", encoded.assistant), ("user", encoded.user)):
        pcm, rate = audio.decode(flac, f"{encoded.sample.key}.{role}.flac")
        if rate != RATE:
            pcm = audio.to_pcm(audio.resample(Clip(audio.from_pcm(pcm), rate), RATE).audio)
        tracks.append(pcm)
    return np.stack(tracks, axis=1)
