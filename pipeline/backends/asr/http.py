"""Any server with an endpoint like OpenAI's `/v1/audio/transcriptions`: speaches, vLLM, whisper.cpp, FunASR, paid ones.

`verbose_json` is asked for, which has Whisper's own scores and the times of words; a model that refuses it is asked for
plain `json`, which has the text alone.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import openai

from pipeline.backends.asr.base import Spellings, compression_ratio
from pipeline.backends.faults import Fault, connection_fault, no_answer, one_line, status_fault
from pipeline.backends.patience import Patience, client_of, server_address, together
from pipeline.dialogue import Clip, Language, ModelUse, Transcript, Word
from pipeline.errors import BackendError, ConfigError, EndpointError
from pipeline.listening_sections import RecognizerConfig

PATH = "/audio/transcriptions"
_HOPELESS = 8  # requests that were refused before a single one was served


class BadAnswer(ValueError):
    """An answer that is no transcript; again may help."""


class Http:
    """A `Recognizer`. `section.concurrency` requests are in flight at most, whatever the number of calling threads.

    Connection errors, timeouts, broken answers, 408, 409, 429 and 5xx are tried again `section.retries` times, when
    Retry-After says or with exponential backoff and jitter from `backoff` seconds. A clip that fails each time raises
    BackendError if the server still hears another one, else the server is down: EndpointError. The key is in no
    message.
    """

    rate = 16000
    deterministic = False
    careful = False

    def __init__(self, section: RecognizerConfig, backoff: float = 0.5):
        models(section)
        self.name = section.model
        self._section = section
        self._at = f"asr.base_url={server_address(section.base_url, 'asr.base_url', 'engine: http')}"
        self._verbose = True
        self._refusals = 0
        self._good: tuple[Clip, Language] | None = None
        self._patience = Patience("recognition over HTTP", section.concurrency, backoff)
        self._probing = asyncio.Lock()
        self._client = client_of(section.base_url or "", os.environ.get(section.key), section.timeout)

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        """As the Protocol has it. The server is asked the same with care and without; `texts` it cannot weigh."""
        for clip in clips:
            if clip.rate != self.rate:
                raise ValueError(f"a clip at {clip.rate} Hz; {self.name} wants {self.rate} Hz")
        pairs = zip(clips, languages, strict=True)
        return self._patience.run(together([self._hear(clip, language) for clip, language in pairs]))

    def close(self) -> None:
        """Ends the connections and the thread. Safe to call again."""
        self._patience.close(self._client)

    async def _hear(self, clip: Clip, language: Language) -> Transcript:
        if not clip.audio.size:
            return Transcript("", 0.0, 1.0, 0.0, recognizer=self.name)
        try:
            return await self._persist(clip, language, self._section.retries)
        except Fault as fault:
            if fault.kind in ("endpoint", "unsent"):
                raise EndpointError(str(fault)) from None
            if fault.kind == "passing":
                await self._check_server(clip, language, fault)
            self._refusals += 1
            if not self._patience.served and self._refusals >= _HOPELESS:
                raise EndpointError(
                    f"{fault}; it served none of {self._refusals} requests: check asr.model and asr.base_url"
                ) from None
            raise BackendError(str(fault), retryable=fault.kind == "passing") from None

    async def _check_server(self, clip: Clip, language: Language, fault: Fault) -> None:
        """Is the server to blame for a clip that failed each time? Raises EndpointError if nobody is served."""
        before = self._patience.served
        async with self._probing:
            if self._patience.served > before:
                return
            # A clip that was heard before: this one may be what the server stumbles over.
            try:
                await self._persist(*(self._good or (clip, language)), 1)
            except Fault as again:
                if again.kind not in ("request", "filtered"):
                    raise EndpointError(f"{fault}; and nothing else after it was served") from None

    async def _persist(self, clip: Clip, language: Language, retries: int) -> Transcript:
        """One transcript. Raises Fault when the retries are used up."""
        data = _wav(clip)
        verbose = self._verbose
        try:
            heard = await self._patience.persist(lambda: self._try(data, language, clip.seconds, verbose), retries)
        except Fault as fault:
            if fault.kind != "request" or not verbose:
                raise
            heard = await self._patience.persist(lambda: self._try(data, language, clip.seconds, False), retries)
            # It was the format and not the clip.
            self._verbose = False
        self._good = clip, language
        return heard

    async def _try(self, data: bytes, language: Language, seconds: float, verbose: bool) -> Transcript:
        fields: dict[str, Any] = {
            "model": self._section.model,
            "language": language,
            "temperature": "0",
            "response_format": "verbose_json" if verbose else "json",
        }
        if verbose and self._section.words:
            fields["timestamp_granularities"] = ["segment", "word"]
        answer, kind = await self._post(fields, data)
        try:
            return read_transcript(answer, seconds, self.name, self._section.words)
        except BadAnswer as error:
            message = f"{self._at} sent {error}"
            if not self._patience.served and kind.startswith("text/html"):
                raise Fault("endpoint", f"{message}; check asr.base_url") from None
            raise Fault("passing", message) from None

    async def _post(self, fields: dict[str, Any], data: bytes) -> tuple[bytes, str]:
        """What came back and its content type. Raises Fault."""
        section = self._section
        try:
            # The client's timeout is for each step of a request, this one for the whole of it.
            async with asyncio.timeout(section.timeout):
                answer = await self._client.post(
                    PATH,
                    cast_to=openai.HttpxBinaryResponseContent,
                    body=fields,
                    files={"file": ("clip.wav", data, "audio/wav")},
                    options={"headers": {"Content-Type": "multipart/form-data"}},
                )
            return answer.content, answer.response.headers.get("content-type", "")
        except TimeoutError:
            raise no_answer(self._at, f"no transcript in {section.timeout:g} s", sent=True) from None
        except openai.APIConnectionError as error:
            raise connection_fault(error, self._at, section.timeout, section.key) from None
        except openai.APIStatusError as error:
            if error.status_code in (404, 405) and not self._patience.served:
                raise Fault(
                    "endpoint",
                    f"{self._at} has no {PATH} or no model {section.model!r} ({error.status_code}): "
                    f"{one_line(error, section.key)}; check asr.base_url and asr.model",
                ) from None
            raise status_fault(error, self._at, section.key) from None


def read_transcript(data: bytes, seconds: float, name: str, words: bool = False) -> Transcript:
    """A transcript of a server's JSON, plain or verbose, for a clip of so many seconds. Raises BadAnswer.

    What it does not say of its own certainty is 0; the compression ratio is measured here where it is missing. vLLM
    has null for what its model does not give, others a value that cannot be; words without times are left out.
    """
    try:
        answer = json.loads(data)
        text = answer["text"].strip()
        segments = answer.get("segments") or []
        tokens = [len(item.get("tokens") or ()) + 1 for item in segments]
        logprobs = [_number(item, "avg_logprob", -np.inf, 0) for item in segments]
        silences = [_number(item, "no_speech_prob", 0, 1) for item in segments]
        ratios = [_number(item, "compression_ratio", 0) or compression_ratio(text) for item in segments]
        return Transcript(
            text=text,
            logprob=_mean(logprobs, tokens),
            no_speech=_mean(silences, [1] * len(segments)),
            compression_ratio=max(ratios, default=compression_ratio(text)),
            language=_number(answer, "language_probability", 0, 1),
            words=_words(answer, seconds) if words else (),
            recognizer=name,
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        shown = " ".join(data[:200].decode(errors="replace").split())[:120]
        raise BadAnswer(f"no transcript: {shown or 'an empty answer'}") from None


def _number(item: dict[str, Any], name: str, low: float, high: float = np.inf) -> float | None:
    """None where the server does not know: null, what is not finite or not in low to high, and the -1 of placeholders,
    which as a mean over tokens is no value that occurs."""
    value = item.get(name)
    if value is None:
        return None
    value = float(value)
    return value if low <= value <= high and abs(value) < np.inf and value != -1 else None


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float:
    """Over those that are known, 0 where none is."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else 0.0


