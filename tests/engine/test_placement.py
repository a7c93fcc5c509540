"""How many studios a cluster has room for, by the shares of CPUs and GPUs that workers claim."""

from __future__ import annotations

import pytest

from pipeline.config import load_config
from pipeline.engine import placement
from pipeline.engine.placement import studio_claim, writer_claim
from pipeline.errors import ConfigError

GPU_NODE = {"CPU": 100.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "settings", "studios"),
    [
        ([{"CPU": 2}], (), 2),
        # Each on one node: 4.5 CPUs have room for 3, not for 4.
        ([{"CPU": 1.5}] * 3, (), 3),
        # Ten times a tenth is one, which it is not in floating point.
        ([{"CPU": 1}], ("studio_cpus=0.1",), 10),
        ([{"CPU": 0.3}], ("studio_cpus=0.1",), 3),
        # A share is of one GPU: three of 0.3 on each of four, not thirteen.
        ([GPU_NODE], ("studio_gpus=0.3",), 12),
        ([GPU_NODE], ("studio_gpus=0.05", "studio_cpus=2"), 50),
        ([GPU_NODE, {"CPU": 8}], ("studio_gpus=2",), 2),
        ([GPU_NODE], ("studio_gpus=3",), 1),
        ([{"CPU": 8}], ("studio_gpus=0.5",), 0),
        ([], (), 0),
        # Writers first.
        ([{"CPU": 2}, {"CPU": 2}], ("writers=3", "writer_cpus=1"), 1),
        ([{"CPU": 1.5}] * 2, ("writers=2", "writer_cpus=0.5"), 1),
        ([{"CPU": 9, "GPU": 2}], ("writers=3", "writer_gpus=0.5", "studio_gpus=0.5"), 1),
        ([{"CPU": 9, "GPU": 3}], ("writers=1", "writer_gpus=2", "studio_gpus=0.4"), 2),
        ([{"CPU": 9, "GPU": 2}], ("writers=1", "writer_gpus=0.4", "studio_gpus=0.7"), 1),
    ],
)
def test_room_for_studios(nodes: list[dict[str, float]], settings: tuple[str, ...], studios: int) -> None:
    engine = load_config("quickstart", [f"engine.{setting}" for setting in settings]).engine
    assert placement.studios(nodes, engine) == studios
    assert bool(studios) <= any(placement.fits(node, studio_claim(engine)) for node in nodes)


@pytest.mark.parametrize(
    ("nodes", "settings", "best", "worst"),
    [
        ([{"CPU": 2}, {"CPU": 2}], ("writers=2", "writer_cpus=1", "studio_cpus=2"), 1, 0),
        ([{"CPU": 2}, {"CPU": 2}], ("writers=1", "writer_cpus=1", "studio_cpus=2"), 1, 1),
        ([{"CPU": 4}, {"CPU": 4}], ("writers=2", "writer_cpus=1"), 6, 6),
        # One that wants no GPU goes where there is none.
        ([{"CPU": 2, "GPU": 1}, {"CPU": 2}], ("writers=2", "writer_cpus=1", "studio_cpus=2", "studio_gpus=1"), 1, 1),
        ([{"CPU": 2, "GPU": 1}, {"CPU": 2}], ("writers=3", "writer_cpus=1", "studio_cpus=2", "studio_gpus=1"), 0, 0),
    ],
)
def test_writers_may_lie_badly(nodes: list[dict[str, float]], settings: tuple[str, ...], best: int, worst: int) -> None:
    engine = load_config("quickstart", [f"engine.{setting}" for setting in settings]).engine
    assert placement.studios(nodes, engine) == best
    assert placement.studios(nodes, engine, at_worst=True) == worst


def test_a_writer_that_claims_nothing_fits_anywhere() -> None:
    engine = load_config("quickstart").engine
    assert placement.fits({}, writer_claim(engine)) and not placement.fits({}, studio_claim(engine))


def test_a_share_of_several_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine: studio_gpus=1.5: a share of one GPU"):
        load_config("quickstart", ["engine.studio_gpus=1.5"])
