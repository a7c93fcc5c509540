"""What a watermark must do. A new one is one file here and one line in ENGINES (backends/__init__.py).

The file has two functions: `build(config: Config) -> Watermark`, and `models(config) -> tuple[ModelUse, ...]` with the
names, checksums and licences of what `build` would load; nothing is loaded for it.
"""

from __future__ import annotations

from typing import Protocol

from pipeline.dialogue import Clip

BITS = 16
"""Of a message."""


class Watermark(Protocol):
    """A mark in the samples that nobody hears and a detector finds. Made in the worker that uses it; never pickled.

    deterministic: the same clip and message give the same samples.
    """

    name: str
    deterministic: bool

    def embed(self, clip: Clip, message: int) -> Clip:
        """The clip, marked: as long and at the same rate. message: in [0, 65536)."""
        ...

    def detect(self, clip: Clip) -> tuple[float, int]:
        """(probability in [0, 1] that the clip is marked, the message, which is chance where it is not)."""
        ...
