"""What is measured of one voice, in the process that measures it: it speaks, and is listened to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import audio, backends
from pipeline.backends.asr.base import Recognizer
from pipeline.backends.speaker import resemblyzer
from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.router import Router
from pipeline.config import Config, digest
from pipeline.dialogue import Clip, Language, Role, derive_seed
from pipeline.shards.store import publish
from pipeline.stages.speak import Speaking
from pipeline.text.rates import error_rates
from pipeline.voice import SpeechRequest, Unsaid, Voice
from speakers.distinct import unit
from speakers.recipes import canonical
from speakers.sentences import Use, sentences

VERSION = 1
ROLE: Role = "user"
"""As whose turns the sentences are mastered: most voices of a library are users'."""
HEARD: tuple[Use, ...] = ("embed", "check")
"""What the recogniser and the judge of quality are given; `more` is for another embedding of the same voice."""
MORE = 3
GAP = 0.5
REMEMBERED = 128
"""Clips, of about 0.3 MB each."""
WINDOW = 29.0
"""Seconds of speech that the recogniser is given at once: Whisper hears 30."""


@dataclass(frozen=True)
class Bench:
    """How voices are measured. names: their engines. clips: the folder for what they said."""

    config: Config
    names: tuple[str, ...]
    clips: Path


@dataclass(frozen=True)
class Measured:
    """What was measured of a voice. key: of its recipe and of all that the measures depend on.

    faults: "reason: text" of each sentence that did not come out. rates: as `error_rates`, over all sentences heard.
    mos: mean DNSMOS overall of the clips as they came out of the engine: without their pauses it would be up to 0.7
    lower. pace: seconds a letter, space or Han character. pitch: median F0 in Hz, 0 without a voiced frame.
    embeddings: of each use, of length 1; none of a use whose sentences did not come out. cpu: seconds, of this process.
    """

    id: str
    key: str
    uses: tuple[Use, ...]
    faults: tuple[str, ...]
    heard: str
    rates: dict[str, float]
    mos: float | None
    pace: float
    pitch: float
    embeddings: dict[str, np.ndarray]
    cpu: float = field(default=0.0, compare=False)


class Keys:
    """What a measure depends on, as 16 hex digits. Raises ConfigError or ModelError where a model is not there."""

    def __init__(self, config: Config):
        content = config.content()
        self._engines = content["tts"]["engines"]
        rooms = {name: content[name] for name in ("audio", "asr", "quality", "watermark")}
        self._models = [*backends.speech_models(config), *resemblyzer.models()]
        self._common = digest(VERSION, rooms, content["tts"]["speeds"])

    def key(self, voice: Voice, uses: Sequence[Use]) -> str:
        models = [use.model_dump() for use in self._models if use.role.partition(":")[2] in ("", voice.engine)]
        recipe = canonical(voice.recipe.model_copy(update={"clip": ""} if voice.recipe.clip_sha256 else {}))
        said = [texts(voice.languages[0], [use]) for use in uses]
        engine = self._engines.get(voice.engine)
        return digest(self._common, models, engine, voice.languages[0], voice.accent, recipe, list(uses), said)


def texts(language: Language, uses: Iterable[Use]) -> list[str]:
    """What a voice says for these uses, in order."""
    return [text for use in uses for text in sentences(language, use)[: MORE if use == "more" else None]]


@dataclass(frozen=True)
class Item:
    voice: Voice
    uses: tuple[Use, ...]
    key: str


def kin(item: Item) -> tuple[str, ...]:
    """The same for voices that an engine may speak with one and the same clip, played faster or slower."""
    recipe = item.voice.recipe.model_copy(update={"shift": 0.0, "speed": 1.0})
    return item.voice.engine, item.voice.languages[0], item.voice.accent, canonical(recipe)


