"""What is made and heard of one turn, in the process that does it: the clip that a run would have, and wrong ones."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import audio, backends
from pipeline.backends.asr.base import Recognizer
from pipeline.backends.tts.router import Router
from pipeline.config import Config, digest
from pipeline.dialogue import Clip, Language, Record, Role, Score, Transcript, derive_seed
from pipeline.engine import gate_sounds
from pipeline.engine.gate_plan import SNRS, Item, Probe, seconds
from pipeline.shards.store import publish
from pipeline.stages import listen, speak
from pipeline.stages.listen import Listener, Spoken
from pipeline.stages.speak import Speaking
from pipeline.text.rates import error_rates
from pipeline.voice import SpeechRequest, Unsaid
from speakers.recipes import canonical

VERSION = 1
SOUNDS = frozenset({"good", "silence", "slow", "fast", "overdriven", *SNRS})
"""Of these the quality is measured; the words of the others are wrong, and their sound is the good one's."""
PERFECT: dict[Language, dict[str, float]] = {"en": {"cer": 0.0}, "zh": {"per": 0.0}}
"""What is not heard perfectly is heard with care, and by the second recogniser: whatever rule is tried later, all that
it would have asked is known, but for `UNASKED`."""
_OWN = ("logprob", "no_speech", "compression_ratio", "language")
UNASKED: dict[Language, frozenset[str]] = {
    "en": frozenset({"wer", "longer", *_OWN}),
    "zh": frozenset({"cer", "mer", "ser", "tser", "figures", "longer", *_OWN}),
}
"""Scores that may be bad where the first hearing is perfect: a run that gates on one would hear the clip once more, and
here nobody did."""


@dataclass(frozen=True)
class Bench:
    """How clips are made and heard. names: the engines that speak. clips: the folder for what they said."""

    config: Config
    names: tuple[str, ...]
    clips: Path


class Opinion(Record):
    """A transcript, and what its recogniser said of it; as `Transcript`."""

    text: str
    logprob: float
    no_speech: float
    compression_ratio: float
    language: float | None
    recognizer: str
    doubt: float | None = None
    surprise: float | None = None


class Case(Record):
    """What was heard of a clip. key: digest of all that it depends on; bench: of what all clips of one way of hearing
    share.

    item: the turn; voice: who was to speak it; texts: what was to be said, and its other right transcripts; said: what
    an engine was asked for, "" where nothing was; clip: the file of what it said, below the folder of clips; what: the
    change, for people. speed: that was to be. seconds: of the mastered clip.
    fault: why nobody would listen to it ("" if nothing is wrong at first sight), then all that follows is empty.
    opinions: in the order in which they were asked; the later ones only where none before was perfect. scores: of the
    sound. embedding: of the good clip, where the configuration has a speaker encoder.
    """

    key: str
    bench: str
    item: str
    kind: str
    language: Language
    role: Role
    voice: str
    texts: tuple[str, ...]
    said: str
    clip: str
    what: str
    speed: float
    seconds: float
    fault: str
    opinions: tuple[Opinion, ...] = ()
    scores: tuple[Score, ...] = ()
    embedding: tuple[float, ...] = ()


@dataclass(frozen=True)
class Made:
    """cpu: seconds, of this process."""

    cases: tuple[Case, ...]
    cpu: float


class Keys:
    """What a case depends on, as 16 hex digits. Raises ConfigError or ModelError where a model is not there."""

    def __init__(self, config: Config):
        content = config.content()
        self._engines = content["tts"]["engines"]
        self._models = backends.speech_models(config)
        rooms = {name: content[name] for name in ("audio", "asr", "quality", "watermark")}
        models = [use.model_dump() for use in self._models if ":" not in use.role]
        self.bench = digest(VERSION, speak.VERSION, listen.VERSION, rooms, models)

    def said(self, request: SpeechRequest) -> str:
        """Of the clip as it comes out of the engine."""
        voice = request.voice
        models = [use.model_dump() for use in self._models if use.role.partition(":")[2] == voice.engine]
        recipe = canonical(voice.recipe.model_copy(update={"clip": ""} if voice.recipe.clip_sha256 else {}))
        asked = (request.text, request.language, request.take, request.speed, request.seed)
        return digest(models, self._engines.get(voice.engine), voice.accent, recipe, asked)

    def place(self, request: SpeechRequest) -> str:
        """Where such a clip lies, below the folder of clips."""
        key = self.said(request)
        return f"{key[:2]}/{key}.flac"

    def case(self, item: Item, probe: Probe) -> str:
        clips = self.said(probe.said or item.good), self.said(item.good)
        change = probe.kind, probe.value, probe.what
        return digest(self.bench, clips, item.good.voice.rate, item.id, item.role, _texts(item, probe), change)


