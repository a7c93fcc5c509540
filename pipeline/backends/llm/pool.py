"""Which endpoint a request goes to, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from pipeline.backends.llm.endpoint import Endpoint
from pipeline.errors import BackendError, EndpointError

_PATIENCE = 300.0  # seconds; a server that wants to be left alone for longer is not waited for


class Pool:
    """Endpoints and the requests that wait for a slot at one of them, first come first served, for one event loop."""

    def __init__(self, endpoints: Sequence[Endpoint]):
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._queue: dict[asyncio.Future[Endpoint], Counter[Endpoint]] = {}
        self._timer: asyncio.TimerHandle | None = None
        for endpoint in endpoints:
            endpoint.bind(self._loop)

    async def enter(self, tries: Counter[Endpoint]) -> Endpoint:
        """The endpoint that is best asked, with a slot of it, which `leave` gives back. tries: of this request so far.

        One that is gone, was tried, failed just now or wants to be left alone is passed over while another is not.
        Raises EndpointError where all are gone, BackendError where all want to be left alone for too long.
        """
        if not self._queue and (endpoint := self._choose(tries)):
            endpoint.busy += 1
            return endpoint
        turn: asyncio.Future[Endpoint] = self._loop.create_future()
        self._queue[turn] = tries
        try:
            self._dispatch()
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(turn.result())
            raise
        finally:
            self._queue.pop(turn, None)

    def leave(self, endpoint: Endpoint) -> None:
        endpoint.busy -= 1
        self._dispatch()

    def _dispatch(self) -> None:
        """Send on whoever can go now."""
        fresh_wait = False
        for turn, tries in list(self._queue.items()):
            # Requests without tries are all alike: where one has to wait, the next one has to.
            if turn.done() or (fresh_wait and not tries):
                continue
            try:
                endpoint = self._choose(tries)
            except (EndpointError, BackendError) as error:
                turn.set_exception(error)
                continue
            if endpoint is None:
                fresh_wait = fresh_wait or not tries
            else:
                endpoint.busy += 1
                turn.set_result(endpoint)

    def _choose(self, tries: Counter[Endpoint]) -> Endpoint | None:
        """By smooth weighted round robin (as in nginx) among the best ones that have a slot; None: wait."""
        live = [item for item in self._endpoints if item.lost is None]
        if not live:
            raise EndpointError("; ".join(item.lost or "" for item in self._endpoints) or "no endpoint is configured")
        awake = [item for item in live if not item.resting]
        if not awake:
            self._wake_later(min(live, key=lambda item: item.resting))
            return None
        # One that just failed others is no better for a request that it has not failed yet.
        ranks = [(item.cooling, tries[item]) for item in awake]
        best = [item for item, rank in zip(awake, ranks, strict=True) if rank == min(ranks)]
        free = [item for item in best if item.busy < item.site.concurrency]
        free = [item for item in free if not item.paced] or free
        if not free:
            return None
        for item in free:
            item.credit += item.site.weight
        chosen = max(free, key=lambda item: item.credit)
        chosen.credit -= sum(item.site.weight for item in free)
        return chosen

    def _wake_later(self, endpoint: Endpoint) -> None:
        wait = endpoint.resting
        if wait > _PATIENCE:
            raise BackendError(f"{endpoint.at} wants to be left alone for {wait:.0f} s", retryable=True)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(wait, self._dispatch)
