"""Workers of Ray that are killed at named points, that run out of memory, that are lost for good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.engine.run import run as run_here
from tests.fakes import EN_LINES, FakeLLM, Silent, config_file, llm_server, tree, write_corpus
from tests.faults import tools
from tests.faults.points import Act, Fault, environment
from tests.faults.tools import Driver, error_line, run

pytestmark = [pytest.mark.faults, pytest.mark.matrix]

WRITERS = ("reply-half-appended", "text-half-written", "text-renamed", "replies-synced")
STUDIOS = (
    "journal-opened",
    "shard-opened",
    "shard-half-written",
    "shard-renamed",
    "index-half-written",
    "index-renamed",
    "manifest-half-written",
    "manifest-renamed",
    "manifest-folder-synced",
)
# Apart from each other: a writer that is killed takes its other unit along, which may then pass its own point unseen.
ORDER = [*WRITERS[:1], *STUDIOS[:3], *WRITERS[1:2], *STUDIOS[3:6], *WRITERS[2:3], *STUDIOS[6:], *WRITERS[3:]]
KILLED = {f"{'writer' if point in WRITERS else 'studio'}-killed-at-{point}": point for point in ORDER}
SETTINGS: dict[str, Any] = {"dialogues": 2 * len(KILLED), "engine__restarts": 20, "engine__tries": 8}
RAY = ("--engine", "ray", "--set", "engine.studios=1")


def fault(out: Path, point: str, unit: int, act: Act = "kill") -> Fault:
    return Fault(str(out), point, f"{out}.{point}", act, unit)


@dataclass
class Campaign:
    """A run of Ray of whose workers one was killed at each point, each time in another unit."""

    out: Path
    status: int
    said: str
    driver: int
    undisturbed: dict[str, bytes]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    root = tmp_path_factory.mktemp("campaign")
    with llm_server() as llm:
        path = config_file(root / "run.yaml", llm.base_url, write_corpus(root / "corpus"), **SETTINGS)
        run_here(load_config(str(path), ["engine.kind=local"]), root / "undisturbed", Silent())
        out = root / "run"
        faults = [fault(out, point, unit) for unit, point in enumerate(KILLED.values())]
        driver = Driver(path, out, *RAY, env=environment(faults))
        yield Campaign(out, driver.ends(), driver.said, driver.process.pid, tree(root / "undisturbed"))


@pytest.mark.parametrize("row", list(KILLED))
def test_a_worker_killed_at(campaign: Campaign, row: str) -> None:
    """The run ends by itself, with the same bytes. Each mark tells which process died."""
    assert campaign.status == 0, campaign.said
    killed = {point: Path(f"{campaign.out}.{point}").read_text() for point in KILLED.values()}
    assert killed[KILLED[row]] and killed[KILLED[row]] != str(campaign.driver)
    assert len(set(killed.values())) == len(KILLED)
    assert "Traceback" not in campaign.said
    unit = list(KILLED).index(row)
    names = [name for name in campaign.undisturbed if f"unit-{unit:06d}." in name]
    assert len(names) >= 4 and {name: (campaign.out / name).read_bytes() for name in names} == {
        name: campaign.undisturbed[name] for name in names
    }
    assert tree(campaign.out) == campaign.undisturbed


@pytest.fixture
def small(tmp_path: Path, llm: FakeLLM) -> Path:
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], "Is this a hopeless case?"])
    return config_file(tmp_path / "run.yaml", llm.base_url, corpus, dialogues=4, engine__restarts=0)


def check(config: Path, out: Path) -> None:
    """Resumed, it is the run that nobody disturbed."""
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    run_here(load_config(str(config), ["engine.kind=local"]), out.with_name("undisturbed"), Silent())
    assert tree(out) == tree(out.with_name("undisturbed"))
    assert not tools.temporaries(out)


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        pytest.param("text-renamed", "text", id="all-writers-lost"),
        pytest.param("index-renamed", "studio", id="all-studios-lost"),
    ],
)
def test_lost(tmp_path: Path, small: Path, point: str, kind: str) -> None:
    """None is replaced here."""
    out = tmp_path / "run"
    status, said = run(small, out, *RAY, env=environment([fault(out, point, 1)]))
    assert status == 1
    assert f"all {kind} workers were lost; run the same command again to resume" in error_line(said)
    check(small, out)


@pytest.mark.parametrize("point", [pytest.param("shard-synced", id="EIO-in-a-studio-of-ray")])
def test_the_device_fails_in_a_worker(tmp_path: Path, small: Path, point: str) -> None:
    out = tmp_path / "run"
    status, said = run(small, out, *RAY, env=environment([fault(out, point, 1, "EIO")]))
    assert status == 4 and "the device failed to read or write" in error_line(said)
    check(small, out)


@pytest.mark.parametrize("jump", [pytest.param(7 * 3600.0, id="clock-of-ray-jumps-by-hours")])
def test_the_wall_clock_jumps(tmp_path: Path, small: Path, jump: float) -> None:
    """Of the driver and of all workers: nobody is taken for hung, and nothing waits."""
    out = tmp_path / "run"
    status, said = run(small, out, *RAY, "--set", "engine.deadline=60", env=environment(clock=jump))
    assert status == 0 and "hung" not in said, said
    times = tools.logged_times(out)
    assert max(times) - min(times) > jump
    check(small, out)


def test_a_studio_runs_out_of_memory(tmp_path: Path, llm: FakeLLM) -> None:
    """The system gives it no more, once: the unit is tried again."""
    corpus = write_corpus(tmp_path / "corpus", [*EN_LINES[:3], "This gorges on memory."])
    changes: dict[str, Any] = {"tts__engines__kokoro__kind": "tests.faults.gluttony:build_tts"}
    config = config_file(tmp_path / "run.yaml", llm.base_url, corpus, dialogues=4, **changes)
    out = tmp_path / "run"
    gorged = tmp_path / "gorged"
    status, said = run(config, out, *RAY, env={**environment(), "SPEECHCHAT_TEST_GORGED": str(gorged)})
    assert status == 0, said
    assert gorged.read_text() == "MemoryError"
    check(config, out)


def test_the_memory_of_a_node_is_used_up(tmp_path: Path, small: Path) -> None:
    """By others: Ray kills every studio that it finds at work. No dialogue is blamed for that."""
    out = tmp_path / "run"
    run_here(load_config(str(small), ["engine.kind=local"]), out, Silent(), until="write")
    monitor = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    status, said = run(small, out, *RAY, "--set", "engine.restarts=1", env={**environment(), **monitor})
    assert status == 1
    line = error_line(said)
    assert "all studio workers were lost" in line and "low on memory" in line
    assert not list(out.glob("logs/studio/*/*.json"))
    check(small, out)
