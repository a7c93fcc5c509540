"""What a writer of text must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.dialogue import Language


@dataclass(frozen=True)
class Prompt:
    """Chat messages (`{"role": "system"|"user"|"assistant", "content": ...}`), and a seed of its own."""

    messages: tuple[dict[str, str], ...]
    language: Language
    seed: int


class Writer(Protocol):
    """An LLM behind an interface of batches.

    deterministic: the same prompt gives the same reply whatever else is asked.
    """

    name: str
    deterministic: bool

    async def reply(self, prompts: Sequence[Prompt]) -> list[str]:
        """One reply a prompt, in order, asked side by side. Raises EndpointError where the endpoint
        cannot serve anybody (down, key refused, no such model), BackendError where it failed this request."""
        ...

    async def close(self) -> None: ...