def measure(bench: Bench, item: Item) -> Measured:
    """Let the voice speak, and listen. Writes CLIPS/ID.flac. Raises ConfigError, ModelError, EndpointError, OSError."""
    started = time.process_time()
    tools = _tools(bench)
    language = item.voice.languages[0]
    clips: dict[Use, list[Clip]] = {}
    raw: list[Clip] = []
    faults: list[str] = []
    said: list[str] = []
    for use in item.uses:
        wanted = texts(language, [use])
        results, untouched = tools.speak(item.voice, language, wanted)
        faults += [f"{r.reason}: {text}" for r, text in zip(results, wanted, strict=True) if isinstance(r, Unsaid)]
        clips[use] = [result for result in results if isinstance(result, Clip)]
        if use in HEARD:
            raw += untouched
            said += [text for r, text in zip(results, wanted, strict=True) if isinstance(r, Clip)]
    heard_clips = [clip for use in item.uses if use in HEARD for clip in clips[use]]
    heard, rates = tools.hear(heard_clips, said, language)
    seconds = sum(clip.seconds for clip in heard_clips)
    letters = sum(char.isalnum() or char.isspace() for text in said for char in text)
    if heard_clips:
        tags = {"title": item.voice.id, "comment": "synthetic speech"}
        joined = _joined(heard_clips)
        data = audio.encode_flac(audio.to_pcm(joined.audio), joined.rate, tags)
        publish(bench.clips / f"{item.voice.id}.flac", data, replace=True)
    return Measured(
        id=item.voice.id,
        key=item.key,
        uses=item.uses,
        faults=tuple(faults),
        heard=heard,
        rates=rates,
        mos=tools.mos(raw),
        pace=round(seconds / letters, 5) if letters else 0.0,
        pitch=round(median_pitch(heard_clips), 1),
        embeddings={use: tools.embed(found) for use, found in clips.items() if found},
        cpu=time.process_time() - started,
    )


class _Tap(Router):
    """Keeps what comes out of the engines: quality is judged before anything is done to it."""

    def __init__(self, router: Router):
        super().__init__({})
        self._router = router
        self.out: list[Clip | Unsaid] = []

    def stochastic(self, name: str) -> bool:
        return self._router.stochastic(name)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        self.out = self._router.synthesize(requests)
        return self.out


class _Remembering:
    """An engine without chance that is not asked twice for the same: kin differ by what is done to their clips."""

    def __init__(self, engine: Synthesizer):
        self._engine = engine
        self._said: dict[tuple[object, ...], Clip | Unsaid] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        if not self._engine.deterministic or self._engine.stochastic:
            return self._engine.synthesize(requests)
        said = []
        for request in requests:
            recipe = request.voice.recipe.model_copy(update={"shift": 0.0, "speed": 1.0})
            key = (request.text, request.language, request.voice.accent, canonical(recipe), request.speed)
            if key not in self._said:
                if len(self._said) >= REMEMBERED:
                    self._said.clear()
                [self._said[key]] = self._engine.synthesize([request])
            said.append(self._said[key])
        return said


class _Tools:
    """The models, loaded once a process. Raises ConfigError, ModelError."""

    def __init__(self, bench: Bench):
        config = bench.config
        engines = {name: backends.open_engine(name, config) for name in bench.names}
        self._tap = _Tap(Router({name: _Remembering(engine) for name, engine in engines.items()}))
        self._speaking = Speaking(self._tap, config, backends.make_vad(config), backends.make_watermark(config))
        self._recognizer: Recognizer = backends.make_recognizer(config)
        self._quality = backends.make_quality(config)
        self._encoder = resemblyzer.build()

    def speak(self, voice: Voice, language: Language, wanted: list[str]) -> tuple[list[Clip | Unsaid], list[Clip]]:
        """Mastered clips or why there is none, and as they came out those of which there is one."""
        speed = self._speaking.speed(voice, 0)
        seeds = [derive_seed("audit", voice.id, text) for text in wanted]
        requests = [
            SpeechRequest(text, language, voice, 0, speed, seed) for text, seed in zip(wanted, seeds, strict=True)
        ]
        said = self._speaking.speak(requests, [ROLE] * len(requests))
        pairs = zip(said, self._tap.out, strict=True)
        return said, [raw for result, raw in pairs if isinstance(result, Clip) and isinstance(raw, Clip)]

    def hear(self, clips: list[Clip], said: list[str], language: Language) -> tuple[str, dict[str, float]]:
        """What was heard and its rates: of all sentences in one window, and if anything in it is wrong of each by
        itself, as a run listens.

        A window costs the same however much of it is filled, and what was said before helps the recogniser. Of 22
        voices each of the two listened to, 2 Mandarin ones passed in one window that fail by themselves; of the 16
        without an error in it none did.
        """
        if not clips:
            return "", {}
        heard = self._transcribe([_joined(window) for window in _windows(clips)], language)
        rates = error_rates(" ".join(said), heard, language)
        if len(clips) > 1 and any(rates.values()):
            heard = self._transcribe(clips, language)
            rates = error_rates(" ".join(said), heard, language)
        return heard, {name: round(value, 6) for name, value in rates.items()}

    def _transcribe(self, clips: list[Clip], language: Language) -> str:
        wanted = [audio.resample(clip, self._recognizer.rate) for clip in clips]
        heard = self._recognizer.transcribe(wanted, [language] * len(clips), careful=True)
        return " ".join(item.text for item in heard)

    def mos(self, raw: list[Clip]) -> float | None:
        if self._quality is None or not raw:
            return None
        rate = self._quality.rate
        scores = self._quality.score([audio.resample(clip, rate) for clip in raw])
        values = [score.value for clip in scores for score in clip if score.name == "mos_ovr"]
        return round(float(np.mean(values)), 4) if values else None

    def embed(self, clips: list[Clip]) -> np.ndarray:
        rows = self._encoder.embed([audio.resample(clip, self._encoder.rate) for clip in clips])
        return unit(rows).astype(np.float32)


