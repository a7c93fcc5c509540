"""What units take in the memory of a studio, so that their number at work has a bound in bytes.

The text of a unit waits on disk and its shard grows there; in memory are the takes of the dialogue that is in hand, of
each unit at work. A unit is therefore as large as its largest dialogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline import audio
from pipeline.config import Config
from pipeline.dialogue import Dialogue
from pipeline.errors import DataError
from pipeline.plan import Unit
from pipeline.shards.store import RunFolder
from pipeline.stages.studio import Progress
from pipeline.stages.write import read_text

WORKING = 3.5
"""Peak of a studio's memory over the clips of the takes that it holds: what is mastered, heard, laid out and encoded of
them lies beside them. Measured with tracemalloc: 3.35 at dialogues of 6 turns of 20 s, 3.41 at 5 s."""
SAMPLE = 4
"""Bytes."""


class Sizes:
    """Judged by the text before a unit is spoken, corrected by what finished units took of what their text had said;
    by what was measured of it as soon as that is more."""

    def __init__(self, config: Config, folder: RunFolder):
        self._config = config
        self._folder = folder
        self._bound = config.engine.studio_bytes
        self._expected: dict[int, float] = {}
        self._measured: dict[int, float] = {}
        self._sums = [0.0, 0.0]  # expected, measured of finished units

    def fits(self, others: Sequence[Unit], unit: Unit) -> bool:
        """Whether a studio with these units may have another: one has room in any."""
        return self._bound is None or not others or sum(map(self.of, [*others, unit])) <= self._bound

    def of(self, unit: Unit) -> float:
        """Bytes."""
        if unit.number not in self._expected:
            self._expected[unit.number] = self._expect(unit)
        expected, measured = self._sums
        corrected = self._expected[unit.number] * (measured / expected if expected and measured else 1.0)
        return max(corrected, self._measured.get(unit.number, 0.0))

    def told(self, progress: Iterable[Progress]) -> None:
        """Of units at work."""
        for item in progress:
            if item.unit in self._expected:
                self._measured[item.unit] = WORKING * item.held

    def finished(self, progress: Progress) -> None:
        self._measured.pop(progress.unit, None)
        expected = self._expected.pop(progress.unit, 0.0)
        if expected and progress.held:
            self._sums = [self._sums[0] + expected, self._sums[1] + WORKING * progress.held]

    def _expect(self, unit: Unit) -> float:
        try:
            lines = read_text(self._folder, replace(unit))  # the unit waits without its dialogues
        except (DataError, OSError):
            return 0.0  # whoever speaks it tells
        return WORKING * max((self._clips(line.dialogue) for line in lines if line.dialogue), default=0.0)

    def _clips(self, dialogue: Dialogue) -> float:
        """Bytes of one take of each turn."""
        settings = self._config.audio
        rates = {"user": settings.user_rate, "assistant": settings.assistant_rate}
        return sum(
            SAMPLE * rates[turn.role] * sum(audio.expected_seconds(turn.spoken, settings)) / 2
            for turn in dialogue.turns
        )
