"""scripts/launch_ray_job.py on a cluster that was started with `ray start --head`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.engine.run import load_frozen, run
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from tests.fakes import FakeLLM, Silent, config_file, tree

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the dashboard of a one-node cluster, on loopback, stopped by its process id."""
    dashboard = free_port()
    words = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    words += [f"--port={free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    words += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", f"--ray-client-server-port={free_port()}"]
    # The default is one port for every Ray of a machine: the second has no agent that takes jobs.
    words += [f"--dashboard-agent-listen-port={free_port()}"]
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with log.open("wb") as output:
        head = subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
            break
        except urllib.error.HTTPError:
            break  # it answers: that it wants a token of us is for the client of the jobs
        except OSError:
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
    yield address
    head.send_signal(signal.SIGTERM)
    head.wait(60)


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "scripts" / "launch_ray_job.py"), *words]
    return subprocess.run(script, capture_output=True, text=True, timeout=240, cwd=ROOT)


def test_a_run_is_submitted_followed_and_ends_with_the_same_bytes(
    cluster: str, tmp_path: Path, llm: FakeLLM, corpus: Path
) -> None:
    path = config_file(tmp_path / "run.yaml", llm.base_url, corpus)
    out = tmp_path / "run"
    done = launch("--address", cluster, "--", "run", str(path), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted" in done.stdout and "8 of 8 dialogues" in done.stdout and "SUCCEEDED" in done.stdout
    folder = RunFolder(out)
    *_, state = verify(folder, load_frozen(folder)[0])
    assert state.ok
    run(load_config(str(path), ["engine.kind=local"]), tmp_path / "local", Silent())
    assert tree(out) == tree(tmp_path / "local")
    # A job that fails says so in its status, and its own line is in the log.
    failed = launch("--address", cluster, "--", "run", "quikstart", "--out", str(out))
    assert failed.returncode == 1
    assert "did you mean 'quickstart'" in failed.stdout


def test_without_a_cluster_one_line_says_what_to_do() -> None:
    done = launch("--address", f"http://127.0.0.1:{free_port()}", "--", "run", "quickstart", "--out", "x")
    assert done.returncode == 1
    assert "ray start --head" in done.stderr and "Traceback" not in done.stderr


def test_only_what_is_named_of_the_environment_goes_along() -> None:
    done = launch("--env", "NOT_SET_ANYWHERE", "--", "run", "quickstart", "--out", "x")
    assert done.returncode == 1
    assert "NOT_SET_ANYWHERE" in done.stderr and "Traceback" not in done.stderr
