"""A writer over servers with OpenAI's chat completions: the embedded one, a local vLLM, paid services."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

from pipeline.backends.faults import Fault
from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.backends.llm.embedded import SLOTS
from pipeline.backends.llm.endpoint import Endpoint, Extras, Site
from pipeline.backends.llm.pool import Pool
from pipeline.config import Config, EndpointConfig, WriterConfig
from pipeline.errors import BackendError, ConfigError, EndpointError

_log = logging.getLogger("speechchat")
_KEY = "OPENAI_API_KEY"
_LONGEST_BACKOFF = 8.0  # seconds


def make_writer(config: Config, embedded: tuple[str, Extras] | None = None, share: float | None = None) -> Writer:
    """The writer of a configuration. Prompts of the step "review" go to the reviewer's endpoint, if it has its own.

    embedded: address and request extras of the embedded server. share: this writer's part of the limits a minute;
    null: one of engine.writers. Raises ConfigError.
    """
    writer, review = config.writer, config.text.review
    if share is None:
        share = 1 / config.engine.writers if config.engine.kind == "ray" else 1.0
    extras = None
    if embedded is not None:
        sites = [Site("writer", embedded[0], writer.model, concurrency=SLOTS)]
        extras = embedded[1]
    else:
        sites = list(_sites(writer, share))
        _check_prices(writer, [site.model for site in sites])
    if not review.enabled or not (review.base_url or review.model):
        return OpenAIWriter(writer, sites, extras, deterministic=embedded is not None)
    model = review.model or writer.model
    _check_prices(writer, [model])
    if review.base_url:
        own = Site("text.review", review.base_url, model, key=review.key, concurrency=writer.concurrency)
        return _Desk(OpenAIWriter(writer, sites, extras, embedded is not None), OpenAIWriter(writer, [own]))
    if embedded is not None:
        raise ConfigError(f"text.review.model={model!r} needs text.review.base_url: the embedded LLM is another")
    return OpenAIWriter(writer, [replace(site, reviewer=model) for site in sites])


def _sites(config: WriterConfig, share: float) -> Iterator[Site]:
    """The configured endpoints; limits of the writer are of all of them together, an endpoint's are its own."""
    if not config.endpoints and config.base_url is not None:
        rates = _limits(config, share)
        yield Site("writer", config.base_url, config.model, "", None, _KEY, 1.0, config.concurrency, *rates)
    total = sum(item.weight for item in config.endpoints.values())
    for name, item in config.endpoints.items():
        of_all, own = _limits(config, share * item.weight / total), _limits(item, share)
        rates = (own[0] or of_all[0], own[1] or of_all[1])
        slots = item.concurrency or config.concurrency
        setting = f"writer.endpoints.{name}"
        yield Site(setting, item.base_url, item.model, name, None, item.key, item.weight, slots, *rates)


def _limits(config: WriterConfig | EndpointConfig, share: float) -> tuple[float | None, float | None]:
    """Requests and tokens a minute."""
    requests, tokens = config.requests_per_minute, config.tokens_per_minute
    return requests and requests * share, tokens and tokens * share


def _check_prices(config: WriterConfig, models: Iterable[str]) -> None:
    extra = config.extra_body
    if config.budget is not None and extra.get("max_tokens", 0) is None and not extra.get("max_completion_tokens"):
        raise ConfigError(
            "writer.extra_body: without max_tokens a reply may cost anything, and writer.budget needs a limit: "
            "set max_completion_tokens there"
        )
    for model in models:
        if config.budget is not None and model not in config.prices:
            raise ConfigError(
                f"writer.prices: no price for model {model!r}, and writer.budget needs one: "
                f"--set 'writer.prices={{{model}: [0.4, 1.2]}}' (dollars a million tokens of prompt and of reply)"
            )


