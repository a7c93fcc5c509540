"""What was paid for is paid for once: the journal of a unit."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.errors import BackendError, DataError, StorageError
from pipeline.stages.replies import ReplyJournal


def prompt(text: str = "hello", seed: int = 7, **more: Any) -> Prompt:
    return Prompt(({"role": "user", "content": text},), "en", seed, **{"step": "converse", "dialogue": "en-0", **more})


class Echo:
    """A writer that counts what it is asked, and pauses before it answers."""

    name, deterministic = "echo", False

    def __init__(self, settings: str = "") -> None:
        self.asked: list[Prompt] = []
        self.settings = settings
        self.error: Exception | None = None

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self.asked += prompts
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return [Reply(f"re: {one.messages[-1]['content']}", "stop", "m", 3, 2, 0.25, endpoint="a") for one in prompts]

    def fingerprint(self, prompt: Prompt) -> str:
        return self.settings

    async def close(self) -> None: ...


def ask(path: Path, writer: Any, *prompts: Prompt, reuse: Path | None = None) -> list[Reply]:
    async def run() -> list[Reply]:
        with ReplyJournal(path, writer, reuse) as journal:
            return list(await asyncio.gather(*[journal.ask(one) for one in prompts]))

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "unit-000000.jsonl"


def test_a_reply_is_paid_for_once(path: Path) -> None:
    first, again = Echo(), Echo()
    [new] = ask(path, first, prompt("你好"))
    [known] = ask(path, again, prompt("你好"))
    assert (new.text, new.known, known.known) == ("re: 你好", False, True)
    assert replace(known, known=False) == new
    assert len(first.asked) == 1 and again.asked == []
    line = json.loads(path.read_text("utf-8"))
    assert (line["step"], line["dialogue"], line["model"], line["endpoint"]) == ("converse", "en-0", "m", "a")
    assert line["cost"] == 0.25 and line["time"] > 1.7e9


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ({"role": "user", "content": "other"},)},
        {"seed": 8},
        {"schema": {"type": "object"}},
        {"max_tokens": 9},
        {"language": "zh"},
    ],
)
def test_what_reaches_the_text_is_asked_anew(path: Path, change: dict[str, Any]) -> None:
    writer = Echo()
    ask(path, writer, prompt())
    ask(path, writer, replace(prompt(), **change))
    assert len(writer.asked) == 2


def test_other_settings_ask_anew_and_another_dialogue_does_not(path: Path) -> None:
    first, hot, same = Echo("temperature 0.4"), Echo("temperature 0.9"), Echo("temperature 0.4")
    ask(path, first, prompt())
    ask(path, hot, prompt())
    ask(path, same, prompt(step="style", dialogue="en-1"))
    assert (len(first.asked), len(hot.asked), len(same.asked)) == (1, 1, 0)


def test_the_same_prompt_side_by_side_is_asked_once(path: Path) -> None:
    writer = Echo()
    found = ask(path, writer, *[prompt()] * 5, prompt("other"))
    assert len(writer.asked) == 2
    assert [reply.known for reply in found] == [False, True, True, True, True, False]


def test_errors_are_not_kept(path: Path) -> None:
    writer = Echo()
    writer.error = BackendError("no", retryable=True)
    with pytest.raises(BackendError):
        ask(path, writer, prompt())
    assert not path.exists()
    writer.error = None
    assert ask(path, writer, prompt())[0].text == "re: hello"


def test_replies_of_an_earlier_run_are_taken(path: Path, tmp_path: Path) -> None:
    earlier, later = Echo(), Echo()
    ask(tmp_path / "earlier.jsonl", earlier, prompt("a"))
    found = ask(path, later, prompt("a"), prompt("b"), reuse=tmp_path / "earlier.jsonl")
    assert [reply.known for reply in found] == [True, False]
    assert len(later.asked) == 1
    assert len(path.read_text("utf-8").splitlines()) == 1
    assert ask(path, Echo(), prompt("b"), reuse=tmp_path / "none.jsonl")[0].known


@pytest.mark.parametrize("torn", [1, 20, -1])
def test_a_torn_line_is_cut_off(path: Path, torn: int) -> None:
    ask(path, Echo(), prompt("a"), prompt("b"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + torn] if torn > 0 else whole[:torn])
    writer = Echo()
    found = ask(path, writer, prompt("a"), prompt("b"), prompt("c"))
    assert [reply.known for reply in found] == [True, False, False]
    assert [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()] == ["re: a", "re: b", "re: c"]


def test_other_damage_is_named(path: Path) -> None:
    ask(path, Echo(), prompt("a"), prompt("b"))
    path.write_bytes(path.read_bytes().replace(b'"key"', b'"kex"', 1))
    with pytest.raises(DataError, match=r"unit-000000\.jsonl: line 1 is no reply"):
        ask(path, Echo(), prompt("a"))


def test_a_full_disk_leaves_no_torn_line(path: Path) -> None:
    ask(path, Echo(), prompt("a"))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))  # room for a part of a line
    try:
        with pytest.raises(StorageError, match=r"unit-000000\.jsonl: no space left"):
            ask(path, Echo(), prompt("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
