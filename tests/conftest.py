"""Shared fixtures."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command_line import CommandLine
from tests.fakes import FakeLLM, llm_server, write_corpus
from tests.object_store import Proxy, object_store

# The same examples each time, so that a change is judged by what it changed; the other profile looks further.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("fixed")

# Tests must not find a key or a cluster of whoever runs them.
for _name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
    os.environ.pop(_name, None)
# Every process that a test starts would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Ray's workers are started elsewhere and import `tests.fakes` from here.
_ROOT = str(Path(__file__).resolve().parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))


# Files whose tests take minutes, in this order: they come first, so that no worker is left alone with one at the end.
SLOW = (
    "e2e/test_quickstart.py",
    "faults/test_kills.py",
    "faults/test_workers.py",
    "faults/test_points.py",
    "engine/test_engines.py",
    "faults/test_cluster.py",
    "faults/test_schedules.py",
    "faults/test_storage.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The same order in every worker, and within a file the order of the file."""

    def rank(item: pytest.Item) -> int:
        return next((place for place, file in enumerate(SLOW) if item.path.match(file)), len(SLOW))

    items.sort(key=rank)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The fault matrix as a table, where all of it was asked for: a row a test, with its seconds."""
    if config.option.markexpr != "faults":
        return
    seconds, outcomes = Counter[str](), dict[str, str]()
    for outcome in ("passed", "skipped", "", "error", "failed"):  # the worst is the last; "": set-up and tear-down
        for report in terminalreporter.stats.get(outcome, ()):
            seconds[report.nodeid] += report.duration
            outcomes[report.nodeid] = outcome or outcomes.get(report.nodeid, "")
    terminalreporter.section("fault matrix")
    for node in sorted(outcomes):
        path, _, test = node.partition("::")
        name, _, row = test.removeprefix("test_").removesuffix("]").partition("[")
        words = " ".join(filter(None, (Path(path).stem.removeprefix("test_") + ":", name.replace("_", " "), row)))
        terminalreporter.write_line(f"{outcomes[node]:8} {seconds[node]:6.1f} s  {words}")


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    """An S3 server that this process and those that it starts find by their environment."""
    with object_store() as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in proxy.environment.items():
            patch.setenv(name, value)
        yield proxy


@pytest.fixture
def store(server: Proxy) -> Proxy:
    server.reset()
    return server


@pytest.fixture
def llm() -> Iterator[FakeLLM]:
    with llm_server() as server:
        yield server


@pytest.fixture
def speechchat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One Ray for all tests that run in this process: the engine uses what is there."""
    import ray

    from pipeline.config import EngineConfig
    from pipeline.engine.cluster import connect

    connect(EngineConfig())
    yield
    ray.shutdown()
