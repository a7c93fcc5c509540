"""Joining a Ray cluster, or starting Ray here."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import (
    AuthenticationTokenLoader,
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

from pipeline.config import EngineConfig
from pipeline.errors import EndpointError


def connect(config: EngineConfig) -> None:
    """Join the cluster at `address` (or in RAY_ADDRESS); without one start Ray here, on loopback only."""
    stop = signal.getsignal(signal.SIGTERM)
    _connect(config)
    # Ray takes SIGTERM for itself and ends the process with a stack trace; who set a handler wants to be heard.
    if stop is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _connect(config: EngineConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    named = config.address
    if named in (None, "auto"):
        named = os.environ.get("RAY_ADDRESS") or named
    if named and named != "local":
        try:
            if "://" not in named:
                # Found here: Ray would show a token unasked to a cluster that it finds itself.
                named = str(canonicalize_bootstrap_address(named))
                use_token(f"engine.address={named}", lambda: refuses(named))
            ray.init(address=named, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EndpointError(
                f"engine.address={named}: no Ray cluster of this version answers "
                f"({' '.join(str(error).split())[:200]}); start one with `ray start --head`, or leave the address out"
            ) from None
        return
    # Ray listens on every interface unless it takes this machine for one that cannot be in a cluster: it reads the
    # variable in the processes that it starts, and the constant in this one, which has imported it already.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    _have_token()
    ray.init(
        address="local",  # without it, Ray joins whatever cluster was last started on this machine
        include_dashboard=False,
        object_store_memory=100 * 2**20,  # only plans and manifests travel
        **options,
    )


def use_token(where: str, refused: Callable[[], bool]) -> None:
    """Show a cluster that asks for a token the one that lies here (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH,
    ~/.ray/auth_token), unless RAY_AUTH_MODE says otherwise. refused: whether the cluster refuses this process as it is.

    Never unasked: a driver that shows a token wants one of whoever calls it, too, and workers of a cluster without a
    token have none: their actors die. A token comes to lie in the home of everybody who once started Ray there.
    Raises EndpointError if there is none, or another one than the cluster's.
    """
    if not refused():
        return
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it warns that a token is used
    enabled = _token_here() and maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if not enabled or refused():
        raise EndpointError(
            f"{where}: the cluster asks for its token, and here is none, or another; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token"
        )


def refuses(address: str) -> bool:
    """Whether the cluster at HOST:PORT refuses who calls it as this process does now."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with closing(init_grpc_channel(address)) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=5)
        except AuthenticationError:  # told to show a token, and there is none
            return True
        except grpc.RpcError as error:  # of any other trouble Ray itself tells more
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _have_token() -> None:
    """A token for the Ray that is started here, where there is none: Ray would write one into the home, and two that
    are started at once would overwrite each other's."""
    if not _token_here():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()


def _token_here() -> bool:
    try:
        return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))
    except AuthenticationError as error:  # RAY_AUTH_TOKEN_PATH names no file
        raise EndpointError(error.message) from None
