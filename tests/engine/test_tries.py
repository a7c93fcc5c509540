"""Deaths are counted on whom the dead had in hand, and on nobody else, whatever dies and however often."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config, EngineConfig
from pipeline.engine.tries import DeathNote, Tries
from pipeline.plan import Unit, plan_units
from pipeline.shards.store import RunFolder

SIZE = 4
UNITS = 3


def config_of(tries: int) -> Config:
    engine = EngineConfig(kind="local", tries=tries)
    return Config(dialogues=SIZE * UNITS, unit_size=SIZE, languages={"en": 1}, engine=engine)


def take_in_hand(folder: RunFolder, unit: int, ids: list[str]) -> None:
    """As a studio does before it speaks."""
    journal = folder.crash_journal(unit)
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("".join(f"{id}\n" for id in ids))


def speak(folder: RunFolder, unit: Unit, poisoned: dict[str, str], deadly: Counter[str]) -> list[str]:
    """The dialogues that come out of a unit, rejected ones included, in order; [] where the worker died of one."""
    for planned in unit.dialogues:
        if planned.id in poisoned:
            continue
        take_in_hand(folder, unit.number, [planned.id])
        if deadly[planned.id]:
            deadly[planned.id] -= 1
            return []
    take_in_hand(folder, unit.number, [])
    return [planned.id for planned in unit.dialogues]


@settings(max_examples=25)
@given(
    tries=st.integers(1, 4),
    deaths=st.lists(st.integers(0, 6) | st.just(0), min_size=SIZE * UNITS, max_size=SIZE * UNITS),
    chance=st.randoms(use_true_random=False),
    drivers=st.booleans(),
)
def test_who_kills_its_worker_each_time_is_rejected_alone_and_nobody_is_lost(
    tmp_path_factory: pytest.TempPathFactory, tries: int, deaths: list[int], chance: Random, drivers: bool
) -> None:
    """deaths: how often each dialogue kills its worker before it lets it live. drivers: each death is also the
    driver's, so that another one goes on from what lies on the disk."""
    folder, config = RunFolder(tmp_path_factory.mktemp("run")), config_of(tries)
    units = list(plan_units(config))
    deadly = Counter(dict(zip((item.id for unit in units for item in unit.dialogues), deaths, strict=True)))
    expected = {id: min(count, tries) for id, count in deadly.items()}
    killed: Counter[str] = Counter()
    out: Counter[str] = Counter()
    rejected: set[str] = set()
    waiting, journal = list(units), Tries(folder, config)
    while waiting:
        unit = waiting.pop(chance.randrange(len(waiting)))
        journal = Tries(folder, config) if drivers else journal
        poisoned = journal.poisoned(unit)
        done = speak(folder, unit, poisoned, deadly)
        if done:
            out.update(done)
            rejected |= poisoned.keys()
            continue
        [suspect] = journal.suspects(unit.number)
        killed[suspect] += 1
        journal.blame(unit.number, [suspect], "died")
        waiting.append(unit)
    assert out == Counter(item.id for unit in units for item in unit.dialogues)
    assert killed == Counter(expected)
    assert rejected == {id for id, count in expected.items() if count == tries}


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, UNITS - 1), st.sets(st.integers(0, SIZE - 1)), max_size=UNITS),
            st.sampled_from(["Fatal Python error: Segmentation fault\n\nThread 0x1:\n", "", "\n", None]),
        ),
        max_size=6,
    )
)
def test_a_driver_that_died_by_a_fault_blames_whom_it_had_in_hand_once(
    tmp_path_factory: pytest.TempPathFactory, lives: list[tuple[dict[int, set[int]], str | None]]
) -> None:
    """lives: what each driver had in hand when it ended, and what its last note says; None: it left none."""
    folder, config = RunFolder(tmp_path_factory.mktemp("run")), config_of(tries=2)
    units = list(plan_units(config))
    blamed: Counter[str] = Counter()
    for in_hand, note in lives:
        for unit in units:
            ids = [unit.dialogues[place].id for place in sorted(in_hand.get(unit.number, ()))]
            take_in_hand(folder, unit.number, ids)
            blamed.update(ids if note and note.strip() else ())
        if note is not None:
            (folder.logs / "fatal.log").write_text(note)
        tries = Tries(folder, config)
        lines = DeathNote(folder).settle(tries)
        told = sum(map(len, in_hand.values())) if note and note.strip() else 0
        assert len(lines) == told and all("Segmentation fault" in line for line in lines)
        assert DeathNote(folder).settle(tries) == []
        # A later fault, before these are taken in hand again, is none of theirs.
        (folder.logs / "fatal.log").write_text("Fatal Python error: Aborted\n")
        assert DeathNote(folder).settle(tries) == []
        for unit in units:
            own = {item.id for item in unit.dialogues}
            assert set(tries.poisoned(unit)) == {id for id, count in blamed.items() if count >= 2} & own


def test_a_torn_journal_of_deaths_begins_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, config = RunFolder(tmp_path_factory.mktemp("run")), config_of(tries=1)
    unit = next(plan_units(config))
    first = unit.dialogues[0].id
    Tries(folder, config).blame(0, [first], "hung for 60 s")
    assert "hung for 60 s" in Tries(folder, config).poisoned(unit)[first]
    path = folder.crash_journal(0).with_suffix(".json")
    path.write_bytes(path.read_bytes()[:-7])
    assert Tries(folder, config).poisoned(unit) == {} and Tries(folder, config).suspects(0) == []
