"""`python -m scripts.launch job` on a cluster of three nodes that were started with `ray start`."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from pipeline.config import load_config
from pipeline.engine.run import load_frozen, run
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from tests.command_line import Done, python
from tests.fakes import Silent, config_file, llm_server, tree

SECRET = "marker-of-a-key-3b91"


class Cluster(NamedTuple):
    dashboard: str
    temp: Path  # of Ray, with its logs


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# Nodes of one CPU each, until standard input ends. What is one for each machine is made one for each node: the port
# of its agent, without which it takes no job, and the folder that code is unpacked in. Where Ray keeps its files is
# told by a variable: the address of the cluster is then among them, where a job looks for it first. One that does not
# find it there joins any Ray of this machine.
NODES = """
import sys
from ray.cluster_utils import Cluster
dashboard, *agents = sys.argv[1:]
one = dict(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=100_000_000)
head = dict(include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(dashboard))
cluster = Cluster()
for place, agent in enumerate(agents):
    own = dict(dashboard_agent_listen_port=int(agent), runtime_env_dir_name=f"resources_{place}")
    cluster.add_node(wait=place == 0, **one, **own, **(head if place == 0 else {}))
cluster.wait_for_nodes()
print(len(cluster.list_all_nodes()), "nodes", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three nodes on loopback that hold a key, and answer only who shows their token. Here it is kept, but it is shown
    to nobody who does not ask: another test may have told this process to."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    ports = [free_port() for _ in range(4)]
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "KEY_OF_NODES": SECRET}
    environment["RAY_AUTH_MODE"] = "token"
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(prefix="ray") as temp:  # short: sockets lie in it
        environment["RAY_TMPDIR"] = temp
        words = [sys.executable, "-c", NODES, *map(str, ports)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as nodes:
            assert nodes.stdin and nodes.stdout
            assert nodes.stdout.readline() == b"3 nodes\n"
            yield Cluster(f"http://127.0.0.1:{ports[0]}", Path(temp, "ray"))
            nodes.stdin.close()
            nodes.stdout.read()


def settings_file(path: Path, address: str, config: Path, out: Path, *changes: str) -> Path:
    data = {
        "name": "trial",
        "config": str(config),
        "out": str(out),
        "set": list(changes),
        "python": sys.executable,
        "env": {"OPENAI_API_KEY": {"node": "KEY_OF_NODES"}},
        "job": {"address": address},
    }
    path.write_text(yaml.safe_dump(data))
    return path


def launch(*words: object) -> Done:
    return python("-m", "scripts.launch", "job", *words, limit=240)


@pytest.mark.faults
@pytest.mark.matrix
def test_a_run_is_submitted_stopped_and_resumed_on_three_nodes(cluster: Cluster, tmp_path: Path, corpus: Path) -> None:
    with llm_server(SECRET) as llm:  # it answers only who has the key of the nodes
        config = config_file(tmp_path / "run.yaml", llm.base_url, corpus)
        out = tmp_path / "run"
        settings = settings_file(tmp_path / "launch.yaml", cluster.dashboard, config, out)
        llm.delay = 3
        started = launch(settings, "--no-follow")
        assert started.status == 0 and "submitted trial-1" in started.out, started
        again = launch(settings)
        assert again.status == 2 and "trial-1 is" in again.err and "follow it, or stop it" in again.err, again
        deadline = time.monotonic() + 60
        while not llm.requests:
            assert time.monotonic() < deadline, launch(settings, "follow").out
            time.sleep(0.2)
        stopped = launch(settings, "stop")
        ended = launch(settings, "follow")
        assert "stopped trial-1" in stopped.out, ended
        assert ended.status != 0 and "STOPPED" in ended.out, ended

        llm.delay = 0
        done = launch(settings, "resume")
        assert done.status == 0, done.out + done.err
        assert "submitted trial-2" in done.out and "8 of 8 dialogues" in done.out and "SUCCEEDED" in done.out
        *_, state = verify(RunFolder(out), load_frozen(RunFolder(out))[0])
        assert state.ok
        os.environ["OPENAI_API_KEY"] = SECRET
        try:
            run(load_config(str(config), ["engine.kind=local"]), tmp_path / "local", Silent())
        finally:
            del os.environ["OPENAI_API_KEY"]
    assert tree(out) == tree(tmp_path / "local")

    # The run's own exit status and its own line come through.
    other = launch(settings_file(settings, cluster.dashboard, config, out, "seed=5"))
    assert other.status == 2 and "seed is 0 there and 5 here" in other.out, other
    written = b"".join(path.read_bytes() for path in cluster.temp.glob("session_2*/logs/**/*") if path.is_file())
    assert b"KEY_OF_NODES" in written and SECRET.encode() not in written
    assert all(SECRET not in done.out + done.err for done in (started, ended, done, other))


def test_without_a_cluster_one_line_says_what_to_do(tmp_path: Path, corpus: Path) -> None:
    config = config_file(tmp_path / "run.yaml", "http://127.0.0.1:9", corpus)
    settings = settings_file(tmp_path / "s.yaml", f"http://127.0.0.1:{free_port()}", config, tmp_path / "run")
    done = launch(settings)
    assert done.status == 3 and "Traceback" not in done.err
    assert "ray start --head" in done.err.splitlines()[-1] and "job.address" in done.err
