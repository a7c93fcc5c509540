"""All engines of a run behind one door: each request goes to the engine of its voice."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import soxr

from pipeline.backends.tts.base import Synthesizer
from pipeline.dialogue import Clip, Language
from pipeline.errors import BackendError, EndpointError, SpeechchatError
from pipeline.voice import SpeechRequest, Unsaid, Voice

ANY = "tts.engines.*"
"""What an engine calls its own section in messages."""
SPEEDS = (0.5, 2.0)
"""What an engine may be asked for; a voice's own speed and shift can lead beyond what take and voice may each have."""


class Router:
    """engines: by the name that voices call them by. Safe to call from several threads at once."""

    def __init__(self, engines: Mapping[str, Synthesizer]):
        self._engines = {name: _Queue(name, engine) for name, engine in engines.items()}

    def stochastic(self, name: str) -> bool:
        """Whether a new seed is a new take for the engine of this name."""
        return self._engines[name].engine.stochastic

    def unfit(self, voice: Voice, language: Language) -> str:
        """Why the voice cannot be made here, or not in this language, whatever it is to say; "" if it can."""
        if voice.engine not in self._engines:
            return f"tts.engines has no {voice.engine!r}"
        return _unfit(self._engines[voice.engine].engine, voice, language)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        """One clip a request, in order, or why there is none. Raises EndpointError, and what is a bug of an engine."""
        results: list[Clip | Unsaid] = [Unsaid("voice", "")] * len(requests)
        for name in dict.fromkeys(request.voice.engine for request in requests):
            places = [place for place, request in enumerate(requests) if request.voice.engine == name]
            if name not in self._engines:
                said: list[Clip | Unsaid] = [Unsaid("voice", f"tts.engines has no {name!r}")] * len(places)
            else:
                said = self._speak(self._engines[name], [requests[place] for place in places])
            for place, result in zip(places, said, strict=True):
                results[place] = result
        return results

    def close(self) -> None:
        """Ends what engines hold outside this process, such as connections. No thread may be speaking."""
        with ExitStack() as stack:  # all of them, also where one fails
            for queue in self._engines.values():
                if hasattr(queue.engine, "close"):
                    stack.callback(queue.engine.close)

    def _speak(self, queue: _Queue, requests: list[SpeechRequest]) -> list[Clip | Unsaid]:
        faults = [_fault(queue.engine, request) for request in requests]
        fit = [request for request, fault in zip(requests, faults, strict=True) if fault is None]
        said = iter(queue.synthesize([_asked(request) for request in fit]))
        return [fault or _played(next(said), request) for request, fault in zip(requests, faults, strict=True)]


def _fault(engine: Synthesizer, request: SpeechRequest) -> Unsaid | None:
    unfit = _unfit(engine, request.voice, request.language)
    if unfit:
        return Unsaid("voice", unfit)
    return None if request.text.strip() else Unsaid("empty", "the text is empty")


def _unfit(engine: Synthesizer, voice: Voice, language: Language) -> str:
    if language not in voice.languages:
        return f"voice {voice.id!r} does not speak {language}"
    if language not in engine.languages:
        return f"{engine.name} does not speak {language}"
    if voice.recipe.kind not in engine.kinds:
        return f"{engine.name} makes no voice of a {voice.recipe.kind}: {voice.id!r}"
    return ""


def _ratio(voice: Voice) -> float:
    """By which pitch and formants rise when the clip is played faster."""
    return 2.0 ** (voice.recipe.shift / 12)


def _asked(request: SpeechRequest) -> SpeechRequest:
    """At the speed that, played faster or slower by the voice's shift, comes out as the one that is wanted.

    In thousandths: a voice whose speed goes along with its shift is then spoken at its engine's own.
    """
    speed = round(request.speed * request.voice.recipe.speed / _ratio(request.voice), 3)
    return replace(request, speed=min(max(speed, SPEEDS[0]), SPEEDS[1]))


