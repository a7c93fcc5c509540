"""Nodes that join a cluster while a run goes on are used, and one that leaves costs nothing but time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.engine.run import run
from tests.fakes import FakeLLM, Silent, config_file, tree
from tests.faults import tools
from tests.faults.cluster import Cluster, cluster_of
from tests.faults.tools import Driver

pytestmark = pytest.mark.faults


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Each of its nodes has room for one studio."""
    with cluster_of(1, tmp_path) as made:
        yield made


def test_a_studio_opens_where_a_node_joins_and_its_units_outlive_the_node(
    tmp_path: Path, llm: FakeLLM, corpus: Path, cluster: Cluster
) -> None:
    go, out = tmp_path / "go", tmp_path / "run"
    # Nothing is said to the first who asks in a process before `go` is there: so a studio that opens keeps its unit.
    options = {"folder": str(tmp_path), "files": go.name, "count": 1}
    keys = {
        "tts__engines": {"kokoro": {"kind": "tests.fakes:build_patient_tts", "options": options}},
        "asr__engine": "tests.fakes:build_deaf_asr",
        "judge": {"mode": "score_only"},
        "engine": {"studio_cpus": 1, "writers": 1, "tries": 2},
    }
    config = config_file(tmp_path / "run.yaml", llm.base_url, corpus, **keys)
    go.touch()
    run(load_config(str(config), ["engine.kind=local"]), tmp_path / "undisturbed", Silent())
    go.unlink()

    driver = Driver(config, out, "--engine", "ray", "--set", f"engine.address={cluster.address}")
    try:
        driver.until(lambda: len(tools.in_hand(out)) == 1)
        node = cluster.add()
        driver.until(lambda: tools.titled(node.family(), "StudioActor.run"))
        driver.until(lambda: len(tools.in_hand(out)) == 2)
        node.kill()
        driver.until(lambda: "gone with its node" in driver.said)
        go.touch()
        assert driver.ends() == 0, driver.said
    finally:
        driver.process.kill()
    assert tree(out) == tree(tmp_path / "undisturbed")
    assert not list(out.glob("logs/studio/*/*.json"))  # and no dialogue was blamed
