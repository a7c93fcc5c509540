"""Workers of Ray and a store: each finds it by its own environment, and makes what a folder would hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.engine.run import run
from tests.command_line import python
from tests.fakes import EN_LINES, Silent, config_file, llm_server, tree, write_corpus
from tests.object_store import object_store, objects

pytestmark = [pytest.mark.faults, pytest.mark.matrix]

LINES = [EN_LINES[0], "This is a hopeless case.", EN_LINES[1], "Let me stumble over it."]
OUT = "s3://bucket/runs/ray"


def test_two_studios_of_ray_write_to_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with llm_server() as llm, object_store() as store:
        config = config_file(tmp_path / "run.yaml", llm.base_url, write_corpus(tmp_path / "corpus", LINES), dialogues=8)
        run(load_config(str(config), ["engine.kind=local"]), tmp_path / "folder", Silent())
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        words = ("run", config, "--out", OUT, "--engine", "ray", "--set", "engine.studios=2")
        done = python("-m", "pipeline.cli", *words)
        assert done.status == 0, done.err
        assert objects(OUT) == tree(tmp_path / "folder")
        again = python("-m", "pipeline.cli", *words)
        assert again.status == 0 and objects(OUT) == tree(tmp_path / "folder")
        shards = [request.name for request in store.seen if request.method == "PUT" and request.name.endswith(".tar")]
        assert shards and len(shards) == len(set(shards))
