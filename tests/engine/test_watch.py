"""When a studio counts as hung, with a clock of our own."""

from __future__ import annotations

from pipeline.engine.watch import Watch
from pipeline.stages.studio import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(unit: int, done: int) -> Progress:
    return Progress(unit=unit, dialogues=8, done=done)


def test_one_that_moves_is_left_alone_and_one_that_does_not_is_named() -> None:
    clock = Clock()
    watch = Watch(10, clock)
    for done in range(5):
        assert watch.stuck("a", [at(0, done)]) == ""
        clock.now += 9
    assert watch.stuck("a", [at(0, 4)]) == ""  # 9 s
    clock.now += 1
    assert "unit 0" in watch.stuck("a", [at(0, 4)])
    assert watch.hung == {0: "hung for 10 s"}
    assert watch.stuck("a", [at(0, 4)]) == ""  # told once


def test_a_unit_that_comes_back_begins_anew() -> None:
    clock = Clock()
    watch = Watch(10, clock)
    watch.stuck("a", [at(0, 0)])
    clock.now += 8
    watch.forget("a")
    assert watch.stuck("a", [at(0, 0)]) == ""
    clock.now += 8
    assert watch.stuck("a", [at(0, 0)]) == ""
    clock.now += 8
    assert watch.stuck("a", [at(1, 0)]) == ""  # another unit in between
    clock.now += 8
    assert watch.stuck("a", [at(0, 0)]) == ""


def test_of_two_units_the_one_that_hangs_is_blamed() -> None:
    clock = Clock()
    watch = Watch(10, clock)
    for done in range(3):
        told = watch.stuck("a", [at(0, 0), at(1, done)])
        clock.now += 6
    assert "unit 0 " in told and watch.hung.keys() == {0}


def test_studios_are_told_apart_and_without_a_deadline_nobody_hangs() -> None:
    clock = Clock()
    watch, never = Watch(10, clock), Watch(None, clock)
    watch.stuck("a", [at(0, 0)])
    never.stuck("a", [at(0, 0)])
    clock.now += 11
    assert watch.stuck("b", [at(0, 0)]) == ""
    assert watch.stuck("c", []) == ""
    assert never.stuck("a", [at(0, 0)]) == ""
    assert watch.stuck("a", [at(0, 0)]) != ""
