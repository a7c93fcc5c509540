"""A process that has run once, forked for each further run: so that a run costs no imports, and may be killed."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.engine.run import run
from pipeline.errors import SpeechchatError
from tests.fakes import Silent
from tests.faults import tools
from tests.faults.points import Fault, arm

BUG = 70
"""Exit status of a run that raised what no user should see; it is printed."""


class Nursery:
    """Runs of one configuration on the local engine. A context manager.

    first: where the process itself makes the undisturbed run, before it is forked. prepare: called in each fork with
    what `start` was given, before the run; it is picklable.
    """

    def __init__(self, config: Path, first: Path, prepare: Callable[..., Any]):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(config, first, prepare, there))
        self._process.start()
        assert self._answer() == 0

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self._process.join()

    def start(self, out: Path, *orders: Any) -> int:
        """The exit status of a run: the one of the program for an error that is meant for users, BUG for another one,
        negative for a signal."""
        self._here.send((out, orders))
        return self._answer()

    def _answer(self) -> int:
        assert self._here.poll(tools.PATIENCE), "no answer"
        return int(self._here.recv())


def suffer(out: Path, faults: Sequence[Fault] = ()) -> None:
    """To prepare a run that comes to harm at named points."""
    arm(faults)


def _serve(config: Path, first: Path, prepare: Callable[..., Any], orders: Any) -> None:
    orders.send(_run(config, first))
    while order := orders.recv():
        out, words = order
        child = os.fork()
        if not child:
            status = BUG
            try:
                prepare(out, *words)
                status = _run(config, out)
            finally:
                os._exit(status)
        orders.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _run(config: Path, out: Path) -> int:
    try:
        run(load_config(str(config)), out, Silent())
    except SpeechchatError as error:
        return error.exit_code
    except Exception:  # noqa: BLE001  told by the status
        traceback.print_exc()
        return BUG
    return 0
