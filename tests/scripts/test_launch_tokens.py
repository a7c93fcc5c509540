"""A token is shown to a cluster that asks for it, and to no other: by the launcher and by a driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.core.generated.gcs_service_pb2 import GetClusterIdReply
from ray.core.generated.gcs_service_pb2_grpc import (
    NodeInfoGcsServiceServicer,
    add_NodeInfoGcsServiceServicer_to_server,
)

from tests.command_line import python
from tests.scripts.launch_settings import dashboard, write

TOKEN = "ab" * 32


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a token, as every home has in which Ray was once started; programs started here see it."""
    path = tmp_path / "home" / ".ray" / "auth_token"
    path.parent.mkdir(parents=True)
    path.write_text(TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.mark.parametrize(("asked", "shown"), [(None, [None]), (TOKEN, [None, f"Bearer {TOKEN}"])])
def test_a_launcher_shows_its_token_when_it_is_asked_for(asked: str | None, shown: list[str], tmp_path: Path) -> None:
    with dashboard(token=asked) as server:
        done = python(
            "-m", "scripts.launch", "job", write(tmp_path / "s.yaml", job={"address": server.address}), "stop"
        )
    assert done.status == 0 and done.out == "nothing of trial runs\n", done
    assert sorted(set(server.shown), key=str) == sorted(shown, key=str)
    assert TOKEN not in done.out + done.err


def test_a_launcher_without_the_token_says_where_to_put_it(tmp_path: Path, home: Path) -> None:
    home.write_text("cd" * 32)
    with dashboard(token=TOKEN) as server:
        done = python("-m", "scripts.launch", "job", write(tmp_path / "s.yaml", job={"address": server.address}))
    assert done.status == 3 and done.err.count("\n") == 1, done
    assert "asks for its token" in done.err and "~/.ray/auth_token" in done.err


class Gcs(NodeInfoGcsServiceServicer):
    """What a driver asks of a cluster first."""

    def __init__(self, token: str | None):
        self.token = token
        self.shown: list[str | None] = []

    def GetClusterId(self, request: Any, context: grpc.ServicerContext) -> Any:
        shown = dict(context.invocation_metadata()).get("authorization")
        self.shown.append(shown)
        if self.token and shown != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing")
        return GetClusterIdReply()


@contextmanager
def cluster(token: str | None) -> Iterator[tuple[Gcs, str]]:
    server, gcs = grpc.server(ThreadPoolExecutor(2)), Gcs(token)
    add_NodeInfoGcsServiceServicer_to_server(gcs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield gcs, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


DRIVER = """
import os, sys
from pipeline.engine.cluster import refuses, use_token
from pipeline.errors import EndpointError
for address in sys.argv[1:]:
    try:
        use_token("here", lambda: refuses(address))
        print(os.environ.get("RAY_AUTH_MODE"))
    except EndpointError as error:
        print(error)
"""


def test_a_driver_shows_its_token_when_it_is_asked_for() -> None:
    with cluster(None) as (plain, first), cluster(TOKEN) as (own, second), cluster("cd" * 32) as (other, third):
        done = python("-c", DRIVER, first, second, third)
    assert done.status == 0, done
    free, asked, refused = done.out.splitlines()
    # The mode is what makes a driver refuse workers that have no token.
    assert (free, plain.shown) == ("None", [None])
    assert (asked, own.shown) == ("token", [None, f"Bearer {TOKEN}"])
    assert refused.startswith("here: the cluster asks for its token, and here is none, or another")
    assert len(other.shown) == 2


def test_a_driver_without_a_token_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.unlink()
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # to Ray, loopback is the machine's own address else
    script = (
        "import sys\nfrom pipeline.config import EngineConfig\nfrom pipeline.engine.cluster import connect\n"
        "from pipeline.errors import EndpointError\n"
        "try:\n    connect(EngineConfig(address=sys.argv[1]))\n"
        "except EndpointError as error:\n    print(error)\n"
    )
    with cluster(TOKEN) as (_, address):
        none = python("-c", script, address)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home))
        lost = python("-c", script, address)
    assert none.out.count("\n") == 1 and f"engine.address={address}: the cluster asks for its token" in none.out
    assert lost.out.count("\n") == 1 and str(home) in lost.out and "RAY_AUTH_TOKEN_PATH" in lost.out
    assert not home.exists() and os.environ.get("RAY_AUTH_MODE") is None
