"""Starting the program for real, so that it can be killed, starved and watched."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from pipeline.config import Config
from pipeline.dialogue import derive_seed
from pipeline.plan import plan_units
from pipeline.shards.disk import TEMPORARY
from tests.fakes import FakeLLM

PATIENCE = 180.0  # seconds for what takes three on an idle machine


class Driver:
    """`speechchat run` in a process group of its own, as a terminal starts it. log: where its output goes."""

    def __init__(self, config: Path, out: Path, *words: str, **options: Any):
        self.out = out
        self.log = config.with_name(f"{config.stem}.{time.monotonic_ns()}.log")
        argv = [sys.executable, "-m", "pipeline.cli", "run", str(config), "--out", str(out), *words]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True, **options)

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")

    def until(self, condition: Callable[[], Any]) -> Any:
        """What `condition` gives as soon as that is something; the program must still run by then."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self.process.poll() is None, f"ended too early: {self.said}"
            assert time.monotonic() < deadline, f"not reached: {self.said}"
            time.sleep(0.02)  # what is looked for lasts 0.1 s, and looking takes CPU from the program
        return found

    def family(self) -> list[psutil.Process]:
        """Every process that it started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> list[psutil.Process]:
        """SIGKILL, to it alone; returns its family, which is for the machinery to end."""
        family = self.family()
        self.process.kill()
        self.process.wait(PATIENCE)
        return family

    def ends(self) -> int:
        """Its exit status. One that does not end is killed, and what it said is told."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end: {self.said}") from None


def run(config: Path, out: Path, *words: str, **options: Any) -> tuple[int, str]:
    """Exit status and output of the whole program."""
    driver = Driver(config, out, *words, **options)
    return driver.ends(), driver.said


def error_line(said: str, start: str = "speechchat: ") -> str:
    """The one line of an error; progress lines may stand before it, and nothing may follow it."""
    assert "Traceback" not in said, said
    *before, last = said.strip().splitlines()
    assert last.startswith(start) and not any(line.startswith(start) for line in before), said
    return last


def alive(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after `seconds`; a zombie runs no more, it waits for its parent."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, to those that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def titled(processes: Sequence[psutil.Process], word: str) -> list[psutil.Process]:
    """Those whose title holds `word`; a Ray actor is titled by its class and what it does."""
    found = []
    for process in processes:
        try:
            if word in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it ended in between
            continue
    return found


def written(out: Path) -> set[str]:
    """Ids of the dialogues that a reply on the disk was paid for."""
    lines = [line for path in out.glob("logs/replies/*/*.jsonl") for line in _whole_lines(path)]
    return {line["dialogue"] for line in map(json.loads, lines) if "text" in line}


def _whole_lines(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield from data[: data.rfind(b"\n") + 1].splitlines()


def manifests(out: Path) -> list[Path]:
    return sorted(out.glob("shards/*/*/*.json"))


def in_hand(out: Path) -> list[str]:
    """Dialogues that studios are speaking now."""
    found = []
    for path in out.glob("logs/studio/*/*.txt"):
        try:
            found += path.read_text().split()
        except FileNotFoundError:
            continue
    return found


def temporaries(out: Path) -> list[Path]:
    return list(out.rglob(f"*{TEMPORARY}"))


def asked(llm: FakeLLM, config: Config) -> Counter[str]:
    """How often the LLM was asked for each dialogue of two lines, known by the seed of the request."""
    names = {derive_seed(item.seed, "reply", 1, 0): item.id for unit in plan_units(config) for item in unit.dialogues}
    return Counter(names[body["seed"]] for body in list(llm.requests))


def logged_times(out: Path) -> list[float]:
    """Seconds since 1970, as the driver and the writers noted them."""
    paths = [out / "logs" / "timings.jsonl", *out.glob("logs/replies/*/*.jsonl")]
    lines = [line for path in paths for line in path.read_bytes().splitlines() if line.strip()]
    return [float(line["time"]) for line in map(json.loads, lines) if "time" in line]
