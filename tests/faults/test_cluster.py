"""A cluster of three nodes on this machine: a raylet, or a whole node, is lost on the way, or is no help."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.config import load_config
from pipeline.engine.run import run as run_here
from tests.fakes import FakeLLM, Silent, config_file, llm_server, tree, write_corpus
from tests.faults import tools
from tests.faults.cluster import Cluster, Node, cluster_of
from tests.faults.test_kills import SLOW
from tests.faults.tools import Driver, error_line, run

pytestmark = [pytest.mark.faults, pytest.mark.matrix]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(3, tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    with llm_server() as llm:
        path = config_file(root / "run.yaml", llm.base_url, write_corpus(root / "corpus"), **SLOW)
        run_here(load_config(str(path), ["engine.kind=local"]), root / "run", Silent())
    return tree(root / "run")


@pytest.fixture
def config(tmp_path: Path, llm: FakeLLM, corpus: Path) -> Path:
    """A studio fills a node, so that there is one on each."""
    changes = {**SLOW, "engine__studio_cpus": 1, "engine__studios": 3}
    return config_file(tmp_path / "run.yaml", llm.base_url, corpus, **changes)


def at_work(cluster: Cluster) -> Node | None:
    """A node, not the head, of which a studio is at work."""
    return next((node for node in cluster.nodes[1:] if tools.titled(node.family(), "StudioActor.run")), None)


def kill_raylet(node: Node) -> None:
    node.raylet().kill()


@pytest.mark.parametrize(
    "kill", [pytest.param(kill_raylet, id="raylet-killed"), pytest.param(Node.kill, id="node-of-three-killed")]
)
def test_lost(
    tmp_path: Path, cluster: Cluster, config: Path, undisturbed: dict[str, bytes], kill: Callable[[Node], None]
) -> None:
    """The run ends by itself on what is left. Workers of a raylet that is gone live on for a while, and do no harm."""
    out = tmp_path / "run"
    driver = Driver(config, out, "--engine", "ray", "--set", f"engine.address={cluster.address}")
    node = driver.until(lambda: tools.in_hand(out) and at_work(cluster))
    workers = tools.titled(node.family(), "StudioActor")
    kill(node)
    assert driver.ends() == 0, driver.said
    assert workers and "Traceback" not in driver.said
    assert tree(out) == undisturbed
    assert not tools.temporaries(out) and not tools.in_hand(out)
    cluster.nodes.remove(node)
    node.kill()
    tools.kill(workers)
    cluster.add()


def refused(config: Path, out: Path, cluster: Cluster, node: Node) -> str:
    """The line of a run that a node keeps from beginning; the node is taken out again."""
    try:
        # Ray's workers find the program in the driver's folder first, as if one disk were everywhere.
        words = ("--engine", "ray", "--set", f"engine.address={cluster.address}")
        status, said = run(config, out, *words, cwd=config.parent)
    finally:
        cluster.nodes.remove(node)
        node.kill()
    assert status in (2, 3), said
    assert not (out / "dialogues").exists() and not (out / "shards").exists()
    return error_line(said)


def test_a_node_with_another_version(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    other = tmp_path / "other"
    for name in ("pipeline", "speakers", "prompts"):
        shutil.copytree(root / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = other / "pipeline" / "__init__.py"
    path.write_text(path.read_text("utf-8").replace(f'"{__version__}"', '"0.0.7"'), "utf-8")
    node = cluster.add(environment={"PYTHONPATH": os.pathsep.join([str(other), os.environ["PYTHONPATH"]])})
    said = refused(config, tmp_path / "run", cluster, node)
    assert f"has speechchat 0.0.7, and this is {__version__}" in said


def test_a_node_that_does_not_see_the_folder(
    tmp_path: Path, mount: Callable[[str], Path], cluster: Cluster, config: Path
) -> None:
    """It has a disk of its own where the others share one."""
    shared = mount("size=8m")
    own = f'mount -t tmpfs -o size=1m tmpfs {shared} && exec "$@"'
    node = cluster.add(before=("unshare", "--mount", "sh", "-c", own, "sh"))
    said = refused(config, shared / "run", cluster, node)
    assert f"{shared / 'run'} is not the same folder on node" in said
