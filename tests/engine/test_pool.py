"""Work on every CPU: results and errors come back with their items, a killed process is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from pipeline.config import EngineConfig
from pipeline.engine.pool import each, each_together, finished, in_order
from pipeline.errors import DataError, RunIncomplete


def halve(number: int) -> tuple[int, int]:
    """Half of it, and who computed it. Raises for odd numbers, in two ways."""
    if number % 4 == 1:
        raise DataError(f"{number} is odd")
    if number % 4 == 3:
        raise ValueError(f"{number} is odd")
    return number // 2, os.getpid()


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def check_outcomes(engine: EngineConfig, here: bool) -> None:
    outcomes = dict(each(halve, range(12), engine))
    assert sorted(outcomes) == list(range(12))
    for number, outcome in outcomes.items():
        if number % 2:
            assert isinstance(outcome, DataError if number % 4 == 1 else ValueError)
            assert f"{number} is odd" in str(outcome)
        else:
            assert isinstance(outcome, tuple) and outcome[0] == number // 2
    workers = {outcome[1] for outcome in outcomes.values() if isinstance(outcome, tuple)}
    assert (workers == {os.getpid()}) == here and (os.getpid() in workers) == here


@pytest.mark.parametrize("processes", [1, 2])
def test_each_item_has_one_outcome(processes: int) -> None:
    check_outcomes(EngineConfig(kind="local", studios=processes), here=processes == 1)


@pytest.mark.usefixtures("ray_here")
def test_each_item_has_one_outcome_on_ray() -> None:
    check_outcomes(EngineConfig(kind="ray"), here=False)


def test_nothing_to_do_starts_nothing() -> None:
    assert list(each(die, [], EngineConfig(kind="local"))) == []


def test_a_killed_process_is_told() -> None:
    with pytest.raises(RunIncomplete, match=r"a worker process was killed .*run the same command again"):
        list(each(die, [1, 2, 3], EngineConfig(kind="local", studios=2)))


def whoever(word: str) -> int:
    """The process that it is done in; a word that is a path takes ten minutes, and lies there a second after it began:
    what was done before it has been told by then."""
    if os.sep in word:
        time.sleep(1)
        Path(word).touch()
        time.sleep(600)
    return os.getpid()


def test_a_group_is_of_one_process() -> None:
    groups = [tuple(f"{group}{place}" for place in range(3)) for group in "abcdef"]
    done = dict(each_together(whoever, groups, EngineConfig(kind="local", studios=2)))
    assert list(done) and len(done) == 18 and os.getpid() not in done.values()
    assert all(len({done[word] for word in group}) == 1 for group in groups)
    assert len(set(done.values())) == 2


def test_what_is_done_is_not_lost_where_the_caller_is_interrupted(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    groups: Iterator[tuple[str, ...]] = iter([("1", "2", str(paths[0])), ("3", str(paths[1])), ("4", "5")])
    with closing(each_together(whoever, groups, EngineConfig(kind="local", studios=2))) as outcomes:
        given = [next(outcomes)[0]]
        while not all(path.exists() for path in paths):
            time.sleep(0.05)
        given += [word for word, _ in finished(outcomes)]
        assert list(outcomes) == []
    assert {"1", "2", "3"} == set(given)
    assert multiprocessing.active_children() == []


def test_nothing_is_left_where_the_work_was_over() -> None:
    outcomes = each(halve, [0, 2], EngineConfig(kind="local", studios=1))
    assert [number for number, _ in outcomes] == [0, 2]
    assert list(finished(outcomes)) == []


def mortal(item: tuple[int, str]) -> int:
    """Its number. Where its path is a file, the process dies, but not a second time."""
    number, path = item
    if path and Path(path).exists():
        Path(path).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("seed", [0, 1])
def test_random_deaths_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Each session does what the sessions before it did not tell to be done, as runs of a command do."""
    chance = Random(seed)
    traps = {number: tmp_path / f"trap{number}" for number in chance.sample(range(40), 2)}
    for trap in traps.values():
        trap.touch()
    items = [(number, str(traps.get(number, ""))) for number in range(40)]
    done: list[int] = []
    deaths = 0
    while len(done) < 40 and deaths <= len(traps):
        left = [item for item in items if item[0] not in done]
        groups = []
        while left:
            size = chance.randint(1, 6)
            groups.append(tuple(left[:size]))
            left = left[size:]
        try:
            for (number, _), outcome in each_together(mortal, groups, EngineConfig(kind="local", studios=2)):
                assert outcome == number
                done.append(number)
        except RunIncomplete:
            deaths += 1
    assert sorted(done) == list(range(40))
    assert 1 <= deaths <= len(traps) and not any(trap.exists() for trap in traps.values())


def test_in_order_gives_what_map_gives() -> None:
    assert list(in_order(slow_first, range(12), workers=2)) == list(map(slow_first, range(12)))
    assert list(in_order(slow_first, range(12), workers=2, group=5)) == list(map(slow_first, range(12)))
    with pytest.raises(DataError, match="5 is odd"):
        list(in_order(halve, [0, 2, 5, 4], workers=2))
    with pytest.raises(RunIncomplete, match=r"a worker process was killed .* --workers 1"):
        list(in_order(die, [1, 2, 3], workers=2))


def slow_first(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number * number
