"""A voice that runs out of memory the first time it says "gorges": the system gives its process no more."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, ModelUse
from pipeline.voice import SpeechRequest, Unsaid
from tests import fakes
from tests.fakes import FaultySynthesizer

ROOM = 1 << 28
"""Bytes of addresses that are left when it begins to eat."""


class Glutton(FaultySynthesizer):
    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        mark = Path(os.environ.get("SPEECHCHAT_TEST_GORGED", "/"))
        if any("gorges" in request.text for request in requests) and not mark.exists():
            self._gorge(mark)
        return super().synthesize(requests)

    @staticmethod
    def _gorge(mark: Path) -> None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, before[1]))
        eaten = []
        try:
            while True:
                eaten.append(bytearray(1 << 24))
        except MemoryError as error:
            eaten.clear()
            mark.write_text(type(error).__name__)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def build_tts(section: TtsEngineConfig) -> FaultySynthesizer:
    fakes._synthesizer = Glutton()
    return fakes._synthesizer


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    return fakes.models(section)
