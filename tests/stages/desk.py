"""A text stage on a small corpus, with a script in place of the LLM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.config import Config
from pipeline.dialogue import TextLine
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.draw import Draw
from pipeline.stages.write import TextStage, read_text
from tests.fakes import EN_LINES, write_corpus

HUMAN = "Yes, that is a good idea, my friend."  # what write_corpus answers
GOOD = "Very well, I understand what you mean."


class Script:
    """A Writer that answers with `answer(prompt, how often this dialogue's turn was asked before)`."""

    name = "script"
    deterministic = True

    def __init__(self, answer: Callable[[Prompt, int], str]):
        self._answer = answer
        self.asked: list[Prompt] = []

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        replies = []
        for prompt in prompts:
            before = sum(item.messages == prompt.messages for item in self.asked)
            self.asked.append(prompt)
            await asyncio.sleep(0)
            replies.append(Reply(self._answer(prompt, before)))
        return replies

    def fingerprint(self, prompt: Prompt) -> str:
        return self.name

    async def close(self) -> None: ...


def always(reply: str) -> Callable[[Prompt, int], str]:
    return lambda prompt, before: reply


class Desk:
    """A text stage in a folder of its own, over a small English corpus."""

    def __init__(
        self,
        root: Path,
        answer: Callable[[Prompt, int], str],
        lines: Sequence[str] = EN_LINES,
        **config: object,
    ):
        self.config = Config.model_validate(
            {
                "dialogues": 4,
                "unit_size": 4,
                "languages": {"en": 1},
                "sources": {"corpus": {"kind": "chatterbot", "data": str(write_corpus(root / "corpus", lines))}},
                "text": {"grounding": 0},
                **config,
            }
        )
        self.folder = RunFolder(root / "run")
        self.writer = Script(answer)
        [self.unit] = plan_units(self.config)

    def run(self, answer: Callable[[Prompt, int], str] | None = None) -> list[TextLine]:
        """Write the unit, by another writer if one is given. A new stage each time, as after a crash."""
        if answer:
            self.writer = Script(answer)
        Draw(self.config, self.folder).ensure(self.unit)
        stage = TextStage(self.config, self.writer, self.folder, None, self.config.writer.concurrency)
        asyncio.run(stage.run(self.unit))
        return read_text(self.folder, self.unit)

    @property
    def journal(self) -> Path:
        return self.folder.replies(self.unit.number)


def opening(prompt: Prompt) -> str:
    return next(line for line in EN_LINES if line in prompt.messages[-1]["content"])
