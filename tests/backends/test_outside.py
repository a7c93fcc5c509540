"""An engine in an environment of its own, for real: another process of another Python, and an actor of Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backends.tts import outside
from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.outside import open_outside
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip
from pipeline.errors import BackendError, ConfigError, EndpointError, ModelError
from pipeline.voice import Recipe, SpeechRequest, Unsaid, Voice
from tests.backends import toy_engine

TOY = "tests.backends.toy_engine:build"
VOICE = Voice(
    id="toy_1", gender="female", languages=("en",), engine="toy", license="CC0-1.0", recipe=Recipe(name="one")
)


def ask(text: str, seed: int = 1, speed: float = 1.0) -> SpeechRequest:
    return SpeechRequest(text, "en", VOICE, 0, speed, seed)


def section(options: dict[str, Any] | None = None, timeout: float = 60, **environment: Any) -> TtsEngineConfig:
    return TtsEngineConfig.model_validate(
        {"kind": TOY, "options": options or {}, "timeout": timeout, "environment": environment}
    )


def open_toy(**options: Any) -> Synthesizer:
    return open_outside("toy", section(options, path=sys.prefix), on_ray=False)


def process_of(engine: Synthesizer) -> int:
    return int(engine.name.split()[-1])


def same(left: Clip | Unsaid, right: Clip | Unsaid) -> bool:
    if isinstance(left, Unsaid) or isinstance(right, Unsaid):
        return left == right
    return left.rate == right.rate and np.array_equal(left.audio, right.audio)


@pytest.fixture(scope="module")
def toy() -> Iterator[Synthesizer]:
    yield open_toy()


def test_it_is_the_engine_that_lives_there(toy: Synthesizer) -> None:
    here = toy_engine.build(TtsEngineConfig(kind=TOY))
    for field in ("rate", "languages", "kinds", "stochastic", "deterministic", "batch"):
        assert getattr(toy, field) == getattr(here, field), field
    assert process_of(toy) != os.getpid()
    asked = [ask("hello", 3), ask("% of it", 4), ask("你好", 5, speed=0.7), ask("", 6), ask("hello", 7)]
    answers = toy.synthesize(asked)
    assert len(answers) == 5
    assert all(map(same, answers, here.synthesize(asked)))
    assert answers[1] == Unsaid("symbols", "of toy_1: %")
    assert toy.synthesize([]) == []


def test_a_process_that_is_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    toy = open_toy()
    before = process_of(toy)
    asked = [ask("hello", 3), ask(f"die once {tmp_path / 'dead'}", 4), ask("%", 5), ask("hello", 6)]
    answers = toy.synthesize(asked)
    assert (tmp_path / "dead").exists()
    assert process_of(toy) != before
    assert all(map(same, answers, toy_engine.build(TtsEngineConfig(kind=TOY)).synthesize(asked)))


def test_a_process_that_dies_between_two_calls_is_started_again() -> None:
    toy = open_toy()
    os.kill(process_of(toy), signal.SIGKILL)
    assert isinstance(toy.synthesize([ask("hello")])[0], Clip)


def test_a_request_that_kills_each_time_is_unsaid_alone(toy: Synthesizer) -> None:
    first, deadly, last = toy.synthesize([ask("hello", 3), ask("die"), ask("hello", 6)])
    assert isinstance(deadly, Unsaid)
    assert deadly.reason == "refused"
    assert "SIGKILL" in deadly.detail
    assert isinstance(first, Clip)
    assert isinstance(last, Clip)


def impatient(monkeypatch: pytest.MonkeyPatch) -> Synthesizer:
    """A toy that may take a second for a request, and two more for a batch."""
    monkeypatch.setattr(outside, "ALLOWANCE", 2.0)
    return open_outside("toy", section(timeout=1, path=sys.prefix), on_ray=False)


def test_a_process_that_hangs_is_ended_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = impatient(monkeypatch)
    before = process_of(toy)
    asked = [ask("hello", 3), ask(f"hang once {tmp_path / 'hung'}", 4), ask("%", 5)]
    answers = toy.synthesize(asked)
    assert (tmp_path / "hung").exists()
    assert process_of(toy) != before and gone(before)
    assert all(map(same, answers, toy_engine.build(TtsEngineConfig(kind=TOY)).synthesize(asked)))


def test_a_request_that_hangs_each_time_is_unsaid_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first, endless, last = impatient(monkeypatch).synthesize([ask("hello", 3), ask("hang"), ask("hello", 6)])
    assert isinstance(endless, Unsaid) and endless.reason == "refused"
    assert "twice: no answer in 3 s, ended by SIGKILL" in endless.detail
    assert isinstance(first, Clip) and isinstance(last, Clip)


def test_an_engine_that_never_opens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside._Child, "start", 3.0)
    with pytest.raises(ModelError, match=r"environment\.path=.*did not start there.*no answer in 3 s"):
        open_toy(hang=True)


def test_one_that_is_closed_has_no_process_until_it_is_asked_again() -> None:
    toy = open_toy()
    before = process_of(toy)
    toy.close()  # type: ignore[attr-defined]
    assert gone(before)
    toy.close()  # type: ignore[attr-defined]
    assert isinstance(toy.synthesize([ask("hello")])[0], Clip)
    assert process_of(toy) != before


def test_an_engine_that_only_dies_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "DEATHS", 2)
    with pytest.raises(EndpointError, match=r"environment\.path=.* died 2 times in a row.* resume: ended by SIGKILL"):
        open_toy().synthesize([ask("die"), ask("die")])


def test_errors_keep_their_kind_and_bugs_their_traceback(toy: Synthesizer) -> None:
    process = process_of(toy)
    with pytest.raises(BackendError, match=r"^the toy does not want to$"):
        toy.synthesize([ask("refuse")])
    with pytest.raises(RuntimeError, match=r"(?s)toy_engine\.py.*ZeroDivisionError: a bug of the toy"):
        toy.synthesize([ask("hello"), ask("bug")])
    assert isinstance(toy.synthesize([ask("hello")])[0], Clip)
    assert process_of(toy) == process
    with pytest.raises(ModelError, match=r"^tts\.engines\.toy: weights: not there; fetch it$"):
        open_toy(missing="weights")


def gone(process: int) -> bool:
    """Whether it has ended within a minute; one that nobody has waited for yet has ended too."""
    for _ in range(600):
        try:
            if "State:\tZ" in Path(f"/proc/{process}/status").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):  # it ended before the file was opened, or before it was read
            return True
        time.sleep(0.1)
    return False


def test_it_ends_with_its_parent() -> None:
    code = """
        import sys, time
        from tests.backends.test_outside import open_toy, process_of
        toy = open_toy()
        print(process_of(toy), flush=True)
        time.sleep(300)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    assert gone(child)


