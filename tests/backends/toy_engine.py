"""A tiny synthesizer that does what its texts and options say, for engines that live in another process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language
from pipeline.errors import BackendError, ModelError
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

TOO_LONG = 600  # seconds


class Toy:
    """Says: noise of its seed. "%": Unsaid. "die": kills its process; "die once PATH": if nothing is at PATH.
    "hang", "hang once PATH": takes ten minutes. So does its opening with the option `hang`.

    "bug", "refuse": raise. Its name holds its process; with the option `package`, the version of that one too.
    """

    rate = 16000
    languages: frozenset[Language] = frozenset({"en"})
    kinds: frozenset[VoiceKind] = frozenset({"name", "clip"})
    stochastic = True
    deterministic = True
    batch = 3

    def __init__(self, section: TtsEngineConfig):
        if missing := section.options.get("missing"):
            raise ModelError(f"{missing}: not there; fetch it")
        if section.options.get("hang"):
            time.sleep(TOO_LONG)
        package = section.options.get("package")
        version = import_module(str(package)).VERSION if package else "toy"
        self.name = f"{version} {os.getpid()}"

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        print("a library that talks")
        return [self._say(request) for request in requests]

    def _say(self, request: SpeechRequest) -> Clip | Unsaid:
        word, _, rest = request.text.partition(" ")
        if word in ("die", "hang") and not (rest and Path(rest.removeprefix("once ")).exists()):
            if rest:
                Path(rest.removeprefix("once ")).touch()
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(TOO_LONG)
        if word == "bug":
            raise ZeroDivisionError("a bug of the toy")
        if word == "refuse":
            raise BackendError("the toy does not want to")
        if word == "%":
            return Unsaid("symbols", f"of {request.voice.id}: %")
        noise = np.random.default_rng(request.seed).uniform(-1, 1, 100 * len(request.text))
        return Clip((noise / request.speed).astype(np.float32), self.rate)


def build(section: TtsEngineConfig) -> Toy:
    return Toy(section)
