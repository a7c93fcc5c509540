"""A cluster of several Ray nodes on this machine, each of which can be killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults import tools

# As ray.cluster_utils.Cluster does it, in a process for each node. On loopback only, which `ray start` refuses to nodes
# that join; as ports and a folder of its own, each has what is there once for a machine by default.
NODE = """
import json, sys
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False
from ray._private.node import Node
from ray._private.parameter import RayParams
options = json.loads(sys.argv[1])
common = dict(num_cpus=1, num_gpus=0, node_ip_address="127.0.0.1", object_store_memory=10**8, min_worker_port=0)
common |= dict(max_worker_port=0, node_manager_port=0, include_log_monitor=False)
node = Node(RayParams(**common, **options), head="gcs_address" not in options, shutdown_at_exit=False)
print("started", node.gcs_address, flush=True)
sys.stdin.read()
"""


class Node:
    """A node with one CPU, and all that it started. log: where it says so."""

    def __init__(self, log: Path, options: dict[str, Any], before: list[str], environment: Mapping[str, str]):
        words = [*before, sys.executable, "-c", NODE, json.dumps(options)]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        """Itself and all that it started, the raylet and its workers among them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def raylet(self) -> psutil.Process:
        [raylet] = [item for item in tools.titled(self.family(), "raylet/raylet") if item.name() == "raylet"]
        return raylet

    def kill(self) -> None:
        """SIGKILL to everything at once, as when the power fails."""
        family = self.family()
        tools.kill(family)
        self.process.wait(tools.PATIENCE)
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert tools.alive(family, 20) == []


class Cluster:
    """nodes: the first is the head, which no run survives the loss of."""

    def __init__(self, logs: Path, temp: str):
        self._logs = logs
        self._started = itertools.count()
        self.nodes: list[Node] = []
        self._start({"include_dashboard": False, "temp_dir": temp})
        self.address = self.nodes[0].log.read_text("utf-8").split("started ")[1].split()[0]

    def add(self, before: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> Node:
        """before: words before those that start the node, of a program that starts another."""
        agent: dict[str, Any] = {"dashboard_agent_listen_port": None}
        return self._start({"gcs_address": self.address, **agent}, before, environment)

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()

    def _start(
        self, options: dict[str, Any], before: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> Node:
        node = Node(self._logs / f"node-{next(self._started)}.log", options, list(before), environment or {})
        self.nodes.append(node)
        deadline = time.monotonic() + tools.PATIENCE
        while "started " not in (said := node.log.read_text("utf-8")):
            # One after the other: two that start at once take the same names.
            assert node.process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        return node


@contextlib.contextmanager
def cluster_of(count: int, logs: Path) -> Iterator[Cluster]:
    """It answers only who shows its token; who is started meanwhile has it."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as temp,  # short: sockets lie in it
    ):
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # or a driver looks for it where it does not listen
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        cluster = Cluster(logs, temp)
        try:
            for _ in range(count - 1):
                cluster.add()
            yield cluster
        finally:
            cluster.close()