def measure(bench: Bench, item: Item) -> Made:
    """Make and hear every clip of the item. Raises ConfigError, ModelError, EndpointError, BackendError, OSError."""
    started = time.process_time()
    tools = _tools(bench)
    clips = {probe.kind: tools.make(item, probe) for probe in item.probes}
    cases = tuple(tools.case(item, probe, clips[probe.kind]) for probe in item.probes)
    return Made(cases, time.process_time() - started)


class _Ready(Router):
    """Gives a clip that is there, so that it is mastered and looked at as a run does it."""

    def __init__(self, clip: Clip):
        super().__init__({})
        self._clip = clip

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        return [self._clip] * len(requests)


class _Tap:
    """A recogniser that remembers what it heard since it was last asked for that."""

    def __init__(self, recognizer: Recognizer):
        self._recognizer = recognizer
        self.heard: list[Transcript] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recognizer, name)

    def transcribe(self, clips: Sequence[Clip], languages: Sequence[Language], *more: Any) -> list[Transcript]:
        heard = self._recognizer.transcribe(clips, languages, *more)
        self.heard += [replace(item, recognizer=item.recognizer or self._recognizer.name) for item in heard]
        return heard


class _Tools:
    """The models, loaded once a process. Raises ConfigError, ModelError."""

    def __init__(self, bench: Bench):
        config = bench.config
        self._bench = bench
        self._config = config
        self._keys = Keys(config)
        self._router = backends.make_synthesizer(config, bench.names)
        self._vad, self._mark = backends.make_vad(config), backends.make_watermark(config)
        self._encoder = backends.make_encoder(config)
        self._tap = _Tap(backends.make_recognizer(config))
        second = backends.make_second(config)
        self._second = _Tap(second) if second else None
        quality = backends.make_quality(config)
        self._listeners = {
            sound: Listener(_strict(config), self._tap, self._second, quality if sound else None)
            for sound in (False, True)
        }

    def make(self, item: Item, probe: Probe) -> Clip | Unsaid:
        """The clip of a probe, mastered; or why nobody would listen to it."""
        if probe.said is not None:
            raw = self._say(probe.said)
        elif probe.kind == "silence":
            raw = gate_sounds.hiss(seconds(item), probe.value, self._rate(item), self._seed(item, probe))
        else:
            # Mastered first, so that what is cut off is speech and not the silence at the end.
            clean = self._master(item, self._say(item.good))
            raw = self._wrong(clean, item, probe) if isinstance(clean, Clip) else clean
        return self._master(item, raw, probe.wanted)

    def _wrong(self, clip: Clip, item: Item, probe: Probe) -> Clip:
        if probe.kind == "cut":
            return gate_sounds.cut(clip, probe.value)
        if probe.kind in SNRS:
            return gate_sounds.noisy(clip, probe.value, probe.what, self._seed(item, probe))
        return gate_sounds.overdriven(clip, probe.kind == "overdriven")

    def _seed(self, item: Item, probe: Probe) -> int:
        return derive_seed(item.good.seed, probe.kind)

    def _rate(self, item: Item) -> int:
        return self._config.audio.user_rate if item.role == "user" else self._config.audio.assistant_rate

    def _master(self, item: Item, raw: Clip | Unsaid, wanted: str = "") -> Clip | Unsaid:
        if isinstance(raw, Unsaid):
            return raw
        speaking = Speaking(_Ready(raw), self._config, self._vad, self._mark)
        [made] = speaking.speak([replace(item.good, text=wanted or item.good.text)], [item.role])
        return made

    def _say(self, request: SpeechRequest) -> Clip | Unsaid:
        """As it comes out of the engine, in 16 bit: spoken once, and read again wherever else it is needed."""
        path = self._bench.clips / self._keys.place(request)
        if path.is_file():
            return audio.read_clip(path)
        [made] = self._router.synthesize([request])
        if isinstance(made, Unsaid) or not len(made.audio) or not np.all(np.isfinite(made.audio)):
            return made
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = {"title": request.voice.id, "comment": "synthetic speech"}
        # Two processes may say the same at the same time.
        own = path.with_name(f"{path.stem}-{os.getpid()}.flac")
        publish(own, audio.encode_flac(audio.to_pcm(made.audio), made.rate, tags), replace=True)
        own.replace(path)
        return audio.quantize(made)

    def case(self, item: Item, probe: Probe, clip: Clip | Unsaid) -> Case:
        known = Case(
            key=self._keys.case(item, probe),
            bench=self._keys.bench,
            item=item.id,
            kind=probe.kind,
            language=item.language,
            role=item.role,
            voice=item.voice,
            texts=_texts(item, probe),
            said=probe.said.text if probe.said else "",
            clip=self._keys.place(probe.said) if probe.said else "",
            what=probe.what,
            speed=item.good.speed,
            seconds=round(clip.seconds, 4) if isinstance(clip, Clip) else 0.0,
            fault=clip.reason if isinstance(clip, Unsaid) else "",
        )
        if isinstance(clip, Unsaid):
            return known
        opinions, scores = self._hear(item, probe, clip)
        embedding = self._embed(clip) if probe.kind == "good" else ()
        return known.model_copy(update={"opinions": opinions, "scores": scores, "embedding": embedding})

    def _hear(self, item: Item, probe: Probe, clip: Clip) -> tuple[tuple[Opinion, ...], tuple[Score, ...]]:
        taps = [tap for tap in (self._tap, self._second) if tap is not None]
        for tap in taps:
            tap.heard = []
        pace = item.good.voice.rate * item.good.speed
        spoken = Spoken(clip, _texts(item, probe), item.role, pace, item.voice)
        # By itself, so that it is known whose every transcript is.
        [hearing] = self._listeners[probe.kind in SOUNDS].listen([spoken], item.language)
        own = {*error_rates(item.texts[0], "", item.language), *Opinion.model_fields}
        scores = tuple(score for score in hearing.scores if score.name not in own)
        return tuple(_opinion(heard) for tap in taps for heard in tap.heard), scores

    def _embed(self, clip: Clip) -> tuple[float, ...]:
        if self._encoder is None:
            return ()
        [row] = self._encoder.embed([audio.resample(clip, self._encoder.rate)])
        return tuple(round(float(value), 5) for value in row)


