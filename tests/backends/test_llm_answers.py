"""What an endpoint may say, however odd: how it is read, and what moderation means."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.backends.llm.chat import most_tokens, read_completion, request_body
from pipeline.backends.llm.endpoint import Site
from pipeline.backends.llm.openai import OpenAIWriter
from pipeline.config import WriterConfig
from pipeline.errors import BackendError, EndpointError
from tests.backends.test_llm_pool import pool, prompts, run
from tests.faulty_llm import Answer, FaultyLLM, completion, fails, faulty_llm, says

PROMPT = Prompt(({"role": "user", "content": "hello"},), "en", 7, schema={"type": "object"})


class Bill:
    """A meter that writes down what it is told."""

    def __init__(self) -> None:
        self.settled: list[tuple[float, float | None]] = []

    async def reserve(self, dollars: float) -> None:
        assert dollars > 0

    def settle(self, reserved: float, cost: float | None) -> None:
        self.settled.append((reserved, cost))


def ask(*servers: FaultyLLM, prompt: Prompt = PROMPT, retries: int = 0) -> Reply:
    async def talk() -> Reply:
        config = WriterConfig(model="m", retries=retries, prices={"m": (1, 2)})
        sites = [Site(f"writer.endpoints.{name}", it.url, "m", name) for name, it in zip("ab", servers, strict=False)]
        writer = OpenAIWriter(config, sites, backoff=0.01)
        try:
            return (await writer.reply([prompt]))[0]
        finally:
            await writer.close()

    return asyncio.run(talk())


def choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": "stop", "message": {"content": "Hi."}, **fields}]}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "Hi.",
        7,
        {},
        {"choices": None},
        {"choices": {"0": {}}},
        {"choices": "Hi."},
        {"choices": ["Hi."]},
        {"choices": [None]},
        {"choices": [[]]},
        choice(message="Hi."),
        choice(message=["Hi."]),
        choice(message={"content": ["Hi."]}),
        choice(message={"content": {"text": "Hi."}}),
        choice(message={"content": 7}),
        {"object": "error", "message": "no"},
    ],
)
def test_what_is_no_completion(answer: object) -> None:
    assert read_completion(answer) is None


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        (choice(), "Hi.", "stop"),
        ({"choices": []}, "", "empty"),
        ({"choices": [{}]}, "", "empty"),
        (choice(message=None), "", "empty"),
        (choice(message={}), "", "empty"),
        (choice(message={"content": None, "tool_calls": [{}]}), "", "empty"),
        (choice(message={"content": "", "reasoning_content": "Let me think."}), "", "empty"),
        (choice(message={"content": "Hi.", "refusal": None}), "Hi.", "stop"),
        (choice(message={"content": "Hi.", "refusal": "No."}), "Hi.", "refusal"),
        (choice(message={"content": None, "refusal": ["No."]}), "['No.']", "refusal"),
        (choice(finish_reason=None), "Hi.", "stop"),
        (choice(finish_reason="tool_calls"), "Hi.", "length"),
        (choice(finish_reason="STOP"), "Hi.", "length"),
        (choice(finish_reason=["stop"]), "Hi.", "length"),
        (choice(finish_reason=0), "Hi.", "length"),
        ({**choice(), "choices": [*choice()["choices"], {"message": "second"}]}, "Hi.", "stop"),
    ],
)
def test_an_odd_completion_is_a_reply(answer: dict[str, Any], text: str, finish: str) -> None:
    """A text whose end is in doubt counts as cut."""
    reply = read_completion(answer)
    assert reply is not None and (reply.text, reply.finish) == (text, finish)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 40, "completion_tokens": 10}, (40, 10)),
        ({"prompt_tokens": 40.0, "completion_tokens": None}, (40, 0)),
        ({"prompt_tokens": -1, "completion_tokens": float("inf")}, (0, 0)),
        ({"prompt_tokens": "40", "completion_tokens": [10]}, (0, 0)),
        ({}, (0, 0)),
        (None, (0, 0)),
        ([40, 10], (0, 0)),
        ("50", (0, 0)),
    ],
)
def test_tokens_that_are_no_count_are_none(usage: object, tokens: tuple[int, int]) -> None:
    reply = read_completion({**choice(), "usage": usage, "model": None})
    assert reply is not None and (reply.prompt_tokens, reply.completion_tokens) == tokens and reply.model == ""


def test_an_odd_answer_of_a_server_that_served_is_tried_again() -> None:
    answers = [says("Hi."), Answer(body=choice(message="Hi.")), Answer(body=choice(message={"content": "Done."}))]
    with faulty_llm(lambda number, body: answers[min(number, 3) - 1]) as server:
        assert ask(server).text == "Hi."
    with faulty_llm(lambda number, body: answers[min(number, 2)]) as server:
        assert ask(server, retries=1).text == "Done."
        assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("extra", "most"),
    [
        ({}, 80),
        ({"max_tokens": 500}, 500),
        ({"max_tokens": None, "max_completion_tokens": 30}, 30),
        ({"max_tokens": None}, 80),
        ({"n": 3}, 240),
    ],
)
def test_the_most_that_a_reply_can_have(extra: dict[str, Any], most: int) -> None:
    config = WriterConfig(extra_body=extra)
    body = request_body(PROMPT, "none", "m", config, {})
    asked, replied = most_tokens(body, config)
    assert replied == most and asked > sum(len(message["content"]) for message in body["messages"])


# ---- what is refused ---------------------------------------------------------------------------------------------


def error(status: int, **body: Any) -> Answer:
    return Answer(status, {"error": {"message": "The prompt was flagged.", **body}})


@pytest.mark.parametrize("status", [400, 422])
def test_what_one_endpoint_refuses_another_may_take(status: int) -> None:
    """It costs no retry, and the one that refused is no worse for it."""
    with faulty_llm() as strict, faulty_llm() as lax:
        strict.script = lambda number, body: fails(status) if number == 1 else says("Hello there.")
        writer = pool([strict.url, lax.url], weights=(1000, 1), concurrency=4, retries=0)
        found = run(writer, prompts(4))
        assert [reply.text for reply in found] == ["Hello there."] * 4
        assert sorted(reply.endpoint for reply in found) == ["a", "a", "a", "b"]
        assert (len(strict.seen), len(lax.seen)) == (4, 1)
        lax.script = strict.script = lambda number, body: fails(status, "too long")
        with pytest.raises(BackendError, match=rf"{status}.*too long") as caught:
            run(pool([strict.url, lax.url], retries=3), prompts(1))
        assert not caught.value.retryable
        assert (len(strict.seen), len(lax.seen)) == (5, 2)


@pytest.mark.parametrize("answer", [error(402), error(429, code="insufficient_quota")], ids=["402", "429 quota"])
def test_an_account_without_money_is_gone_for_good(caplog: pytest.LogCaptureFixture, answer: Answer) -> None:
    with faulty_llm() as poor, faulty_llm() as rich:
        poor.script = lambda number, body: answer
        with caplog.at_level(logging.WARNING, "speechchat"):
            found = run(pool([poor.url, rich.url], weights=(1000, 1), concurrency=1), prompts(6))
        assert {reply.endpoint for reply in found} == {"b"}
        assert len(poor.seen) == 1
        [line] = [record.getMessage() for record in caplog.records]
        assert "writer.endpoints.a" in line and f"serves no more on this account ({answer.status})" in line
        with pytest.raises(EndpointError, match="serves no more on this account"):
            run(pool([poor.url], retries=4), prompts(1))
        assert len(poor.seen) == 2


# ---- moderation -----------------------------------------------------------------------------------------------------


MODERATED = [
    error(400, code="content_filter", type=None, param="prompt"),
    error(400, code="content_policy_violation", type="invalid_request_error"),
    error(400, code="moderation_blocked"),
    error(400, code=None, type="ContentFilter"),
    error(400, code="data_inspection_failed", type="data_inspection_failed"),
    error(403, code="moderation"),
    error(403, code=403, metadata={"reasons": ["violence"], "flagged_input": "hello"}),
    error(422, type="content_filter"),
]


@pytest.mark.parametrize("answer", MODERATED)
def test_moderation_of_one_prompt_is_about_that_prompt(answer: Answer) -> None:
    """The run goes on, nobody is asked again, and what it may have cost is not forgotten."""
    bill = Bill()
    asked = Prompt(PROMPT.messages, "en", 7, schema=PROMPT.schema, meter=bill)
    with faulty_llm(lambda number, body: answer if number == 1 else says("Hi.")) as server, faulty_llm() as other:
        reply = ask(server, other, prompt=asked, retries=3)
        assert len(server.seen) + len(other.seen) == 1
        assert (reply.finish, reply.text) == ("content filter", "The prompt was flagged.")
        assert (reply.model, reply.endpoint, reply.cost, reply.completion_tokens) == ("m", "a", 0, 0)
    [(reserved, cost)] = bill.settled
    assert reserved > 0 and cost is None


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("body", [{}, {"code": "invalid_request_error"}, {"code": None, "metadata": {"raw": "x"}}])
def test_a_refusal_that_does_not_say_moderation_is_none(status: int, body: dict[str, Any]) -> None:
    """Also where it happens to speak of filters."""
    answer = error(status, **body, message="content_filter: moderation is not set up for this key")
    with faulty_llm(lambda number, _: answer) as server:
        with pytest.raises(EndpointError if status == 403 else BackendError):
            ask(server)
        assert len(server.seen) == 1


def test_a_limit_of_a_moderation_service_passes() -> None:
    busy = error(429, code="moderation_rate_limit")
    with faulty_llm(lambda number, body: busy if number == 1 else Answer(body=completion("Hi."))) as server:
        assert ask(server, retries=1).finish == "stop"
        assert len(server.seen) == 2
