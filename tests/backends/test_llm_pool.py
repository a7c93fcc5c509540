"""Several endpoints: shares, failover, limits; and the writers that a configuration makes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from pipeline.backends.faults import retry_after
from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.backends.llm.endpoint import Site
from pipeline.backends.llm.openai import OpenAIWriter, make_writer
from pipeline.backends.llm.pacing import Pacer
from pipeline.config import Config, EndpointConfig, ReviewConfig, TextConfig, WriterConfig
from pipeline.errors import BackendError, ConfigError, EndpointError
from tests.faulty_llm import HANG, RESET, Answer, FaultyLLM, fails, faulty_llm

Servers = Callable[[int], list[FaultyLLM]]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(faulty_llm()) for _ in range(count)]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def prompts(count: int, step: str = "") -> list[Prompt]:
    return [Prompt(({"role": "user", "content": f"line {n}"},), "en", n, step=step) for n in range(count)]


def run(writer: Writer, asked: Sequence[Prompt]) -> list[Reply]:
    async def talk() -> list[Reply]:
        try:
            return await writer.reply(asked)
        finally:
            await writer.close()

    return asyncio.run(talk())


def pool(urls: Sequence[str], weights: Sequence[float] = (), concurrency: int = 4, **settings: Any) -> OpenAIWriter:
    config = WriterConfig(**{"retries": 0, "timeout": 5, **settings})
    sites = [
        Site(f"writer.endpoints.{name}", url, "m", name, weight=weight, concurrency=concurrency)
        for name, url, weight in zip("abc", urls, weights or [1] * len(urls), strict=False)
    ]
    return OpenAIWriter(config, sites, backoff=0.01)


def test_endpoints_get_their_shares(servers: Servers) -> None:
    first, second = servers(2)
    run(pool([first.url, second.url], weights=(3, 1), concurrency=40), prompts(40))
    assert (len(first.seen), len(second.seen)) == (30, 10)


def test_a_full_endpoint_is_passed_over(servers: Servers) -> None:
    """One hangs with its only slot; the other one serves all the rest."""
    stuck, free = servers(2)
    stuck.script = lambda number, body: HANG
    writer = pool([stuck.url, free.url], concurrency=1, timeout=0.5, retries=1)
    found = run(writer, prompts(12))
    assert [reply.text for reply in found] == ["Hello there."] * 12
    assert {reply.endpoint for reply in found} == {"b"}
    assert len(stuck.seen) == 1


@pytest.mark.parametrize("fault", [fails(500), fails(503), RESET, fails(429, headers={"Retry-After": "250"})])
def test_a_retry_goes_elsewhere_first(servers: Servers, fault: Answer) -> None:
    bad, good = servers(2)
    bad.script = lambda number, body: fault
    found = run(pool([bad.url, good.url], weights=(1000, 1), concurrency=1, retries=1), prompts(6))
    assert {reply.endpoint for reply in found} == {"b"}
    assert len(bad.seen) == 1  # and it is left alone for a while
    assert len(good.seen) == 6


def test_an_endpoint_that_is_down_costs_no_retry(servers: Servers, nobody: str) -> None:
    [good] = servers(1)
    found = run(pool([nobody, good.url], weights=(1000, 1), retries=0), prompts(5))
    assert [reply.endpoint for reply in found] == ["b"] * 5


@pytest.mark.parametrize(("status", "word"), [(401, "refuses the request"), (404, "knows no chat completions")])
def test_an_endpoint_that_is_gone_for_good_is_told_once(
    servers: Servers, caplog: pytest.LogCaptureFixture, status: int, word: str
) -> None:
    bad, good = servers(2)
    bad.script = lambda number, body: fails(status)
    with caplog.at_level(logging.WARNING, "speechchat"):
        found = run(pool([bad.url, good.url], weights=(1000, 1), concurrency=1), prompts(8))
    assert {reply.endpoint for reply in found} == {"b"}
    assert len(bad.seen) == 1
    [line] = [record.getMessage() for record in caplog.records]
    assert "writer.endpoints.a" in line and word in line and line.endswith("the other endpoints go on")


def test_nobody_can_be_served(servers: Servers, nobody: str) -> None:
    [bad] = servers(1)
    bad.script = lambda number, body: fails(401)
    with pytest.raises(EndpointError, match=r"writer\.endpoints\.a.*does not answer.*writer\.endpoints\.b.*401"):
        run(pool([nobody, bad.url], retries=1), prompts(1))


def test_one_request_that_fails_everywhere(servers: Servers, nobody: str) -> None:
    [bad] = servers(1)
    bad.script = lambda number, body: fails(500, "oops")
    with pytest.raises(BackendError, match=r"writer\.endpoints\.b.*500.*oops") as caught:
        run(pool([nobody, bad.url], retries=2), prompts(1))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_a_date_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1445412470.0)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 10


def test_retry_after_a_date_by_the_clock_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock here says."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    dates = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:48 GMT"}
    assert retry_after(dates) == 12


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_no_minute_lets_more_through_than_the_limit() -> None:
    time, passed = FakeTime(), []

    async def go() -> None:
        pacer = Pacer(90, time.clock, time.sleep)
        for number in range(400):
            await pacer.admit(1)
            passed.append(time.now)
            if number == 200:
                time.now += 500  # what was not used is not saved up

    asyncio.run(go())
    # Not to the very end of the minute, where the next one is due.
    assert max(sum(start <= at < start + 59.99 for at in passed) for start in passed) == 90
    assert passed[200] - passed[0] == pytest.approx(200 * 61 / 90, abs=1.1)


def test_tokens_are_corrected_afterwards() -> None:
    time = FakeTime()

    async def wait(actual: float) -> float:
        pacer = Pacer(6000, time.clock, time.sleep)  # 100 a second
        await pacer.admit(1000)
        pacer.correct(actual - 1000)
        return pacer.delay

    assert asyncio.run(wait(1000)) == pytest.approx(1000 * 61 / 6000 - 1)
    assert asyncio.run(wait(50)) == 0
    assert asyncio.run(wait(3000)) == pytest.approx(3000 * 61 / 6000 - 1)


@pytest.mark.parametrize("limit", [{"requests_per_minute": 2400}, {"tokens_per_minute": 120_000}])
def test_a_worker_keeps_to_its_share_of_a_limit(servers: Servers, limit: dict[str, int]) -> None:
    """Half of 40 requests, or 2000 tokens, a second: after the burst each of 28 requests of 50 tokens has to wait."""
    [server] = servers(1)
    writer = make_writer(
        Config(writer=WriterConfig(base_url=server.url, concurrency=1, max_tokens=1, **limit)), None, 0.5
    )
    before = time.monotonic()
    run(writer, prompts(28))
    assert time.monotonic() - before >= 0.3
    assert len(server.seen) == 28


def config(url: str | None = None, review: ReviewConfig | None = None, **writer: Any) -> Config:
    return Config(
        text=TextConfig(review=review or ReviewConfig()),
        writer=WriterConfig(**{"base_url": url, "retries": 0, **writer}),
    )


def test_a_review_may_have_an_endpoint_of_its_own(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    main, judge = servers(2)
    monkeypatch.setenv("JUDGE_KEY", "open sesame")
    review = ReviewConfig(enabled=True, base_url=judge.url, model="judge", key="JUDGE_KEY")
    writer = make_writer(config(main.url, review, model="m"))
    run(writer, [*prompts(2), *prompts(1, "review")])
    assert [body["model"] for body in main.seen] == ["m"] * 2
    assert [body["model"] for body in judge.seen] == ["judge"]
    assert judge.keys == ["Bearer open sesame"]


def test_a_review_may_be_by_another_model_of_the_same_endpoint(servers: Servers) -> None:
    [main] = servers(1)
    prices = {"m": (1, 1), "judge": (10, 10)}
    writer = make_writer(config(main.url, ReviewConfig(enabled=True, model="judge"), model="m", prices=prices))
    [written, reviewed] = run(writer, [*prompts(1), *prompts(1, "review")])
    assert sorted(body["model"] for body in main.seen) == ["judge", "m"]
    assert reviewed.cost == pytest.approx(10 * written.cost)


def test_a_review_by_the_writer_itself(servers: Servers) -> None:
    [main] = servers(1)
    run(make_writer(config(main.url, ReviewConfig(enabled=True), model="m")), prompts(1, "review"))
    assert [body["model"] for body in main.seen] == ["m"]


def test_a_reviewer_that_nobody_serves() -> None:
    with pytest.raises(ConfigError, match=r"text\.review\.model='judge' needs text\.review\.base_url"):
        make_writer(
            config(review=ReviewConfig(enabled=True, model="judge")), ("http://127.0.0.1:1/v1", lambda language: {})
        )


def test_endpoints_of_the_configuration(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = servers(2)
    monkeypatch.setenv("FIRST", "one")
    endpoints = {
        "near": EndpointConfig(base_url=first.url, model="small", key="FIRST", weight=2, concurrency=9),
        "far": EndpointConfig(base_url=second.url, model="large"),
    }
    found = run(make_writer(config(endpoints=endpoints, concurrency=9)), prompts(9))
    assert (len(first.seen), len(second.seen)) == (6, 3)
    assert {body["model"] for body in first.seen} == {"small"} and {body["model"] for body in second.seen} == {"large"}
    assert set(first.keys) == {"Bearer one"}
    assert {reply.endpoint for reply in found} == {"near", "far"}


def test_a_budget_needs_prices() -> None:
    message = (
        r"writer\.prices: no price for model 'qwen', and writer\.budget needs one: "
        r"--set 'writer\.prices=\{qwen: \[0\.4, 1\.2\]\}' \(dollars a million tokens of prompt and of reply\)"
    )
    with pytest.raises(ConfigError, match=message):
        make_writer(config("http://127.0.0.1:1/v1", model="qwen", budget=5))
    judged = ReviewConfig(enabled=True, model="judge")
    with pytest.raises(ConfigError, match="model 'judge'"):
        make_writer(config("http://127.0.0.1:1/v1", judged, model="qwen", budget=5, prices={"qwen": (1, 1)}))
    endless: dict[str, Any] = {"budget": 5, "model": "qwen", "prices": {"qwen": (1, 1)}}
    with pytest.raises(ConfigError, match=r"writer\.extra_body: without max_tokens .*set max_completion_tokens there"):
        make_writer(config("http://127.0.0.1:1/v1", **endless, extra_body={"max_tokens": None}))
    bounded = {"max_tokens": None, "max_completion_tokens": 50}
    make_writer(config("http://127.0.0.1:1/v1", **endless, extra_body=bounded))
    make_writer(config("http://127.0.0.1:1/v1", **{**endless, "budget": None}, extra_body={"max_tokens": None}))
    make_writer(config(budget=5), ("http://127.0.0.1:1/v1", lambda language: {}))  # the embedded LLM costs nothing


def test_the_fingerprint_is_of_what_reaches_the_reply() -> None:
    [prompt], [review] = prompts(1), prompts(1, "review")

    def fingerprint(asked: Prompt = prompt, review: ReviewConfig | None = None, **settings: Any) -> str:
        return make_writer(config("http://127.0.0.1:1/v1", review, **{"model": "m", **settings})).fingerprint(asked)

    plain = fingerprint()
    assert plain == fingerprint(timeout=9, concurrency=3, retries=7) == fingerprint(asked=review)
    judge = ReviewConfig(enabled=True, model="judge")
    others = [
        fingerprint(model="n"),
        fingerprint(temperature=0.5),
        fingerprint(max_tokens=81),
        fingerprint(extra_body={"top_k": 1}),
        fingerprint(asked=review, review=judge),
    ]
    assert len({plain, *others}) == 6
    assert fingerprint(review=judge) == plain
