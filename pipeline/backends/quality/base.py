"""What a judge of audio quality must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.dialogue import Clip, Score


class QualityModel(Protocol):
    """Scores of clips, no text needed. `rate`: the sample rate it wants, Hz."""

    name: str
    rate: int

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        """The scores of each clip, in order, always under the same names."""
        ...
