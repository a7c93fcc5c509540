"""JSON from an LLM: how it is asked for, and what is made of it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, JsonValue, RootModel

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.backends.llm.openai import make_writer
from pipeline.backends.llm.structured import ReplyFault, parse_json
from pipeline.config import Config, WriterConfig
from pipeline.errors import BackendError
from tests.faulty_llm import Answer, FaultyLLM, fails, faulty_llm, says


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    tags: tuple[str, ...] = ()


Anything = RootModel[dict[str, JsonValue]]

texts = st.text(max_size=12) | st.sampled_from(['say "hi"', "{", "}]", "a\\", "“quoted”", ",}", "```", "end,\n]"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)


def untidy(value: Any, comma: str) -> str:
    """JSON with something before each closing bracket that has something to close."""
    if isinstance(value, dict) and value:
        return "{" + ", ".join(f"{json.dumps(k)}: {untidy(v, comma)}" for k, v in value.items()) + comma + "}"
    if isinstance(value, list) and value:
        return "[" + ",\n".join(untidy(item, comma) for item in value) + comma + "]"
    return json.dumps(value, ensure_ascii=False)


wrappers = st.sampled_from(
    [
        "{}",
        "\ufeff{}",
        "```json\n{}\n```",
        "```\n{}```",
        'Here\'s the dialogue you "asked" for:\n{}\nI hope it is what you want!',
        "好的，“对话”如下：\n{}",
        " \n{}\n\n",
    ]
)


@given(value=objects, wrapper=wrappers, comma=st.sampled_from(["", ",", " ,\n "]))
@settings(max_examples=100, deadline=None)
def test_an_object_survives_what_may_be_around_it(value: dict[str, Any], wrapper: str, comma: str) -> None:
    assert parse_json(wrapper.replace("{}", untidy(value, comma)), Anything).root == value


@given(value=objects, wrapper=wrappers, comma=st.sampled_from(["", ","]), data=st.data())
@settings(max_examples=100, deadline=None)
def test_an_object_that_was_cut_is_refused(
    value: dict[str, Any], wrapper: str, comma: str, data: st.DataObject
) -> None:
    before = wrapper.partition("{}")[0]
    whole = untidy(value, comma)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ReplyFault) as caught:
        parse_json(before + whole[:cut] + data.draw(st.sampled_from(["", "\n```"])), Anything)
    assert caught.value.reason == ("truncated" if cut else "no json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no json"),
        ("I would rather not.", "no json"),
        ("[1, 2]", "no json"),
        ('"text"', "no json"),
        ('{"text": "a"} {"text": "b"}', "no json"),
        ('{"text": NaN}', "no json"),
        ("{'text': 'a'}", "no json"),
        ('{"text": “a”}', "no json"),
        ('{"text": "a"]', "no json"),
        ('{"text": "a",, }', "no json"),
        ('{"text": "a', "truncated"),
        ('{"text": "a}', "truncated"),
        ('```json\n{"text": "a", "tags": ["b"]\n```', "truncated"),
        ("{}", "schema"),
        ('{"text": 5}', "schema"),
        ('{"text": "a", "more": 1}', "schema"),
        ('{"text": "a", "tags": "b"}', "schema"),
    ],
)
def test_what_is_not_what_was_asked_for(text: str, reason: str) -> None:
    with pytest.raises(ReplyFault) as caught:
        parse_json(text, Line)
    assert caught.value.reason == reason


def test_a_schema_fault_names_the_field() -> None:
    with pytest.raises(ReplyFault, match=r"tags\.1: "):
        parse_json('{"text": "a", "tags": ["b", 5]}', Line)


def test_full_width_quotes_around_keys() -> None:
    found = parse_json('{“text”: "他说“好”", ＂tags＂：["a",],}', Line)
    assert (found.text, found.tags) == ("他说“好”", ("a",))


SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def ask(server: FaultyLLM, messages: list[dict[str, str]], times: int = 1, **settings: Any) -> list[Reply]:
    async def run() -> list[Reply]:
        writer = make_writer(Config(writer=WriterConfig(base_url=server.url, retries=0, **settings)))
        try:
            # One after the other: what was found out for one is known for the next.
            return [
                (await writer.reply([Prompt(tuple(messages), "en", seed, schema=SCHEMA)]))[0] for seed in range(times)
            ]
        finally:
            await writer.close()

    return asyncio.run(run())


USER = [{"role": "user", "content": "hello"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *USER]


def test_a_schema_is_sent_where_the_server_takes_it() -> None:
    with faulty_llm() as server:
        ask(server, USER)
    [body] = server.seen
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
    }
    assert body["messages"] == USER


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (("json_object",), ["json_schema", "json_object", "json_object"]),
        ((), ["json_schema", "json_object", None, None]),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 501])
def test_a_weaker_way_is_found_out_once(
    caplog: pytest.LogCaptureFixture, known: tuple[str, ...], asked: list[str | None], status: int
) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        kind = body.get("response_format", {}).get("type")
        return says("{}") if kind is None or kind in known else fails(status, f"'response_format' {kind}: unsupported")

    with caplog.at_level(logging.WARNING, "speechchat"), faulty_llm(script) as server:
        assert [reply.text for reply in ask(server, SYSTEM, times=2)] == ["{}", "{}"]
    assert [body.get("response_format", {}).get("type") for body in server.seen] == asked
    assert len(caplog.records) == len(set(asked)) - 1
    first, *rest = server.seen[-1]["messages"]
    assert first["role"] == "system" and first["content"].startswith("Be brief.\n\n") and rest == USER
    assert json.dumps(SCHEMA) in first["content"]


def test_without_a_system_message_the_schema_is_one() -> None:
    with faulty_llm() as server:
        ask(server, USER, structured="none")
    first, *rest = server.seen[0]["messages"]
    assert first["role"] == "system" and json.dumps(SCHEMA) in first["content"] and rest == USER
    assert "response_format" not in server.seen[0]


def test_a_way_that_was_named_is_not_changed() -> None:
    with (
        faulty_llm(lambda number, body: fails(400, "json_object is unsupported")) as server,
        pytest.raises(BackendError, match=r"400.*set writer\.structured=none or auto"),
    ):
        ask(server, USER, structured="json_object")
    assert [body["response_format"] for body in server.seen] == [{"type": "json_object"}]


def test_another_refusal_is_no_reason_for_a_weaker_way() -> None:
    with (
        faulty_llm(lambda number, body: fails(400, "context too long")) as server,
        pytest.raises(BackendError, match="context too long"),
    ):
        ask(server, USER)
    assert len(server.seen) == 1