def _strict(config: Config) -> Config:
    """Whom to ask must not hang on the gates of the configuration, nor on its appeal."""
    judge = config.judge.model_copy(
        update={"mode": "gate", "limits": PERFECT, "floors": {}, "appeal": {}, "min_mos": None}
    )
    return config.model_copy(update={"judge": judge})


def _texts(item: Item, probe: Probe) -> tuple[str, ...]:
    """What was to be said."""
    return (probe.wanted,) if probe.wanted else item.texts


def _opinion(heard: Transcript) -> Opinion:
    return Opinion(
        text=heard.text,
        logprob=round(heard.logprob, 6),
        no_speech=round(heard.no_speech, 6),
        compression_ratio=round(heard.compression_ratio, 6),
        language=None if heard.language is None else round(heard.language, 6),
        recognizer=heard.recognizer,
        doubt=None if heard.doubt is None else round(heard.doubt, 4),
        surprise=None if heard.surprise is None else round(heard.surprise, 4),
    )


_opened: dict[str, _Tools] = {}


def _tools(bench: Bench) -> _Tools:
    """Those of the last bench of this process."""
    name = digest(bench.config.model_dump(mode="json"), list(bench.names), str(bench.clips))
    if name not in _opened:
        _opened.clear()
        _opened[name] = _Tools(bench)
    return _opened[name]
