"""The speech side of a run: engines that die, voices that nobody can speak, and where a library lies."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile as sf
import yaml

from pipeline.config import Config, TtsEngineConfig
from pipeline.dialogue import Clip, ModelUse
from pipeline.engine.base import make_job, open_studio
from pipeline.engine.run import run
from pipeline.errors import ConfigError, EndpointError, RunMismatchError
from pipeline.shards.store import RunFolder
from pipeline.voice import SpeechRequest, Unsaid
from tests.fakes import FakeLLM, Silent, make_config, tree
from tests.speech_server import Answer, says, speech_server
from tests.synthetic import ToneSynthesizer


class Cloner(ToneSynthesizer):
    kinds = frozenset({"clip"})

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        assert all(Path(request.voice.recipe.clip).is_file() for request in requests)
        return super().synthesize(requests)


def build_cloner(section: TtsEngineConfig) -> ToneSynthesizer:
    return Cloner()


def build_broken(section: TtsEngineConfig) -> ToneSynthesizer:
    raise RuntimeError("no kernel image is available")


class Held(Cloner):
    """Tells when it is opened and closed. With the option `gone` it is asked in vain."""

    told: ClassVar[list[str]] = []

    def __init__(self, section: TtsEngineConfig):
        super().__init__()
        self._gone = section.options.get("gone", False)
        self.told.append("open")

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        if self._gone:
            raise EndpointError("the server is gone")
        return super().synthesize(requests)

    def close(self) -> None:
        self.told.append("close")


def build_held(section: TtsEngineConfig) -> ToneSynthesizer:
    return Held(section)


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    return (ModelUse(role="tts", name="fake", sha256="", license="CC0-1.0"),)


def library(path: Path, count: int = 4, kind: str = "name", **last: Any) -> Path:
    """Voices v0, v1, … of the engine `mine`; last: fields of the last one."""
    path.parent.mkdir(exist_ok=True)
    for number in range(count if kind == "clip" else 0):
        sf.write(path.parent / f"v{number}.wav", np.full(800, number / 9), 16000)
    voices = [{"id": f"v{n}", "gender": ("female", "male")[n % 2], "recipe": {kind: f"v{n}.wav"}} for n in range(count)]
    defaults = {"engine": "mine", "license": "CC0-1.0", "languages": ["en"], "split": "train"}
    voices[-1] |= last
    path.write_text(yaml.safe_dump({"defaults": defaults, "voices": voices}))
    return path


def make(tmp_path: Path, llm: FakeLLM, corpus: Path, voices: Path, engine: dict[str, Any], **changes: Any) -> Config:
    return make_config(
        tmp_path / "config.yaml",
        llm.base_url,
        corpus,
        splits={"train": 1},
        cast={"library": str(voices), "agents": {"en": ["v0", "v1"]}},
        tts__engines={"mine": engine},
        asr__engine="tests.fakes:build_deaf_asr",
        judge={"limits": {"en": {}}},
        **{"engine__kind": "local", **changes},
    )


def served(url: str | None) -> dict[str, Any]:
    return {"kind": "http", "base_url": url, "model": "hibari", "license": "Apache-2.0", "retries": 0}


CLONER = {"kind": "tests.engine.test_speech:build_cloner"}


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_a_speech_server_that_dies_loses_nothing(
    tmp_path: Path, llm: FakeLLM, corpus: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "ray":
        request.getfixturevalue("ray_here")
    voices, out = library(tmp_path / "voices.yaml"), tmp_path / "run"
    asked = {"engine__kind": kind, "dialogues": 4, "engine__studios": 1}
    with speech_server(lambda n, fields: Answer(act="die") if n == 6 else says(fields)) as server:
        config = make(tmp_path, llm, corpus, voices, served(server.url), **asked)
        with pytest.raises(EndpointError, match=r"tts\.engines\.mine\.base_url=.* does not answer.*start it") as caught:
            run(config, out, Silent())
    assert caught.value.exit_code == 3
    with speech_server() as server:
        config = make(tmp_path, llm, corpus, voices, served(server.url), **asked)
        stats = run(config, out, Silent())
        assert (stats.accepted, len(llm.requests)) == (4, 4)  # no text was written twice
        local = config.model_copy(update={"engine": config.engine.model_copy(update={"kind": "local"})})
        run(local, tmp_path / "undisturbed", Silent())
    assert tree(out) == tree(tmp_path / "undisturbed")


def test_a_server_without_an_address_is_told_before_a_text_is_paid_for(
    tmp_path: Path, llm: FakeLLM, corpus: Path
) -> None:
    config = make(tmp_path, llm, corpus, library(tmp_path / "voices.yaml"), served(None))
    with pytest.raises(ConfigError, match=r"tts\.engines\.mine\.base_url=None is no address"):
        run(config, tmp_path / "run", Silent())
    assert llm.requests == []


def test_a_voice_that_its_engine_cannot_make_is_refused_by_name(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    """Not dialogue by dialogue."""
    voices = library(tmp_path / "voices.yaml", kind="clip", recipe={"name": "ann"})
    job = make_job(make(tmp_path, llm, corpus, voices, CLONER), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"'v3' of tts\.engines\.mine cannot speak en \(.*no voice of a name.*users"):
        open_studio(job)


def test_voices_that_change_under_a_run_are_not_spoken(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    voices = library(tmp_path / "voices.yaml", kind="clip")
    job = make_job(make(tmp_path, llm, corpus, voices, CLONER), tmp_path / "run")
    open_studio(job)[1].close()
    library(voices, kind="clip", recipe={"clip": "v0.wav"})
    with pytest.raises(ConfigError, match=r"cast\.library: .*voices\.yaml: the voices changed while the run"):
        open_studio(job)


def test_a_library_that_changed_between_two_commands_is_named(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    voices, out = library(tmp_path / "voices.yaml", kind="clip"), tmp_path / "run"
    config = make(tmp_path, llm, corpus, voices, CLONER, dialogues=2)
    run(config, out, Silent())
    before = tree(out)
    library(voices, kind="clip", recipe={"clip": "v0.wav"})
    named = r"speech would come out .*: cast\.library: .*voices\.yaml: the library of voices was \w{16} and is \w{16}"
    with pytest.raises(RunMismatchError, match=named):
        run(config, out, Silent())
    # A run that an older program made does not say which library it had.
    frozen = RunFolder(out).config
    kept = [line for line in frozen.read_text("utf-8").splitlines() if not line.startswith("  voices: ")]
    frozen.write_text("\n".join(kept), "utf-8")
    with pytest.raises(RunMismatchError, match="prompts, voices, corpus or the program itself changed"):
        run(config, out, Silent())
    library(voices, kind="clip")
    run(config, out, Silent())
    assert len(kept) == len(before["config.yaml"].splitlines()) - 1
    assert {**tree(out), "config.yaml": b""} == {**before, "config.yaml": b""}


@pytest.mark.parametrize(
    ("engine", "last", "error"),
    [
        ({}, {}, None),
        ({"options": {"gone": True}}, {}, EndpointError),
        ({}, {"recipe": {"name": "ann"}}, ConfigError),  # found when all engines are open
    ],
)
def test_an_engine_is_closed_however_the_run_ends(
    tmp_path: Path,
    llm: FakeLLM,
    corpus: Path,
    engine: dict[str, Any],
    last: dict[str, Any],
    error: type[Exception] | None,
) -> None:
    Held.told.clear()
    voices = library(tmp_path / "voices.yaml", kind="clip", **last)
    held = {"kind": "tests.engine.test_speech:build_held", **engine}
    config = make(tmp_path, llm, corpus, voices, held, dialogues=2)
    with pytest.raises(error) if error else nullcontext():
        run(config, tmp_path / "run", Silent())
    assert Held.told == ["open", "close"]


def test_connections_end_with_the_run(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    with speech_server() as server:
        config = make(tmp_path, llm, corpus, library(tmp_path / "voices.yaml"), served(server.url), dialogues=2)
        assert run(config, tmp_path / "run", Silent()).accepted == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "speech over HTTP"]


def test_a_library_that_was_moved_gives_the_same_bytes(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    trees = []
    for place in ("here", "there"):
        voices = library(tmp_path / place / "voices.yaml", kind="clip")
        run(make(tmp_path, llm, corpus, voices, CLONER, dialogues=2), tmp_path / f"run {place}", Silent())
        trees.append(tree(tmp_path / f"run {place}"))
    assert trees[0] == trees[1]
    assert any(rb"\"clip\": \"v" in data for data in trees[0].values())  # it says which clips all the same
    assert not any(str(tmp_path).encode() in data for name, data in trees[0].items() if name.startswith("shards"))


def test_a_worker_may_stand_in_another_folder(
    tmp_path: Path, llm: FakeLLM, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    library(tmp_path / "voices.yaml", kind="clip")
    engine = {**CLONER, "model_path": "model", "environment": {"path": "~/tts"}}
    job = make_job(make(tmp_path, llm, corpus, Path("voices.yaml"), engine), tmp_path / "run")
    mine = job.config.tts.engines["mine"]
    assert mine.model_path == tmp_path / "model" and mine.environment.path == Path.home() / "tts"
    assert job.config.cast.library == tmp_path / "voices.yaml" and job.config.asr.model_path is None


def test_an_engine_that_does_not_open_ends_the_run_and_blames_no_unit(
    tmp_path: Path, llm: FakeLLM, corpus: Path
) -> None:
    voices, out = library(tmp_path / "voices.yaml", kind="clip"), tmp_path / "run"
    broken = make(tmp_path, llm, corpus, voices, {"kind": "tests.engine.test_speech:build_broken"})
    with pytest.raises(RuntimeError, match="no kernel image"):
        run(broken, out, Silent())
    assert not list(out.rglob("quarantine/**/*.json"))


def test_the_licences_of_voices_that_nobody_hears_do_not_matter(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    voices = library(tmp_path / "voices.yaml", kind="clip", license="CC-BY-NC-4.0")
    config = make(tmp_path, llm, corpus, voices, CLONER, require_licence="commercial")
    with pytest.raises(ConfigError, match=r"require_licence=commercial: the voice v3 is under 'CC-BY-NC-4\.0'"):
        make_job(config, tmp_path / "run")
    heard = config.model_copy(update={"cast": config.cast.model_copy(update={"users": {"en": ("v2",)}})})
    assert json.loads(make_job(heard, tmp_path / "run").config.model_dump_json())["require_licence"] == "commercial"
