"""Any server with an endpoint like OpenAI's `/v1/audio/speech`: Kokoro-FastAPI, vLLM-Omni, CosyVoice, paid ones.

What is sent is a template (template.py), what comes back is decoded by what it is (answer.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai

from pipeline.backends.faults import Fault, connection_fault, no_answer, one_line, status_fault
from pipeline.backends.patience import Patience, client_of, server_address, together
from pipeline.backends.tts.answer import BadAnswer, read_clip
from pipeline.backends.tts.template import OPENAI, Form, Template, UnfitVoice
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse
from pipeline.errors import ConfigError, EndpointError
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

RATE = 24000
"""Hz of all clips, whatever the server sends: what most of these models speak at, and the assistant's track has."""

_HOPELESS = 8  # requests that were refused before a single one was served
_WORDS: dict[Language, str] = {"en": "Hello.", "zh": "你好。"}


class Http:
    """A `Synthesizer`. `section.concurrency` requests are in flight at most, whatever the number of calling threads.

    Connection errors, timeouts, broken answers, 408, 409, 429 and 5xx are tried again `section.retries` times, when
    Retry-After says or with exponential backoff and jitter from `backoff` seconds. A request that fails each time is
    `Unsaid` if the server still says a word of another one, else the server is down. The key is in no message.
    """

    rate = RATE
    deterministic = False
    batch = 0

    def __init__(self, section: TtsEngineConfig, backoff: float = 0.5):
        models(section)
        self.name = section.model
        self.languages: frozenset[Language] = frozenset(section.languages)
        self.kinds: frozenset[VoiceKind] = frozenset(section.takes)
        self.stochastic = section.stochastic
        self._section = section
        self._template = Template(section.body or OPENAI, section.takes, section.model)
        self._at = f"tts.engines.*.base_url={_address(section)}"
        self._refusals: list[str] = []
        self._good: SpeechRequest | None = None
        self._patience = Patience("speech over HTTP", section.concurrency, backoff)
        self._probing = asyncio.Lock()
        self._client = client_of(section.base_url or "", os.environ.get(section.key), section.timeout)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        return self._patience.run(self._all(requests))

    def close(self) -> None:
        """Ends the connections and the thread. Safe to call again."""
        self._patience.close(self._client)

    async def _all(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        said = await together([self._say(request) for request in requests])
        if not self._patience.served and len(self._refusals) >= _HOPELESS:
            raise EndpointError(
                f"{self._refusals[-1]}; it served none of {len(self._refusals)} requests: "
                "check body, model and takes of the engine"
            )
        return said

    async def _say(self, request: SpeechRequest) -> Clip | Unsaid:
        if request.speed != 1 and "speed" not in self._template.names:
            return Unsaid("voice", f"{self.name} cannot speak at {request.speed:g}: its body holds no {{speed}}")
        try:
            return await self._persist(request, self._section.retries)
        except UnfitVoice as lack:
            return Unsaid("voice", f"voice {request.voice.id!r}: {lack}")
        except Fault as fault:
            if fault.kind in ("endpoint", "unsent"):
                raise EndpointError(str(fault)) from None
            if fault.kind == "passing":
                await self._check_server(request, fault)
            if not self._patience.served:
                self._refusals.append(str(fault))
            # It goes into the rejects, which are published: where the server is, is nobody's business there.
            return Unsaid("refused", str(fault).replace(self._at, "tts.engines.*"))

    async def _check_server(self, request: SpeechRequest, fault: Fault) -> None:
        """Is the server to blame for a request that failed each time? Raises EndpointError if nobody is served."""
        before = self._patience.served
        async with self._probing:
            if self._patience.served > before:
                return
            # A voice that was served before: this request's own may be what the server stumbles over.
            known = self._good or request
            try:
                await self._persist(replace(known, text=_WORDS[known.language]), 1)
            except Fault as again:
                if again.kind not in ("request", "filtered"):
                    raise EndpointError(f"{fault}; it does not say {_WORDS[known.language]!r} either") from None

    async def _persist(self, request: SpeechRequest, retries: int) -> Clip:
        """One clip. Raises UnfitVoice, and Fault when the retries are used up."""
        clip = await self._patience.persist(lambda: self._try(request), retries)
        self._good = request
        return clip

    async def _try(self, request: SpeechRequest) -> Clip:
        data, headers = await self._post(self._template.fill(request), request)
        try:
            return read_clip(data, headers, self.rate)
        except BadAnswer as error:
            message = f"{self._at} sent {one_line(error, self._section.key)}"
            if not self._patience.served and headers.get("content-type", "").startswith("text/html"):
                raise Fault("endpoint", f"{message}; check base_url and path of the engine") from None
            raise Fault("passing", message) from None

    async def _post(self, form: Form, request: SpeechRequest) -> tuple[bytes, Any]:
        """What came back and its headers. Raises Fault."""
        section = self._section
        upload: dict[str, Any] = {"files": form.files, "options": {"headers": {"Content-Type": "multipart/form-data"}}}
        try:
            # The client's timeout is for each step of a request, this one for the whole of it.
            async with asyncio.timeout(section.timeout):
                answer = await self._client.post(
                    "/" + section.path.lstrip("/"),
                    cast_to=openai.HttpxBinaryResponseContent,
                    body=form.fields,
                    **(upload if form.files else {}),
                )
            return answer.content, answer.response.headers
        except TimeoutError:
            raise no_answer(self._at, f"no clip in {section.timeout:g} s", sent=True) from None
        except openai.APIConnectionError as error:
            raise connection_fault(error, self._at, section.timeout, section.key) from None
        except openai.APIStatusError as error:
            raise self._status_fault(error, request) from None

    def _status_fault(self, error: openai.APIStatusError, request: SpeechRequest) -> Fault:
        code, section = error.status_code, self._section
        # One that serves others knows the path and the model, and some say 404 of a voice.
        lost = not self._patience.served and (request.voice.recipe.name or request.voice.id) not in str(error)
        if code == 404 and not lost:
            return Fault("request", f"{self._at} failed a request (404): {one_line(error, section.key)}", status=code)
        if code in (404, 405):
            words = one_line(error, section.key)
            return Fault(
                "endpoint",
                f"{self._at} has no {section.path} or no model {section.model!r} ({code}): {words}; "
                "check base_url, path and model of the engine",
            )
        return status_fault(error, self._at, section.key)


def _address(section: TtsEngineConfig) -> str:
    """The server's, as messages show it. Raises ConfigError for what a server cannot be asked without."""
    return server_address(section.base_url, "tts.engines.*.base_url", "kind: http")


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    """The served model as the configuration names it; the server is not asked.

    Raises ConfigError, also for an address or a body that no request can be made of: a run asks for its models before
    it pays for a text.
    """
    for key in ("model", "license"):
        if not getattr(section, key):
            raise ConfigError(
                f"tts.engines.*.{key}: name the {key} of what is served (kind: http); it travels into every sample"
            )
    _address(section)
    Template(section.body or OPENAI, section.takes, section.model)
    return (ModelUse(role="tts", name=section.model, sha256="", license=section.license),)


def build(section: TtsEngineConfig) -> Http:
    """Raises ConfigError; the server is asked nothing yet."""
    return Http(section)
