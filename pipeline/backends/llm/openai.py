"""A writer over any server with OpenAI's chat completions: the embedded one, a local vLLM, a paid service."""

from __future__ import annotations

import asyncio
import difflib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion

from pipeline.backends.llm.base import Prompt
from pipeline.config import WriterConfig
from pipeline.dialogue import Language
from pipeline.errors import BackendError, ConfigError, EndpointError

_KEY = "OPENAI_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OpenAIWriter:
    """Implements `Writer` (base.py).

    The key comes from OPENAI_API_KEY and is in no message. Connection errors, timeouts, 408, 409, 429 and 5xx
    are tried again `config.retries` times, with exponential backoff and jitter or when Retry-After says.

    extras: what this server wants in a request beside the standard fields, by language; `config.extra_body`
    comes on top. deterministic: whether it repeats its replies.
    """

    def __init__(
        self,
        config: WriterConfig,
        base_url: str,
        extras: Callable[[Language], dict[str, Any]] | None,
        deterministic: bool,
    ):
        try:
            parts = urlsplit(base_url)
            host = parts.hostname if parts.scheme in ("http", "https") else None
        except ValueError:
            host = None
        if host is None:
            raise ConfigError(f"writer.base_url={base_url!r} is no address like http://127.0.0.1:8000/v1")
        self.name = config.model
        self.deterministic = deterministic
        self._config = config
        self._url = base_url
        # An address may carry a password, and messages are copied into issues.
        self._shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._no_completion = f"writer.base_url={self._shown} sent no chat completion: should it end in /v1?"
        self._on_loopback = host in _LOOPBACK
        self._extras = extras
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: openai.AsyncOpenAI | None = None
        self._slots = asyncio.Semaphore(config.concurrency)

    async def reply(self, prompts: Sequence[Prompt]) -> list[str]:
        """One reply a prompt, in order, without surrounding blanks; "" where the model said nothing."""
        tasks = [asyncio.ensure_future(self._reply(prompt)) for prompt in prompts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # After a first failure nobody waits for the others, and some of them cost money.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.close()

    def _for_this_loop(self) -> openai.AsyncOpenAI:
        """The client of the running event loop: connections cannot move from one loop to another."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client = openai.AsyncOpenAI(
                base_url=self._url,
                api_key=os.environ.get(_KEY) or "none",
                timeout=self._config.timeout,
                max_retries=self._config.retries,
                # A proxy of the environment has no way back to this machine's loopback.
                http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if self._on_loopback else None,
            )
            self._loop = loop
            self._slots = asyncio.Semaphore(self._config.concurrency)
        return self._client

    async def _reply(self, prompt: Prompt) -> str:
        client = self._for_this_loop()
        extra = {**(self._extras(prompt.language) if self._extras else {}), **self._config.extra_body}
        messages: Any = list(prompt.messages)
        async with self._slots:
            try:
                completion = await client.chat.completions.create(
                    model=self._config.model,
                    messages=messages,
                    temperature=self._config.temperature,
                    max_tokens=self._config.max_tokens,
                    seed=prompt.seed,
                    extra_body=extra,
                )
            except openai.NotFoundError:
                raise EndpointError(await self._not_found(client)) from None
            except openai.OpenAIError as error:
                self._raise(error)
            except json.JSONDecodeError:
                raise EndpointError(self._no_completion) from None
        if not isinstance(completion, ChatCompletion) or completion.choices is None:
            raise EndpointError(self._no_completion)
        content = completion.choices[0].message.content if completion.choices else None
        return (content or "").strip()

    def _raise(self, error: openai.OpenAIError) -> NoReturn:
        """What the client's error means for the run."""
        at = f"writer.base_url={self._shown}"
        if isinstance(error, openai.APITimeoutError):
            reason = f"no reply in {self._config.timeout:g} s"
            raise EndpointError(f"{at} does not answer ({reason}): start it, or set writer.base_url") from None
        if isinstance(error, openai.APIConnectionError):
            reason = self._clean(error.__cause__ or error)
            raise EndpointError(f"{at} does not answer ({reason}): start it, or set writer.base_url") from None
        if isinstance(error, openai.APIStatusError):
            code = error.status_code
            if code in (401, 403):
                state = "the key in it was refused" if os.environ.get(_KEY) else "it is not set"
                raise EndpointError(f"{at} refuses the request ({code}): set {_KEY} ({state})") from None
            text = f"{at} failed a request ({code}): {self._clean(error)}"
            raise BackendError(text, retryable=code in (408, 409, 429) or code >= 500) from None
        raise EndpointError(f"{self._no_completion} ({self._clean(error)})") from None

    async def _not_found(self, client: openai.AsyncOpenAI) -> str:
        model = self._config.model
        try:
            offered = [item.id async for item in client.with_options(max_retries=0).models.list()]
        # Whatever keeps the list from us, the 404 is what the user must hear of.
        except (openai.OpenAIError, AttributeError, TypeError):
            offered = []
        if not offered:
            return (
                f"writer.base_url={self._shown} knows no chat completions by writer.model={model!r} (404): "
                "check the model's name, and that the address ends in /v1"
            )
        near = difflib.get_close_matches(model, offered, n=len(offered), cutoff=0.0)
        shown = ", ".join(near[:8]) + (f" and {len(near) - 8} more" if len(near) > 8 else "")
        return f"writer.model={model!r} is not at writer.base_url={self._shown} (404); it offers: {shown}"

    def _clean(self, error: BaseException) -> str:
        """The error as one line without the key, which some servers send back."""
        body = error.body if isinstance(error, openai.APIStatusError) else None
        message = body.get("message") if isinstance(body, dict) else None
        text = " ".join(str(message or error or type(error).__name__).split())[:300]
        key = os.environ.get(_KEY)
        return text.replace(key, "***") if key else text
