"""LLaMA-Omni 2 and LLaMA-Omni (ictnlp): one JSON array a split, clips as WAV.

The rule of version 2: examples/questions.json and llama_omni2/inference/run_llama_omni2.py of ictnlp/LLaMA-Omni2 (`id`,
`conversation` of `from`, `text`, `speech`; human and gpt by turns), with the `unit` of its authors' training data
InstructS2S-200K: null for human, "<2957><4299>…" for gpt (CosyVoice 2 tokens).

Of version 1: omni_speech/infer/examples/question.json and omni_speech/datasets/preprocess.py of ictnlp/LLaMA-Omni
(`id`, `speech`, `conversations` of `from`, `value`). Its preprocess_llama_3 takes one exchange only, so that the first
of each dialogue is written: a later one would be taught without what it answers to. `tgt_units` is what its model's
forward calls the units (HuBERT, k-means of 1,000); its loader for training is not published.

Both read a path by whisper.load_audio, from the folder that they are started in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.dialogue import Record, Split
from pipeline.shards.format import Encoded
from pipeline.training.formats.base import Part, Piece
from pipeline.training.formats.clips import (
    ClipOptions,
    TurnClip,
    at_rate,
    clip_path,
    cut_turns,
    encode,
    joint_files,
    json_line,
    rows_path,
)
from pipeline.training.formats.units import UnitsFormat

PROMPT = "<speech>\nPlease directly answer the questions in the user's speech."
"""What LLaMA-Omni was trained with and is asked with (question.json)."""


class Options(ClipOptions):
    """version: 2 or 1, as above. units: a file of the answers' units; without it they are left out."""

    version: Literal[1, 2] = 2
    units: Path | None = None


class LlamaOmni(UnitsFormat):
    name: ClassVar[str] = "llama-omni"
    Options: ClassVar[type[Record]] = Options

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        rows: list[bytes] = []
        for place, encoded in enumerate(samples):
            key, turns = encoded.sample.key, []
            clips = cut_turns(encoded)
            for clip in clips if self.options.version == 2 else [next(clips), next(clips)]:
                path = clip_path(unit, place, key, clip, self.options.files)
                rate = self.options.rate if clip.turn.role == "user" else clip.rate
                yield path, encode(at_rate(clip, rate), rate, self.options.files)
                turns.append((clip, self.options.named(path)))
            row = self._second(key, turns) if self.options.version == 2 else self._first(key, turns)
            rows.append(json_line(row | ({"system": encoded.sample.system} if encoded.sample.system else {})))
        yield rows_path(unit), b"".join(rows)

    def _second(self, key: str, turns: list[tuple[TurnClip, str]]) -> dict[str, Any]:
        conversation = []
        for clip, path in turns:
            human = clip.turn.role == "user"
            said = {"from": "human" if human else "gpt", "speech": path, "text": getattr(clip.turn, self.options.text)}
            if self._units:
                units = None if human else self._units.of(key, clip.number)
                said["unit"] = None if units is None else "".join(f"<{unit}>" for unit in units)
            conversation.append(said)
        return {"id": key, "conversation": conversation}

    def _first(self, key: str, turns: list[tuple[TurnClip, str]]) -> dict[str, Any]:
        (_, question), (clip, answer) = turns
        said: dict[str, Any] = {"from": "gpt", "value": getattr(clip.turn, self.options.text)}
        if self._units:
            said["tgt_units"] = self._units.of(key, clip.number)
        conversations = [{"from": "human", "value": PROMPT}, said]
        return {"id": key, "speech": question, "answer_speech": answer, "conversations": conversations}

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        yield from joint_files(out, parts, ".json", array=True)

    def notes(self) -> tuple[str, ...]:
        if self._units:
            return ()
        field, kind = ("unit", "CosyVoice 2 tokens") if self.options.version == 2 else ("tgt_units", "HuBERT units")
        return (
            f"no `{field}`: it trains speech in, text out. To speak, make {kind} of the answers (*.assistant."
            f"{self.options.files}) and export again with --set units=FILE (key, turn, units; .jsonl or .parquet)",
        )
