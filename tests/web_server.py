"""A web server on loopback that honours Range, and does harm where it is told to."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Serves `files`, ranges too. harm: what to do about the n-th request (from 1 on): a status, "cut" (half of the
    body, then the end of the connection), "short" (half of the body, said so), "drop" (no answer); asked: each
    request's method, path, Range and Authorization."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.harm: Callable[[int], int | str | None] = lambda number: None
        self.ranges = True
        self.moved: dict[str, str] = {}
        self.password = ""
        self.asked: list[tuple[str, str, str, str]] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # who reads may hang up
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        authorization = self.headers.get("Authorization", "")
        self.server.asked.append((self.command, self.path, asked, authorization))
        harm = self.server.harm(len(self.server.asked))
        data = self.server.files.get(self.path)
        status, headers = 200, {}
        if harm == "drop":
            self.close_connection = True
            return
        if isinstance(harm, int):
            status, data, headers = harm, b"sorry", {"Retry-After": "0"}
        elif self.path in self.server.moved:
            status, data, headers = 302, b"", {"Location": self.server.moved[self.path]}
        elif self.server.password and authorization != self.server.password:
            status, data = 401, b""
        elif data is None:
            status, data = 404, b""
        elif (found := re.fullmatch(r"bytes=(\d+)-(\d+)", asked)) and self.server.ranges:
            start, end, total = int(found[1]), int(found[2]), len(data)
            data = data[start : end + 1]
            if harm == "short":
                data = data[: len(data) // 2]
            status, headers = 206, {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{total}"}
            if start >= total:
                status, data = 416, b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if harm == "cut" else data)
        self.close_connection = harm == "cut"

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web_server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
