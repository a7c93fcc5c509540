"""Models that take their time and nothing else, for bench_engine.py: `tts.engines.NAME.kind: sleeping:build_tts`.

How long a dialogue takes stands in FOLDER/settings.json, FOLDER being what the variable SLEEPING names; each call is
told there, in a file for each process: when it began and ended.
"""

from __future__ import annotations

import functools
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import RecognizerConfig, TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse, Transcript
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

FOLDER = "SLEEPING"
RATE = 24000
_PEN = threading.Lock()


@dataclass(frozen=True)
class Call:
    """A call of a model. start, end: seconds since 1970. thread: of the process; it has one unit after the other."""

    stage: str
    start: float
    end: float
    pid: int
    thread: int


def settle(folder: Path, speak: float = 0.0, listen: float = 0.0, burn: float = 0.0) -> None:
    """Seconds that a dialogue sleeps in each stage (speaking: half to one and a half of that), and of CPU that speaking
    it burns. Forgets earlier calls."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.jsonl"):
        path.unlink()
    (folder / "settings.json").write_text(json.dumps({"speak": speak, "listen": listen, "burn": burn}))
    os.environ[FOLDER] = str(folder)


def calls(folder: Path) -> list[Call]:
    """All that were made since `settle`, in the order of their beginning."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((Call(**json.loads(line)) for line in lines), key=lambda call: call.start)


class _Sleeper:
    """The seconds of one stage."""

    def __init__(self, stage: str):
        self._stage = stage
        self._folder = Path(os.environ[FOLDER])
        settings = json.loads((self._folder / "settings.json").read_text())
        self._seconds, self._burn = settings[stage], settings["burn"] if stage == "speak" else 0.0

    def spend(self, share: float = 1.0) -> None:
        start, until = time.time(), time.thread_time() + self._burn
        while time.thread_time() < until:
            pass
        time.sleep(self._seconds * share)
        line = {"stage": self._stage, "start": start, "end": time.time(), "pid": os.getpid()}
        line["thread"] = threading.get_ident()
        with _PEN, (self._folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


class SleepingSynthesizer:
    """Called at once by every unit, and asked for a dialogue a time: so the units of a studio sleep side by side."""

    name = "sleeping"
    rate = RATE
    languages: frozenset[Language] = frozenset({"en", "zh"})
    kinds: frozenset[VoiceKind] = frozenset({"styles"})
    stochastic = False
    deterministic = True
    batch = 0

    def __init__(self) -> None:
        self._sleeper = _Sleeper("speak")

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        # No two dialogues take as long: workers that end at the same moment would hide what waiting costs.
        self._sleeper.spend(random.Random(requests[0].seed).uniform(0.5, 1.5))
        return [_tone(len(request.text)) for request in requests]


@functools.lru_cache
def _tone(letters: int) -> Clip:
    """Syllables, about as fast as speech."""
    seconds = np.arange(int(letters * 0.06 * RATE)) / RATE
    voiced = sum(np.sin(2 * np.pi * 140 * k * seconds) / k for k in (1, 2, 3, 5))
    envelope = np.sin(np.pi * seconds * 4) ** 2 * np.sin(np.pi * seconds / seconds[-1]) ** 0.3
    return Clip((0.2 * envelope * voiced).astype(np.float32), RATE)


class SleepingRecognizer:
    """Hears the same of every clip: it is for runs that judge nothing."""

    name = "sleeping"
    rate = 16000
    deterministic = True
    careful = False

    def __init__(self) -> None:
        self._sleeper = _Sleeper("listen")

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: object = None
    ) -> list[Transcript]:
        self._sleeper.spend()
        return [Transcript("something", -0.1, 0.0, 1.0) for _ in clips]


def build_tts(section: TtsEngineConfig) -> SleepingSynthesizer:
    return SleepingSynthesizer()


def build_asr(section: RecognizerConfig) -> SleepingRecognizer:
    return SleepingRecognizer()


def models(section: RecognizerConfig | TtsEngineConfig) -> tuple[ModelUse, ...]:
    return (ModelUse(role="speech", name="sleeping", sha256="", license="CC0-1.0"),)
