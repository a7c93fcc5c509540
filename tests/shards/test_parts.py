"""On a store: what grows, grows part by part, and loses nothing that was paid for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pipeline.shards.parts import PartLog, open_log, read_log
from pipeline.shards.remote import place
from pipeline.stages.replies import ReplyJournal
from tests.object_store import Proxy
from tests.shards.test_remote import first
from tests.stages.test_replies import Echo, prompt


@pytest.fixture
def root(store: Proxy, request: pytest.FixtureRequest) -> Any:
    return place(f"s3://bucket/{request.node.name}")


def test_a_log_grows_part_by_part(root: Any) -> None:
    lines = [f"line {number}\n".encode() for number in range(11)]
    for number, line in enumerate(lines):
        # Every time another process, which has to find the end.
        PartLog(root / "log.jsonl").append(line)
        assert read_log(root / "log.jsonl") == b"".join(lines[: number + 1])
    log = PartLog(root / "log.jsonl")
    assert list(log.read(9)) == lines[9:]
    with open_log(root / "log.jsonl") as file:
        assert [line.encode() for line in file] == lines
    with pytest.raises(FileNotFoundError):
        read_log(root / "none.jsonl")


def test_a_line_whose_answer_is_lost_is_there_once(store: Proxy, root: Any) -> None:
    log = PartLog(root / "log.jsonl")
    log.append(b"a")
    store.harm = first("PUT", "lost")
    log.append(b"b")
    assert store.harmed == 1
    PartLog(root / "log.jsonl").append(b"c")  # somebody else
    log.append(b"d")
    assert list(log.read()) == [b"a", b"b", b"c", b"d"]


def test_a_reply_that_was_paid_for_is_kept_once_whoever_is_called_off(store: Proxy, root: Any) -> None:
    path = root / "replies.jsonl"

    async def call_off() -> None:
        with ReplyJournal(path, Echo()) as journal:
            store.harm = lambda request: "slow" if request.method == "PUT" else ""
            asks = [asyncio.create_task(journal.ask(prompt(text))) for text in "abc"]
            while not any(request.method == "PUT" for request in store.seen):
                await asyncio.sleep(0.01)
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)

    asyncio.run(call_off())
    lines = [json.loads(line)["text"] for line in read_log(path).splitlines()]
    assert sorted(lines) == ["re: a", "re: b", "re: c"]
