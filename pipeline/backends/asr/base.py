"""What a recogniser must do. A new one is one file here and one line in ENGINES (backends/__init__.py).

The file has two functions: `build(section: RecognizerConfig) -> Recognizer`, and `models(section)`, a tuple of ModelUse
with the names, checksums and licences of what `build` would load. It calls its own section `asr` in messages: who it
is told from (`asr.by_language.zh`, `asr.second`) puts that right.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.dialogue import Clip, Language, Transcript

Spellings = Callable[[str], Sequence[str]]
"""The ways in which the text of a clip may be written, given a transcript of it."""


class Recognizer(Protocol):
    """Speech to text over batches, at temperature 0. Made in the worker that uses it; never pickled.

    rate: the sample rate it wants, Hz; clips must be given at this rate.
    careful: whether it listens otherwise, or tells more, when it is asked to be careful.
    deterministic: the same clip gives the same transcript whatever else is asked, and in any order.
    """

    name: str
    rate: int
    deterministic: bool
    careful: bool

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        """One transcript a clip, in order. `languages` is given, not guessed.

        careful: as well as it can, whatever it costs, for what was heard wrong without. texts: of each clip, what it
        should say; a recogniser that can tells how likely that is (doubt, surprise). Raises BackendError where a
        clip could not be heard, EndpointError where none can be.
        """
        ...


def compression_ratio(text: str) -> float:
    """Bytes of the text by those that zlib makes of it; above 2.4 it repeats itself (Radford et al. 2022, 4.5)."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))