_opened: dict[str, _Tools] = {}


def _tools(bench: Bench) -> _Tools:
    """Those of the last bench of this process."""
    name = digest(bench.config.model_dump(mode="json"), list(bench.names))
    if name not in _opened:
        _opened.clear()
        _opened[name] = _Tools(bench)
    return _opened[name]


def _windows(clips: list[Clip]) -> list[list[Clip]]:
    windows: list[list[Clip]] = [[]]
    for clip in clips:
        if windows[-1] and sum(item.seconds + GAP for item in windows[-1]) + clip.seconds > WINDOW:
            windows.append([])
        windows[-1].append(clip)
    return windows


def _joined(clips: list[Clip]) -> Clip:
    """One after the other with GAP seconds of silence between them; all are of one rate."""
    gap = np.zeros(round(GAP * clips[0].rate), np.float32)
    parts = [part for clip in clips for part in (gap, clip.audio)]
    return Clip(np.concatenate(parts[1:]), clips[0].rate)


def median_pitch(clips: Sequence[Clip], low: float = 60.0, high: float = 500.0) -> float:
    """Median F0 in Hz over the voiced frames, 0 without one.

    de Cheveigne and Kawahara 2002, "YIN", steps 1 to 4 (threshold 0.15), on frames of 64 ms each 16 ms.
    """
    found: list[float] = []
    for clip in clips:
        size, hop, longest = clip.rate * 64 // 1000, clip.rate * 16 // 1000, int(clip.rate / low)
        if len(clip.audio) < size or longest >= size:
            continue
        frames = np.lib.stride_tricks.sliding_window_view(clip.audio.astype(np.float64), size)[::hop]
        power = np.sqrt(np.mean(frames**2, axis=1))
        frames = frames[power > 0.2 * power.max()]
        found += _periods(frames, int(clip.rate / high), longest, clip.rate)
    return float(np.median(found)) if found else 0.0


def _periods(frames: np.ndarray, shortest: int, longest: int, rate: int) -> list[float]:
    """F0 of the frames that are voiced."""
    width = frames.shape[1] - longest  # the stretch that is compared with itself, so much later
    padded = 1 << (frames.shape[1] + width).bit_length()
    spectrum = np.fft.rfft(frames, padded) * np.conj(np.fft.rfft(frames[:, :width], padded))
    products = np.fft.irfft(spectrum, padded)[:, : longest + 1]
    energy = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    moved = energy[:, width : width + longest + 1] - energy[:, : longest + 1]
    difference = np.maximum(moved[:, :1] + moved - 2 * products, 0)
    sums = np.cumsum(difference[:, 1:], axis=1)
    normal = difference[:, 1:] * np.arange(1, longest + 1) / np.maximum(sums, 1e-12)
    found = []
    for row in normal:
        dips = np.flatnonzero(row[shortest - 1 :] < 0.15)
        if len(dips):
            lag = int(dips[0]) + shortest - 1
            while lag + 1 < longest and row[lag + 1] < row[lag]:
                lag += 1
            found.append(rate / (lag + 1))
    return found
