"""The formats of an export: a file each, imported when it is used."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.training.formats.base import Format

FORMATS: dict[str, tuple[str, str]] = {
    "hf": ("hf:HuggingFace", "Hugging Face Parquet, a row a dialogue with both tracks as Audio, and a card"),
    "llama-factory": ("llama_factory:LlamaFactory", "ShareGPT with `audios`, and dataset_info.json"),
    "llama-omni": (
        "llama_omni:LlamaOmni",
        "JSON of conversations with speech, text and unit (LLaMA-Omni, LLaMA-Omni 2)",
    ),
    "lhotse": ("lhotse:Lhotse", "Lhotse Shar: cuts with `recording` and `target_audio` for NeMo's duplex models"),
    "moshi": ("moshi:Moshi", "stereo WAV (left assistant, right user), a JSON of word times beside each, and a JSONL"),
    "ms-swift": ("ms_swift:MsSwift", "JSONL of messages and `audios`"),
    "nemo": ("nemo:Nemo", "NeMo's ShareGPT-WebDataset: tars of a JSON and the user's track a dialogue"),
    "slam-omni": ("slam_omni:SlamOmni", "Parquet, a row a round: question audio, answer, speech tokens"),
}
"""name → module:class in this folder, and one line: whose format it is and what it looks like."""


def find_format(name: str) -> type[Format]:
    """Raises UsageError for an unknown one."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), FORMATS, n=1, cutoff=0.4)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no format is called {name!r}; {meant}known: {', '.join(sorted(FORMATS))}")
    module, _, attribute = FORMATS[name][0].partition(":")
    found: type[Format] = getattr(importlib.import_module(f"pipeline.training.formats.{module}"), attribute)
    return found
