"""Runs in the environment of the trainers (make test-trainers): what their own loaders make of an export, as JSON.

python read_by_trainers.py ms-swift|llama-factory FOLDER SPLIT CACHE
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


def ms_swift(folder: str, split: str) -> list[dict[str, Any]]:
    os.environ["SWIFT_AUDIO_LOAD_BACKEND"] = "soundfile_pyav"
    from swift.dataset import load_dataset
    from swift.template.vision_utils import load_audio

    os.chdir(folder)  # its paths are relative to where it is started
    rows, _ = load_dataset([f"{split}.jsonl"], num_proc=1, strict=True, load_from_cache_file=False)
    found = []
    for row in rows:
        sounds = [load_audio(path, 16000) for path in row["audios"]]
        found.append({"messages": row["messages"], "sounds": [[round(float(x) * 32768) for x in s] for s in sounds]})
    return found


def llama_factory(folder: str, split: str, cache: str) -> list[dict[str, Any]]:
    # Its library wants the CUDA build of torch. Only mm_plugin needs it, to decode; what is tested comes before.
    sys.modules["torchaudio"] = stand_in = ModuleType("torchaudio")
    stand_in.__spec__ = ModuleSpec("torchaudio", None)
    from llamafactory.data.loader import _load_single_dataset
    from llamafactory.data.mm_plugin import BasePlugin
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import DataArguments

    name = f"speechchat_{split}"
    data = DataArguments(dataset=name, dataset_dir=folder)
    model = SimpleNamespace(cache_dir=cache, hf_hub_token=None)
    training = SimpleNamespace(local_process_index=0)
    plugin = BasePlugin(None, None, "<audio>")
    found = []
    for row in _load_single_dataset(get_dataset_list([name], folder)[0], model, data, training):
        messages = [*row["_prompt"], *row["_response"]]
        plugin._validate_messages(messages, [], [], row["_audios"])
        found.append({"messages": messages, "system": row["_system"], "audios": row["_audios"]})
    return found


def main() -> None:
    trainer, folder, split, cache = sys.argv[1:]
    rows = ms_swift(folder, split) if trainer == "ms-swift" else llama_factory(folder, split, cache)
    Path(cache, "rows.json").write_text(json.dumps(rows), "utf-8")


if __name__ == "__main__":
    main()
