"""A real S3 server on loopback, in a process of its own, behind a proxy that does harm where it is told to."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from pipeline.shards.remote import forget_clients, place

Harm = Literal["500", "503", "409", "403", "slow", "cut", "lost", "unlisted", ""]
"""cut: the connection ends before the server has what is put; lost: it has it, and the answer does not come; unlisted:
a listing knows of nothing."""
SLOW = 0.3  # seconds
BUCKET = "bucket"


@dataclass(frozen=True)
class Request:
    """number: from 1 on. name: of the object in the bucket. query: of the URL."""

    number: int
    method: str
    name: str
    query: str
    body: bytes


class Proxy(ThreadingHTTPServer):
    """harm: what becomes of a request, asked before it is passed on; then `after` is told of it. seen: all requests.
    blind: the server hears of no condition."""

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.reset()

    def reset(self) -> None:
        self.harm: Callable[[Request], Harm] = lambda request: ""
        self.after: Callable[[Request], None] = lambda request: None
        self.blind = False
        self.seen: list[Request] = []
        self.harmed = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know; names of variables that botocore reads."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def handle_error(self, *_: object) -> None:
        """A client that was killed has hung up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        parts, length = urlsplit(self.path), int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        name = parts.path.removeprefix(f"/{BUCKET}/")
        request = Request(len(self.server.seen) + 1, self.command, name, parts.query, body)
        self.server.seen.append(request)
        harm = self.server.harm(request)
        self.server.harmed += bool(harm)
        if harm == "cut":
            self._hang_up()
            return
        if harm.isdigit():
            codes = {
                "500": "InternalError",
                "503": "SlowDown",
                "409": "ConditionalRequestConflict",
                "403": "AccessDenied",
            }
            self._answer(int(harm), {}, f"<Error><Code>{codes[harm]}</Code><Message>no</Message></Error>".encode())
            return
        if harm == "unlisted":
            self._answer(200, {}, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
            return
        if harm == "slow":
            time.sleep(SLOW)
        there = http.client.HTTPConnection("127.0.0.1", self.server.port)
        headers = {name: value for name, value in self.headers.items() if not (self.server.blind and name[:3] == "If-")}
        there.request(self.command, self.path, body, headers)
        answer = there.getresponse()
        data = answer.read()
        there.close()
        self.server.after(request)
        if harm == "lost":
            self._hang_up()
        else:
            self._answer(answer.status, dict(answer.getheaders()), data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def object_store() -> Iterator[Proxy]:
    """The server with an empty bucket; ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "S3_UPLOAD_PART_MIN_SIZE": "1000"}
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    proxy = Proxy(port)
    forget_clients()  # one that knows another endpoint
    try:
        _until_up(port, process)
        there = http.client.HTTPConnection("127.0.0.1", port)
        there.request("PUT", f"/{BUCKET}")
        assert there.getresponse().status == 200
        there.close()
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
    finally:
        proxy.server_close()
        process.terminate()
        process.wait(30)


def _until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.05)


def objects(url: str) -> dict[str, bytes]:
    """Every object of a run but its logs, by relative path, as `tests.fakes.tree` has them of a folder."""
    root: Any = place(url)
    found = {path.relative_to(root).as_posix(): path for path, _ in root.walk_files()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("logs/")}
