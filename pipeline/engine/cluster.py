"""Joining a Ray cluster, or starting Ray here."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

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
    if config.address or os.environ.get("RAY_ADDRESS"):
        use_token()
        try:
            ray.init(address=config.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EndpointError(
                f"engine.address={config.address or os.environ['RAY_ADDRESS']}: no Ray cluster of this version answers "
                f"({' '.join(str(error).split())[:200]}); start one with `ray start --head`, or leave the address out"
            ) from None
        return
    # Ray listens on every interface unless it takes this machine for one that cannot be in a cluster: it reads the
    # variable in the processes that it starts, and the constant in this one, which has imported it already.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        address="local",  # without it, Ray joins whatever cluster was last started on this machine
        include_dashboard=False,
        object_store_memory=100 * 2**20,  # only plans and manifests travel
        **options,
    )


def use_token() -> None:
    """Show the cluster the token that lies here (~/.ray/auth_token or RAY_AUTH_TOKEN), unless RAY_AUTH_MODE is set.

    A cluster started on a machine with a token asks for it; a client has to be told to send it.
    """
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
