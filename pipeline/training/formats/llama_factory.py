"""LLaMA-Factory (hiyouga/LLaMA-Factory): ShareGPT with `audios`, and dataset_info.json.

The rule: data/README.md, "Multimodal Audio Dataset", and `src/llamafactory/data/{parser,converter,mm_plugin}.py`
(version 0.9.5): human and gpt by turns, each `<audio>` stands for one of `audios`, whose paths are looked for in
`media_dir`, which is `dataset_dir` where nobody says otherwise: the folder of the export.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipeline.training.formats.base import Part, Piece
from pipeline.training.formats.clips import joint_files, present
from pipeline.training.formats.ms_swift import TAG, MsSwift

_ROLES = {"user": "human", "assistant": "gpt"}


class LlamaFactory(MsSwift):
    name: ClassVar[str] = "llama-factory"
    tags: ClassVar[tuple[str, ...]] = (TAG, "<image>", "<video>")

    def _row(self, key: str, system: str, turns: Sequence[tuple[str, str]], paths: list[str]) -> dict[str, Any]:
        conversations = [{"from": _ROLES[role], "value": text} for role, text in turns]
        return {"id": key, "conversations": conversations, "system": system, "audios": paths}

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        yield from joint_files(out, parts, ".jsonl")
        columns = {"messages": "conversations", "system": "system", "audios": "audios"}
        info = {
            f"speechchat_{split}": {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "columns": columns}
            for split in present(parts)
        }
        yield "dataset_info.json", (json.dumps(info, indent=2) + "\n").encode()
