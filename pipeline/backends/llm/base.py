"""What a writer of text must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pipeline.dialogue import Language

Finish = Literal["stop", "length", "content filter", "refusal", "empty"]


class Meter(Protocol):
    """Is told of every single request for a prompt, retries included."""

    async def reserve(self, dollars: float) -> None:
        """Before it is sent. dollars: the most that it can cost, 0 where no price is known. Raises BudgetError."""
        ...

    def settle(self, reserved: float, cost: float | None) -> None:
        """After it ended. cost: None if it may have been billed and nobody said how much."""
        ...


@dataclass(frozen=True)
class Prompt:
    """Chat messages (`{"role": "system"|"user"|"assistant", "content": ...}`), and a seed of its own.

    schema: JSON schema of the reply, None for plain text. max_tokens: the configuration's if None.
    step, dialogue, meter: whom the bill is for, and who counts it; they are not sent.
    """

    messages: tuple[dict[str, str], ...]
    language: Language
    seed: int
    schema: dict[str, Any] | None = None
    max_tokens: int | None = None
    step: str = ""
    dialogue: str = ""
    meter: Meter | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Reply:
    """What came back. finish: why it ended; all but "stop" mean that the text may not be used as it is.

    model, endpoint: who says to have written it, and which endpoint of the configuration was asked; tokens: as
    billed, of the prompt and of the reply (0 where a server does not tell); cost: dollars, 0 where no price is known.
    known: it was paid for earlier, and is not paid again.
    """

    text: str
    finish: Finish = "stop"
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    known: bool = False
    endpoint: str = ""


class Writer(Protocol):
    """An LLM behind an interface of batches.

    deterministic: the same prompt gives the same reply whatever else is asked.
    """

    name: str
    deterministic: bool

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One reply a prompt, in order, asked side by side. Raises EndpointError where no endpoint can serve
        anybody (down, key refused, no such model), BackendError where this request failed,
        BudgetError before a request that the budget might not cover."""
        ...

    def fingerprint(self, prompt: Prompt) -> str:
        """All that reaches the reply beside the prompt itself: models and settings, not addresses or keys. Where it
        and the prompt are the same, an earlier reply may stand for a new one."""
        ...

    async def close(self) -> None: ...


class Unasked:
    """Stands for the writer of a run that asks no LLM. To ask it is a bug."""

    name = "none"
    deterministic = True

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        raise RuntimeError(f"an LLM was asked for {prompts[0].step or 'a reply'}, and no step of this run has one")

    def fingerprint(self, prompt: Prompt) -> str:
        return self.name

    async def close(self) -> None: ...
