"""speechchat: bilingual spoken dialogues for the fine-tuning of speech language models.

from pipeline import DialogueStream
for turn in DialogueStream("runs/demo", split="train", each="turn"):
    turn.text, turn.audio, turn.rate, turn.loss
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config, load_config
    from pipeline.dialogue import Sample
    from pipeline.errors import SpeechchatError
    from pipeline.training.items import Batches
    from pipeline.training.reading import DialogueExample, RawExample, TurnExample, TurnsExample
    from pipeline.training.state import merge_states
    from pipeline.training.stream import DialogueStream

__version__ = "0.1.0"
__all__ = [
    "Batches",
    "Config",
    "DialogueExample",
    "DialogueStream",
    "RawExample",
    "Sample",
    "SpeechchatError",
    "TurnExample",
    "TurnsExample",
    "load_config",
    "merge_states",
]

_ROOMS = {
    "Config": "config",
    "load_config": "config",
    "Sample": "dialogue",
    "SpeechchatError": "errors",
    "Batches": "training.items",
    "DialogueExample": "training.reading",
    "RawExample": "training.reading",
    "TurnExample": "training.reading",
    "TurnsExample": "training.reading",
    "merge_states": "training.state",
    "DialogueStream": "training.stream",
}


def __getattr__(name: str) -> object:
    # Imported when first used: `speechchat --help` needs neither numpy nor pyarrow.
    if name in _ROOMS:
        return getattr(import_module(f"pipeline.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
