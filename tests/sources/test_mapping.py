"""From rows of other people's data sets to lines, by kind of source."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.sources.mapping import BrokenRow, FieldMap, MappedRow


def mapping(kind: str, **source: Any) -> FieldMap:
    return FieldMap("web", SourceConfig(kind=kind, data="x", license="MIT", **source))


def row(kind: str, record: Any, **source: Any) -> MappedRow:
    return mapping(kind, **source)(record)


def talk(*turns: str) -> list[dict[str, str]]:
    """`u:text` and so on as messages."""
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool", "x": "narrator"}
    return [{"role": names[turn[0]], "content": turn[2:]} for turn in turns]


@pytest.mark.parametrize(
    ("kind", "record", "lines"),
    [
        (
            "instructions",
            {"instruction": "Sort these.", "input": "b, a", "output": "a, b"},
            ("Sort these.\nb, a", "a, b"),
        ),
        ("instructions", {"instruction": " Say hello. ", "input": "", "output": None}, ("Say hello.",)),
        (
            "instructions",
            {"instruction": "Sort these.", "input": float("nan"), "output": "a, b"},
            ("Sort these.", "a, b"),
        ),
        ("instructions", {"instruction": "Add one.", "context": "to 1", "response": 2}, ("Add one.\nto 1", "2")),
        ("questions", {"question": "Why?"}, ("Why?",)),
        ("questions", {"prompt": "Why?", "answer": "So."}, ("Why?",)),
        ("questions", {"text": "Why?"}, ("Why?",)),
        ("conversations", {"messages": talk("u:Hi", "a:Hello")}, ("Hi", "Hello")),
        (
            "conversations",
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            ("Hi", "Hello"),
        ),
        ("conversations", {"dialog": ["Hi", "Hello", "Bye"]}, ("Hi", "Hello")),
        ("conversations", {"messages": '[{"role": "user", "content": "Hi"}]'}, ("Hi",)),
        ("dialogues", {"turns": ["Hi", "Hello"]}, ("Hi", "Hello")),
    ],
)
def test_the_common_shapes_need_no_mapping(kind: str, record: dict[str, Any], lines: tuple[str, ...]) -> None:
    assert row(kind, record).lines == lines and row(kind, record).unfit == ""


def test_fields_are_dotted_paths() -> None:
    record = {"data": {"q": "Why?", "a.b": "So."}, "answers": [{"text": "Because."}], "meta": {"lang": "zh-CN", "n": 7}}
    fields = {"instruction": "data.q", "output": "answers.0.text", "id": "meta.n", "language": "meta.lang"}
    mapped = row("instructions", record, fields=fields)
    assert (mapped.lines, mapped.id, mapped.language) == (("Why?", "Because."), "7", "zh")
    assert row("instructions", record, fields={"instruction": "data.a.b"}).lines == ("So.",)
    assert row("instructions", {"a.b": "whole"}, fields={"instruction": "a.b"}).lines == ("whole",)


def test_message_fields_can_be_mapped() -> None:
    record = {"thread": [{"who": "Human", "said": "Hi"}, {"who": "bot", "said": "Hello"}]}
    fields = {"messages": "thread", "role": "who", "content": "said"}
    assert row("conversations", record, fields=fields).lines == ("Hi", "Hello")


@pytest.mark.parametrize(
    ("turns", "max_turns", "lines", "system"),
    [
        (("a:Welcome", "u:Hi", "a:Hello"), 4, ("Hi", "Hello"), ""),
        (("s:Be kind.", "u:Hi", "a:Hello", "u:Bye"), 4, ("Hi", "Hello"), "Be kind."),
        (("s:Be kind.", "s:Be short.", "a:Yes", "u:Hi", "a:Hello"), 4, ("Hi", "Hello"), "Be kind.\nBe short."),
        (("u:one", "a:two", "u:three", "a:four", "u:five", "a:six"), 4, ("one", "two", "three", "four"), ""),
        (("u:one", "a:two", "u:three", "a:four"), 3, ("one", "two"), ""),
        (("u:one", "a:two", "u:three", "u:four"), 2, ("one", "two"), ""),  # what is cut away cannot be wrong
        (("u:Hi",), 4, ("Hi",), ""),
    ],
)
def test_conversations_are_cut_to_whole_pairs(
    turns: tuple[str, ...], max_turns: int, lines: tuple[str, ...], system: str
) -> None:
    mapped = row("conversations", {"messages": talk(*turns)}, max_turns=max_turns)
    assert (mapped.lines, mapped.system, mapped.unfit) == (lines, system, "")


def parts(*kinds: str) -> list[dict[str, Any]]:
    return [{"type": kind, kind: "What is this?"} for kind in kinds]


@pytest.mark.parametrize(
    ("kind", "record", "unfit"),
    [
        ("conversations", {"messages": talk("u:Hi", "u:Still there?", "a:Yes")}, "turn order"),
        ("conversations", {"messages": talk("u:Hi", "s:Now be rude.", "a:No")}, "turn order"),
        ("conversations", {"messages": talk("u:Weather?", "t:sunny", "a:Sunny.")}, "tool use"),
        (
            "conversations",
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": None, "tool_calls": [1]},
                ]
            },
            "tool use",
        ),
        ("conversations", {"messages": [{"role": "user", "content": parts("text", "image_url")}]}, "attachment"),
        ("conversations", {"messages": [{"role": "user", "content": parts("text", "text")}]}, ""),
        ("conversations", {"messages": talk("u:What is it?", "a:A cat."), "images": ["cat.png"]}, "attachment"),
        ("conversations", {"messages": talk("u:What is it?", "a:A cat."), "images": []}, ""),
        ("questions", {"question": "What is it?", "image": {"bytes": b"x"}}, "attachment"),
        ("questions", {"question": " "}, "empty"),
        ("instructions", {"instruction": "", "output": "Yes, I like it a lot."}, "empty"),
        ("instructions", {"instruction": " ", "input": float("nan"), "output": "Yes, I like it a lot."}, "empty"),
        ("instructions", {"instruction": "Ça va ?", "output": ""}, ""),
        ("instructions", {"instruction": "Как дела?", "output": "I'm fine."}, "language"),
        ("conversations", {"messages": talk("u: ", "a:Hello there.")}, "empty"),
    ],
)
def test_what_no_rule_needs_to_see(kind: str, record: dict[str, Any], unfit: str) -> None:
    assert row(kind, record).unfit == unfit


@pytest.mark.parametrize(
    ("kind", "record", "why"),
    [
        ("instructions", ["a", "b"], "a row is a map of fields to values, this is a list"),
        ("instructions", {"task": "x", "reply": "y"}, "no field 'instruction'; it has: task, reply"),
        ("instructions", {"instruction": None}, "'instruction' is null, not text"),
        ("instructions", {"instruction": ["a"]}, "'instruction' is a list, not text"),
        ("instructions", {"instruction": True}, "'instruction' is true or false, not text"),
        ("instructions", {"instruction": "a", "output": {"b": 1}}, "'output' is a map, not text"),
        ("questions", {"question": "caf\udce9"}, "'question' is not valid Unicode"),
        ("conversations", {"messages": "Hi"}, "'messages' is text, not a list of turns"),
        ("conversations", {"messages": []}, "'messages' is a list, not a list of turns"),
        ("conversations", {"messages": "[{"}, "'messages' is no JSON list"),
        ("conversations", {"messages": [7]}, "turn 1 is a int, not a message"),
        ("conversations", {"messages": talk("u:Hi", "x:He waves.")}, "turn 2: unknown role 'narrator'"),
        (
            "conversations",
            {"messages": [{"speaker": "user", "content": "Hi"}]},
            "no field 'role'; it has: speaker, content",
        ),
    ],
)
def test_a_broken_row_says_why(kind: str, record: Any, why: str) -> None:
    with pytest.raises(BrokenRow) as caught:
        row(kind, record)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How are you?", "en"),
        ("你好吗？", "zh"),
        ("请用 Python 写一个排序函数", "zh"),
        ("How do you say 你好 in Chinese?", "en"),
        ("Как дела?", None),
        ("12345", None),
    ],
)
def test_the_script_tells_the_language(text: str, language: str | None) -> None:
    mapped = row("questions", {"question": text})
    assert (mapped.language, mapped.unfit) == (language, "" if language else "language")
    assert row("questions", {"question": text}, language="zh").language == "zh"


def test_the_language_of_an_answer_is_not_that_of_the_dialogue() -> None:
    record = {"instruction": "“你好”用英语怎么说？", "output": "You say hello, or hi, or how do you do."}
    assert row("instructions", record).language == "zh"


@pytest.mark.parametrize(
    ("told", "language"),
    [("en", "en"), ("English", "en"), ("en-GB", "en"), ("ZH_cn", "zh"), ("Chinese", "zh"), ("fr", None), ("ent", None)],
)
def test_a_field_tells_the_language(told: str, language: str | None) -> None:
    assert row("questions", {"question": "你好", "lang": told}, fields={"language": "lang"}).language == language


def test_a_name_that_the_kind_does_not_have() -> None:
    with pytest.raises(
        ConfigError, match=r"^sources\.web\.fields\.anser: questions have no such field; they have: question"
    ):
        mapping("questions", fields={"anser": "a"})
    with pytest.raises(ConfigError, match=r"fields\.instructions: .*did you mean 'instruction'\?"):
        mapping("instructions", fields={"instructions": "a"})
