"""The quickstart at its full size is what the README promises, it grows, and it can be judged again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder

pytestmark = pytest.mark.embedded


def speechchat(*words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "pipeline.cli", *words)
    return subprocess.run(words, capture_output=True, text=True, timeout=500)


def stats(out: Path) -> dict[str, Any]:
    return dict(json.loads(speechchat("stats", str(out), "--json").stdout))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    done = speechchat("run", "quickstart", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def test_the_demo_keeps_what_it_promises(demo: Path) -> None:
    totals = stats(demo)
    assert totals["planned"] == 16 == totals["accepted"] + sum(totals["rejected"].values())
    assert totals["accepted"] >= 12 and min(totals["languages"].values()) >= 5
    assert totals["llm_turns"] >= 4
    assert len(totals["voices"]) >= 12
    folder = RunFolder(demo)
    samples = [encoded.sample for manifest in folder.manifests() for encoded in read_unit(folder, manifest)]
    assert all(2 <= len(sample.turns) <= 4 and sample.duration <= 12.5 for sample in samples)
    assert {turn.role for sample in samples for turn in sample.turns if turn.author == "llm"} == {"assistant"}


def test_a_tighter_gate_judges_the_same_clips(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "strict"
    done = speechchat("regate", str(demo), "--out", str(out), "--set", "judge.limits.zh.cer=0.01")
    assert done.returncode == 0, done.stderr
    before, after = stats(demo), stats(out)
    assert (
        after["languages"]["zh"] < before["languages"]["zh"] and after["languages"]["en"] == before["languages"]["en"]
    )
    assert after["planned"] == 16 == after["accepted"] + sum(after["rejected"].values())
    clips: dict[str, bytes] = {}
    for folder in (RunFolder(demo), RunFolder(out)):
        for manifest in folder.manifests():
            for encoded in read_unit(folder, manifest):
                assert clips.setdefault(encoded.sample.key, encoded.user) == encoded.user
    assert speechchat("verify", str(out), "--decode").returncode == 0
    assert not (out / "logs" / "timings.jsonl").exists()
