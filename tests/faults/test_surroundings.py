"""What a run depends on lets it down for a while: the LLM's endpoint, the wall clock, its own notes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.engine.run import run as run_here
from pipeline.engine.tries import Tries
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from tests.fakes import FakeLLM, Silent, config_file, llm_server, tree, write_corpus
from tests.faults import tools
from tests.faults.nursery import Nursery
from tests.faults.points import shake_clock

pytestmark = pytest.mark.faults


class Moody:
    """An endpoint of which nobody answers for a while, as soon as it has served so many requests."""

    def __init__(self, served: int, seconds: float):
        self._served, self._seconds = served, seconds
        self._up = FakeLLM(None, "fake")
        self.base_url, self._port = self._up.base_url, self._up.server_address[1]
        self.away: list[float] = []
        self.asked = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> Moody:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _live(self) -> None:
        self._serve(lambda: len(self._up.requests) >= self._served)
        self.away.append(time.monotonic())
        time.sleep(self._seconds)
        self.away.append(time.monotonic())
        self._up = FakeLLM(None, "fake", self._port)
        self._serve(self._over.is_set)

    def _serve(self, until: Any) -> None:
        serving = threading.Thread(target=self._up.serve_forever, args=(0.01,))
        serving.start()
        while not until() and not self._over.is_set():
            time.sleep(0.005)
        self._up.shutdown()
        self._up.server_close()  # the port is closed: whoever comes is refused
        self.asked += len(self._up.requests)
        serving.join()


def test_the_endpoint_is_down_for_a_while(tmp_path: Path, corpus: Path) -> None:
    """Longer than a request is tried at first. The run waits and comes out whole, in one go."""
    changes: dict[str, Any] = {"dialogues": 6, "engine__kind": "local", "writer__concurrency": 1}
    with Moody(served=3, seconds=2.5) as moody:
        path = config_file(tmp_path / "run.yaml", moody.base_url, corpus, **changes)
        observer = Silent()
        run_here(load_config(str(path), ["writer.retries=10"]), tmp_path / "run", observer)
        ended = time.monotonic()
    assert len(moody.away) == 2 and ended > moody.away[1]
    assert sorted(observer.units) == [0, 1, 2] and observer.troubles == []
    assert moody.asked == 6
    with llm_server() as llm:
        path = config_file(tmp_path / "other.yaml", llm.base_url, corpus, **changes)
        run_here(load_config(str(path)), tmp_path / "undisturbed", Silent())
    assert tree(tmp_path / "run") == tree(tmp_path / "undisturbed")


def _jump(out: Path, seconds: float = 0.0) -> None:
    if seconds:
        shake_clock(seconds)


@pytest.fixture(scope="module")
def clockwork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, dict[str, bytes]]]:
    root = tmp_path_factory.mktemp("clockwork")
    with llm_server() as llm:
        changes: dict[str, Any] = {"dialogues": 4, "engine__kind": "local", "engine__deadline": 20}
        path = config_file(root / "run.yaml", llm.base_url, write_corpus(root / "corpus"), **changes)
        with Nursery(path, root / "undisturbed", _jump) as nursery:
            yield nursery, tree(root / "undisturbed")


@pytest.mark.parametrize(
    "seconds", [pytest.param(1.0, id="clock-jumps-by-a-second"), pytest.param(5 * 3600.0, id="clock-jumps-by-hours")]
)
def test_the_wall_clock_jumps(tmp_path: Path, clockwork: tuple[Nursery, dict[str, bytes]], seconds: float) -> None:
    """Forward and backward, while a unit has a deadline of seconds."""
    nursery, undisturbed = clockwork
    assert nursery.start(tmp_path / "run", seconds) == 0
    assert tree(tmp_path / "run") == undisturbed
    times = tools.logged_times(tmp_path / "run")
    assert max(times) - min(times) > 1.5 * seconds  # forward and backward were both met


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", '{"en-000000-00": 3}', '{"en-000000-00": {"last": "died"}}', "null"],
    ids=["empty", "torn", "a-list", "of-numbers", "without-a-count", "null"],
)
def test_a_journal_of_deaths_of_another_shape_begins_anew(
    tmp_path: Path, llm: FakeLLM, corpus: Path, content: str
) -> None:
    out = tmp_path / "run"
    config = load_config(
        str(config_file(tmp_path / "run.yaml", llm.base_url, corpus, dialogues=2, engine__kind="local"))
    )
    path = RunFolder(out).crash_journal(0).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    run_here(config, out, Silent())
    assert len(tools.manifests(out)) == 1
    tries, [unit] = Tries(RunFolder(out), config), plan_units(config)
    for _ in range(config.engine.tries):
        assert tries.poisoned(unit) == {}
        tries.blame(0, [unit.dialogues[0].id], "died")
    assert tries.poisoned(unit).keys() == {unit.dialogues[0].id}
    assert json.loads(path.read_text())[unit.dialogues[0].id] == {"deaths": config.engine.tries, "last": "died"}
