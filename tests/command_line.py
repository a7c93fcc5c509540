"""The command line in this process and in one of its own, and what a refusal looks like."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import cli

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


class CommandLine:
    """Calls `main` in this process with the words that a shell would give it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: object) -> Done:
        self._monkeypatch.setenv("COLUMNS", "200")
        self._monkeypatch.setattr(sys, "argv", ["speechchat", *map(str, words)])
        self._capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = self._capsys.readouterr()
        return Done(status, captured.out, captured.err)


def python(*words: object, limit: float = 120) -> Done:
    """A Python program in a process of its own, which ends within `limit` seconds."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    return Done(done.returncode, done.stdout, done.stderr)


def refused(done: Done, status: int, *parts: str) -> None:
    """One clear line on standard error, the right status, and nothing that looks like a bug."""
    assert done.status == status, done
    assert done.err.count("\n") == 1 and done.err.endswith("\n"), done.err
    assert "Traceback" not in done.err + done.out
    for part in parts:
        assert part in done.err
