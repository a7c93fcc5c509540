"""Killing anything at any moment changes no byte of the final output, and paid text is never paid again."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_config
from pipeline.engine.run import run as run_here
from tests.fakes import EN_LINES, FakeLLM, Silent, config_file, llm_server, tree, write_corpus
from tests.faults import tools
from tests.faults.nursery import Nursery
from tests.faults.tools import Driver, error_line, run

pytestmark = pytest.mark.faults

# One text after the other, each slow to come: so that a kill finds the run between two.
SLOW = {"dialogues": 12, "tts__engines__kokoro__kind": "tests.fakes:build_slow_tts", "writer__concurrency": 1}
DELAY = 0.1
# One studio where its neighbours are not what is asked for: each costs seconds of imports.
ENGINES = {"local": ("--engine", "local"), "ray": ("--engine", "ray", "--set", "engine.studios=1")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    with llm_server() as llm:
        path = config_file(root / "run.yaml", llm.base_url, write_corpus(root / "corpus"), **SLOW)
        run_here(load_config(str(path), ["engine.kind=local"]), root / "run", Silent())
    found = tree(root / "run")
    assert sum(name.endswith(".tar") for name in found) == 6
    return found


@pytest.fixture
def config(tmp_path: Path, llm: FakeLLM, corpus: Path) -> Path:
    llm.delay = DELAY
    return config_file(tmp_path / "run.yaml", llm.base_url, corpus, **SLOW)


def writing(out: Path) -> bool:
    return len(tools.written(out)) % 2 == 1


def speaking(out: Path) -> bool:
    return bool(tools.in_hand(out)) and bool(tools.temporaries(out))


def between_units(out: Path) -> bool:
    return len(tools.manifests(out)) == 2


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "writing": writing,
    "speaking": speaking,
    "between units": between_units,
}


class Paid:
    """Watches that no text is asked for again once it is on the disk."""

    def __init__(self, llm: FakeLLM, config: Path, out: Path):
        self._llm, self._config, self._out = llm, load_config(str(config)), out
        self._before: list[tuple[set[str], Counter[str]]] = []

    def note(self) -> None:
        """To be called while nothing writes."""
        self._before.append((tools.written(self._out), tools.asked(self._llm, self._config)))

    def check(self, texts: int = 12) -> None:
        asked = tools.asked(self._llm, self._config)
        assert len(asked) == texts
        for done, before in self._before:
            assert {name: asked[name] for name in done} == {name: before[name] for name in done}


def test_a_killed_driver_goes_on(tmp_path: Path, llm: FakeLLM, config: Path, undisturbed: dict[str, bytes]) -> None:
    """Each driver is killed at a moment of its own, and takes up what the one before it left."""
    out = tmp_path / "run"
    paid = Paid(llm, config, out)
    for name, moment in MOMENTS.items():
        driver = Driver(config, out, "--engine", "local")
        driver.until(functools.partial(moment, out))
        driver.kill()
        paid.note()
        assert driver.process.returncode == -signal.SIGKILL, name
        assert tools.written(out) and tree(out) != undisturbed, name
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert tree(out) == undisturbed
    assert not tools.in_hand(out) and not tools.temporaries(out)
    paid.check()


@pytest.mark.matrix
def test_a_driver_killed_three_times(tmp_path: Path, llm: FakeLLM, config: Path, undisturbed: dict[str, bytes]) -> None:
    out, draw = tmp_path / "run", random.Random(1)
    paid = Paid(llm, config, out)
    for _ in range(3):
        driver = Driver(config, out, "--engine", "local")
        steps = draw.randrange(1, 8)
        seen: set[Any] = set()

        def moved(seen: set[Any] = seen, steps: int = steps) -> bool:
            """Once so many things were seen to happen in the folder."""
            seen.add((len(tools.written(out)), len(tools.manifests(out)), *tools.in_hand(out)))
            return len(seen) > steps

        driver.until(moved)
        driver.kill()
        paid.note()
        assert driver.process.returncode == -signal.SIGKILL
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert tree(out) == undisturbed
    paid.check()


@pytest.mark.matrix
def test_a_killed_ray_driver_takes_its_family_along_and_goes_on(
    tmp_path: Path, llm: FakeLLM, config: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    paid = Paid(llm, config, out)
    for moment in (writing, speaking):
        driver = Driver(config, out, *ENGINES["ray"])
        driver.until(functools.partial(moment, out))
        assert tools.titled(driver.family(), "raylet") and tools.titled(driver.family(), "Actor")
        family = driver.kill()
        # Two agents of Ray's own look for their node for a minute. They do no work, and hold nothing of the run.
        agents = tools.titled(family, "Agent")
        assert tools.alive([process for process in family if process not in agents], 20) == []
        paid.note()
    # The second driver went on where the first had been killed; the other engine can do that too.
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert tree(out) == undisturbed
    paid.check()


@pytest.mark.embedded
def test_the_embedded_server_ends_with_a_killed_driver(tmp_path: Path) -> None:
    config = tmp_path / "quickstart.yaml"
    config.write_text(yaml.safe_dump(load_config("quickstart").model_dump(mode="json")))
    driver = Driver(config, tmp_path / "run", "--engine", "local")
    driver.until(lambda: tools.titled(driver.family(), "embedded"))
    assert tools.alive(driver.kill(), 20) == []


@pytest.mark.matrix
def test_killed_ray_workers_are_replaced(
    tmp_path: Path, llm: FakeLLM, config: Path, undisturbed: dict[str, bytes]
) -> None:
    """First a writer with a text half written, then a studio in the middle of a unit: the run ends by itself."""
    out = tmp_path / "run"
    driver = Driver(config, out, "--engine", "ray")
    for moment, title in ((writing, "TextActor"), (speaking, "StudioActor")):
        driver.until(functools.partial(moment, out))
        worker = tools.titled(driver.family(), title)[0]
        worker.kill()
        assert tools.alive([worker], 20) == []
    assert driver.ends() == 0, driver.said
    assert "Traceback" not in driver.said
    assert tree(out) == undisturbed


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.matrix)])
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.matrix)])
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path,
    llm: FakeLLM,
    config: Path,
    kind: str,
    number: signal.Signals,
    undisturbed: dict[str, bytes],
) -> None:
    out = tmp_path / "run"
    paid = Paid(llm, config, out)
    driver = Driver(config, out, *ENGINES[kind])
    driver.until(lambda: speaking(out))
    family = driver.family()
    if number == signal.SIGINT:
        os.killpg(driver.process.pid, number)  # Ctrl-C reaches everybody in the terminal's foreground
    else:
        driver.process.send_signal(number)
    assert driver.ends() == 130, driver.said
    assert "the same command again" in error_line(driver.said, "interrupted: ")
    assert tools.alive(family, 20) == []
    paid.note()
    status, said = run(config, out, "--engine", "local")
    assert status == 0, said
    assert tree(out) == undisturbed
    paid.check()


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.matrix)])
def test_a_second_driver_is_refused(
    tmp_path: Path, llm: FakeLLM, config: Path, kind: str, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    first = Driver(config, out, *ENGINES[kind])
    first.until(lambda: speaking(out))
    first.process.send_signal(signal.SIGSTOP)  # so that the second one surely comes while it is at work
    try:
        status, said = run(config, out, "--engine", kind)
    finally:
        first.process.send_signal(signal.SIGCONT)
    assert status == 2
    assert said == error_line(said) + "\n" and "another speechchat run" in said
    assert first.ends() == 0, first.said
    assert tree(out) == undisturbed


@pytest.fixture
def small(tmp_path: Path, llm: FakeLLM) -> Path:
    """One unit with an accepted and a rejected dialogue: every kind of file that a run has."""
    corpus = write_corpus(tmp_path / "corpus", [EN_LINES[0], "This is a hopeless case."])
    settings: dict[str, Any] = {"dialogues": 2, "languages": {"en": 1}, "engine__kind": "local"}
    return config_file(tmp_path / "small.yaml", llm.base_url, corpus, **settings)


EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.truncate")


def _killed_before(out: Path, last: int = 0) -> None:
    """Count what this process is about to change in a folder, and kill it right before step `last` (0: never)."""
    root, count = str(out), 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in EVENTS or not str(args[0]).startswith(root):
            return
        if event == "open" and not set(args[1] or "") & set("wax+"):
            return
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _left(out: Path) -> dict[str, object]:
    """All that a next start finds: folders, files, and of a log that holds times its lines, and whether one is torn."""
    found: dict[str, object] = {}
    for path in [out, *out.rglob("*")]:
        data = path.read_bytes() if path.is_file() else None
        timed = data is not None and path.suffix == ".jsonl" and out / "logs" in path.parents
        found[str(path.relative_to(out))] = (data.count(b"\n"), data[-1:]) if data and timed else data
    return found


@pytest.mark.matrix
def test_killed_before_every_step_on_the_disk(tmp_path: Path, llm: FakeLLM, small: Path) -> None:
    known: list[dict[str, object]] = []
    with Nursery(small, tmp_path / "undisturbed", _killed_before) as nursery:
        undisturbed, paid = tree(tmp_path / "undisturbed"), len(llm.requests)
        assert {Path(name).suffix for name in undisturbed} >= {".tar", ".parquet", ".json", ".jsonl"}
        for last in itertools.count(1):
            out = tmp_path / f"killed-{last}"
            status = nursery.start(out, last)
            if status == 0:
                break  # there are no more steps
            assert status == -signal.SIGKILL
            # To make a folder that is there, or to remove a file that is not, leaves what the step before it left.
            if (left := _left(out)) in known:
                continue
            known.append(left)
            done, before = tools.written(out), len(llm.requests)
            assert nursery.start(out) == 0, f"killed before step {last}"
            assert tree(out) == undisturbed, f"killed before step {last}"
            assert len(llm.requests) - before == paid - len(done)
    assert tree(out) == undisturbed and len(known) > 30
