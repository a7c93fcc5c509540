"""What a speaker encoder must do: tell by a vector whose voice is in a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.dialogue import Clip


class SpeakerEncoder(Protocol):
    """Clips to speaker embeddings: the cosine of two of them says how alike two voices are.

    rate: the sample rate it wants, Hz; clips must be given at this rate. dim: numbers in an embedding.
    """

    name: str
    rate: int
    dim: int

    def embed(self, clips: Sequence[Clip]) -> np.ndarray:
        """float32 [clips, dim], each row of length 1 (L2). Raises ValueError for an empty clip or another rate."""
        ...

    def windows(self, clips: Sequence[Clip], density: float) -> list[np.ndarray]:
        """Of each clip, float32 [windows, dim]: embeddings of length 1 of stretches of it, in order.

        density: of the stretches, which overlap, so many a second. Raises ValueError as `embed`.
        """
        ...
