"""The nodes of a Ray cluster while a run goes on: they join, and they leave."""

from __future__ import annotations

import contextlib
import socket

from pipeline.config import EngineConfig
from pipeline.engine import placement
from pipeline.engine.preflight import live_nodes

ANSWER = 5.0
"""Seconds in which a node that is there takes a connection."""


class Nodes:
    def __init__(self, engine: EngineConfig):
        self._engine = engine

    def look(self) -> int:
        """How many studios the nodes have room for now."""
        self._resources = [node["Resources"] for node in live_nodes()]
        return placement.studios(self._resources, self._engine)

    def lack(self) -> str:
        """What to say where they have room for none."""
        cpus, gpus = (sum(node.get(name, 0) for node in self._resources) for name in ("CPU", "GPU"))
        return (
            f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs, and beside its writers no room for a studio of "
            f"{self._engine.studio_cpus:g} and {self._engine.studio_gpus:g} (engine.studio_cpus, engine.studio_gpus): "
            "waiting for a node"
        )

    @staticmethod
    def gone(node: str) -> bool:
        """Whether a node has left. Ray notices after some missed answers, a connection at once."""
        found = next((item for item in live_nodes() if item["NodeID"] == node), None)
        if found is None:
            return True
        with contextlib.suppress(OSError):
            socket.create_connection((found["NodeManagerAddress"], found["NodeManagerPort"]), ANSWER).close()
            return False
        return True
