"""An engine that lives in an environment of its own, because its packages disagree with ours.

environment.path: a child process of that Python. It runs the very code of this package, which need not be installed
    there, and shares the worker's GPU. It is the same with Ray and without: nothing has to match but the frames.
environment.packages, .image: an actor of Ray on the worker's node, in a `runtime_env` that Ray makes once a node.

Either speaks in frames, a line of JSON and then float32 samples, so that no two environments need the same numpy or
pydantic. Either ends with the worker that holds it.

When it dies, or says nothing for so long that it is killed, what it was asked is asked again, one by one, of a new one:
the worker loses nothing but time, and a request that ends it twice is `Unsaid`. An engine that only dies ends the run,
which can be resumed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.outside_host import Host, frame_of, read, read_clips, read_header, write
from pipeline.dialogue import Clip, Language
from pipeline.errors import ConfigError, EndpointError, ModelError
from pipeline.speech_sections import EnvironmentConfig, TtsEngineConfig
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

DEATHS = 8
"""Deaths with no answer between them after which an engine is given up. One deadly request costs two."""

START = 3600.0
"""Seconds that an engine may take to load: gigabytes from a network's file system, or a download of Coqui's."""

ALLOWANCE = 300.0
"""Seconds that an answer may take beyond `timeout` for each request: first answers compile kernels, workers share a
GPU, and a CPU may need minutes for a long text."""

SETUP = 3600
"""Seconds that Ray may take, before START, to install packages: a TTS with CUDA is gigabytes."""

NEEDS = "pydantic, pyyaml, numpy and soxr"
_REQUESTS = TypeAdapter(list[SpeechRequest])


def open_outside(name: str, section: TtsEngineConfig, on_ray: bool) -> Synthesizer:
    """The engine `tts.engines.NAME` in the environment that its section names.

    Raises ConfigError where that environment cannot be had here, ModelError where the engine does not load in it.
    """
    environment, key = section.environment, f"tts.engines.{name}.environment"
    if environment.path is not None:
        python = _python(environment.path, key)
        return Outside(name, section, lambda: _Child(python), f"{key}.path={environment.path}")
    key += ".packages" if environment.packages else ".image"
    if not on_ray:
        raise ConfigError(
            f"{key} needs Ray (engine.kind=ray); without it make a virtual environment and name it in "
            f"tts.engines.{name}.environment.path"
        )
    return Outside(name, section, lambda: _Actor(_runtime_env(environment), key), key)


def _python(path: Path, key: str) -> Path:
    # Not resolved: a virtual environment's python is a link, and finds its packages by where the link lies.
    path = path.expanduser().absolute()
    python = path if path.is_file() else path / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise ConfigError(
            f"{key}.path: {path} is no virtual environment and no python; make one on every node: "
            f"python3 -m venv {path}, then pip install there what the engine needs, and {NEEDS}"
        )
    return python


def _runtime_env(environment: EnvironmentConfig) -> dict[str, Any]:
    made = {"pip": list(environment.packages)} if environment.packages else {"image_uri": environment.image}
    return {**made, "config": {"setup_timeout_seconds": SETUP}}


class _Died(Exception):
    """The process of the engine has ended, or does not answer; str: what is known about it."""


class _Link(Protocol):
    """A way to a `Host`. start: seconds that its first answer may take."""

    start: float

    def ask(self, frame: bytes, limit: float) -> bytes:
        """Raises _Died where nobody is there, or no answer in `limit` seconds; it is of no use then."""
        ...

    def close(self) -> None: ...


class Outside:
    """A `Synthesizer` that has another one speak. It serves one call at a time."""

    name: str
    rate: int
    languages: frozenset[Language]
    kinds: frozenset[VoiceKind]
    stochastic: bool
    deterministic: bool
    batch: int

    def __init__(self, name: str, section: TtsEngineConfig, connect: Callable[[], _Link], place: str):
        self._connect = connect
        self._place = place
        self._timeout = section.timeout
        inner = section.model_copy(update={"environment": EnvironmentConfig()})
        # An actor of Ray without a GPU of its own is shown none: it is the worker's that it uses.
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._opening = frame_of({"open": name, "section": inner.model_dump(mode="json"), "devices": devices})
        self._link: _Link | None = None
        self._deaths = 0
        self._lock = threading.Lock()
        try:
            self._open()
        except _Died as death:
            raise ModelError(f"{place}: the engine did not start there, where it needs {NEEDS} too: {death}") from None

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        with self._lock:
            return self._speak(list(requests))

    def close(self) -> None:
        """Ends the process. Safe to call again; what is asked after it starts a new one."""
        with self._lock:
            self._drop()

    def _speak(self, requests: list[SpeechRequest], again: bool = False) -> list[Clip | Unsaid]:
        try:
            return self._ask(requests)
        except _Died as death:
            if again:
                return [Unsaid("refused", f"it ended the process of the engine twice: {death}")]
        return [result for request in requests for result in self._speak([request], again=True)]

    def _ask(self, requests: list[SpeechRequest]) -> list[Clip | Unsaid]:
        try:
            link = self._link or self._open()
            frame = frame_of({"requests": _REQUESTS.dump_python(requests, mode="json")})
            answer = link.ask(frame, ALLOWANCE + self._timeout * len(requests))
        except BaseException as error:
            # Whatever it was: an answer that is still on its way must not be taken for that of the next request.
            self._drop()
            if not isinstance(error, _Died):
                raise
            self._deaths += 1
            if self._deaths >= DEATHS:
                raise EndpointError(
                    f"{self._place}: the engine's process died {self._deaths} times in a row; mend it and run the same "
                    f"command again to resume: {error}"
                ) from None
            raise
        self._deaths = 0
        return read_clips(answer)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _open(self) -> _Link:
        link = self._connect()
        try:
            told = read_header(link.ask(self._opening, link.start))[0]
        except BaseException:
            link.close()
            raise
        for field, value in told["engine"].items():
            setattr(self, field, frozenset(value) if isinstance(value, list) else value)
        self._link = link
        return link


class _Child:
    """A process of another Python."""

    start = START

    def __init__(self, python: Path):
        self._process = subprocess.Popen(
            [python, "-c", _BOOT, str(Path(__file__).resolve().parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._words: deque[bytes] = deque(maxlen=20)
        self._listener = threading.Thread(target=self._words.extend, args=(self._process.stderr,), daemon=True)
        self._listener.start()
        # Also where nobody closes it: at the latest when this process ends.
        self.close = weakref.finalize(self, _end, self._process)

    def ask(self, frame: bytes, limit: float) -> bytes:
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        watch = threading.Timer(limit, give_up)
        watch.daemon = True
        watch.start()
        try:
            write(self._process.stdin, frame)
            answer = read(self._process.stdout)
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        finally:
            watch.cancel()
        if answer is None:
            words = self._last_words()
            raise _Died(f"no answer in {limit:g} s, {words}" if late.is_set() else words)
        return answer

    def _last_words(self) -> str:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it speaks no more, and lives
            self._process.kill()
            status = self._process.wait()
        self._listener.join(timeout=1)
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        words = [line.decode(errors="replace").strip() for line in self._words]
        return ": ".join([how, *[line for line in words if line][-1:]])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # what was not yet written to it
                continue


_BOOT = """
import importlib.util, os, sys
if sys.version_info < (3, 11):
    sys.exit("speechchat needs Python 3.11 or newer, %s is %d.%d" % (sys.executable, *sys.version_info[:2]))
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "pipeline", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
sys.modules["pipeline"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from pipeline.backends.tts.outside_host import serve
serve()
"""
"""Takes this package from where the parent has it, and nothing else of the parent's: both ends are of one version."""


class _Actor:
    """An actor of Ray in an environment that Ray makes. It is the worker's own, on its node, and dies with it."""

    start = SETUP + START

    def __init__(self, runtime_env: dict[str, Any], key: str):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if not ray.is_initialized():
            raise ConfigError(f"{key} is made by Ray, which this command does not start: use environment.path instead")
        self._key = key
        here = ray.get_runtime_context().get_node_id()
        self._actor = (
            ray.remote(Host)
            .options(
                num_cpus=0,  # the worker waits while it speaks
                max_restarts=0,
                max_task_retries=0,
                runtime_env=runtime_env,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote()
        )

    def ask(self, frame: bytes, limit: float) -> bytes:
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RuntimeEnvSetupError

        try:
            answer: bytes = ray.get(self._actor.handle.remote(frame), timeout=limit)
        except GetTimeoutError:
            raise _Died(f"no answer in {limit:g} s") from None
        except RuntimeEnvSetupError as error:
            python = ".".join(map(str, sys.version_info[:3]))
            raise ModelError(
                f"{self._key}: Ray {ray.__version__} could not make this environment (an image needs that Ray and "
                f"Python {python}): {_cause(str(error))}"
            ) from None
        except RayError as error:
            raise _Died(_short(error)) from None
        return answer

    def close(self) -> None:
        import ray

        ray.kill(self._actor)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:250]


def _cause(trace: str) -> str:
    """Of a traceback with the output of pip in it: pip's own words, or the last line."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    return " ".join([line for line in lines if line.startswith("ERROR")] or lines[-1:])[:300]
