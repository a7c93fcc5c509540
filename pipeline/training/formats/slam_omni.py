"""SLAM-Omni (X-LANCE/SLAM-LLM): Parquet, a row a round, as `manifest_format: datasets` reads it.

The rule: examples/s2s/speech_dataset_s2s.py and examples/s2s/demo/demo_data/demo.ipynb: `question_audio` (Audio, at any
rate: it is resampled to 16 kHz; its path is the key), `question`, `answer`, and `answer_cosyvoice_speech_token` (a
list) or `answer_snac` ("# 1 2 3 4 5 6 7 # …", seven a frame). A later round's question begins with what was said
before: "USER: … ASSISTANT: … <USER>: …". The trainer splits `train` by itself (split_size), so that each split of the
run is a configuration of the export, and its rows are called train.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from pipeline.dialogue import Record, Split
from pipeline.errors import UsageError
from pipeline.shards.format import Encoded
from pipeline.training.formats.base import Part, Piece
from pipeline.training.formats.clips import TurnClip, at_rate, cut_turns, encode, present
from pipeline.training.formats.tables import parquet, table_path
from pipeline.training.formats.units import UnitsFormat

SNAC_LAYERS = 7


class Options(Record):
    """text: as it is said or written. rate: Hz of the questions. units: a file of the answers' tokens; without it the
    answers' own clips are there instead (`answer_audio`), to make them of. codec: whose tokens they are."""

    text: Literal["spoken", "written"] = "spoken"
    rate: Annotated[int, Field(ge=8000, le=48000)] = 16000
    units: Path | None = None
    codec: Literal["cosyvoice", "snac"] = "cosyvoice"


class SlamOmni(UnitsFormat):
    name: ClassVar[str] = "slam-omni"
    Options: ClassVar[type[Record]] = Options

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        rows = (row for encoded in samples for row in self._rows(encoded))
        yield table_path(unit, split), parquet(rows, self._features())

    def _rows(self, encoded: Encoded) -> Iterator[dict[str, Any]]:
        sample, history = encoded.sample, ""
        turns = list(cut_turns(encoded))
        for asked, said in zip(turns[::2], turns[1::2], strict=True):
            question, answer = (getattr(clip.turn, self.options.text) for clip in (asked, said))
            rate = self.options.rate
            yield {
                "split_name": sample.source.name,
                "index": sample.key,
                "round": asked.number // 2 + 1,
                "question": f"{history}<USER>: {question}",
                "question_audio": {
                    "bytes": encode(at_rate(asked, rate), rate, "flac"),
                    "path": _name(sample.key, asked),
                },
                "answer": answer,
                **self._answer(sample.key, said),
            }
            history += f"USER: {question} ASSISTANT: {answer} "

    def _answer(self, key: str, clip: TurnClip) -> dict[str, Any]:
        if self._units is None:
            return {"answer_audio": {"bytes": encode(clip.pcm, clip.rate, "flac"), "path": _name(key, clip)}}
        units = self._units.of(key, clip.number)
        if self.options.codec == "cosyvoice":
            return {"answer_cosyvoice_speech_token": units}
        if len(units) % SNAC_LAYERS:
            raise UsageError(
                f"--set units={self.options.units}: turn {clip.number} of {key} has {len(units)} units; SNAC has seven "
                "a frame"
            )
        frames = (units[at : at + SNAC_LAYERS] for at in range(0, len(units), SNAC_LAYERS))
        return {"answer_snac": " ".join(f"# {' '.join(map(str, frame))}" for frame in frames)}

    def _features(self) -> Any:
        from datasets import Audio, Features, Value

        answer: dict[str, Any] = {"answer_audio": Audio()}
        if self._units:
            cosyvoice = self.options.codec == "cosyvoice"
            answer = {"answer_cosyvoice_speech_token": [Value("int64")]} if cosyvoice else {}
            answer = answer or {"answer_snac": Value("string")}
        return Features(
            {
                "split_name": Value("string"),
                "index": Value("string"),
                "round": Value("int64"),
                "question": Value("string"),
                "question_audio": Audio(sampling_rate=self.options.rate),
                "answer": Value("string"),
                **answer,
            }
        )

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        configs = [
            {
                "config_name": split,
                "data_files": [{"split": "train", "path": f"data/{split}/*/*.parquet"}],
                **({"default": True} if split == "train" else {}),
            }
            for split in present(parts)
        ]
        yield "README.md", f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n".encode()

    def notes(self) -> tuple[str, ...]:
        if self._units:
            return ()
        return (
            "no speech tokens: of the trainer's tasks only `asr` works. For `s2s` make CosyVoice or SNAC tokens of "
            "`answer_audio` and export again with --set units=FILE (key, turn, units; .jsonl or .parquet), and --set "
            "codec=snac for SNAC",
        )


def _name(key: str, clip: TurnClip) -> str:
    return f"{key}.{clip.number:02d}.flac"
