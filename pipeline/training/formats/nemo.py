"""NeMo's ShareGPT-WebDataset (`type: share_gpt_webdataset`), for speech-augmented language models.

The rule: `nemo/collections/common/data/lhotse/text_adapters.py`, `NeMoMultimodalConversationShareGPTWebdatasetAdapter`
(NeMo 3.0.0): members come in pairs, a .json and its one audio file; `<sound>` in a turn of `conversations` stands for
the stretch of that file that the turn's `offset` and `duration` (seconds) name; `wids-meta.json` lists the tars, each
with the offsets of its samples beside it (.idx). So the audio of a sample is the whole user track, the run's own FLAC
byte by byte, and a turn is a stretch of it; NeMo resamples it as its configuration says. There is no role for a system
prompt (it would be the assistant's): it stands before the first `<sound>`.

    OUT/train/wids-meta.json  000/shard-000000.tar  000/shard-000000.tar.idx     `data_dir` is OUT/train
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline import audio
from pipeline.dialogue import Clip, Record, SampleTurn, Split
from pipeline.shards.format import Encoded
from pipeline.training.formats.base import HIDDEN, Format, Part, Piece
from pipeline.training.formats.clips import check_tags, json_line, present
from pipeline.training.formats.origin import origin
from pipeline.training.formats.tars import tar_end, tar_member

TAG = "<sound>"
TAGS = (TAG, "<speech>")
"""What NeMo takes for audio if its `audio_placeholders` says nothing."""
_CHUNK = 1 << 20


class Options(Record):
    """text: what was said (numbers in words, with its disfluencies), or as it was written. answers: the assistant's are
    text alone, or text and the speech of it; then the audio is a mix of both tracks at the user's rate. tar_mb: tars of
    units are joined until they have so many MB, and stay, hidden, for when the run has grown; 0: a tar a unit."""

    text: Literal["spoken", "written"] = "spoken"
    answers: Literal["text", "speech"] = "text"
    tar_mb: Annotated[int, Field(ge=0, le=8000)] = 256


class Nemo(Format):
    name: ClassVar[str] = "nemo"
    Options: ClassVar[type[Record]] = Options

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        path = f"{HIDDEN}/tars/{_name('unit', unit)}" if self.options.tar_mb else f"{split}/{_name('unit', unit)}"
        offsets: list[int] = []
        yield path, self._tar(samples, offsets)
        yield f"{path}.idx", _index(offsets)

    def _tar(self, samples: Iterator[Encoded], offsets: list[int]) -> Iterator[bytes]:
        """The samples, and the end of the tar where it is not to be joined. offsets: grows to those of the samples, and
        where the file ends."""
        size = 0
        for encoded in samples:
            key = encoded.sample.key
            offsets.append(size)
            flac = encoded.user if self.options.answers == "text" else _mix(encoded)
            pair = tar_member(f"{key}.json", json_line(self._row(encoded))) + tar_member(f"{key}.flac", flac)
            size += len(pair)
            yield pair
        end = b"" if self.options.tar_mb else tar_end(size)
        yield end
        offsets.append(size + len(end))

    def _row(self, encoded: Encoded) -> dict[str, Any]:
        sample = encoded.sample
        check_tags(sample.key, (sample.system, *map(self._text, sample.turns)), TAGS)
        turns = []
        for number, turn in enumerate(sample.turns):
            before = [sample.system] if number == 0 and sample.system else []
            if turn.role == "user":
                turns.append({"from": "human", "value": "\n".join([*before, TAG]), **_stretch(turn, sample.user_rate)})
            elif self.options.answers == "text":
                turns.append({"from": "gpt", "value": self._text(turn)})
            else:
                turns.append({"from": "gpt", "value": f"{self._text(turn)}\n{TAG}", **_stretch(turn, sample.user_rate)})
        return {"id": sample.key, "sound": f"{sample.key}.flac", "conversations": turns, **origin(sample)}

    def _text(self, turn: SampleTurn) -> str:
        return turn.spoken if self.options.text == "spoken" else turn.written

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        for split in present(parts):
            shards: list[tuple[str, int]] = []
            mine = (part for part in parts if part.split == split and part.samples)
            if not self.options.tar_mb:
                shards = [(part.files[0].removeprefix(f"{split}/"), part.samples) for part in mine]
            else:
                for group in self._groups(out, mine):
                    name = _name("shard", len(shards))
                    shards.append((name, sum(part.samples for part in group)))
                    yield f"{split}/{name}", _joined(out, group)
                    yield f"{split}/{name}.idx", _joined_index(out, group)
            listed = [{"url": url, "nsamples": samples} for url, samples in shards]
            meta = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
            yield f"{split}/wids-meta.json", (json.dumps(meta, indent=1) + "\n").encode()

    def _groups(self, out: Path, parts: Iterable[Part]) -> Iterator[list[Part]]:
        """Parts in order, in groups whose tars have `tar_mb` together; the last one has what is left."""
        group: list[Part] = []
        for part in parts:
            group.append(part)
            if _bytes(out, group) >= self.options.tar_mb * 1e6:
                yield group
                group = []
        if group:
            yield group


def _name(kind: str, number: int) -> str:
    return f"{number // 1000:03d}/{kind}-{number:06d}.tar"


def _stretch(turn: SampleTurn, rate: int) -> dict[str, float]:
    """Where a turn lies, in seconds that are whole samples at `rate`."""
    first, last = round(turn.start * rate), round(turn.end * rate)
    return {"offset": first / rate, "duration": (last - first) / rate}


def _mix(encoded: Encoded) -> bytes:
    """Both tracks as one (FLAC, at the user's rate; the assistant's is resampled by soxr, HQ). Raises DataError."""
    key = encoded.sample.key
    user, rate = audio.decode(encoded.user, f"{key}.user.flac")
    other, other_rate = audio.decode(encoded.assistant, f"{key}.assistant.flac")
    answers = audio.resample(Clip(audio.from_pcm(other), other_rate), rate).audio
    return audio.encode_flac(audio.to_pcm(audio.from_pcm(user) + answers[: len(user)]), rate)


def _index(offsets: list[int]) -> bytes:
    """Unsigned 64-bit numbers, little-endian (`create_tar_index` in NeMo's indexed_adapters.py)."""
    return struct.pack(f"<{len(offsets)}Q", *offsets)


def _bytes(out: Path, parts: Iterable[Part]) -> int:
    return sum((out / part.files[0]).stat().st_size for part in parts)


def _joined(out: Path, parts: list[Part]) -> Iterator[bytes]:
    for part in parts:
        with (out / part.files[0]).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    yield tar_end(_bytes(out, parts))


def _joined_index(out: Path, parts: list[Part]) -> bytes:
    offsets: list[int] = [0]
    for part in parts:
        offsets += (np.fromfile(out / part.files[1], "<u8")[1:] + np.uint64(offsets[-1])).tolist()
    size = offsets.pop()
    return _index([*offsets, size + len(tar_end(size))])
