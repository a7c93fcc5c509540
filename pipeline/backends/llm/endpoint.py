"""One server with OpenAI's chat completions: how it is asked, what it may cost, what its answers mean."""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import openai

from pipeline.backends.faults import Fault, connection_fault, no_answer, one_line, status_fault
from pipeline.backends.llm.base import Prompt, Reply
from pipeline.backends.llm.chat import most_tokens, read_completion, request_body
from pipeline.backends.llm.pacing import Pacer
from pipeline.backends.llm.structured import Mode, weaker_mode
from pipeline.config import WriterConfig
from pipeline.dialogue import Language
from pipeline.errors import ConfigError

Extras = Callable[[Language], dict[str, Any]]

_log = logging.getLogger("speechchat")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_COOLING = 60.0  # seconds, the longest that an endpoint in trouble is passed over
_BYTES_PER_TOKEN = 3  # a guess for pacing; usage corrects it


@dataclass(frozen=True)
class Site:
    """Where an endpoint is and what may be asked of it.

    setting: the configuration's section that names it; name: its name among several. key: environment variable.
    reviewer: the model of prompts of the step "review", if it is another. Limits a minute are this worker's own.
    """

    setting: str
    base_url: str
    model: str
    name: str = ""
    reviewer: str | None = None
    key: str = "OPENAI_API_KEY"
    weight: float = 1.0
    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class Endpoint:
    """A site and how it is doing. busy: slots taken; credit: for the choice among several; lost: why nobody is
    served here any more. Raises ConfigError for an address that is none."""

    def __init__(self, site: Site, config: WriterConfig, extras: Extras | None):
        try:
            parts = urlsplit(site.base_url)
            host = parts.hostname if parts.scheme in ("http", "https") else None
        except ValueError:
            host = None
        if host is None:
            raise ConfigError(f"{site.setting}.base_url={site.base_url!r} is no address like http://127.0.0.1:8000/v1")
        self.site = site
        self.busy = 0
        self.credit = 0.0
        self.lost: str | None = None
        self._config = config
        self._extras = extras
        # An address may carry a password or a key, and messages are copied into issues.
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        self.at = f"{site.setting}.base_url={shown}"
        self._no_completion = f"{self.at} sent no chat completion: should it end in /v1?"
        self._on_loopback = host in _LOOPBACK
        self._mode: Mode = "json_schema" if config.structured == "auto" else config.structured
        self._served = False
        self._failures = 0
        self._client: openai.AsyncOpenAI | None = None

    def model(self, prompt: Prompt) -> str:
        reviewing = prompt.step == "review" and self.site.reviewer
        return reviewing or self.site.model

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this event loop from now on: connections and waits cannot move from one loop to another."""
        site = self.site
        self._loop = loop
        self._client = openai.AsyncOpenAI(
            base_url=site.base_url,
            api_key=os.environ.get(site.key) or "none",
            # To connect takes less than to answer, so a timeout tells whether anything was sent.
            timeout=openai.Timeout(self._config.timeout, connect=self._config.timeout / 2),
            max_retries=0,  # a retry may go to another endpoint, so retries are the writer's
            # A proxy of the environment has no way back to this machine's loopback.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if self._on_loopback else None,
        )
        self.busy = 0
        self._pacers = [
            (Pacer(limit), by_tokens)
            for limit, by_tokens in ((site.requests_per_minute, False), (site.tokens_per_minute, True))
            if limit
        ]
        self._rests_until = self._cools_until = loop.time()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()  # connections of a loop that has ended went with it

    @property
    def resting(self) -> float:
        """Seconds for which the server wants to be left alone."""
        return max(0.0, self._rests_until - self._loop.time())

    @property
    def paced(self) -> bool:
        """Whether a request would have to wait for a limit a minute."""
        return any(pacer.delay > 0 for pacer, _ in self._pacers)

    @property
    def cooling(self) -> bool:
        """Whether it failed just now, so that others are better asked."""
        return self._loop.time() < self._cools_until

    async def ask(self, prompt: Prompt) -> Reply:
        """One reply; the caller holds a slot. Raises Fault, BudgetError."""
        try:
            while True:
                mode = self._mode
                try:
                    reply = await self._ask(prompt, mode)
                    break
                except Fault as fault:
                    self._weaken(prompt, mode, fault)
        except Fault as fault:
            self._failed(fault)
            raise
        self._served, self._failures, self.lost = True, 0, None
        return reply

    def _weaken(self, prompt: Prompt, mode: Mode, fault: Fault) -> None:
        """Ask for JSON in a weaker way from now on, if `fault` says that the server does not know `mode`, or raise."""
        weaker = weaker_mode(mode, fault.status, str(fault)) if prompt.schema is not None else None
        if weaker is None:
            raise fault
        if self._config.structured != "auto":
            raise Fault("request", f"{fault}; set writer.structured={weaker} or auto") from None
        if self._mode == mode:  # nobody else found out meanwhile
            self._mode = weaker
            _log.warning("%s takes no %s; it is asked for JSON with %s from now on", self.at, mode, weaker)

    def _failed(self, fault: Fault) -> None:
        if fault.kind == "endpoint":
            self.lost = str(fault)
        elif fault.kind != "request":
            now = self._loop.time()
            after = fault.after or 0.0
            # The jitter keeps the workers from coming back together.
            self._rests_until = max(self._rests_until, now + after + min(1.0, 0.1 * after) * random.random())
            if not self.cooling:
                self._failures += 1
                self._cools_until = now + min(_COOLING, 0.5 * 2.0**self._failures)

    async def _ask(self, prompt: Prompt, mode: Mode) -> Reply:
        extras = self._extras(prompt.language) if self._extras else {}
        model = self.model(prompt)
        body = request_body(prompt, mode, model, self._config, extras)
        most = most_tokens(body, self._config)
        guess = most[0] / _BYTES_PER_TOKEN + most[1]
        for pacer, by_tokens in self._pacers:
            await pacer.admit(guess if by_tokens else 1)
        worst, meter = self._cost(model, *most), prompt.meter
        if meter is not None:
            await meter.reserve(worst)
        cost: float | None = None
        try:
            answer = await self._post(body)
            reply = read_completion(answer)
            if reply is None:
                raise self._no_reply(answer)
            used = reply.prompt_tokens + reply.completion_tokens
            if used:
                cost = self._cost(model, reply.prompt_tokens, reply.completion_tokens)
                for pacer, by_tokens in self._pacers:
                    if by_tokens:
                        pacer.correct(used - guess)
            return replace(reply, model=reply.model or model, cost=cost or 0.0, endpoint=self.site.name)
        except Fault as fault:
            cost = 0.0 if fault.billed is False else None
            if fault.kind == "filtered":
                return Reply(str(fault), "content filter", model, endpoint=self.site.name)
            raise
        finally:
            # Also when this is cancelled: what is on its way may be billed.
            if meter is not None:
                meter.settle(worst, cost)

    def _cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        price = self._config.prices.get(model, (0.0, 0.0))
        return (prompt_tokens * price[0] + completion_tokens * price[1]) / 1e6

    async def _post(self, body: dict[str, Any]) -> object:
        """The decoded answer. Raises Fault."""
        site, client, timeout = self.site, self._client, self._config.timeout
        assert client is not None
        try:
            # The client's timeout is for each step of a request, this one for the whole of it.
            async with asyncio.timeout(timeout):
                # `post` and not `chat.completions.create`, whose checks of the request and the answer cost as much
                # again as the request itself; ours are in `_read`.
                return await client.post("/chat/completions", cast_to=object, body=body)
        except TimeoutError:
            raise no_answer(self.at, f"no reply in {timeout:g} s", sent=True) from None
        except openai.NotFoundError:
            raise Fault("endpoint", await self._not_found(client, str(body["model"]))) from None
        except openai.APIConnectionError as error:
            raise connection_fault(error, self.at, timeout, site.key) from None
        except openai.APIStatusError as error:
            raise status_fault(error, self.at, site.key) from None
        except json.JSONDecodeError as error:
            raise self._broken(cut_off=error.doc.lstrip()[:1] == "{") from None
        except (openai.OpenAIError, UnicodeDecodeError):
            raise self._broken(cut_off=False) from None

    def _broken(self, cut_off: bool, detail: str = "") -> Fault:
        """For an answer that is no completion. A server that never sent one, nor JSON: a wrong address."""
        if self._served or cut_off:
            return Fault("passing", f"{self.at} sent a broken answer{detail}", billed=None)
        return Fault("endpoint", self._no_completion)

    def _no_reply(self, answer: object) -> Fault:
        """Some servers tell of an error with status 200."""
        error = answer.get("error") if isinstance(answer, dict) else None
        text = error.get("message") if isinstance(error, dict) else error
        detail = f": {one_line(ValueError(str(text)), self.site.key)}" if text else ""
        return self._broken(isinstance(answer, dict), detail)

    async def _not_found(self, client: openai.AsyncOpenAI, model: str) -> str:
        setting = self.site.setting if model == self.site.model else "text.review"
        try:
            offered = [item.id async for item in client.models.list()]
        # Whatever keeps the list from us, the 404 is what the user must hear of.
        except (openai.OpenAIError, AttributeError, TypeError):
            offered = []
        if not offered:
            return (
                f"{self.at} knows no chat completions by {setting}.model={model!r} (404): "
                "check the model's name, and that the address ends in /v1"
            )
        near = difflib.get_close_matches(model, offered, n=len(offered), cutoff=0.0)
        shown = ", ".join(near[:8]) + (f" and {len(near) - 8} more" if len(near) > 8 else "")
        return f"{setting}.model={model!r} is not at {self.at} (404); it offers: {shown}"
