"""A server on loopback with OpenAI's /audio/speech that speaks with a real model (hibari) and can be told to fail."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np
import soundfile as sf

from pipeline.backends.tts.http import Http
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip
from pipeline.voice import Recipe, SpeechRequest, Unsaid, Voice

RATE = 24000
_lock = threading.Lock()


@cache
def _hibari() -> Any:
    from hibari import Hibari

    return Hibari()


@cache
def speak(text: str, speed: float = 1.0) -> np.ndarray:
    """What the model says, as int16 at 24 kHz; the same text sounds the same each time."""
    with _lock:
        audio = _hibari()(text, speed, seed=1)
    return np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16)


def encode(pcm: np.ndarray, kind: str, rate: int = RATE) -> tuple[bytes, str]:
    """int16 as the bytes of a response_format and their content type. endless-: the length is not in the header."""
    endless, kind = kind.startswith("endless-"), kind.removeprefix("endless-")
    if kind == "pcm":
        return pcm.astype("<i2").tobytes(), f"audio/pcm;rate={rate}"
    if kind == "json":
        sound = base64.b64encode(encode(pcm, "wav", rate)[0]).decode()
        return json.dumps({"result": {"format": "wav", "audio": sound}}).encode(), "application/json"
    formats = {"opus": ("OGG", "OPUS"), "wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", None)}
    file = io.BytesIO()
    name, subtype = formats[kind]
    sf.write(file, pcm, rate, format=name, subtype=subtype)
    data = bytearray(file.getvalue())
    if endless and kind == "wav":
        data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    if endless and kind == "flac":  # the 36 bits of STREAMINFO for the number of samples, 0 for unknown
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    return bytes(data), {"opus": "audio/ogg", "mp3": "audio/mpeg"}.get(kind, f"audio/{kind}")


@dataclass(frozen=True)
class Answer:
    """What a request gets. cut: half of it; reset, hang: nothing, now or after a long time; die: the server ends."""

    status: int = 200
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Literal["send", "chunks", "cut", "reset", "hang", "die"] = "send"


Script = Callable[[int, dict[str, Any]], Answer]
"""Number of the request (from 1) and its fields → its answer."""


def says(fields: Mapping[str, Any], kind: str = "", act: Literal["send", "chunks", "cut"] = "send") -> Answer:
    """What was asked for, spoken."""
    pcm = speak(fields["input"], float(fields.get("speed", 1)))
    data, content_type = encode(pcm, kind or fields.get("response_format", "wav"))
    return Answer(200, data, {"Content-Type": content_type}, act)


def fails(status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Answer:
    data = json.dumps({"error": {"message": message}}).encode()
    return Answer(status, data, {"Content-Type": "application/json", **(headers or {})})


class SpeechServer(ThreadingHTTPServer):
    """seen, keys, paths: of the requests so far; an uploaded file among the fields is bytes.

    most_parallel: requests that were answered at the same time. release: set it to end all that hangs.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.script: Script = script or (lambda number, fields: says(fields))
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.paths: list[str] = []
        self.parallel = self.most_parallel = 0
        self.release = threading.Event()
        self.dead = threading.Event()
        self.lock = threading.Lock()

    def die(self) -> None:
        """No connection is taken any more, and those that stand are reset when something comes over them."""
        self.dead.set()
        self.socket.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away
            super().handle_error(request, client_address)

    def answer(self, fields: dict[str, Any], key: str, path: str) -> Answer:
        with self.lock:
            self.seen.append(fields)
            self.keys.append(key)
            self.paths.append(path)
            number = len(self.seen)
            self.parallel += 1
            self.most_parallel = max(self.most_parallel, self.parallel)
        try:
            return self.script(number, fields)
        finally:
            with self.lock:
                self.parallel -= 1


class _Handler(BaseHTTPRequestHandler):
    server: SpeechServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.dead.is_set():
            return self._reset()
        fields = _fields(self.headers["Content-Type"], data)
        answer = self.server.answer(fields, self.headers["Authorization"], self.path)
        if answer.act == "hang":
            self.server.release.wait(30)
        if answer.act == "die":
            self.server.die()
        if answer.act in ("reset", "hang", "die"):
            return self._reset()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.act == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        try:
            if answer.act == "chunks":
                for place in range(0, len(answer.data), 4096):
                    part = answer.data[place : place + 4096]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(answer.data[: len(answer.data) // 2] if answer.act == "cut" else answer.data)
        except OSError:
            self.close_connection = True
        if answer.act == "cut":
            self.close_connection = True

    def _reset(self) -> None:
        # Closed without a lingering time, a socket sends RST.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def _fields(content_type: str, data: bytes) -> dict[str, Any]:
    """Of a JSON body or a form; an uploaded file is bytes."""
    if not content_type.startswith("multipart/"):
        return dict(json.loads(data))
    form = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data)
    fields: dict[str, Any] = {}
    for part in form.get_payload():
        assert not isinstance(part, str)
        name = str(part.get_param("name", header="content-disposition"))
        value = part.get_payload(decode=True)
        assert isinstance(value, bytes)
        fields[name] = value if part.get_filename() else value.decode()
    return fields


@contextmanager
def speech_server(script: Script | None = None, port: int = 0) -> Iterator[SpeechServer]:
    server = SpeechServer(script, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()


def pcm(result: Clip | Unsaid) -> np.ndarray:
    """A clip as int16."""
    assert isinstance(result, Clip), result
    assert (result.rate, result.audio.dtype, result.audio.ndim) == (RATE, np.float32, 1)
    return np.rint(result.audio * 32768).astype(np.int16)


# The engine that asks it, and what it is asked.


def section(url: str, **changes: Any) -> TtsEngineConfig:
    fields = {"kind": "http", "base_url": url, "model": "hibari", "license": "Apache-2.0", "retries": 2, "timeout": 20}
    return TtsEngineConfig.model_validate(fields | changes)


@contextmanager
def served(script: Script | None = None, **changes: Any) -> Iterator[tuple[SpeechServer, Http]]:
    """A server, and an engine over it that does not wait long before it tries again."""
    with speech_server(script) as server, closing(Http(section(server.url, **changes), backoff=0.01)) as engine:
        yield server, engine


def voice(name: str = "heart", **recipe: Any) -> Voice:
    made = Recipe.model_validate(recipe or {"name": name})
    return Voice(id=name, gender="female", languages=("en",), engine="served", license="CC0-1.0", recipe=made)


def ask(text: str, speaker: Voice | None = None, speed: float = 1.0, seed: int = 7) -> SpeechRequest:
    return SpeechRequest(text, "en", speaker or voice(), 0, speed, seed)
