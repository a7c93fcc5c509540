"""What a recogniser must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.dialogue import Clip, Language, Transcript


class Recognizer(Protocol):
    """Speech to text over batches, at temperature 0. Made in the worker that uses it; never pickled.

    rate: the sample rate it wants, Hz; clips must be given at this rate.
    """

    name: str
    rate: int
    deterministic: bool

    def transcribe(self, clips: Sequence[Clip], languages: Sequence[Language]) -> list[Transcript]:
        """One transcript a clip, in order. `languages` is given, not guessed. Raises BackendError."""
        ...
