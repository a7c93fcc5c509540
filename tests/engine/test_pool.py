"""Work on every CPU: results and errors come back with their items, a killed process is told."""

from __future__ import annotations

import os
import signal

import pytest

from pipeline.config import EngineConfig
from pipeline.engine.pool import each
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
