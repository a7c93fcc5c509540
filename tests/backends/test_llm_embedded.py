"""The embedded LLM: a real model behind its server."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from pydantic import BaseModel

import prompts
from pipeline import models
from pipeline.backends.llm.base import Prompt, Reply
from pipeline.backends.llm.embedded import EmbeddedServer, request_extras
from pipeline.backends.llm.openai import make_writer
from pipeline.backends.llm.structured import parse_json
from pipeline.config import Config, WriterConfig
from pipeline.dialogue import Role
from pipeline.errors import ModelError


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="speechchat models pull"):
        EmbeddedServer(tmp_path / "none.gguf")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"could not load .*bad\.gguf.*writer\.model_path"):
        EmbeddedServer(bad)


def embedded_prompts() -> list[Prompt]:
    rows = [
        ("en", "What is the capital of Norway?", "Oslo."),
        ("en", "Do you sleep?", "I never get tired."),
        ("zh", "你住在哪里？", "我住在一台电脑里。"),
        ("zh", "你会做梦吗？", "机器人不做梦。"),
    ]
    return [
        Prompt(prompts.load("reply", language).messages([("user", line)], note), language, seed)  # type: ignore[arg-type]
        for seed, (language, line, note) in enumerate(rows)
    ]


def ask(url: str, *asked: Prompt) -> list[Reply]:
    async def run() -> list[Reply]:
        writer = make_writer(Config(writer=WriterConfig(retries=0)), (url, request_extras))
        try:
            return await writer.reply(asked)
        finally:
            await writer.close()

    return asyncio.run(run())


@pytest.mark.embedded
def test_the_embedded_model_repeats_its_replies_in_any_order() -> None:
    asked = embedded_prompts()

    def replies(url: str, order: list[int]) -> dict[int, str]:
        found = ask(url, *[asked[n] for n in order])
        return dict(zip(order, [reply.text for reply in found], strict=True))

    gguf = models.main_file("gemma-3-270m")
    with EmbeddedServer(gguf) as server:
        first = replies(server.base_url, [0, 1, 2, 3])
        again = replies(server.base_url, [3, 1, 0, 2])
    with EmbeddedServer(gguf) as server:
        alone = replies(server.base_url, [2])
    assert first == again
    assert alone[2] == first[2]
    for number, text in first.items():
        ends, letters = (".!?", "abcdefghijklmnopqrstuvwxyz") if number < 2 else ("。！？", None)
        assert text.endswith(tuple(ends))
        assert all(c.lower() in letters if letters else "一" <= c <= "龥" for c in text if c not in " ,'，" + ends)


class Answered(BaseModel):
    """With a number, which the grammar of plain text forbids."""

    number: int
    good: bool


@pytest.mark.embedded
def test_a_schema_takes_the_place_of_the_grammar() -> None:
    schema = {**Answered.model_json_schema(), "additionalProperties": False}
    asked = Prompt(({"role": "user", "content": "Is seven a number?"},), "en", 1, schema=schema, max_tokens=60)
    with EmbeddedServer(models.main_file("gemma-3-270m")) as server:
        [reply] = ask(server.base_url, asked)
    assert reply.finish in ("stop", "length")
    assert reply.text.startswith("{")
    if reply.finish == "stop":
        parse_json(reply.text, Answered)


def rendered(server: EmbeddedServer, asked: Prompt) -> str:
    """The text that the server's chat template makes of the messages."""
    body = {"messages": list(asked.messages), **request_extras(asked.language)}
    request = urllib.request.Request(
        server.base_url.removesuffix("/v1") + "/apply-template",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["prompt"])


@pytest.mark.embedded
def test_the_chat_template_makes_a_text_to_be_continued() -> None:
    history: list[tuple[Role, str]] = [("user", "你好"), ("assistant", "你好呀。"), ("user", "你是谁？")]
    with EmbeddedServer(models.main_file("gemma-3-270m")) as server:
        en, zh = (prompts.load("reply", language) for language in ("en", "zh"))
        noted = rendered(server, Prompt(en.messages([("user", "Hi!")], "Good day"), "en", 0))
        shots = "".join(f"\n\nLine: {shot.note}\nAgain: {shot.assistant}" for shot in en.examples)
        assert noted.endswith(".\n\nLine: Good day.\nAgain:")
        assert shots.replace(".\nAgain", "\nAgain") in noted.replace(".\nAgain", "\nAgain")
        noted = rendered(server, Prompt(zh.messages(history, "我是助手。"), "zh", 0))
        assert noted.endswith(f"换说：{zh.examples[-1].assistant}\n\n原话：我是助手。\n换说：")
        free = rendered(server, Prompt(zh.messages(history, ""), "zh", 0))
        assert free.endswith("\n用户：你好\n助手：你好呀。\n用户：你是谁？\n助手：")
        assert free.startswith(zh.system)


@pytest.mark.embedded
def test_the_server_ends_when_its_parent_is_killed() -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from pipeline.backends.llm.embedded import EmbeddedServer;"
        "server = EmbeddedServer(Path(sys.argv[1])); print(server.pid, flush=True); time.sleep(600)"
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(models.main_file("gemma-3-270m"))],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        assert not select.select([child], [], [], 0)[0]
        parent.kill()
        parent.wait()
        # A process's descriptor becomes readable when the process ends.
        assert select.select([child], [], [], 20)[0]
    finally:
        os.close(child)
        parent.stdout.close()


@pytest.mark.embedded
def test_close_stops_the_server() -> None:
    server = EmbeddedServer(models.main_file("gemma-3-270m"))
    child = os.pidfd_open(server.pid)
    server.close()
    server.close()
    assert select.select([child], [], [], 0)[0]
    os.close(child)
