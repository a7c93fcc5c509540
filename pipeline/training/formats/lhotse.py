"""Lhotse Shar, as NeMo's duplex speech-to-speech models read it (`type: lhotse_shar`): a cut a dialogue.

The rule: `nemo/collections/speechlm2/data/s2s_dataset.py` (NeMo 3.0.0): the cut's `recording` is what the model hears,
its custom recording `target_audio` what it says, of the same duration; supervisions of the speaker "user" are its
input, of "agent" its output; custom `system_prompt` as in `duplex_stt_dataset.py` there. And
`lhotse/shar/readers/lazy.py` (lhotse 1.33): shards with one number, a tar a field, in it each cut's audio and then its
manifest; the folder holds nothing else. Both tracks are the run's own FLAC, byte by byte: NeMo resamples them as its
configuration says.

    OUT/train/000/cuts.000000.jsonl.gz  recording.000000.tar  target_audio.000000.tar     those of unit 0
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pipeline import audio
from pipeline.dialogue import Record, Role, SampleTurn, Split
from pipeline.shards.format import Encoded
from pipeline.training.formats.base import Format, Piece
from pipeline.training.formats.clips import json_line
from pipeline.training.formats.origin import origin
from pipeline.training.formats.tars import tar_end, tar_member

SPEAKERS: dict[Role, str] = {"user": "user", "assistant": "agent"}
"""What NeMo's `input_roles` and `output_roles` have if nothing is said."""


class Options(Record):
    """text: what was said (numbers in words, with its disfluencies), or as it was written."""

    text: Literal["spoken", "written"] = "spoken"


class Lhotse(Format):
    name: ClassVar[str] = "lhotse"
    Options: ClassVar[type[Record]] = Options

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        cuts: list[bytes] = []
        tars: dict[str, list[bytes]] = {"recording": [], "target_audio": []}
        for encoded in samples:
            cut = self._cut(encoded)
            cuts.append(json_line(cut))
            fields = (cut["recording"], encoded.user), (cut["custom"]["target_audio"], encoded.assistant)
            for members, (recording, flac) in zip(tars.values(), fields, strict=True):
                members += [
                    tar_member(f"{cut['id']}.flac", flac),
                    tar_member(f"{cut['id']}.json", json_line(recording)),
                ]
        folder = f"{split}/{unit // 1000:03d}"
        for field, members in tars.items():
            yield f"{folder}/{field}.{unit:06d}.tar", [*members, tar_end(sum(map(len, members)))]
        yield f"{folder}/cuts.{unit:06d}.jsonl.gz", gzip.compress(b"".join(cuts), mtime=0)

    def _cut(self, encoded: Encoded) -> dict[str, Any]:
        sample = encoded.sample
        recording = _recording(f"{sample.key}-user", encoded.user)
        return {
            "id": sample.key,
            "start": 0.0,
            "duration": recording["duration"],
            "channel": 0,
            "supervisions": [
                {
                    "id": f"{sample.key}-{number:02d}",
                    "recording_id": recording["id"],
                    "start": turn.start,
                    "duration": round(turn.end - turn.start, 6),
                    "channel": 0,
                    "text": self._text(turn),
                    "language": sample.language,
                    "speaker": SPEAKERS[turn.role],
                }
                for number, turn in enumerate(sample.turns)
            ],
            "recording": recording,
            "custom": {
                "target_audio": _recording(f"{sample.key}-assistant", encoded.assistant),
                "system_prompt": sample.system,
                **origin(sample),
            },
            "type": "MonoCut",
        }

    def _text(self, turn: SampleTurn) -> str:
        return turn.spoken if self.options.text == "spoken" else turn.written


def _recording(name: str, flac: bytes) -> dict[str, Any]:
    """The manifest of a track whose audio lies in the tar beside it. Raises DataError."""
    frames, rate = audio.header(flac, name)
    return {
        "id": name,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": rate,
        "num_samples": frames,
        "duration": frames / rate,
        "channel_ids": [0],
    }
