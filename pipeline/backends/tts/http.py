"""Any server with an endpoint like OpenAI's `/v1/audio/speech`: Kokoro-FastAPI, vLLM-Omni, CosyVoice, paid ones.

What is sent is a template (template.py), what comes back is decoded by what it is (answer.py).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import openai

from pipeline.backends.faults import Fault, connection_fault, no_answer, one_line, status_fault
from pipeline.backends.tts.answer import BadAnswer, read_clip
from pipeline.backends.tts.template import OPENAI, Form, Template, UnfitVoice
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse
from pipeline.errors import ConfigError, EndpointError
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

RATE = 24000
"""Hz of all clips, whatever the server sends: what most of these models speak at, and the assistant's track has."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONGEST_BACKOFF = 8.0  # seconds
_PATIENCE = 300.0  # seconds; a server that wants to be left alone for longer is not waited for
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
        url, host = _address(section)
        self.name = section.model
        self.languages: frozenset[Language] = frozenset(section.languages)
        self.kinds: frozenset[VoiceKind] = frozenset(section.takes)
        self.stochastic = section.stochastic
        self._section = section
        self._backoff = backoff
        self._template = Template(section.body or OPENAI, section.takes, section.model)
        # An address may carry a password or a key, and messages are copied into issues.
        shown = urlsplit(url)
        shown = shown._replace(netloc=shown.netloc.rpartition("@")[2], query="", fragment="")
        self._at = f"tts.engines.*.base_url={shown.geturl()}"
        self._served = 0
        self._refusals: list[str] = []
        self._good: SpeechRequest | None = None
        # All connections belong to one event loop, in a thread of its own that serves the callers'.
        self._loop = asyncio.new_event_loop()
        self._rests_until = self._loop.time()
        self._slots = asyncio.Semaphore(section.concurrency)
        self._probing = asyncio.Lock()
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=os.environ.get(section.key) or "none",
            timeout=openai.Timeout(section.timeout, connect=section.timeout / 2),
            max_retries=0,
            # A proxy of the environment has no way back to this machine's loopback.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if host in _LOOPBACK else None,
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="speech over HTTP", daemon=True)
        self._thread.start()

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        future = asyncio.run_coroutine_threadsafe(self._all(requests), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # what is still under way when the caller is interrupted

    def close(self) -> None:
        """Ends the connections and the thread. Safe to call again."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _all(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        tasks = [asyncio.ensure_future(self._say(request)) for request in requests]
        try:
            said = list(await asyncio.gather(*tasks))
        finally:
            # After a first failure nobody waits for the others, and some of them cost money.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self._served and len(self._refusals) >= _HOPELESS:
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
            if not self._served:
                self._refusals.append(str(fault))
            # It goes into the rejects, which are published: where the server is, is nobody's business there.
            return Unsaid("refused", str(fault).replace(self._at, "tts.engines.*"))

    async def _check_server(self, request: SpeechRequest, fault: Fault) -> None:
        """Is the server to blame for a request that failed each time? Raises EndpointError if nobody is served."""
        before = self._served
        async with self._probing:
            if self._served > before:
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
        delay = self._backoff
        while True:
            before = self._served
            try:
                clip = await self._try(request)
            except Fault as fault:
                if fault.kind not in ("passing", "unsent"):
                    raise
                # A server that is only busy serves the others meanwhile: that is no fault of this request's.
                if not (fault.status in (429, 503) and self._served > before):
                    retries -= 1
                if retries < 0:
                    raise
                self._rest(fault)
                if not fault.after:
                    # The jitter keeps those that failed together from coming back together.
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(2 * delay, _LONGEST_BACKOFF)
            else:
                self._served, self._good = self._served + 1, request
                return clip

    def _rest(self, fault: Fault) -> None:
        """Leave the server alone for as long as it says."""
        after = fault.after or 0.0
        if after > _PATIENCE:
            raise Fault("endpoint", f"{fault}; it wants to be left alone for {after:.0f} s")
        self._rests_until = max(self._rests_until, self._loop.time() + after * random.uniform(1.0, 1.1))

    async def _try(self, request: SpeechRequest) -> Clip:
        async with self._slots:
            while (wait := self._rests_until - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            data, headers = await self._post(self._template.fill(request), request)
        try:
            return read_clip(data, headers, self.rate)
        except BadAnswer as error:
            message = f"{self._at} sent {one_line(error, self._section.key)}"
            if not self._served and headers.get("content-type", "").startswith("text/html"):
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
        lost = not self._served and (request.voice.recipe.name or request.voice.id) not in str(error)
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


def _address(section: TtsEngineConfig) -> tuple[str, str]:
    """Base URL and host. Raises ConfigError for what a server cannot be asked without."""
    url = section.base_url
    try:
        parts = urlsplit(url or "")
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if url is None or host is None:
        shown = url and url.rpartition("@")[2]  # without a password
        raise ConfigError(f"tts.engines.*.base_url={shown!r} is no address like http://127.0.0.1:8880/v1 (kind: http)")
    return url, host


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
