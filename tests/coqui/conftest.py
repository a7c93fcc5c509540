"""Tests of real Coqui code, in an environment of its own (`make test-coqui`): only `-m coqui` collects them.

They run here; the engines run in the environment that SPEECHCHAT_COQUI names, .venv-coqui if it names none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.outside import open_outside
from pipeline.config import TtsEngineConfig

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Path(os.environ.get("SPEECHCHAT_COQUI", ROOT / ".venv-coqui")).absolute()

Section = Callable[..., TtsEngineConfig]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "coqui: real Coqui code in an environment of its own (make test-coqui)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if "coqui" in config.option.markexpr else True


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each of the tiny models. They were made in another place than they are in now."""
    made, here = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("models")
    command = [ENVIRONMENT / "bin" / "python", "-m", "tests.coqui.tiny", made]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.copytree(made, here, dirs_exist_ok=True)
    shutil.rmtree(made)
    return here


@pytest.fixture(scope="session")
def section(weights: Path) -> Section:
    """section("vits", batch=4): an engine that has one of the tiny models and lives in the other environment."""

    def make(name: str, **keys: Any) -> TtsEngineConfig:
        known = {"model_path": weights / name, "license": "CC0-1.0"} if name else {}
        return TtsEngineConfig.model_validate({"kind": "coqui", "environment": {"path": ENVIRONMENT}, **known, **keys})

    return make


@pytest.fixture(scope="session")
def vits(section: Section) -> Synthesizer:
    return open_outside("tiny", section("vits"), on_ray=False)


@pytest.fixture(scope="session")
def cloner(section: Section) -> Synthesizer:
    return open_outside("tiny", section("dvector"), on_ray=False)


@pytest.fixture(scope="session")
def xtts(section: Section) -> Synthesizer:
    return open_outside("tiny", section("xtts"), on_ray=False)
