"""What is checked of a Ray cluster before any work is done: room for each worker, the same program, the run folder."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import __version__
from pipeline.config import EngineConfig
from pipeline.engine import actors
from pipeline.engine.placement import SHARE, Claim, fits, studio_claim, studios, writer_claim
from pipeline.errors import ConfigError, EndpointError, RunFolderError, StorageError
from pipeline.shards.disk import storage_errors
from pipeline.shards.remote import place
from pipeline.shards.store import RunFolder

ANSWER = 120.0
"""Seconds that the nodes have for an answer: the first worker of a node takes some to start."""
VISIBLE = 10.0
"""Seconds that a file of another machine may take to be seen: NFS remembers what was not there for a while."""


@dataclass(frozen=True)
class Node:
    """What a node says. seen: whether it sees a file that the driver wrote; error: why it cannot write there, ""."""

    version: str
    python: str
    seen: bool
    error: str


def check(engine: EngineConfig, folder: RunFolder) -> None:
    """Raises ConfigError for a runtime_env that Ray does not know, and for workers that no node has room for within
    `engine.patience`; EndpointError for a node with another program, RunFolderError for one that does not see the run
    folder or cannot write to it."""
    actors.check_environments(engine)
    _room(engine)
    nodes = live_nodes()
    if len(nodes) > 1:
        _alike(nodes, folder)


def live_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _room(engine: EngineConfig) -> None:
    """Wait until a node has room for a worker of each stage: an autoscaler is told what is wanted, and brings one."""
    claims = {"studio": studio_claim(engine), "writer": writer_claim(engine)}
    deadline, asked = time.monotonic() + engine.patience, False
    try:
        while True:
            nodes = [node["Resources"] for node in live_nodes()]
            lacking = [name for name, claim in claims.items() if not any(fits(node, claim) for node in nodes)]
            if not lacking and not studios(nodes, engine, at_worst=True):
                lacking = ["studio"]  # the writers may leave no room for one
            if not lacking:
                return
            if time.monotonic() >= deadline:
                raise _no_room(engine, lacking[0], nodes)
            if not asked:
                asked = True
                writers = [_bundle(claims["writer"])] * engine.writers if claims["writer"].any else []
                request_resources(bundles=[_bundle(claims["studio"]), *writers])
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    finally:
        if asked:
            request_resources(bundles=[])  # what was asked for stands until it is taken back


def _bundle(claim: Claim) -> dict[str, float]:
    return {name: parts / SHARE for name, parts in (("CPU", claim.cpus), ("GPU", claim.gpus)) if parts}


def _no_room(engine: EngineConfig, stage: str, nodes: list[Mapping[str, float]]) -> ConfigError:
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    waited = f" after {engine.patience:g} s" if engine.patience else ""
    beside = ""
    if stage == "studio" and writer_claim(engine).any:
        claim = f"engine.writer_cpus={engine.writer_cpus:g}, engine.writer_gpus={engine.writer_gpus:g}"
        beside = f", wherever {engine.writers} writers of {claim} come to be"
    cpus, gpus = (getattr(engine, f"{stage}_{kind}") for kind in ("cpus", "gpus"))
    return ConfigError(
        f"engine.{stage}_cpus={cpus:g}, engine.{stage}_gpus={gpus:g}: no node of the cluster "
        f"has that{beside}{waited} (the most that one has: {most['CPU']:g} CPUs, {most['GPU']:g} GPUs); ask for less, "
        "add a node, or let the run wait for one with engine.patience=SECONDS"
    )


def _alike(nodes: list[dict[str, Any]], folder: RunFolder) -> None:
    """Ask every node at once."""
    mark = folder.logs / f"seen-{uuid.uuid4().hex}"
    with storage_errors(mark):
        folder.logs.mkdir(parents=True, exist_ok=True)
        mark.write_text("")
    try:
        asked = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            asked[_look.options(num_cpus=0, max_retries=0, scheduling_strategy=here).remote(str(mark))] = node
        deadline = time.monotonic() + ANSWER
        for ref, node in asked.items():
            said = _answer(ref, node, deadline)
            if said is not None:
                judge(_named(node), said, folder)
    finally:
        mark.unlink(missing_ok=True)


def _answer(ref: Any, node: dict[str, Any], deadline: float) -> Node | None:
    """None from a node that was lost meanwhile: it takes seconds until a cluster knows, and the run does without it."""
    try:
        return ray.get(ref, timeout=max(0.1, deadline - time.monotonic()))
    except GetTimeoutError:
        raise EndpointError(
            f"node {_named(node)} of the cluster gave no answer within {ANSWER:g} s; mend it or take it out"
        ) from None
    except RayError as error:
        if node["NodeID"] not in {item["NodeID"] for item in live_nodes()}:
            return None
        reason = " ".join(str(error).strip().splitlines()[-1].split())
        raise EndpointError(
            f"node {_named(node)} of the cluster cannot run speechchat ({reason[:200]}); install speechchat "
            f"{__version__} there, or ship it with the job"
        ) from None


def judge(name: str, node: Node, folder: RunFolder) -> None:
    """Raises EndpointError, RunFolderError."""
    if node.version != __version__:
        raise EndpointError(
            f"node {name} of the cluster has speechchat {node.version}, and this is {__version__}; install the same"
        )
    if not node.seen:
        raise RunFolderError(
            f"{folder.root} is not the same folder on node {name} of the cluster; --out must name a shared one"
        )
    if node.error:
        raise RunFolderError(f"{folder.root}: node {name} of the cluster cannot write there ({node.error})")


def request_resources(bundles: list[dict[str, float]]) -> None:
    """Ask an autoscaler for room for each of these at once."""
    # Here and not above: it takes a fifth of a second to import, in every worker, and hardly any run asks.
    from ray.autoscaler import sdk

    sdk.request_resources(bundles=bundles)


def _named(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


@ray.remote
def _look(mark: str) -> Node:
    return look(place(mark))


def look(mark: Path, patience: float = VISIBLE) -> Node:
    """What the node where this runs says. mark: the driver's file in the folder of logs."""
    deadline = time.monotonic() + patience
    error = ""
    try:
        while not (seen := mark.exists()) and time.monotonic() < deadline:
            time.sleep(0.2)
    except StorageError as problem:  # of a store: this node has other credentials, or none
        return Node(__version__, platform.python_version(), True, str(problem))
    if seen:
        own = mark.with_name(f"{mark.name}-{platform.node()}-{uuid.uuid4().hex[:8]}")
        try:
            own.write_text("")
            own.unlink()
        except (OSError, StorageError) as problem:
            error = getattr(problem, "strerror", "") or str(problem)
    return Node(__version__, platform.python_version(), seen, error)