def _words(answer: dict[str, Any], seconds: float) -> tuple[Word, ...]:
    """Of the answer itself, or of its segments, as some servers have them."""
    found = answer.get("words") or [word for item in answer.get("segments") or [] for word in item.get("words") or []]
    times = [((item["word"] or "").strip(), _number(item, "start", 0), _number(item, "end", 0)) for item in found]
    return tuple(
        Word(text=text, start=round(min(start, seconds), 2), end=round(min(end, seconds), 2))
        for text, start, end in times
        if text and start is not None and end is not None
    )


def _wav(clip: Clip) -> bytes:
    import soundfile as sf

    file = io.BytesIO()
    sf.write(file, clip.audio, clip.rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def models(section: RecognizerConfig) -> tuple[ModelUse, ...]:
    """The served model as the configuration names it; the server is not asked.

    Raises ConfigError, also for an address that cannot be asked: a run asks for its models before it pays for a text.
    """
    for key in ("model", "license"):
        if not getattr(section, key):
            raise ConfigError(
                f"asr.{key}: name the {key} of what is served (engine: http); it travels into every sample"
            )
    server_address(section.base_url, "asr.base_url", "engine: http")
    return (ModelUse(role="asr", name=section.model, sha256="", license=section.license),)


def build(section: RecognizerConfig) -> Http:
    """Raises ConfigError; the server is asked nothing yet."""
    return Http(section)
