"""ms-swift (modelscope/ms-swift): JSONL with `messages` and `audios`.

The rule: docs/source_en/Customization/Custom-dataset.md, "Multimodal", and `swift/dataset/preprocessor/core.py`
(version 4.6.0): roles system, user and assistant; each `<audio>` in the contents stands for one path of `audios`, in
order. A path is taken as it is, from the folder that the training is started in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipeline.dialogue import Record, Split
from pipeline.shards.format import Encoded
from pipeline.training.formats.base import Format, Part, Piece
from pipeline.training.formats.clips import (
    ClipOptions,
    at_rate,
    check_tags,
    clip_path,
    cut_turns,
    encode,
    joint_files,
    json_line,
    rows_path,
)

TAG = "<audio>"


class Options(ClipOptions):
    """transcript: the user's text stands behind the clip."""

    transcript: bool = False


class MsSwift(Format):
    name: ClassVar[str] = "ms-swift"
    Options: ClassVar[type[Record]] = Options
    tags: ClassVar[tuple[str, ...]] = (TAG,)
    """What the trainer counts in the texts, and refuses where it has not as many files."""

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        rows: list[bytes] = []
        for place, encoded in enumerate(samples):
            paths, turns = [], []
            for clip in cut_turns(encoded):
                text = getattr(clip.turn, self.options.text)
                check_tags(encoded.sample.key, [text], self.tags)
                if clip.turn.role == "user":
                    path = clip_path(unit, place, encoded.sample.key, clip, self.options.files)
                    rate = self.options.rate
                    yield path, encode(at_rate(clip, rate), rate, self.options.files)
                    paths.append(self.options.named(path))
                    text = TAG + (text if self.options.transcript else "")
                turns.append((clip.turn.role, text))
            check_tags(encoded.sample.key, [encoded.sample.system], self.tags)
            rows.append(json_line(self._row(encoded.sample.key, encoded.sample.system, turns, paths)))
        yield rows_path(unit), b"".join(rows)

    def _row(self, key: str, system: str, turns: Sequence[tuple[str, str]], paths: list[str]) -> dict[str, Any]:
        messages = [{"role": role, "content": text} for role, text in [("system", system), *turns] if text]
        return {"id": key, "messages": messages, "audios": paths}

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        yield from joint_files(out, parts, ".jsonl")
