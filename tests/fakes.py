"""Backends and an LLM endpoint for tests of the engines: fast, deterministic, and faulty where a line says so.

Named in a configuration as `tests.fakes:build_tts`, so that worker processes find them too. Words in the text decide:
"stumble" is misheard at the first take, "hopeless" at every take, "backend" cannot be spoken, "bug" raises what no
backend may raise, "segfault" kills the process that speaks it, "hang" holds it for an hour.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config, RecognizerConfig, TtsEngineConfig, load_config
from pipeline.dialogue import Clip, Language, ModelUse, Transcript
from pipeline.errors import BackendError
from pipeline.voice import SpeechRequest, Unsaid
from tests.synthetic import ToneSynthesizer

SLOWNESS = 0.1  # seconds a clip, so that a kill finds a run in the middle


class FaultySynthesizer(ToneSynthesizer):
    def __init__(self, slowness: float = 0.0):
        super().__init__()
        self._slowness = slowness

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        for request in requests:
            time.sleep(self._slowness)
            if "backend" in request.text:
                raise BackendError(f"cannot say {request.text!r}")
            if "bug" in request.text:
                raise ValueError("a bug in the engine")
            if "segfault" in request.text:
                # As a fault does it, in the thread that speaks: else that goes on while another one takes the signal.
                signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
            if "hang" in request.text:
                time.sleep(3600)
        return super().synthesize(requests)


class FaultyRecognizer:
    """Hears what the synthesizer of this process was last asked to say."""

    name = "script"
    rate = 16000
    deterministic = True
    careful = True

    def __init__(self) -> None:
        self._heard: dict[bytes, Transcript] = {}

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: object = None
    ) -> list[Transcript]:
        """A clip that is heard again is heard the same."""
        assert _synthesizer is not None
        if not careful:
            said = _synthesizer.said()[-len(clips) :]  # before them: what a dialogue with a bug left behind
            self._heard = {clip.audio.tobytes(): self._hear(request) for clip, request in zip(clips, said, strict=True)}
        return [self._heard[clip.audio.tobytes()] for clip in clips]

    @staticmethod
    def _hear(request: SpeechRequest) -> Transcript:
        wrong = "hopeless" in request.text or ("stumble" in request.text and request.take == 0)
        return Transcript("something else entirely" if wrong else request.text, -0.1, 0.0, 1.0)


class DeafRecognizer:
    """Hears the same of every clip, whoever asks: for studios with several units at work, where nobody knows whose turn
    it is."""

    name = "deaf"
    rate = 16000
    deterministic = True
    careful = True

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: object = None
    ) -> list[Transcript]:
        return [Transcript("something", -0.1, 0.0, 1.0) for _ in clips]


_synthesizer: ToneSynthesizer | None = None
batches: list[list[str]] = []
"""What the batching synthesizer of this process was asked for."""


def build_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    global _synthesizer
    _synthesizer = FaultySynthesizer()
    return _synthesizer


def build_slow_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    global _synthesizer
    _synthesizer = FaultySynthesizer(SLOWNESS)
    return _synthesizer


class BatchingSynthesizer(FaultySynthesizer):
    """Likes twelve requests at once, and takes its time, so that other units come to wait."""

    batch = 12

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        batches.append([request.text for request in requests])
        return super().synthesize(requests)


def build_batching_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    return BatchingSynthesizer(0.02)


class PatientSynthesizer(FaultySynthesizer):
    """Says nothing to the first who asks before a folder holds so many of some files. Serves several units at once."""

    batch = 0

    def __init__(self, folder: str, files: str, count: int, slowness: float = 0.0):
        super().__init__(slowness)
        self._wanted = lambda: len(list(Path(folder).glob(files))) >= count
        self._first = threading.Lock()

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        deadline, first = time.monotonic() + 100, self._first.acquire(blocking=False)
        while first and not self._wanted():
            if time.monotonic() > deadline:
                raise ValueError("waited in vain")
            time.sleep(0.02)
        return super().synthesize(requests)


class LonelySynthesizer(FaultySynthesizer):
    """Cannot bear to be asked by two at once; takes its time, so that they meet."""

    batch = 0

    def __init__(self) -> None:
        super().__init__()
        self._free = threading.Lock()

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        if not self._free.acquire(blocking=False):
            raise ValueError("not alone")
        try:
            time.sleep(0.3)
            return super().synthesize(requests)
        finally:
            self._free.release()


def build_patient_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    return PatientSynthesizer(**section.options)


def build_lonely_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    return LonelySynthesizer()


def build_telling_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    """Writes down the key that this process was given."""
    Path(section.options["told"]).write_text(os.environ.get("OPENAI_API_KEY", "none"))
    return build_tts(section)


def build_deaf_asr(section: RecognizerConfig) -> DeafRecognizer:
    return DeafRecognizer()


def build_dying_tts(section: TtsEngineConfig) -> ToneSynthesizer:
    """Kills the worker as it opens."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def build_asr(section: RecognizerConfig) -> FaultyRecognizer:
    return FaultyRecognizer()


