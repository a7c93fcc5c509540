"""An environment of its own for each stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.engine.actors import check_environments
from pipeline.engine.run import run
from pipeline.errors import ConfigError
from tests.fakes import FakeLLM, Silent, config_file, llm_server


def test_an_unknown_key_names_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"'engine.studio_runtime_env.env_var'; did you mean .*env_vars'"):
        load_config("quickstart", ["engine.studio_runtime_env.env_var={A: b}"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "studio_runtime_env={pip: [six], conda: other}",
            r"engine.studio_runtime_env: .*cannot be specified at the same",
        ),
        ("writer_runtime_env={working_dir: ./here}", r"engine.writer_runtime_env: .*here"),
        ("studio_runtime_env={config: {setup_timeout_seconds: 0}}", r"engine.studio_runtime_env: .*setup_timeout"),
    ],
)
def test_what_ray_would_not_take_is_one_line(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_environments(load_config("quickstart", [f"engine.{setting}"]).engine)
    assert "\n" not in str(caught.value)


def test_what_ray_takes_passes() -> None:
    for setting in ("studio_runtime_env={pip: [six], env_vars: {A: b}}", "writer_runtime_env={uv: [six]}"):
        check_environments(load_config("quickstart", [f"engine.{setting}"]).engine)


def test_without_ray_it_is_refused(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    path = config_file(tmp_path / "run.yaml", llm.base_url, corpus)
    with pytest.raises(ConfigError, match=r"engine.writer_runtime_env needs Ray"):
        run(
            load_config(str(path), ["engine.kind=local", "engine.writer_runtime_env={uv: [six]}"]),
            tmp_path / "run",
            Silent(),
        )


def test_each_stage_sees_its_own_and_no_file_has_it(tmp_path: Path, corpus: Path, ray_here: None) -> None:
    """The writer shows it to its endpoint, which refuses any other key; the studio writes it down."""
    told, out = tmp_path / "told", tmp_path / "run"
    with llm_server("key-of-writers") as llm:
        path = config_file(tmp_path / "run.yaml", llm.base_url, corpus, dialogues=2, engine__studios=1)
        settings = [
            "tts.engines.kokoro.kind=tests.fakes:build_telling_tts",
            f"tts.engines.kokoro.options={{told: '{told}'}}",
            "engine.writer_runtime_env={env_vars: {OPENAI_API_KEY: key-of-writers}}",
            "engine.studio_runtime_env={env_vars: {OPENAI_API_KEY: key-of-studios}}",
        ]
        stats = run(load_config(str(path), ["engine.kind=ray", *settings]), out, Silent())
    assert stats.accepted == 2
    assert told.read_text() == "key-of-studios"
    files = [path for path in out.rglob("*") if path.is_file()]
    assert any(path.suffix == ".tar" for path in files)
    assert [path for path in files if b"key-of-" in path.read_bytes()] == []


def test_one_that_cannot_be_made_ends_the_run_at_once(
    tmp_path: Path, llm: FakeLLM, corpus: Path, ray_here: None
) -> None:
    path = config_file(tmp_path / "run.yaml", llm.base_url, corpus, dialogues=2, engine__studios=1)
    missing = tmp_path / "missing.zip"
    setting = f"engine.writer_runtime_env={{working_dir: 'file://{missing}'}}"
    with pytest.raises(ConfigError, match=r"engine.writer_runtime_env cannot be made on a node: .*missing"):
        run(load_config(str(path), ["engine.kind=ray", setting]), tmp_path / "run", Silent())
    assert not llm.requests
