"""What a cluster is asked before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from pipeline import __version__
from pipeline.config import load_config
from pipeline.engine import preflight
from pipeline.engine.preflight import Node, look
from pipeline.engine.run import run
from pipeline.errors import ConfigError, EndpointError, RunFolderError, SpeechchatError
from pipeline.shards.store import RunFolder
from tests.fakes import FakeLLM, Silent, config_file


def test_a_worker_that_no_node_has_room_for_is_named_before_any_work(
    tmp_path: Path, llm: FakeLLM, corpus: Path, ray_here: None
) -> None:
    path = config_file(tmp_path / "run.yaml", llm.base_url, corpus)
    for setting, *more in (
        ("engine.studio_cpus=1000",),
        ("engine.studio_gpus=0.5",),
        ("engine.studio_cpus=1000", "engine.patience=1.5"),
        ("engine.writer_cpus=1000",),
        ("engine.studio_cpus=0.5", f"engine.writer_cpus={ray.cluster_resources()['CPU']:g}"),
    ):
        with pytest.raises(
            ConfigError, match=rf"{setting.replace('.', '[.]')}.*no node of the cluster.*engine.patience"
        ):
            run(load_config(str(path), ["engine.kind=ray", setting, *more]), tmp_path / "run", Silent())
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert not llm.requests and made <= {"config.yaml", "logs", "sources"}


def test_a_node_sees_the_file_of_the_driver_and_leaves_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "seen"
    assert not look(mark, patience=0).seen
    mark.write_text("")
    node = look(mark)
    assert node.seen and node.error == "" and node.version == __version__
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


def test_a_folder_that_takes_no_files_is_told() -> None:
    node = look(Path("/proc/self/status"))
    assert node.seen and node.error


@pytest.mark.faults
@pytest.mark.parametrize(
    ("node", "kind", "words"),
    [
        (Node("0.0.1", "3.11.7", True, ""), EndpointError, "has speechchat 0.0.1, and this is"),
        (Node(__version__, "3.11.7", False, ""), RunFolderError, "is not the same folder on node far away"),
        (Node(__version__, "3.11.7", True, "Permission denied"), RunFolderError, "cannot write there .Permission"),
    ],
)
def test_what_is_wrong_with_a_node_is_one_line(node: Node, kind: type[SpeechchatError], words: str) -> None:
    with pytest.raises(kind, match=words):
        preflight.judge("far away (10.0.0.9)", node, RunFolder(Path("/data/run")))
