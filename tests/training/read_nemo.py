"""Runs where NeMo is: `python -m tests.training.read_nemo FORMAT FOLDER ANSWER`, NeMo's own reading of an export."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

FRAME = 0.08
WAYS = ("in order", "shuffled")
"""Of reading conversations: through the tars, and by their indices."""


class Characters:
    """A tokenizer of one token a character, as NeMo's datasets ask for it."""

    bos, eos, pad, pad_id, unk_id = 1, 2, 0, 0, 3

    def text_to_ids(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def digest(samples: Any) -> str:
    """Of float samples, as the 16 bits that they were made of."""
    return hashlib.sha256(np.rint(np.asarray(samples).squeeze() * 32768).astype("<i2").tobytes()).hexdigest()


def conversations(folder: str, shuffle: bool) -> list[Any]:
    from nemo.collections.common.data.lhotse.cutset import read_share_gpt_webdataset_as_conversation
    from omegaconf import OmegaConf

    config = {
        "data_dir": folder,
        "audio_locator_tag": "<|audio|>",
        "token_equivalent_duration": FRAME,
        "shuffle": shuffle,
        "shard_seed": 0,
        "force_finite": True,
    }
    found, _ = read_share_gpt_webdataset_as_conversation(OmegaConf.create(config))
    return [
        {
            "id": item.id,
            "turns": [
                {"role": turn.role, "text": turn.value}
                if hasattr(turn, "value")
                else {"role": turn.role, "sha256": digest(turn.cut.load_audio())}
                for turn in item.turns
            ],
        }
        for item in found
    ]


def duplex(folder: str) -> dict[str, Any]:
    """A batch of DuplexS2SDataset at the rates of the tracks. The package around it asks for every TTS model of NeMo,
    so that its own `__init__` is passed over."""
    import nemo.collections
    from nemo.collections.common.data.lhotse.cutset import read_lhotse_manifest
    from omegaconf import OmegaConf

    for name in ("nemo.collections.speechlm2", "nemo.collections.speechlm2.data"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(nemo.collections.__path__[0]).joinpath(*name.split(".")[2:]))]
        sys.modules[name] = package
    from nemo.collections.speechlm2.data.s2s_dataset import DuplexS2SDataset

    cuts, _ = read_lhotse_manifest(OmegaConf.create({"shar_path": folder, "shard_seed": 0, "force_finite": True}))
    cuts = cuts.to_eager()
    batch = DuplexS2SDataset(Characters(), FRAME, source_sample_rate=16000, target_sample_rate=24000)[cuts]
    return {
        "ids": list(cuts.ids),
        "texts": batch["target_texts"],
        **{
            side: [
                digest(row[:length])
                for row, length in zip(batch[f"{side}_audio"], batch[f"{side}_audio_lens"], strict=True)
            ]
            for side in ("source", "target")
        },
        "tokens": {side: batch[f"{side}_tokens"].tolist() for side in ("source", "target")},
    }


if __name__ == "__main__":
    kind, folder, answer = sys.argv[1:]
    found = duplex(folder) if kind == "lhotse" else {way: conversations(folder, way == "shuffled") for way in WAYS}
    Path(answer).write_text(json.dumps(found))
