"""How the Ray engine hands out units and takes deaths, without Ray: workers are simulated, and so is time."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError, OutOfMemoryError

from pipeline.engine import preflight
from pipeline.engine.tries import Tries
from pipeline.errors import BudgetError, ConfigError, RunIncomplete
from pipeline.plan import Unit, plan_units
from pipeline.stages.write import TextProgress
from tests.engine.simulated_ray import NEVER, Actor, World, make_job, raised, run, spoken, write
from tests.fakes import Silent


def test_a_studio_that_waits_for_a_text_is_not_taken_for_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text takes longer than the deadline; what the studio said last was before it had finished its unit."""
    job, observer = make_job(tmp_path, deadline=60.0), Silent()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        if actor.kind == "studio":
            return 1.9, spoken(unit)
        write(job.folder, unit.number)
        return 100.0 * (unit.number + 1), (1.0, TextProgress())

    world = World(works)
    run(monkeypatch, world, job, observer)
    assert observer.troubles == [] and sorted(observer.units) == [0, 1, 2, 3]
    assert len(world.actors) == 2 and world.now > 300


@pytest.mark.parametrize("answers", [True, False])
def test_a_studio_that_hangs_before_it_says_anything_of_its_unit_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Native code may hold the interpreter so that nobody else in the process answers."""
    job, observer = make_job(tmp_path, written=4, deadline=60.0), Silent()
    hung: list[int] = []

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        if unit.number == 1 and not hung:
            hung.append(unit.number)
            actor.answers = answers
            return NEVER, None
        return 2.0, spoken(unit)

    run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [0, 1, 2, 3]
    assert len(observer.troubles) == 1 and "a dialogue of unit 1 hung for 60 s" in observer.troubles[0]


@pytest.mark.parametrize("together", [1, 2])
def test_a_unit_that_fills_its_node_each_time_is_quarantined_and_its_neighbours_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    job, observer = make_job(tmp_path, written=4, studio_units=together), Silent()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        return (1.0, OutOfMemoryError("low on memory")) if unit.number == 1 else (2.0, spoken(unit))

    run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [0, 2, 3]
    assert job.folder.quarantine(1).exists()
    assert not list(job.folder.logs.rglob("unit-*.json"))  # no dialogue is blamed


def test_a_crowded_node_costs_nobody_a_try_but_those_that_were_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unit finds its node full once; at `tries` it would be quarantined."""
    job, observer = make_job(tmp_path, written=4, studio_units=4, tries=2), Silent()
    tried = Counter[int]()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        tried[unit.number] += 1
        return (1.0, OutOfMemoryError("low on memory")) if tried[unit.number] <= 2 else (2.0, spoken(unit))

    run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [0, 1, 2, 3] and observer.troubles == []


def test_where_the_budget_is_used_up_what_is_written_is_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a run that begins so: its studios take longer to open than its writers to be refused."""
    job, observer = make_job(tmp_path, units=6, written=3, studio_units=2), Silent()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        return (2.0, spoken(unit)) if actor.kind == "studio" else (0.5, raised(BudgetError("no money is left")))

    world = World(works)
    world.opens = lambda actor: (30.0 if actor.kind == "studio" else 1.0, "node")
    with pytest.raises(BudgetError, match="no money"):
        run(monkeypatch, world, job, observer)
    assert sorted(observer.units) == [0, 1, 2]
    assert observer.troubles == ["nothing more is written: no money is left"]


def test_where_all_writers_are_lost_what_is_written_is_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, observer = make_job(tmp_path, written=2, restarts=1, writer_cpus=1.0), Silent()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        return (50.0, spoken(unit)) if actor.kind == "studio" else (1.0, ActorDiedError())

    with pytest.raises(RunIncomplete, match="all text workers were lost"):
        run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [0, 1]


def test_no_place_is_kept_for_writers_where_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = [{"CPU": 4.0}]
    for written, kinds in ((4, {"studio": 4}), (3, {"text": 3, "studio": 1})):
        job = make_job(tmp_path / str(written), written=written, studios=None, writers=3, writer_cpus=1.0)
        observer = Silent()

        def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
            return 5.0, spoken(unit) if actor.kind == "studio" else (1.0, TextProgress())

        world = World(works)
        run(monkeypatch, world, job, observer, node)
        assert Counter(actor.kind for actor in world.actors) == kinds
        assert sorted(observer.units) == [0, 1, 2, 3]


def test_suspects_of_an_earlier_run_are_not_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver before this one was killed from outside; here a studio dies before it has anything in hand."""
    job, observer = make_job(tmp_path, written=4, tries=2), Silent()
    [unit, *_] = plan_units(job.config)
    journal = job.folder.crash_journal(0)
    journal.parent.mkdir(parents=True)
    journal.write_text(unit.dialogues[0].id + "\n")
    died: list[int] = []

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        if unit.number == 0 and not died:
            died.append(0)
            return 0.5, ActorDiedError()
        return 2.0, spoken(unit)

    run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [0, 1, 2, 3]
    assert not list(job.folder.logs.rglob("unit-*.json"))


