"""A writer at one endpoint that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.backends.llm.endpoint import Site
from pipeline.backends.llm.openai import OpenAIWriter, make_writer
from pipeline.config import Config, WriterConfig
from pipeline.errors import BackendError, ConfigError, EndpointError
from tests.faulty_llm import CUT, HANG, PROMPT_TOKENS, REPLY_TOKENS, RESET, Answer, FaultyLLM, fails, faulty_llm, says

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLLM]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with faulty_llm() as server:
        yield server


def prompt(text: str = "hello", seed: int = 7, **more: Any) -> Prompt:
    return Prompt(({"role": "user", "content": text},), "en", seed, **more)


def replies(url: str, *asked: Prompt, extras: Any = None, **config: Any) -> list[Reply]:
    async def run() -> list[Reply]:
        settings = WriterConfig(**{"retries": 0, "model": "m", **config})
        site = Site("writer", url, settings.model, concurrency=settings.concurrency)
        writer = OpenAIWriter(settings, [site], extras, backoff=0.01)
        try:
            return await writer.reply(asked or [prompt()])
        finally:
            await writer.close()

    return asyncio.run(run())


def ask(url: str, *asked: Prompt, **config: Any) -> list[str]:
    return [reply.text for reply in replies(url, *asked, **config)]


def test_replies_come_in_order_with_a_seed_each(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: says(f" to {body['messages'][-1]['content']} \n")
    asked = [prompt(f"line {n}", seed=n) for n in range(12)]
    assert ask(endpoint.url, *asked, concurrency=4) == [f"to line {n}" for n in range(12)]
    assert {body["messages"][-1]["content"]: body["seed"] for body in endpoint.seen} == {
        f"line {n}": n for n in range(12)
    }


def test_request_carries_configuration_extras_and_key(endpoint: FaultyLLM) -> None:
    ask(
        endpoint.url,
        extras=lambda language: {"grammar": language, "top_k": 1},
        temperature=0.3,
        max_tokens=9,
        extra_body={"top_k": 5},
    )
    body = endpoint.seen[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.3, 9)
    assert (body["grammar"], body["top_k"]) == ("en", 5)
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_a_null_of_extra_body_leaves_a_field_out(endpoint: FaultyLLM) -> None:
    ask(endpoint.url, extra_body={"max_tokens": None, "max_completion_tokens": 30, "temperature": None})
    assert endpoint.seen[0].keys() == {"model", "messages", "max_completion_tokens", "seed"}


def test_a_prompt_may_have_a_limit_of_its_own(endpoint: FaultyLLM) -> None:
    ask(endpoint.url, prompt(max_tokens=500), max_tokens=9)
    assert endpoint.seen[0]["max_tokens"] == 500


def test_a_key_is_not_needed(endpoint: FaultyLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(endpoint.url) == ["Hello there."]


def test_no_more_requests_at_once_than_configured(endpoint: FaultyLLM) -> None:
    both = threading.Barrier(2, timeout=20)

    def script(number: int, body: dict[str, Any]) -> Answer:
        both.wait()
        return says("yes")

    endpoint.script = script
    assert ask(endpoint.url, *[prompt() for _ in range(6)], concurrency=2) == ["yes"] * 6
    assert endpoint.most_parallel == 2


@pytest.mark.parametrize(
    "first",
    [
        fails(500),
        fails(503),
        fails(408),
        fails(409),
        fails(429, headers={"Retry-After": "0"}),
        fails(429, headers={"retry-after-ms": "1"}),
        fails(429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        fails(429, headers={"Retry-After": "soon"}),
        Answer(body={"error": {"message": "upstream is busy"}}),
        RESET,
        CUT,
    ],
    ids=["500", "503", "408", "409", "429 now", "429 ms", "429 date", "429 odd", "200 error", "reset", "cut"],
)
def test_a_passing_fault_is_tried_again(endpoint: FaultyLLM, first: Answer) -> None:
    endpoint.script = lambda number, body: first if number == 1 else says("Done.")
    assert ask(endpoint.url, retries=1) == ["Done."]
    assert len(endpoint.seen) == 2


def test_a_server_is_left_alone_for_as_long_as_it_wants(endpoint: FaultyLLM) -> None:
    times: list[float] = []

    def script(number: int, body: dict[str, Any]) -> Answer:
        times.append(time.monotonic())
        return fails(503, headers={"Retry-After": "0.3"}) if number == 1 else says("Done.")

    endpoint.script = script
    assert ask(endpoint.url, prompt("a"), prompt("b"), retries=1, concurrency=1) == ["Done."] * 2
    # The other prompt's request waits as well.
    assert times[1] - times[0] >= 0.3


def test_a_server_that_wants_to_be_left_alone_for_an_hour_is_not_waited_for(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: fails(429, headers={"Retry-After": "3600"})
    with pytest.raises(BackendError, match=r"left alone for 360[01] s") as caught:
        ask(endpoint.url, retries=4)
    assert caught.value.retryable
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (422, False), (429, True), (500, True), (503, True)])
def test_a_lasting_fault_is_a_backend_error(endpoint: FaultyLLM, status: int, retryable: bool) -> None:
    endpoint.script = lambda number, body: fails(status, f"context too long for {KEY}")
    with pytest.raises(BackendError, match=f"{status}.*context too long") as caught:
        ask(endpoint.url, retries=2)
    assert caught.value.retryable is retryable
    assert KEY not in str(caught.value)
    assert len(endpoint.seen) == (3 if retryable else 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_and_stays_secret(endpoint: FaultyLLM, status: int) -> None:
    endpoint.script = lambda number, body: fails(status, f"Incorrect API key provided: {KEY}")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
        ask(endpoint.url, retries=3)
    assert KEY not in str(caught.value) + repr(caught.value)
    assert len(endpoint.seen) == 1


def test_a_wrong_model_name_lists_what_there_is(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: fails(404, "model not found")
    endpoint.models = ["zeta-70b", "qwen3-8b-instruct", "qwen3-8b"]
    with pytest.raises(EndpointError, match=r"writer\.model='qwen3-8'.*offers: qwen3-8b, qwen3-8b-instruct"):
        ask(endpoint.url, model="qwen3-8")


def test_a_wrong_path_names_the_address(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: fails(404)
    endpoint.models = None
    with pytest.raises(EndpointError, match=r"writer\.base_url=.*/v1"):
        ask(endpoint.url)


def test_a_server_that_hangs(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: HANG
    with pytest.raises(BackendError, match=r"does not answer \(no reply in 0\.2 s\).*writer\.base_url") as caught:
        ask(endpoint.url, timeout=0.2, retries=1)
    assert caught.value.retryable
    assert len(endpoint.seen) == 2


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=r"does not answer \(.+\): start it, or set writer\.base_url"):
            ask(url, retries=1)


def test_one_failure_cancels_its_siblings(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: fails(400, "bad")
    with pytest.raises(BackendError):
        ask(endpoint.url, *[prompt() for _ in range(50)], concurrency=1)
    assert len(endpoint.seen) < 50


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_an_empty_reply_is_a_reply(endpoint: FaultyLLM, content: str | None) -> None:
    endpoint.script = lambda number, body: says(content)
    [reply] = replies(endpoint.url)
    assert (reply.text, reply.finish) == ("", "empty")


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        (says("Hi."), "Hi.", "stop"),
        (says("and then he", "length"), "and then he", "length"),
        (says("and", "aborted"), "and", "length"),
        (says("", "length"), "", "length"),
        (says("so", "content_filter"), "so", "content filter"),
        (says(None, "stop", refusal="I would rather not."), "I would rather not.", "refusal"),
        (says("No.", "refusal"), "No.", "refusal"),
        (Answer(body={"choices": []}), "", "empty"),
        (says("half \ud83d"), "half ?", "stop"),
    ],
)
def test_how_a_reply_ended_is_told(endpoint: FaultyLLM, answer: Answer, text: str, finish: str) -> None:
    endpoint.script = lambda number, body: answer
    [reply] = replies(endpoint.url)
    assert (reply.text, reply.finish) == (text, finish)


def test_tokens_are_as_billed_and_priced(endpoint: FaultyLLM) -> None:
    [reply] = replies(endpoint.url, prices={"m": (0.5, 4)})
    assert (reply.prompt_tokens, reply.completion_tokens) == (PROMPT_TOKENS, REPLY_TOKENS)
    assert reply.cost == pytest.approx((PROMPT_TOKENS * 0.5 + REPLY_TOKENS * 4) / 1e6)
    [unpriced] = replies(endpoint.url)
    assert unpriced.cost == 0


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_what_is_no_completion(endpoint: FaultyLLM, kind: str) -> None:
    endpoint.script = lambda number, body: Answer(body=b"<html>welcome</html>", headers={"Content-Type": kind})
    with pytest.raises(EndpointError, match=r"no chat completion.*/v1"):
        ask(endpoint.url, retries=2)
    assert len(endpoint.seen) == 1


def test_a_page_of_a_proxy_amid_replies_is_tried_again(endpoint: FaultyLLM) -> None:
    page = Answer(body=b"<html>one moment</html>", headers={"Content-Type": "text/html"})
    endpoint.script = lambda number, body: page if number == 2 else says("Done.")
    assert ask(endpoint.url, prompt("a"), prompt("b"), concurrency=1, retries=1) == ["Done."] * 2


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://[x", "/v1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"writer\.base_url"):
        make_writer(Config(writer=WriterConfig(base_url=url)))


def test_a_password_in_the_address_is_not_shown(endpoint: FaultyLLM) -> None:
    endpoint.script = lambda number, body: fails(400)
    with pytest.raises(BackendError) as caught:
        ask(endpoint.url.replace("http://", "http://me:hidden@"))
    assert "hidden" not in str(caught.value)
    assert endpoint.url in str(caught.value)


def test_a_writer_serves_one_event_loop_after_another(endpoint: FaultyLLM) -> None:
    writer = make_writer(Config(writer=WriterConfig(base_url=endpoint.url, retries=0)))
    for _ in range(2):
        found = asyncio.run(writer.reply([prompt(), prompt()]))
        assert [reply.text for reply in found] == ["Hello there."] * 2
    asyncio.run(writer.close())


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    endpoint: FaultyLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert ask(endpoint.url) == ["Hello there."]
