"""Engines of four kinds say the same sentences in one run: scripts/compare_engines.py, in this process and on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.command_line import python
from tests.coqui.conftest import ENVIRONMENT
from tests.speech_server import speech_server

pytestmark = pytest.mark.coqui

VOICES = [
    {"id": "kim", "languages": ["en"], "engine": "kokoro", "recipe": {"timbre": {"af_heart": 1}}, "accent": "us"},
    {"id": "wei", "languages": ["zh"], "engine": "kokoro", "recipe": {"timbre": {"zf_xiaoxiao": 1}}, "accent": "cn"},
    {"id": "lark", "languages": ["en"], "engine": "hibari", "recipe": {"name": "heart"}, "accent": "us"},
    {"id": "far", "languages": ["en"], "engine": "served", "recipe": {"name": "heart"}},
    {"id": "anna", "languages": ["en"], "engine": "tiny", "recipe": {"name": "anna"}},
]
SAME = {"gender": "female", "license": "CC0-1.0"}


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_four_engines_speak_in_one_run(kind: str, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "voices.yaml").write_text(yaml.safe_dump({"defaults": SAME, "voices": VOICES}))
    with speech_server() as server:
        engines = {
            "kokoro": {"kind": "kokoro"},
            "hibari": {"kind": "hibari"},
            "served": {"kind": "http", "base_url": server.url, "model": "hibari", "license": "Apache-2.0"},
            "tiny": {"kind": "coqui", "model_path": str(weights / "vits"), "license": "CC0-1.0"},
        }
        engines["tiny"]["environment"] = {"path": str(ENVIRONMENT)}
        config = {
            "tts": {"engines": engines},
            "cast": {"library": str(tmp_path / "voices.yaml")},
            "audio": {"faults": {"slack": 10}},  # a random model says nothing in the time that a text takes
        }
        (tmp_path / "engines.yaml").write_text(yaml.safe_dump(config))
        done = python(
            "scripts/compare_engines.py", tmp_path / "engines.yaml", "--engine", kind, "--sentences", 3, limit=400
        )
    assert done.status == 0, done.err
    found = {(line["engine"], line["language"]): line for line in map(json.loads, done.out.splitlines())}
    assert set(found) == {("kokoro", "en"), ("kokoro", "zh"), ("hibari", "en"), ("served", "en"), ("tiny", "en")}
    assert all(line["clips"] == 3 and not line["faults"] for line in found.values())
    assert max(found[name, "en"]["wer"] for name in ("kokoro", "hibari", "served")) <= 0.05
    assert found["kokoro", "zh"]["per"] <= 0.05 < 0.5 < found["tiny", "en"]["wer"]