def test_deaths_that_end_no_dialogue_end_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that nobody writes any more names the same dialogue after each death, also once it is rejected."""
    job, observer = make_job(tmp_path, written=4, tries=2, restarts=5), Silent()
    [unit, *_] = plan_units(job.config)

    def works(actor: Actor, given: Unit) -> tuple[float, Any]:
        if given.number:
            return 2.0, spoken(given)
        job.folder.crash_journal(0).parent.mkdir(parents=True, exist_ok=True)
        job.folder.crash_journal(0).write_text(unit.dialogues[0].id + "\n")
        return 1.0, ActorDiedError()

    run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [1, 2, 3]
    assert json.loads(job.folder.quarantine(0).read_text())["tries"] == 2
    assert set(Tries(job.folder, job.config).poisoned(unit)) == {unit.dialogues[0].id}


@pytest.mark.parametrize(
    ("resources", "claims"),
    [
        ([{"CPU": 8.0, "GPU": 1.0}], {"writer_gpus": 1.0, "studio_gpus": 1.0}),
        ([{"CPU": 2.0}] * 2, {"writer_cpus": 1.0, "studio_cpus": 2.0}),
    ],
)
def test_a_cluster_without_room_beside_the_writers_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: list[dict[str, float]], claims: dict[str, Any]
) -> None:
    """Also where it is Ray's to place them so that there is, or is not."""
    asked: list[list[dict[str, float]]] = []
    nodes = [{"Resources": item, "NodeID": str(number)} for number, item in enumerate(resources)]
    monkeypatch.setattr(preflight, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(preflight, "live_nodes", lambda: nodes)
    job = make_job(tmp_path, writers=2, patience=0.01, **claims)
    words = r"no node .* wherever 2 writers of engine.writer_cpus=\d, engine.writer_gpus=\d"
    with pytest.raises(ConfigError, match=words):
        preflight.check(job.config.engine, job.folder)
    assert asked[0] and asked[-1] == []  # what was asked for is taken back


def test_units_wait_and_travel_without_their_dialogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the text of each was read to judge how large it is."""
    job, observer = make_job(tmp_path, written=3, studio_units=3, studio_bytes=1), Silent()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        assert "dialogues" not in vars(unit)
        if actor.kind == "studio":
            return 5.0, spoken(unit)
        write(job.folder, unit.number)
        return 1.0, (1.0, TextProgress())

    run(monkeypatch, World(works), job, observer)
    assert sorted(observer.units) == [0, 1, 2, 3]


@settings(max_examples=60)
@given(
    chance=st.randoms(use_true_random=False),
    written=st.integers(0, 8),
    engine=st.fixed_dictionaries(
        {
            "studios": st.none() | st.integers(1, 3),
            "studio_units": st.integers(1, 3),
            "writers": st.integers(1, 2),
            "writer_cpus": st.sampled_from([0.0, 1.0]),
            "window": st.none() | st.integers(1, 3),
            "tries": st.integers(1, 3),
            "restarts": st.integers(0, 3),
            "deadline": st.none() | st.just(60.0),
            "studio_bytes": st.none() | st.just(1),
        }
    ),
)
def test_whatever_happens_each_unit_ends_once(
    tmp_path_factory: pytest.TempPathFactory, chance: Random, written: int, engine: dict[str, Any]
) -> None:
    """A unit is finished or quarantined, never both and never twice, unless all workers of a kind were lost."""
    job, observer = make_job(tmp_path_factory.mktemp("run"), units=8, written=written, **engine), Silent()
    places = count()

    def harm(actor: Actor, unit: Unit) -> Any:
        fate = chance.random()
        if fate < 0.6:
            return None
        if fate < 0.7:
            return raised(ValueError("a bug"))
        if fate < 0.8:
            return OutOfMemoryError("low on memory")
        if fate < 0.9 and actor.refs[0][0].due <= actor.world.now:
            actor.world.gone.add(actor.refs[0][0].outcome)
        journal = job.folder.crash_journal(unit.number)
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(chance.choice(["", unit.dialogues[0].id]))
        return ActorDiedError()

    def works(actor: Actor, unit: Unit) -> tuple[float, Any]:
        seconds = chance.choice([0.0, 0.3, 1.0, 40.0])
        if (error := harm(actor, unit)) is not None:
            return seconds, error
        if actor.kind == "studio":
            if job.config.engine.deadline and chance.random() < 0.1:
                return NEVER, None
            return seconds, spoken(unit)
        write(job.folder, unit.number)
        return seconds, (seconds, TextProgress())

    world = World(works)
    world.opens = lambda actor: (1.0, f"node-{next(places)}" if chance.random() < 0.9 else ActorDiedError())
    lost = False
    with pytest.MonkeyPatch.context() as patch:
        try:
            run(patch, world, job, observer)
        except RunIncomplete as error:
            lost = "workers were lost" in str(error)
    quarantined = [number for number in range(8) if job.folder.quarantine(number).exists()]
    ended = sorted([*observer.units, *quarantined])
    assert ended == sorted(set(ended)) and (lost or ended == list(range(8)))
    assert all(actor.dead for actor in world.actors)
