"""A synthesizer and a recogniser that understand each other: what is said can be heard from the samples alone, in any
order, however it was cut, joined, mastered or resampled. And a studio of them.

Three carriers, one of some eighty frequencies each, say which request a clip is of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backends.tts.router import Router
from pipeline.config import Config
from pipeline.dialogue import (
    Clip,
    Dialogue,
    Language,
    PlannedDialogue,
    Source,
    TextLine,
    Transcript,
    Turn,
    derive_seed,
)
from pipeline.plan import plan_units
from pipeline.shards.manifest import Manifest
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.cast import Casting
from pipeline.stages.listen import Listener
from pipeline.stages.pack import Origin
from pipeline.stages.progress import Progress
from pipeline.stages.recording import Rephraser
from pipeline.stages.speak import Speaking
from pipeline.stages.studio import Studio
from pipeline.voice import SpeechRequest, Unsaid, Voice, VoiceKind
from speakers import VoiceLibrary, load_library

PLAIN = VoiceLibrary(tuple(voice for voice in load_library().voices if not voice.recipe.shift))
"""Voices whose pitch is as it comes out."""
RATE = 24000
BANDS = (1500, 3200, 4900)
CHANNELS, STEP = 80, 20  # Hz
FRAME = 0.1  # seconds

_asked: dict[tuple[int, ...], SpeechRequest] = {}
"""What each chord stands for: the memory that both parrots of this process share."""


def chord(request: SpeechRequest) -> tuple[int, ...]:
    key = derive_seed(request.text, request.voice.id, request.speed, request.seed)
    return tuple(key // CHANNELS**place % CHANNELS for place in range(len(BANDS)))


class Parrot:
    """Says everything, but for what `refuses` has a reason against; remembers what it was asked for."""

    name = "parrot"
    rate = RATE
    languages: frozenset[Language] = frozenset({"en", "zh"})
    kinds: frozenset[VoiceKind] = frozenset({"styles"})
    deterministic = True
    batch = 1

    def __init__(self, refuses: Callable[[SpeechRequest], str], stochastic: bool = False):
        self._refuses = refuses
        self.stochastic = stochastic
        self.asked: list[SpeechRequest] = []
        self.batches: list[int] = []

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        self.asked += requests
        self.batches.append(len(requests))
        return [self._say(request) for request in requests]

    def _say(self, request: SpeechRequest) -> Clip | Unsaid:
        if reason := self._refuses(request):
            return Unsaid(reason, f"will not say {request.text!r}")  # type: ignore[arg-type]
        notes = chord(request)
        _asked[notes] = request
        per_letter = 0.06 if request.language == "en" else 0.2
        time = np.arange(int(max(0.4, len(request.text) * per_letter / request.speed) * RATE)) / RATE
        tones = (np.sin(2 * np.pi * (band + STEP * note) * time) for band, note in zip(BANDS, notes, strict=True))
        return Clip((0.1 * sum(tones) * np.minimum(1, 20 * (time[-1] - time))).astype(np.float32), RATE)


class Ear:
    """Hears what a parrot said; `mishears` says which of it comes out as something else."""

    name = "ear"
    rate = 16000
    deterministic = True
    careful = True

    def __init__(self, mishears: Callable[[SpeechRequest], bool]):
        self.mishears = mishears
        self.heard = 0

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: object = None
    ) -> list[Transcript]:
        self.heard += 0 if careful else len(clips)
        return [self._hear(clip, language) for clip, language in zip(clips, languages, strict=True)]

    def _hear(self, clip: Clip, language: Language) -> Transcript:
        requests = said_in(clip)
        wrong = {"en": "quite another thing", "zh": "别的东西"}[language]
        words = [wrong if self.mishears(request) else request.text for request in requests]
        return Transcript(" ".join(words), -0.1, 0.0, 1.0, recognizer=self.name)


def said_in(clip: Clip) -> list[SpeechRequest]:
    """The requests that a clip is of, in order."""
    size = int(FRAME * clip.rate)
    found: list[SpeechRequest] = []
    for start in range(0, len(clip.audio) - size + 1, size // 2):
        level = np.abs(np.fft.rfft(clip.audio[start : start + size] * np.hanning(size), 4 * size))
        step = STEP * 4 * size / clip.rate  # bins between two channels
        notes = tuple(
            int(np.argmax([level[round(band * 4 * size / clip.rate + note * step)] for note in range(CHANNELS)]))
            for band in BANDS
        )
        request = _asked.get(notes)
        if request is not None and level.max() > 1 and (not found or found[-1] != request):
            found.append(request)
    return found


def never(_: SpeechRequest) -> str:
    return ""


class Booth:
    """A studio of parrots, and the unit that it speaks. lines: of each dialogue, the texts of its turns."""

    def __init__(
        self,
        root: Path,
        *lines: Sequence[str],
        mishears: Callable[[SpeechRequest], bool] = lambda _: False,
        refuses: Callable[[SpeechRequest], str] = never,
        language: Language = "en",
        rephraser: Rephraser | None = None,
        stochastic: bool = False,
        library: VoiceLibrary | None = None,
        **config: Any,
    ):
        self.config = Config.model_validate(
            {
                "dialogues": len(lines),
                "unit_size": len(lines),
                "languages": {language: 1},
                "splits": {"train": 1},
                "quality": {"engine": "none"},
                "audio": {"trim": "level"},
                **config,
                # A unit of one dialogue has few turns to share takes with.
                "repair": {"share": 9, **config.get("repair", {})},
            }
        )
        self.folder = RunFolder(root)
        self.parrots = {name: Parrot(refuses, stochastic) for name in self.config.tts.engines}
        self.ear = Ear(mishears)
        self.casting = Casting(self.config, library or PLAIN)
        self.studio = Studio(
            self.config,
            self.folder,
            self.casting,
            Speaking(Router(self.parrots), self.config, None),
            Listener(self.config, self.ear),
            Origin("tests", dict.fromkeys(("text", "speech", "judge"), "0" * 16), ()),
            rephraser,
        )
        [self.unit] = plan_units(self.config)
        self.dialogues = [dialogue(plan, texts) for plan, texts in zip(self.unit.dialogues, lines, strict=True)]
        if not self.folder.text(0).exists():
            texts = [TextLine(plan=item.plan, dialogue=item, reject=None, failed=()) for item in self.dialogues]
            publish(self.folder.text(0), "".join(line.model_dump_json() + "\n" for line in texts).encode())

    @property
    def asked(self) -> list[SpeechRequest]:
        return [request for parrot in self.parrots.values() for request in parrot.asked]

    def run(self) -> tuple[Manifest, Progress]:
        return self.studio.run(self.unit)

    def voices(self, place: int = 0) -> tuple[Voice, Voice]:
        """User's and assistant's, as they were cast."""
        cast = self.casting.cast(self.unit.dialogues[place])
        return cast.user, cast.assistant


def dialogue(plan: PlannedDialogue, texts: Sequence[str]) -> Dialogue:
    turns = tuple(
        Turn(role="assistant" if place % 2 else "user", written=text, spoken=text, author="source")
        for place, text in enumerate(texts)
    )
    return Dialogue(plan=plan, system="", source=Source(name="tests", license="CC0-1.0", row=plan.id), turns=turns)
