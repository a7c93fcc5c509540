"""Whatever happens, in whatever order: a run that is resumed often enough ends as the undisturbed one."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import tree
from tests.faults import tools
from tests.faults.conftest import Ground
from tests.faults.points import POINTS, Act, Fault

pytestmark = [pytest.mark.faults, pytest.mark.matrix]

ACTS: tuple[Act, ...] = ("kill", "EIO", "ENOSPC", "EROFS")
Blow = tuple[str, Act, int | None, int]
BLOWS = st.tuples(
    st.sampled_from(sorted(POINTS)), st.sampled_from(ACTS), st.sampled_from([None, 0, 1]), st.integers(0, 2)
)
# Each start of the program meets two blows at most; what it does not come to any more, does not happen.
SCHEDULES = st.lists(st.lists(BLOWS, min_size=1, max_size=2), min_size=1, max_size=3)
NUMBERS = itertools.count()


@settings(max_examples=40 if settings().derandomize else 1000)  # a longer soak: --hypothesis-profile=explore
@given(schedule=SCHEDULES)
def test_any_schedule_of_faults_ends_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, ground: Ground, schedule: list[list[Blow]]
) -> None:
    root = tmp_path_factory.mktemp("schedule")
    out = root / "run"
    struck, done = 0, set[str]()
    before = len(ground.llm.requests)
    for blows in schedule:
        faults = [Fault(str(out), point, str(root / f"mark-{next(NUMBERS)}"), *rest) for point, *rest in blows]
        status = ground.nursery.start(out, faults)
        met = [fault for fault in faults if Path(fault.mark).exists()]
        expected = {-signal.SIGKILL if fault.act == "kill" else 4 for fault in met} or {0}
        assert status in expected | ({4} if met else set()), (status, met)
        struck += len(met)
        assert done <= tools.written(out)
        done = tools.written(out)
    assert ground.nursery.start(out) == 0
    assert tree(out) == ground.tree
    assert not tools.temporaries(out)
    # Each blow costs one reply at most: the one that was being written down.
    assert len(ground.llm.requests) - before <= ground.texts + struck
