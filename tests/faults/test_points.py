"""Killed, or let down by its disk, at every named point of the write path, and resumed: the same bytes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import tree
from tests.faults import tools
from tests.faults.conftest import Ground
from tests.faults.points import DRIVER, POINTS, Act, Fault

pytestmark = pytest.mark.faults

ONCE = {point.name for point in DRIVER if not point.name.startswith("rows")}
"""That do not belong to a unit."""
FEW = ("reply-half-appended", "text-renamed", "shard-half-written", "manifest-renamed", "manifest-opened")
"""What the default set of tests tries of each kind; `make test-faults` tries all."""


def fault(out: Path, point: str, act: Act = "kill") -> Fault:
    """At the unit that has a reject."""
    # A fake endpoint sends no bill, and that is noted before its reply is.
    after = int(point.startswith("reply-"))
    return Fault(str(out), point, str(mark(out, point)), act, None if point in ONCE else 1, after)


def mark(out: Path, point: str) -> Path:
    return out.parent / f"{out.name}.{point}"


def rows(names: list[str], word: str) -> list[Any]:
    return [pytest.param(name, id=f"{word}-{name}", marks=() if name in FEW else pytest.mark.matrix) for name in names]


def of(*ends: str) -> list[str]:
    return [name for name in POINTS if name.endswith(ends)]


@pytest.mark.parametrize("point", rows(list(POINTS), "driver-killed-at"))
def test_killed_at(tmp_path: Path, ground: Ground, point: str) -> None:
    out = tmp_path / "run"
    before = len(ground.llm.requests)
    assert ground.nursery.start(out, [fault(out, point)]) == -signal.SIGKILL
    assert not (out / "README.md").exists() or point == "card-renamed"
    missing = ground.texts - len(tools.written(out))
    paid = len(ground.llm.requests) - before
    assert ground.nursery.start(out) == 0
    assert tree(out) == ground.tree
    assert not tools.temporaries(out) and not tools.in_hand(out)
    # A reply that was lost while it was written down is the only one that is asked for again.
    assert len(ground.llm.requests) - before == paid + missing
    assert paid + missing == ground.texts + (point == "reply-half-appended")


@pytest.mark.parametrize("point", rows(of("-written", "-synced", "-appended", "-opened"), "EIO-at"))
def test_the_device_fails_at(tmp_path: Path, ground: Ground, point: str) -> None:
    out = tmp_path / "run"
    assert ground.nursery.start(out, [fault(out, point, "EIO")]) == 4
    assert mark(out, point).exists()
    assert ground.nursery.start(out) == 0
    assert tree(out) == ground.tree and not tools.temporaries(out)


@pytest.mark.parametrize("point", rows(of("-opened", "-appended"), "read-only-at"))
def test_the_disk_is_read_only_at(tmp_path: Path, ground: Ground, point: str) -> None:
    out = tmp_path / "run"
    assert ground.nursery.start(out, [fault(out, point, "EROFS")]) == 4
    assert mark(out, point).exists()
    assert ground.nursery.start(out) == 0
    assert tree(out) == ground.tree and not tools.temporaries(out)


@pytest.mark.parametrize("point", rows(of("-opened", "-half-written", "-half-appended"), "disk-full-at"))
def test_the_disk_is_full_at(mount: Callable[[str], Path], ground: Ground, point: str) -> None:
    """All room of a real disk is taken while the program is at this point."""
    out = mount("size=8m") / "run"
    before = len(ground.llm.requests)
    assert ground.nursery.start(out, [fault(out, point, "fill")]) == 4
    [filler] = out.rglob("*.filler")
    filler.unlink()
    assert ground.nursery.start(out) == 0
    assert tree(out) == ground.tree and not tools.temporaries(out)
    # Of the replies, no more are lost than the one that was to be written and one that was on its way by then.
    assert len(ground.llm.requests) - before <= ground.texts + 2