def spoken_speed(request: SpeechRequest) -> float:
    """The speed at which the clip of a request comes out, 1 is the pace of the engine's plain voice."""
    return _asked(request).speed * _ratio(request.voice)


def _played(result: Clip | Unsaid, request: SpeechRequest) -> Clip | Unsaid:
    if isinstance(result, Unsaid) or not request.voice.recipe.shift or not len(result.audio):
        return result
    shifted = soxr.resample(result.audio, result.rate * _ratio(request.voice), result.rate, quality="HQ")
    return Clip(shifted.astype(result.audio.dtype), result.rate)


@dataclass
class _Waiting:
    """A request of some thread, and its result once it has one."""

    request: SpeechRequest
    result: list[Clip | Unsaid | BaseException] = field(default_factory=list)


class _Queue:
    """Puts the requests of several threads together into batches of texts of like length.

    Whichever thread finds the engine free runs the next batch, for itself and the others: no thread of its own, no
    waiting for a batch to fill. An engine that queues by itself (batch 0) is called at once.
    """

    def __init__(self, name: str, engine: Synthesizer):
        self._name = name
        self.engine = engine
        self._free = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        if self.engine.batch:
            return self._together(requests)
        # The longest first, so that none of those that are served at the same time is left over at the end.
        places = sorted(range(len(requests)), key=lambda place: -len(requests[place].text))
        said = dict(zip(places, self._run([requests[place] for place in places]), strict=True))
        return [said[place] for place in range(len(requests))]

    def _together(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        mine = [_Waiting(request) for request in requests]
        with self._lock:
            self._waiting.extend(mine)
        while any(not item.result for item in mine):
            with self._free:
                if any(not item.result for item in mine):
                    self._serve(self._take())
        results = [item.result[0] for item in mine]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    def _take(self) -> list[_Waiting]:
        """The request that has waited longest, and those nearest to it in length."""
        with self._lock:
            first = len(self._waiting[0].request.text)
            near = sorted(self._waiting, key=lambda item: abs(len(item.request.text) - first))[: self.engine.batch]
            for item in near:
                self._waiting.remove(item)
        return sorted(near, key=lambda item: -len(item.request.text))

    def _serve(self, batch: list[_Waiting]) -> None:
        try:
            results: Sequence[Clip | Unsaid | BaseException] = self._run([item.request for item in batch])
        except BaseException as error:  # noqa: BLE001  every thread that waits must hear of it
            # What ends the run is for all of them; a bug is for the unit that holds the text, and for no neighbour.
            bug = isinstance(error, Exception) and not isinstance(error, SpeechchatError)
            results = [self._alone(item.request) for item in batch] if bug and len(batch) > 1 else [error] * len(batch)
        for item, result in zip(batch, results, strict=True):
            item.result.append(result)

    def _alone(self, request: SpeechRequest) -> Clip | Unsaid | BaseException:
        try:
            return self._run([request])[0]
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits for it
            return error

    def _run(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        """An engine that gives up on a whole batch for one request is asked again, one by one."""
        if not requests:
            return []
        try:
            said = self.engine.synthesize(requests)
        except EndpointError as error:  # an engine does not know what the configuration calls it
            raise type(error)(str(error).replace(ANY, f"tts.engines.{self._name}")) from error
        except BackendError as error:
            if len(requests) == 1:
                return [Unsaid("refused", " ".join(str(error).split()))]
            return [result for request in requests for result in self._run([request])]
        if len(said) != len(requests):
            raise ValueError(f"{self.engine.name} gave {len(said)} results for {len(requests)} requests")
        return [self._named(item) for item in said]

    def _named(self, item: Clip | Unsaid) -> Clip | Unsaid:
        if isinstance(item, Clip):
            return item
        return replace(item, detail=item.detail.replace(ANY, f"tts.engines.{self._name}"))