class OpenAIWriter:
    """Implements `Writer` (base.py) over one endpoint or several.

    A request goes to an endpoint by weight; one that is in trouble, full or asked to be left alone is passed over while
    another is not. Connection errors, timeouts, broken answers, 408, 409, 429 and 5xx are tried again `config.retries`
    times, elsewhere first, then when Retry-After says, or with exponential backoff and jitter from `backoff` seconds.
    Keys come from the environment and are in no message.

    extras: what a server wants in a request beside the standard fields, by language; `config.extra_body` comes on top.
    deterministic: whether it repeats its replies.
    """

    def __init__(
        self,
        config: WriterConfig,
        sites: Sequence[Site],
        extras: Extras | None = None,
        deterministic: bool = False,
        backoff: float = 0.5,
    ):
        self.name = " + ".join(sorted({site.model for site in sites}))
        self.deterministic = deterministic
        self._config = config
        self._extras = extras
        self._backoff = backoff
        self._endpoints = [Endpoint(site, config, extras) for site in sites]
        self._reported: set[Endpoint] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: Pool | None = None

    def fingerprint(self, prompt: Prompt) -> str:
        config = self._config
        extras = self._extras(prompt.language) if self._extras else {}
        models = sorted({endpoint.model(prompt) for endpoint in self._endpoints})
        parts = (models, config.temperature, prompt.max_tokens or config.max_tokens, extras, config.extra_body)
        return json.dumps(parts, sort_keys=True)

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One reply a prompt, in order, without surrounding blanks."""
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            self._loop, self._pool = loop, Pool(self._endpoints)
        pool = self._pool
        if len(prompts) == 1:
            return [await self._reply(pool, prompts[0])]
        tasks = [asyncio.ensure_future(self._reply(pool, prompt)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # After a first failure nobody waits for the others, and some of them cost money.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        self._pool = None
        for endpoint in self._endpoints:
            await endpoint.close()

    async def _reply(self, pool: Pool, prompt: Prompt) -> Reply:
        tries: Counter[Endpoint] = Counter()
        faults: dict[Endpoint, Fault] = {}
        left, delay = self._config.retries, self._backoff
        while True:
            endpoint, outcome = await self._try(pool, prompt, tries)
            if isinstance(outcome, Reply):
                return outcome
            # Servers differ in what they refuse; one that has refused it is asked again after all others.
            tries[endpoint] += 1 if outcome.kind != "request" else 1 + self._config.retries
            faults[endpoint] = outcome
            elsewhere = any(item.lost is None and not tries[item] for item in self._endpoints)
            if outcome.kind == "endpoint" or (outcome.kind == "unsent" and elsewhere):
                self._report(endpoint, outcome)
            if outcome.kind in ("request", "unsent", "endpoint") and elsewhere:
                continue  # nobody has been at work on it yet
            if outcome.kind == "request":
                raise BackendError(str(outcome), retryable=any(fault.kind != "request" for fault in faults.values()))
            if left == 0 or all(item.lost for item in self._endpoints):
                self._give_up(faults)
            left -= 1
            if not elsewhere and not outcome.after:
                # The jitter keeps those that failed together from coming back together.
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(2 * delay, _LONGEST_BACKOFF)

    async def _try(self, pool: Pool, prompt: Prompt, tries: Counter[Endpoint]) -> tuple[Endpoint, Reply | Fault]:
        """One request to the endpoint that is best asked."""
        endpoint = await pool.enter(tries)
        try:
            return endpoint, await endpoint.ask(prompt)
        except Fault as fault:
            return endpoint, fault
        finally:
            pool.leave(endpoint)

    def _report(self, endpoint: Endpoint, fault: Fault) -> None:
        """One line for an endpoint that is down or gone for good while others are not."""
        if endpoint not in self._reported and not all(item.lost for item in self._endpoints):
            self._reported.add(endpoint)
            _log.warning("%s; the other endpoints go on", fault)

    def _give_up(self, faults: dict[Endpoint, Fault]) -> NoReturn:
        """All tries of a request failed. Nobody is served if no endpoint could even be asked."""
        unserved = {item: fault for item, fault in faults.items() if fault.kind in ("unsent", "endpoint")}
        if all(item.lost or item in unserved for item in self._endpoints):
            raise EndpointError("; ".join(dict.fromkeys(item.lost or str(unserved[item]) for item in self._endpoints)))
        message = next(str(fault) for fault in reversed(faults.values()) if fault.kind == "passing")
        raise BackendError(message, retryable=True)


class _Desk:
    """A writer, and a reviewer at another endpoint or with another model."""

    def __init__(self, writer: OpenAIWriter, reviewer: OpenAIWriter):
        self._writer = writer
        self._reviewer = reviewer
        self.name = writer.name
        self.deterministic = writer.deterministic and reviewer.deterministic

    def fingerprint(self, prompt: Prompt) -> str:
        return self._of(prompt).fingerprint(prompt)

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        if len({prompt.step == "review" for prompt in prompts}) == 1:
            return await self._of(prompts[0]).reply(prompts)
        return [(await self._of(prompt).reply([prompt]))[0] for prompt in prompts]

    async def close(self) -> None:
        await self._writer.close()
        await self._reviewer.close()

    def _of(self, prompt: Prompt) -> OpenAIWriter:
        return self._reviewer if prompt.step == "review" else self._writer
