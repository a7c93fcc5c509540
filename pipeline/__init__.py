"""speechchat: bilingual spoken dialogues for the fine-tuning of speech language models.

from pipeline import stream_turns
for turn in stream_turns("runs/demo", split="train"):
    turn.text, turn.audio, turn.rate, turn.loss
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config, load_config
    from pipeline.dialogue import Sample
    from pipeline.errors import SpeechchatError
    from pipeline.shards.reader import TurnExample, stream_samples, stream_turns

__version__ = "0.1.0"
__all__ = ["Config", "Sample", "SpeechchatError", "TurnExample", "load_config", "stream_samples", "stream_turns"]

_ROOMS = {
    "Config": "config",
    "load_config": "config",
    "Sample": "dialogue",
    "SpeechchatError": "errors",
    "TurnExample": "shards.reader",
    "stream_samples": "shards.reader",
    "stream_turns": "shards.reader",
}


def __getattr__(name: str) -> object:
    # Imported when first used: `speechchat --help` needs neither numpy nor pyarrow.
    if name in _ROOMS:
        return getattr(import_module(f"pipeline.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
