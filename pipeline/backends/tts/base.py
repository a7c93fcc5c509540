"""What a synthesizer must do. A new engine is one file here and one line in ENGINES (backends/__init__.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.dialogue import Clip, SpeechRequest


class Synthesizer(Protocol):
    """Text to speech over batches. Made in the worker that uses it; never pickled.

    stochastic: a new seed is a new take. Where it is False the request's speed makes the take differ.
    deterministic: the same request gives the same bytes whatever else is asked, and in any order.
    rate: of the clips, Hz.
    """

    name: str
    rate: int
    stochastic: bool
    deterministic: bool

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip]:
        """One clip a request, in order. Raises BackendError where a request cannot be spoken."""
        ...
