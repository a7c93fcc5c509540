"""How a backend over HTTP waits: so many requests in flight, again where that may help, not before the server wants."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from pipeline.backends.faults import Fault
from pipeline.errors import ConfigError

Answer = TypeVar("Answer")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONGEST_BACKOFF = 8.0  # seconds
_PATIENCE = 300.0  # seconds; a server that wants to be left alone for longer is not waited for


class Patience:
    """An event loop in a thread of its own, which serves the threads of the callers: all connections belong to it.

    concurrency: requests in flight at most, of all callers together. backoff: seconds before the first retry, which
    double up to 8. served: requests that were answered so far.
    """

    def __init__(self, name: str, concurrency: int, backoff: float):
        self.served = 0
        self._backoff = backoff
        self._loop = asyncio.new_event_loop()
        self._rests_until = self._loop.time()
        self._slots = asyncio.Semaphore(concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # what is still under way when the caller is interrupted

    def close(self, client: openai.AsyncOpenAI) -> None:
        """Ends the connections and the thread. Safe to call again."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def persist(self, attempt: Callable[[], Awaitable[Answer]], retries: int) -> Answer:
        """The first answer of several attempts. Raises Fault when the retries are used up or none can help."""
        delay = self._backoff
        while True:
            before = self.served
            try:
                async with self._slots:
                    while (wait := self._rests_until - self._loop.time()) > 0:
                        await asyncio.sleep(wait)
                    answer = await attempt()
            except Fault as fault:
                if fault.kind not in ("passing", "unsent"):
                    raise
                # A server that is only busy serves the others meanwhile: that is no fault of this request's.
                if not (fault.status in (429, 503) and self.served > before):
                    retries -= 1
                if retries < 0:
                    raise
                self._rest(fault)
                if not fault.after:
                    # The jitter keeps those that failed together from coming back together.
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                    delay = min(2 * delay, _LONGEST_BACKOFF)
            else:
                self.served += 1
                return answer

    def _rest(self, fault: Fault) -> None:
        """Leave the server alone for as long as it says."""
        after = fault.after or 0.0
        if after > _PATIENCE:
            raise Fault("endpoint", f"{fault}; it wants to be left alone for {after:.0f} s")
        self._rests_until = max(self._rests_until, self._loop.time() + after * random.uniform(1.0, 1.1))


async def together(work: list[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """All answers, in order. After a first failure nobody waits for the others, and some of them cost money."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def server_address(url: str | None, key: str, kind: str) -> str:
    """The address, as messages may show it: it may carry a password or a key, and messages are copied into issues.

    key: of the setting that it is from. kind: what the engine is called. Raises ConfigError.
    """
    try:
        parts = urlsplit(url or "")
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if url is None or host is None:
        shown = url and url.rpartition("@")[2]  # without a password
        raise ConfigError(f"{key}={shown!r} is no address like http://127.0.0.1:8880/v1 ({kind})")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def client_of(url: str, api_key: str | None, timeout: float) -> openai.AsyncOpenAI:
    """A client that tries nothing again by itself. timeout: seconds, for each step of a request."""
    return openai.AsyncOpenAI(
        base_url=url,
        api_key=api_key or "none",
        timeout=openai.Timeout(timeout, connect=timeout / 2),
        max_retries=0,
        # A proxy of the environment has no way back to this machine's loopback.
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if urlsplit(url).hostname in _LOOPBACK else None,
    )
