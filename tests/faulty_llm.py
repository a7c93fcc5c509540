"""An OpenAI-compatible server on loopback that misbehaves on purpose and keeps the bill of what it wrote."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

PRICE = (1.0, 2.0)
"""Dollars a million tokens, of prompt and of reply."""
PROMPT_TOKENS, REPLY_TOKENS = 40, 10


@dataclass(frozen=True)
class Answer:
    """What a request gets. reset, hang: the completion is written and billed, and never arrives."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Literal["send", "reset", "hang"] = "send"

    @property
    def billed(self) -> bool:
        return self.status == 200


Script = Callable[[int, dict[str, Any]], Answer]
"""Number of the request (from 1) and its body → its answer."""


def completion(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": REPLY_TOKENS}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def says(text: str | None, finish: str = "stop", **message: Any) -> Answer:
    return Answer(body=completion(text, finish, **message))


def fails(status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {"error": {"message": message}}, headers or {})


CUT = Answer(body=b'{"id": "1", "object": "chat.completion", "choices": [{"index": 0, "mess')
RESET, HANG = Answer(act="reset"), Answer(act="hang")
PASSING: dict[str, Answer] = {
    "429 seconds": fails(429, "slow down", {"Retry-After": "0.01"}),
    "429 date": fails(429, "slow down", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "500": fails(500, "oops"),
    "503": fails(503, "busy"),
    "reset": RESET,
    "hang": HANG,
    "cut": CUT,
}
"""Faults that another try may not meet; the last three were billed."""


def mixture(seed: int, shares: Mapping[str, float]) -> Script:
    """Faults by their share of the requests ("wrong schema", "empty", "refusal", or a name of PASSING), else a reply
    that no other request gets. Drawn from the prompt and the count of its tries, so in any order the same."""
    tries: Counter[str] = Counter()
    names, weights = [*shares, "reply"], [*shares.values(), 1 - sum(shares.values())]

    def script(number: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps([body["messages"], body["seed"]])
        tries[prompt] += 1
        [name] = random.Random(f"{seed} {prompt} {tries[prompt]}").choices(names, weights)
        special = {
            "wrong schema": says(f'{{"unasked": {number}}}'),
            "empty": Answer(body={**completion(""), "choices": []}),
            "refusal": says(None, "stop", refusal=f"I would rather not, {number}."),
        }
        return PASSING.get(name) or special.get(name) or says(json.dumps({"line": f"reply {number}"}))

    return script


class FaultyLLM(ThreadingHTTPServer):
    """seen, keys: bodies and Authorization of the completions asked for. billed: the answers that cost money.

    models: what it says to offer, None for no list. release: set it to end all that hangs.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Script = script or (lambda number, body: says("Hello there."))
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.models: list[str] | None = []
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.billed: list[Answer] = []
        self.parallel = self.most_parallel = 0
        self.release = threading.Event()
        self.lock = threading.Lock()

    @property
    def bill(self) -> float:
        """Dollars."""
        return len(self.billed) * (PROMPT_TOKENS * PRICE[0] + REPLY_TOKENS * PRICE[1]) / 1e6

    def answer(self, body: dict[str, Any], key: str) -> Answer:
        with self.lock:
            self.seen.append(body)
            self.keys.append(key)
            number = len(self.seen)
            self.parallel += 1
            self.most_parallel = max(self.most_parallel, self.parallel)
        try:
            answer = self.script(number, body)
        finally:
            with self.lock:
                self.parallel -= 1
        if answer.billed:
            with self.lock:
                self.billed.append(answer)
        return answer


class _Handler(BaseHTTPRequestHandler):
    server: FaultyLLM
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet

    def do_GET(self) -> None:
        models = self.server.models
        listed = {"object": "list", "data": [{"id": name} for name in models or ()]}
        self._send(fails(404, "nothing here") if models is None else Answer(body=listed))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answer(body, self.headers["Authorization"])
        if answer.act == "hang":
            self.server.release.wait(30)
        if answer.act == "send":
            return self._send(answer)
        # Closed without a lingering time, a socket sends RST.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        try:
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def faulty_llm(script: Script | None = None) -> Iterator[FaultyLLM]:
    server = FaultyLLM(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
