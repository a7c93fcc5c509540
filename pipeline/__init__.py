"""speechchat: bilingual spoken dialogues for the fine-tuning of speech language models.

from pipeline import stream_turns
for turn in stream_turns("runs/demo", split="train"):
    turn.text, turn.audio, turn.rate, turn.loss
"""

from pipeline.config import Config, load_config
from pipeline.dialogue import Sample
from pipeline.errors import SpeechchatError
from pipeline.shards.reader import TurnExample, stream_samples, stream_turns

__version__ = "0.1.0"
__all__ = ["Config", "Sample", "SpeechchatError", "TurnExample", "load_config", "stream_samples", "stream_turns"]
