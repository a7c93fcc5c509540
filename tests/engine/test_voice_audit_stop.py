"""Ctrl-C in an audit: what is finished is kept, what is under way is not waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.engine.voice_audit import read_measured
from tests.command_line import ROOT
from tests.engine.test_voice_audit import LOG, SETTINGS


@pytest.mark.embedded
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_every_voice_that_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Also those that share a process with one that is under way, which is not waited for."""
    log, own, out = tmp_path / "log", tmp_path / "own.yaml", tmp_path / "out"
    monkeypatch.setenv(LOG, str(log))
    same = {"gender": "female", "languages": ["en"], "engine": "kokoro", "license": "CC0-1.0"}
    kin = {"a": ("anna", "aunt", "slow_a"), "b": ("bert", "slow_b")}
    voices = [
        {"id": name, "recipe": {"timbre": {style: 1}, "shift": float(place)}}
        for style, names in kin.items()
        for place, name in enumerate(names)
    ]
    own.write_text(yaml.safe_dump({"defaults": same, "voices": voices}))
    words = ["voices", "audit", str(own), "--out", str(out), "--workers", str(workers)]
    command = [sys.executable, "-m", "pipeline.cli", *words, *(p for setting in SETTINGS for p in ("--set", setting))]
    # As a terminal does it: whoever is in the group is told.
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    under_way = {"slow_a", "slow_b"} if workers == 2 else {"slow_a"}
    deadline = time.monotonic() + 120
    while not (log.exists() and under_way <= set(log.read_text().split())):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=60)  # until nobody is left who could write
    assert driver.returncode == 130, err
    assert err.splitlines()[-1].startswith("interrupted: what was measured is kept") and "Traceback" not in err
    finished = {1: {"anna", "aunt"}, 2: {"anna", "aunt", "bert"}}[workers]
    assert set(read_measured(out / "voices.parquet")) == finished
