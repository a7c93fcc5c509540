"""Coqui TTS (`coqui-tts`): XTTS-v2 (clones a voice from a clip; Mandarin and English), VITS, YourTTS and any other
model of its catalogue or of one's own. https://github.com/idiap/coqui-ai-TTS

Its packages are the extra `coqui`, or an environment of its own (outside.py). How each family of models speaks is in
coqui_models.py; how a model is found and loaded, and under which terms, in coqui_load.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.backends.tts.coqui_load import (
    check_terms,
    device_of,
    license_of,
    load,
    name_of,
    settings_of,
    weights_of,
)
from pipeline.backends.tts.coqui_models import Family, Line, family_of
from pipeline.backends.tts.coqui_voice import Unfit
from pipeline.backends.tts.sentences import Piece, Uncuttable, join, split
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse, derive_seed
from pipeline.errors import ConfigError, ModelError
from pipeline.models import checksum
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

BATCH = 16
"""Texts at once on a GPU, where the model takes several."""

TONGUES: dict[Language, tuple[str, ...]] = {
    "en": ("en", "en-us", "en-gb", "eng"),
    "zh": ("zh-cn", "zh", "cmn"),
}
"""What Coqui's models call our languages, in lower case."""


@dataclass
class _Asked:
    """A request on its way: its pieces as the model takes them, then their audio."""

    seed: int
    lines: list[Line]
    pauses: list[float]
    audio: list[np.ndarray]
    fault: Unsaid | None = None


class Coqui:
    """A `Synthesizer` around one of Coqui's models.

    The seed of a request is that of its first piece; pieces that are spoken together share one made of all theirs.
    On a CPU nothing is spoken together unless `batch` says so, for it would gain nothing.
    """

    def __init__(self, section: TtsEngineConfig):
        check_terms(section)
        import torch  # before a file is looked for: a missing package is told first

        self._torch = torch
        device = device_of(section.device, torch)
        api = load(section).to(device)
        self._family: Family = family_of(api)
        if device == "cpu":
            torch.set_num_threads(section.threads)
        self.name = name_of(section)
        self.rate = int(api.synthesizer.output_sample_rate)
        self._tongues = _tongues(api.synthesizer.tts_model.language_manager.language_names)
        self.languages: frozenset[Language] = frozenset(self._tongues) & frozenset(section.languages)
        if not self.languages:
            spoken = ", ".join(api.synthesizer.tts_model.language_manager.language_names)
            raise ModelError(
                f"{self.name}: its config.json says that it speaks {spoken}, none of {', '.join(section.languages)} "
                "(languages of the engine)"
            )
        self.kinds: frozenset[VoiceKind] = self._family.kinds
        self.stochastic = self._family.stochastic
        together = self._family.together
        self.batch = (section.batch or (BATCH if device == "cuda" else 1)) if together else 1
        self.deterministic = device == "cpu" and self.batch == 1 and self._family.seeded

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        asked = [self._prepared(request) for request in requests]
        todo = [(item, place) for item in asked for place in range(len(item.lines))]
        for first in range(0, len(todo), self.batch):
            self._speak(todo[first : first + self.batch])
        return [item.fault or Clip(join(item.audio, item.pauses, self.rate), self.rate) for item in asked]

    def _prepared(self, request: SpeechRequest) -> _Asked:
        asked = _Asked(request.seed, [], [], [])
        try:
            voice = self._voice(request)
            tongue = self._tongues[request.language]
            for piece in self._pieces(request, tongue):
                asked.lines.append(Line(piece.text, tongue, voice, request.speed))
                asked.pauses.append(piece.pause / request.speed)
                self._family.check(asked.lines[-1])
        except Unfit as unfit:
            asked.fault, asked.lines = unfit.unsaid, []
        asked.audio = [np.zeros(0, np.float32)] * len(asked.lines)
        return asked

    def _voice(self, request: SpeechRequest) -> Any:
        if request.language not in self.languages:
            raise Unfit("voice", f"{self.name} does not speak {request.language}")
        recipe = request.voice.recipe
        if recipe.kind not in self.kinds:
            raise Unfit("voice", f"{self.name} makes no voice of a {recipe.kind}: {request.voice.id!r}")
        # Speed and shift are none of the engine's business, and one voice is not made twice for them.
        return self._family.voice(recipe.model_copy(update={"speed": 1.0, "shift": 0.0}))

    def _pieces(self, request: SpeechRequest, tongue: str) -> list[Piece]:
        text = " ".join(request.text.split())
        if not any(map(str.isalnum, text)):
            raise Unfit("empty", f"nothing can be said in {request.text!r}")
        limit = self._family.limit(tongue)
        try:
            return split(text, len, limit, limit)
        except Uncuttable as error:
            raise Unfit("too_long", f"{error!s:.60} is over {limit} characters and cannot be cut") from None

    def _speak(self, todo: list[tuple[_Asked, int]]) -> None:
        """Fill in the audio of these pieces, or their fault."""
        todo = [(item, place) for item, place in todo if item.fault is None]
        if not todo:
            return
        seeds = [item.seed if place == 0 else derive_seed(item.seed, place) for item, place in todo]
        self._torch.manual_seed(seeds[0] if len(seeds) == 1 else derive_seed(*seeds))
        try:
            spoken = self._family.speak([item.lines[place] for item, place in todo])
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if len(todo) > 1:
                for one in todo:
                    self._speak([one])
                return
            if "CUDA" in str(error):  # the device is full or gone, whatever it is asked for
                raise
            todo[0][0].fault = Unsaid("refused", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return
        for (item, place), audio in zip(todo, spoken, strict=True):
            item.audio[place] = np.clip(audio, -1, 1).astype(np.float32)


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    """The model that `build` would load. Neither Coqui nor torch is needed for it."""
    check_terms(section)
    license = license_of(section)
    if not license:
        raise ConfigError(
            f"the licence of {name_of(section)!r} is not known here: name it in `license` of its engine; it travels "
            "into every sample"
        )
    name = name_of(section)
    if section.model_path is None:
        return (ModelUse(role="tts", name=name, sha256="", license=license),)
    weights = weights_of(section.model_path)
    sums = [checksum(file, file.parent) for file in (weights, *settings_of(section.model_path))]
    settings = hashlib.sha256("".join(sums[1:]).encode()).hexdigest()
    return (
        ModelUse(role="tts", name=name, sha256=sums[0], license=license),
        ModelUse(role="tts-settings", name=name, sha256=settings, license=license),
    )


def build(section: TtsEngineConfig) -> Coqui:
    return Coqui(section)


def _tongues(names: Sequence[str]) -> dict[Language, str]:
    """By our language what the model calls it; the best of several."""
    by_name = {name.lower(): name for name in names}
    return {
        language: next(by_name[name] for name in known if name in by_name)
        for language, known in TONGUES.items()
        if any(name in by_name for name in known)
    }
