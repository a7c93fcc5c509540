"""Settings of a launch that hold all that each kind needs, and the command line that reads them."""

from __future__ import annotations

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
