"""The writer against an HTTP server on loopback that misbehaves on purpose, and against the real model."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import prompts
from pipeline import models
from pipeline.backends.llm.base import Prompt
from pipeline.backends.llm.embedded import EmbeddedServer, request_extras
from pipeline.backends.llm.openai import OpenAIWriter
from pipeline.config import WriterConfig
from pipeline.dialogue import Role
from pipeline.errors import BackendError, ConfigError, EndpointError, ModelError

KEY = "sk-very-secret-0123456789"


def completion(text: str | None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


class Endpoint:
    """A server whose every answer is `script(number of the request, its body) -> (status, headers, body)`."""

    def __init__(self) -> None:
        self.script: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]
        self.script = lambda number, body: (200, {}, completion("Hello there."))
        self.models: list[str] | None = []
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.parallel = self.most_parallel = 0
        self.release = threading.Event()
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if endpoint.models is None:
                    return self._answer(404, {}, {"error": {"message": "nothing here"}})
                self._answer(200, {}, {"object": "list", "data": [{"id": name} for name in endpoint.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    endpoint.seen.append(body)
                    endpoint.keys.append(self.headers["Authorization"])
                    number = len(endpoint.seen)
                    endpoint.parallel += 1
                    endpoint.most_parallel = max(endpoint.most_parallel, endpoint.parallel)
                try:
                    answer = endpoint.script(number, body)
                finally:
                    with endpoint._lock:
                        endpoint.parallel -= 1
                self._answer(*answer)

            def _answer(self, status: int, headers: dict[str, str], body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint = Endpoint()
    yield endpoint
    endpoint.release.set()
    endpoint.server.shutdown()
    endpoint.server.server_close()


def prompt(text: str = "hello", seed: int = 7) -> Prompt:
    return Prompt(({"role": "user", "content": text},), "en", seed)


def ask(url: str, *asked: Prompt, extras: Any = None, **config: Any) -> list[str]:
    async def run() -> list[str]:
        writer = OpenAIWriter(WriterConfig(**{"retries": 0, **config}), url, extras, False)
        try:
            return await writer.reply(asked or [prompt()])
        finally:
            await writer.close()

    return asyncio.run(run())


def fail(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Any:
    return lambda number, body: (status, headers or {}, {"error": {"message": message}})


def test_replies_come_in_order_with_a_seed_each(endpoint: Endpoint) -> None:
    endpoint.script = lambda number, body: (200, {}, completion(f" to {body['messages'][-1]['content']} \n"))
    asked = [prompt(f"line {n}", seed=n) for n in range(12)]
    assert ask(endpoint.url, *asked, concurrency=4) == [f"to line {n}" for n in range(12)]
    assert {body["messages"][-1]["content"]: body["seed"] for body in endpoint.seen} == {
        f"line {n}": n for n in range(12)
    }


def test_request_carries_configuration_extras_and_key(endpoint: Endpoint) -> None:
    ask(
        endpoint.url,
        extras=lambda language: {"grammar": language, "top_k": 1},
        model="m",
        temperature=0.3,
        max_tokens=9,
        extra_body={"top_k": 5},
    )
    body = endpoint.seen[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.3, 9)
    assert (body["grammar"], body["top_k"]) == ("en", 5)
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_a_key_is_not_needed(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(endpoint.url) == ["Hello there."]


def test_no_more_requests_at_once_than_configured(endpoint: Endpoint) -> None:
    both = threading.Barrier(2, timeout=20)

    def script(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        both.wait()
        return 200, {}, completion("yes")

    endpoint.script = script
    assert ask(endpoint.url, *[prompt() for _ in range(6)], concurrency=2) == ["yes"] * 6
    assert endpoint.most_parallel == 2


@pytest.mark.parametrize(
    ("first", "headers"), [(500, {}), (503, {}), (429, {"Retry-After": "0"}), (429, {"retry-after-ms": "1"})]
)
def test_a_passing_fault_is_tried_again(endpoint: Endpoint, first: int, headers: dict[str, str]) -> None:
    def script(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        return (first, headers, {"error": {"message": "busy"}}) if number == 1 else (200, {}, completion("Done."))

    endpoint.script = script
    assert ask(endpoint.url, retries=1) == ["Done."]
    assert len(endpoint.seen) == 2


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (422, False), (429, True), (500, True), (503, True)])
def test_a_lasting_fault_is_a_backend_error(endpoint: Endpoint, status: int, retryable: bool) -> None:
    endpoint.script = fail(status, f"context too long for {KEY}")
    with pytest.raises(BackendError, match=f"{status}.*context too long") as caught:
        ask(endpoint.url)
    assert caught.value.retryable is retryable
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_and_stays_secret(endpoint: Endpoint, status: int) -> None:
    endpoint.script = fail(status, f"Incorrect API key provided: {KEY}")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
        ask(endpoint.url, retries=3)
    assert KEY not in str(caught.value) + repr(caught.value)
    assert len(endpoint.seen) == 1


def test_a_wrong_model_name_lists_what_there_is(endpoint: Endpoint) -> None:
    endpoint.script = fail(404, "model not found")
    endpoint.models = ["zeta-70b", "qwen3-8b-instruct", "qwen3-8b"]
    with pytest.raises(EndpointError, match=r"writer\.model='qwen3-8'.*offers: qwen3-8b, qwen3-8b-instruct"):
        ask(endpoint.url, model="qwen3-8")


def test_a_wrong_path_names_the_address(endpoint: Endpoint) -> None:
    endpoint.script = fail(404)
    endpoint.models = None
    with pytest.raises(EndpointError, match=r"writer\.base_url=.*/v1"):
        ask(endpoint.url)


def test_a_server_that_hangs(endpoint: Endpoint) -> None:
    def script(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        endpoint.release.wait(30)
        return 200, {}, completion("too late")

    endpoint.script = script
    with pytest.raises(EndpointError, match=r"does not answer \(no reply in 0\.2 s\).*writer\.base_url"):
        ask(endpoint.url, timeout=0.2, retries=1)
    assert len(endpoint.seen) == 2


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=r"does not answer \(.+\): start it, or set writer\.base_url"):
            ask(url)


def test_one_failure_cancels_its_siblings(endpoint: Endpoint) -> None:
    endpoint.script = lambda number, body: (400, {}, {"error": {"message": "bad"}})
    with pytest.raises(BackendError):
        ask(endpoint.url, *[prompt() for _ in range(50)], concurrency=1)
    assert len(endpoint.seen) < 50


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_an_empty_reply_is_a_reply(endpoint: Endpoint, content: str | None) -> None:
    endpoint.script = lambda number, body: (200, {}, completion(content))
    assert ask(endpoint.url) == [""]


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_what_is_no_completion(endpoint: Endpoint, kind: str) -> None:
    endpoint.script = lambda number, body: (200, {"Content-Type": kind}, b"<html>welcome</html>")
    with pytest.raises(EndpointError, match=r"no chat completion.*/v1"):
        ask(endpoint.url)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://[x", "/v1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"writer\.base_url"):
        OpenAIWriter(WriterConfig(), url, None, False)


def test_a_password_in_the_address_is_not_shown(endpoint: Endpoint) -> None:
    endpoint.script = fail(400)
    with pytest.raises(BackendError) as caught:
        ask(endpoint.url.replace("http://", "http://me:hidden@"))
    assert "hidden" not in str(caught.value)
    assert endpoint.url in str(caught.value)


def test_a_writer_serves_one_event_loop_after_another(endpoint: Endpoint) -> None:
    writer = OpenAIWriter(WriterConfig(retries=0), endpoint.url, None, False)
    for _ in range(2):
        assert asyncio.run(writer.reply([prompt(), prompt()])) == ["Hello there."] * 2
    asyncio.run(writer.close())


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert ask(endpoint.url) == ["Hello there."]


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


@pytest.mark.embedded
def test_the_embedded_model_repeats_its_replies_in_any_order() -> None:
    asked = embedded_prompts()

    async def replies(url: str, order: list[int]) -> dict[int, str]:
        writer = OpenAIWriter(WriterConfig(retries=0), url, request_extras, True)
        try:
            found = await writer.reply([asked[n] for n in order])
        finally:
            await writer.close()
        return dict(zip(order, found, strict=True))

    gguf = models.main_file("gemma-3-270m")
    with EmbeddedServer(gguf) as server:
        first = asyncio.run(replies(server.base_url, [0, 1, 2, 3]))
        again = asyncio.run(replies(server.base_url, [3, 1, 0, 2]))
    with EmbeddedServer(gguf) as server:
        alone = asyncio.run(replies(server.base_url, [2]))
    assert first == again
    assert alone[2] == first[2]
    for number, text in first.items():
        ends, letters = (".!?", "abcdefghijklmnopqrstuvwxyz") if number < 2 else ("。！？", None)
        assert text.endswith(tuple(ends))
        assert all(c.lower() in letters if letters else "一" <= c <= "龥" for c in text if c not in " ,'，" + ends)


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