def models(section: RecognizerConfig | TtsEngineConfig) -> tuple[ModelUse, ...]:
    return (ModelUse(role="speech", name="fakes", sha256="", license="CC0-1.0"),)


@contextmanager
def llm_server(key: str | None = None, model: str = "fake") -> Iterator[FakeLLM]:
    """An OpenAI-compatible endpoint on loopback."""
    server = FakeLLM(key, model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class FakeLLM(ThreadingHTTPServer):
    """requests: bodies of the completions asked for. delay: seconds that each reply takes."""

    daemon_threads = True

    def __init__(self, key: str | None, model: str, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.key = key
        self.model = model
        self.requests: list[dict[str, Any]] = []
        self.delay = 0.0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeLLM

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self._send(401, {"error": {"message": "bad key"}})
        elif body["model"] != self.server.model:
            self._send(404, {"error": {"message": "no such model"}})
        else:
            self.server.requests.append(body)
            time.sleep(self.server.delay)
            han = any("一" <= letter <= "鿿" for letter in body["messages"][-1]["content"])
            reply = "好的，我明白你的意思了。" if han else "Very well, I understand what you mean."
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
            self._send(
                200, {"id": "1", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice]}
            )

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


EN_LINES = ["Shall we take a walk?", "What do you like to read?", "Did you sleep well?", "Where is the old bridge?"]
ZH_LINES = ["我们去散步好吗？", "你喜欢读什么书？", "昨天睡得好吗？", "那座老桥在哪里？"]


def write_corpus(root: Path, english: Sequence[str] = EN_LINES, chinese: Sequence[str] = ZH_LINES) -> Path:
    """A corpus of two-line dialogues in the layout of chatterbot-corpus."""
    replies = {"english": "Yes, that is a good idea, my friend.", "chinese": "是的，这是个好主意。"}
    for folder, lines in (("english", english), ("chinese", chinese)):
        path = root / folder / "talk.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [[line, replies[folder]] for line in lines]
        path.write_text(yaml.safe_dump({"conversations": rows}, allow_unicode=True), "utf-8")
    return root


def config_file(path: Path, base_url: str, corpus: Path, **changes: Any) -> Path:
    """A configuration on fakes, as a file, so that subprocesses can use it. changes: dotted keys with __ for a dot."""
    data: dict[str, Any] = {
        "dialogues": 8,
        "unit_size": 2,
        "sources": {"corpus": {"kind": "chatterbot", "data": str(corpus)}},
        "text": {"grounding": 0},
        "writer": {"base_url": base_url, "model": "fake", "attempts": 1, "retries": 1, "timeout": 5},
        "tts": {"engines": {"kokoro": {"kind": "tests.fakes:build_tts"}}},
        "asr": {"engine": "tests.fakes:build_asr"},
        "quality": {"engine": "none"},
        "repair": {"ladder": ["again"]},
        # One language and one writer: each Ray worker pays for its imports and tables anew.
        "languages": {"en": 1},
        "engine": {"studios": 2, "studio_cpus": 0.5, "writers": 1},
    }
    for key, value in changes.items():
        node = data
        *parents, last = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    path.write_text(yaml.safe_dump(data, allow_unicode=True), "utf-8")
    return path


def make_config(path: Path, base_url: str, corpus: Path, **changes: Any) -> Config:
    return load_config(str(config_file(path, base_url, corpus, **changes)))


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a run but its logs, by relative path: what must be the same whatever happened on the way."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] != "logs"
    }


class Silent:
    """An Observer that remembers."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.units: list[int] = []

    def planned(self, config: Config, done: object) -> None: ...
    def writing(self, dialogues: int) -> None: ...
    def compared(self, done: int, total: int) -> None: ...
    def wrote(self, unit: int, seconds: float) -> None: ...
    def written(self, progress: object) -> None: ...
    def workers(self, writers: object, studios: object) -> None: ...
    def progress(self, studios: object) -> None: ...

    def finished(self, manifest: Any, progress: object) -> None:
        self.units.append(manifest.unit)

    def trouble(self, message: str) -> None:
        self.troubles.append(message)
