"""Settings of a launch that hold all that each kind needs, and the command line that reads them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner, Result

import scripts.launch.__main__ as door
from scripts.launch.settings import LaunchSettings, load_settings

SECRET = "marker-of-a-key-51c8"
KINDS = ("job", "kuberay", "slurm", "ssh")


def write(path: Path, **changes: Any) -> Path:
    data: dict[str, Any] = {
        "name": "trial",
        "config": "quickstart",
        "out": "/shared/runs/trial",
        "set": ["dialogues=6400", "unit_size=64"],
        "nodes": 3,
        "cpus": 4,
        "gpus": 1,
        "memory": 8,
        "python": "/opt/venv/bin/python",
        "env": {"OPENAI_API_KEY": {"variable": "MY_KEY", "secret": "speech", "key": "openai", "node": "NODE_KEY"}},
        "kuberay": {"image": "speechchat:0.1", "namespace": "lab", "claims": {"/shared": "shared-claim"}},
        "slurm": {"options": {"time": "1:00:00"}, "setup": ["module load cuda"]},
        "ssh": {"user": "ubuntu", "head": "10.0.0.1", "workers": ["10.0.0.2", "10.0.0.3"]},
    }
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


def settings(folder: Path, **changes: Any) -> LaunchSettings:
    return load_settings(write(folder / "launch.yaml", **changes))


def launch(*words: object) -> Result:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(door.main)
    return CliRunner().invoke(app, [str(word) for word in words])


def tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A command of this name, first on PATH. `script` is shell; what it is called with goes to `calls` beside it."""
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\ncd {folder}\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


class Dashboard(ThreadingHTTPServer):
    """What the launcher asks of a Ray dashboard. shown: the token of each request."""

    daemon_threads = True

    def __init__(self, token: str | None, jobs: list[dict[str, Any]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.jobs = jobs
        self.shown: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization")
        self.server.shown.append(shown)
        allowed = self.server.token is None or shown == f"Bearer {self.server.token}"
        about = {"version": "4", "ray_version": version("ray"), "ray_commit": "", "session_name": "s"}
        answers: dict[str, Any] = {"/api/version": about, "/api/jobs/": self.server.jobs}
        data = json.dumps(answers[self.path]).encode() if allowed else b"Unauthorized: Missing authentication token"
        self.send_response(200 if allowed else 401 if shown is None else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def dashboard(token: str | None = None, jobs: Sequence[dict[str, Any]] = ()) -> Iterator[Dashboard]:
    server = Dashboard(token, list(jobs))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