def test_it_ends_when_nobody_holds_it() -> None:
    toy = open_toy()
    process = process_of(toy)
    del toy
    assert gone(process)


def test_an_environment_without_our_needs_is_named(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare")
    with pytest.raises(
        ModelError, match=r"tts\.engines\.toy\.environment\.path=.*bare: .*needs pydantic.*No module named"
    ):
        open_outside("toy", section(path=str(tmp_path / "bare")), on_ray=False)


@pytest.mark.parametrize("name", ["nothing", "folder", "file"])
def test_a_path_that_is_no_environment_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not to be run")
    with pytest.raises(ConfigError, match=rf"^tts\.engines\.toy\.environment\.path: .*{name} is no virtual.*-m venv"):
        open_outside("toy", section(path=str(tmp_path / name)), on_ray=True)


@pytest.mark.parametrize("environment", [{"packages": ["toy==1"]}, {"image": "toy:1"}])
def test_packages_and_images_need_ray(environment: dict[str, Any]) -> None:
    (key,) = environment
    with pytest.raises(ConfigError, match=rf"environment\.{key} needs Ray .*environment\.path"):
        open_outside("toy", section(**environment), on_ray=False)


def write_wheel(folder: Path) -> Path:
    """A package that is installed nowhere."""
    wheel = folder / "toy_voice-1.5-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy_voice.py", "VERSION = 'toy-voice 1.5'\n")
        about = "toy_voice-1.5.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: toy-voice\nVersion: 1.5\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


def light_python(folder: Path) -> Path:
    """A virtual environment that sees the packages of this one: Ray copies the environment that it runs in, and this
    one has gigabytes."""
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if path.endswith("-packages")]
    (site / "all.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in packages))
    return folder / "bin" / "python"


RAY = """
    import json, os, ray, sys
    from pipeline.backends.tts import outside
    from pipeline.backends.tts.outside import open_outside
    from pipeline.config import EngineConfig
    from pipeline.engine.cluster import connect
    from pipeline.errors import ModelError
    from pipeline.voice import Unsaid
    from tests.backends.test_outside import ask, process_of, section

    @ray.remote
    class Studio:
        def open(self, options, packages):
            self.toy = open_outside("toy", section(options, 4, packages=packages), on_ray=True)
            return self.toy.name

        def hurry(self):
            outside.ALLOWANCE = 0

        def say(self, *texts):
            said = self.toy.synthesize([ask(text, seed) for seed, text in enumerate(texts)])
            return [item.reason if isinstance(item, Unsaid) else item.audio.tolist() for item in said], self.toy.name

    connect(EngineConfig())
    studio = Studio.remote()
    try:
        ray.get(studio.open.remote({}, ["/nowhere/none-1-py3-none-any.whl"]))
    except ModelError as error:
        failed = str(error.cause)
    first = ray.get(studio.open.remote({"package": "toy_voice"}, [sys.argv[1]]))
    said, second = ray.get(studio.say.remote("hello", f"die once {sys.argv[2]}", "%"))
    ray.get(studio.hurry.remote())
    hung, third = ray.get(studio.say.remote("hang"))
    told = {"failed": failed, "first": first, "second": second, "said": said, "hung": hung}
    ray.kill(studio)
    print(json.dumps(told), flush=True)
    from tests.backends.test_outside import gone
    print(gone(int(second.split()[-1])) and gone(int(third.split()[-1])))
"""


def test_ray_installs_packages_and_replaces_what_dies(tmp_path: Path) -> None:
    """An actor in an environment that Ray makes; when it is killed nothing is lost; it ends with its studio."""
    code = [light_python(tmp_path / "light"), "-c", textwrap.dedent(RAY), write_wheel(tmp_path), tmp_path / "dead"]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, ended = done.stdout.splitlines()[-2:]
    found = json.loads(told)
    assert "environment.packages: Ray 2" in found["failed"]
    assert "ERROR" in found["failed"]
    assert "none-1-py3-none-any.whl" in found["failed"]
    assert found["first"].startswith("toy-voice 1.5 ")
    assert found["second"].startswith("toy-voice 1.5 ")
    assert found["first"] != found["second"]
    here = toy_engine.build(TtsEngineConfig(kind=TOY))
    dead = f"die once {tmp_path / 'dead'}"
    clips = here.synthesize([ask("hello", 0), ask(dead, 1)])
    assert found["hung"] == ["refused"]
    assert found["said"] == [*[clip.audio.tolist() for clip in clips if isinstance(clip, Clip)], "symbols"]
    assert ended == "True"
