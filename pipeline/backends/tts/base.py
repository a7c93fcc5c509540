"""What a synthesizer must do. A new engine is one file here and one line in ENGINES (backends/__init__.py).

The file has two functions: `build(section: TtsEngineConfig) -> Synthesizer`, and `models(section)`, a tuple of ModelUse
with the names, checksums and licences of what `build` would load; nothing is loaded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.dialogue import Clip, Language
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind


class Synthesizer(Protocol):
    """Text to speech over batches. Made in the worker that uses it; never pickled.

    languages, kinds: what it speaks, and which kinds of voice (`Recipe.kind`) it can make.
    stochastic: a new seed is a new take. Where it is False the request's speed makes the take differ.
    deterministic: the same request gives the same bytes whatever else is asked, and in any order.
    rate: of the clips, Hz. batch: how many requests it likes at once; 1 where they are spoken one by one anyway; 0
    where it queues by itself (a server) and several threads may call it at once. Others are called by one at a time.
    """

    name: str
    rate: int
    languages: frozenset[Language]
    kinds: frozenset[VoiceKind]
    stochastic: bool
    deterministic: bool
    batch: int

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        """One clip a request, in order, or why there is none: a request that cannot be said harms no neighbour.

        request.speed is to be kept as asked; the voice's own speed and shift are seen to by the caller.
        Raises EndpointError where no request could be served.
        """
        ...
