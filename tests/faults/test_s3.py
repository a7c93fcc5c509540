"""A run on a store: the same bytes as in a folder, whatever the store does and whatever is killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.engine.failures import quarantine
from pipeline.engine.run import run as run_here
from pipeline.engine.run import settle_quarantine
from pipeline.errors import RunMismatchError
from pipeline.plan import Unit
from pipeline.shards.lease import Lease
from pipeline.shards.parts import read_log
from pipeline.shards.remote import place
from pipeline.shards.store import RunFolder
from pipeline.training.stream import DialogueStream
from tests.command_line import CommandLine
from tests.fakes import EN_LINES, FakeLLM, Silent, config_file, llm_server, tree, write_corpus
from tests.faults import tools
from tests.object_store import Harm, Proxy, Request, objects

pytestmark = pytest.mark.faults

URL = "s3://bucket/runs/{}"
LINES = [EN_LINES[0], "This is a hopeless case.", EN_LINES[1], "Let me stumble over it."]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeLLM]:
    with llm_server() as llm:
        yield llm


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, endpoint: FakeLLM) -> Path:
    """Two units, accepted and rejected dialogues: every kind of file that a run has."""
    root = tmp_path_factory.mktemp("s3")
    settings: dict[str, Any] = {"dialogues": 4, "engine__kind": "local"}
    return config_file(root / "run.yaml", endpoint.base_url, write_corpus(root / "corpus", LINES), **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: Path) -> dict[str, bytes]:
    """Of a run in a folder."""
    out = tmp_path_factory.mktemp("folder") / "run"
    run_here(load_config(str(config)), out, Silent())
    found = tree(out)
    assert {Path(name).suffix for name in found} == {".tar", ".parquet", ".json", ".jsonl", ".md", ".yaml"}
    return found


@pytest.fixture(scope="module")
def made(server: Proxy, config: Path) -> str:
    """A finished run that tests only read."""
    server.reset()
    run_here(load_config(str(config)), place(URL.format("made")), Silent())
    return URL.format("made")


def test_a_run_on_a_store_is_the_run_in_a_folder(
    made: str, store: Proxy, config: Path, undisturbed: dict[str, bytes], speechchat: CommandLine
) -> None:
    assert objects(made) == undisturbed
    told = b"".join(path.read_bytes() for path, _ in place(made).walk_files())  # type: ignore[attr-defined]
    for word in store.environment.values():  # credentials, and where the store is
        assert word in ("true", "us-east-1") or word.encode() not in told
    store.seen.clear()
    again = speechchat("run", config, "--out", made)
    assert again.status == 0, again.err
    assert objects(made) == undisturbed
    changed = [request.name for request in store.seen if request.method in ("PUT", "DELETE")]
    assert changed and all("/logs/" in name for name in changed)
    # The last session's line first, then the file that it is of: killed in between, it is not lost.
    line = next(place for place, name in enumerate(changed) if "/logs/timings.jsonl/" in name)
    assert line < changed.index("runs/made/logs/driver.json")


def test_the_commands_that_read_a_run(
    made: str, store: Proxy, config: Path, speechchat: CommandLine, tmp_path: Path
) -> None:
    done = speechchat("verify", made, "--decode", "--workers", 1)
    assert done.status == 0 and "2 units, 3 samples" in done.out and "all is well" in done.out
    reads = [request.name for request in store.seen if request.method == "GET" and request.name.endswith(".tar")]
    assert reads and len(reads) == len(set(reads))  # each once
    stats, status = speechchat("stats", made, "--json"), speechchat("status", made, "--json")
    assert json.loads(stats.out)["accepted"] == 3 and json.loads(stats.out)["efficiency"]["units"] == 2
    assert json.loads(status.out)["state"] == "finished" and json.loads(status.out)["units_done"] == 2
    text = speechchat("text", made, "--json", "--no-png")
    assert json.loads(text.out)["written"] == 4
    plan = speechchat("plan", config, "--estimate", "--pilot", made, "--json")
    assert plan.status == 0 and '"pilot' in plan.out
    assert len(list(DialogueStream(made, each="turn", cache=tmp_path))) == 6
    assert place(made).joinpath("config.yaml").is_file()


def test_what_is_made_from_a_run(
    made: str, store: Proxy, tmp_path: Path, config: Path, speechchat: CommandLine
) -> None:
    local = tmp_path / "run"
    run_here(load_config(str(config)), local, Silent())
    limit = ("--set", "judge.limits.en.wer=0.05")
    for run, out in ((made, URL.format("regated")), (str(local), str(tmp_path / "regated"))):
        assert speechchat("regate", run, "--out", out, *limit).status == 0
        done = speechchat("views", run, "phone", "--engine", "local", "--set", "engine.studios=1")
        assert done.status == 0, done.err
    assert objects(URL.format("regated")) == tree(tmp_path / "regated")
    assert objects(f"{made}/views/phone") == tree(local / "views" / "phone")
    assert speechchat("verify", f"{made}/views/phone", "--workers", 1).status == 0


def test_a_store_that_fails_now_and_then(store: Proxy, config: Path, undisturbed: dict[str, bytes]) -> None:
    draw, out = random.Random(1), URL.format("harmed")
    kinds: list[Harm] = ["500", "503", "slow", "cut", "lost"]
    store.harm = lambda request: draw.choice(kinds) if request.number % 10 == 0 else ""
    run_here(load_config(str(config)), place(out), Silent())
    assert store.harmed >= 10
    store.harm = lambda request: ""
    assert objects(out) == undisturbed


def test_a_run_does_not_hang_on_listings(
    store: Proxy, endpoint: FakeLLM, config: Path, undisturbed: dict[str, bytes]
) -> None:
    """They may lag behind; here they never know of anything."""
    out = URL.format("unlisted")
    rows = place(out) / "sources" / "000" / "unit-000000.jsonl"
    rows.write_bytes(undisturbed["sources/000/unit-000001.jsonl"])  # drawn for a configuration of which nothing came
    store.harm = lambda request: "unlisted" if "list-type" in request.query else ""
    run_here(load_config(str(config), ["dialogues=2"]), place(out), Silent())
    asked = len(endpoint.requests)
    again = Silent()
    run_here(load_config(str(config), ["dialogues=2"]), place(out), again)
    assert again.units == [] and len(endpoint.requests) == asked
    with pytest.raises(RunMismatchError):
        run_here(load_config(str(config), ["dialogues=2", "seed=7"]), place(out), Silent())
    run_here(load_config(str(config)), place(out), Silent())
    folder = RunFolder(place(out))
    quarantine(folder, Unit(7, "train", (), (), 0), ValueError("no"), 1)
    assert settle_quarantine(folder, range(9)) == [7]
    folder.quarantine(7).unlink()
    store.reset()
    assert objects(out) == undisturbed


def test_a_ledger_that_was_copied_to_a_store_is_left_alone(
    store: Proxy, config: Path, undisturbed: dict[str, bytes]
) -> None:
    out = URL.format("copied")
    for name, data in undisturbed.items():
        if not name.startswith("shards/") or "000001" not in name:
            (place(out) / name).write_bytes(data)
    RunFolder(place(out)).ledger.write_text("{}")
    run_here(load_config(str(config)), place(out), Silent())
    assert objects(out) == undisturbed


def test_damage_is_found_and_repaired(
    store: Proxy, config: Path, undisturbed: dict[str, bytes], speechchat: CommandLine
) -> None:
    out = URL.format("damaged")
    for name, data in undisturbed.items():
        (place(out) / name).write_bytes(data)
    shards = sorted(name for name in undisturbed if name.endswith(".tar") and name.startswith("shards"))
    data = bytearray(undisturbed[shards[0]])
    data[len(data) // 2] ^= 1
    (place(out) / shards[0]).write_bytes(bytes(data))
    (place(out) / shards[1]).unlink()
    (place(out) / "shards" / "stranger").write_text("?")
    found = speechchat("verify", out, "--workers", 1)
    assert found.status == 1
    for name in (*shards[:2], "shards/stranger"):
        assert f"{out}/{name}: " in found.out
    assert speechchat("repair", out, "--foreign", "--workers", 1).status == 0
    assert not objects(out).keys() & set(shards[:2])
    run_here(load_config(str(config)), place(out), Silent())
    assert objects(out) == undisturbed


# ---- kills ----


def _nursery(config: Path, orders: Any) -> None:
    """A process that has run once, in a folder, forked for each order (URL): so that a start costs no imports.

    Answers with the pid of each fork, then with its wait status.
    """
    import s3fs  # noqa: F401

    run_here(load_config(str(config)), config.with_name("nursery"), Silent())
    orders.send(0)
    while out := orders.recv():
        child = os.fork()
        if not child:
            status = 1
            try:
                orders.send(os.getpid())
                run_here(load_config(str(config)), place(out), Silent())
                status = 0
            finally:
                os._exit(status)
        orders.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.fixture(scope="module")
def start(server: Proxy, config: Path) -> Iterator[Callable[[str, Callable[[int], None]], int]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_nursery, args=(config, there))
    process.start()

    def answer() -> int:
        assert here.poll(tools.PATIENCE), "no answer"
        return int(here.recv())

    answer()  # it is ready

    def start(out: str, begun: Callable[[int], None]) -> int:
        here.send(out)
        begun(answer())
        return answer()

    yield start
    here.send(None)
    process.join()


def _is(method: str, part: str, end: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and part in request.name and request.name.endswith(end)


def _paid(out: str) -> set[str]:
    """Ids of the dialogues that a reply on the store was paid for."""
    folder, found = RunFolder(place(out)), set()
    for unit in range(2):
        with contextlib.suppress(FileNotFoundError):
            lines = map(json.loads, read_log(folder.replies(unit)).splitlines())
            found |= {line["dialogue"] for line in lines if "text" in line}
    return found


POINTS: dict[str, tuple[Callable[[Request], bool], bool]] = {
    # what is asked for, and whether the store does it before the driver is killed
    "the lease": (_is("PUT", "logs/driver.lease", ""), True),
    "the configuration": (_is("PUT", "", "config.yaml"), False),
    "a reply that was paid for": (lambda request: "logs/replies/" in request.name and b'"text"' in request.body, True),
    "a text": (_is("PUT", "dialogues/", ".jsonl"), False),
    "a text that is there": (_is("PUT", "dialogues/", ".jsonl"), True),
    "a shard that is there": (_is("PUT", "shards/", ".tar"), True),
    "a claim": (_is("PUT", "shards/", ".json"), True),
    "what was left": (_is("DELETE", "shards/", ".tar"), True),
    "an index that is there": (_is("PUT", "shards/", ".parquet"), True),
    "rejects that are there": (_is("PUT", "rejects/", ".jsonl"), True),
    "a manifest": (_is("PUT", "shards/", ".json"), False),
    "the last manifest": (_is("PUT", "shards/", "1.json"), True),
    "the card": (_is("PUT", "", "README.md"), True),
}


@pytest.mark.matrix
def test_a_driver_killed_at_every_named_point_goes_on(
    store: Proxy,
    endpoint: FakeLLM,
    config: Path,
    undisturbed: dict[str, bytes],
    start: Callable[[str, Callable[[int], None]], int],
) -> None:
    """One run, whose driver is killed at one point after the other: each takes up what the one before it left."""
    out, plan = URL.format("killed"), load_config(str(config))
    endpoint.requests.clear()
    killed: list[str] = []
    paid: list[tuple[set[str], Counter[str]]] = []

    def arm(name: str, pid: int) -> None:
        point, passed = POINTS[name]

        def harm(request: Request) -> Harm:
            if point(request) and not passed and name not in killed:
                killed.append(name)
                os.kill(pid, signal.SIGKILL)
                return "cut"
            return ""

        def after(request: Request) -> None:
            if point(request) and passed and name not in killed:
                killed.append(name)
                os.kill(pid, signal.SIGKILL)

        store.harm, store.after = harm, after

    for name in POINTS:
        status = start(out, lambda pid, name=name: arm(name, pid))  # type: ignore[misc]
        assert status == (-signal.SIGKILL if name in killed else 0), name
        paid.append((_paid(out), tools.asked(endpoint, plan)))
    store.reset()
    assert killed == list(POINTS)
    assert start(out, lambda pid: None) == 0
    assert objects(out) == undisturbed
    asked = tools.asked(endpoint, plan)
    assert len(asked) == 4 and paid[2][0]
    for there, before in paid:  # what is on the store is not asked for again
        assert {name: asked[name] for name in there} == {name: before[name] for name in there}


def test_a_second_driver_is_refused(store: Proxy, config: Path, speechchat: CommandLine) -> None:
    out: Any = place(URL.format("locked"))
    first = Lease(out / "logs" / "driver.lease", renew=0.2)
    first.take()
    done = speechchat("run", config, "--out", out)
    first.release()
    assert done.status == 2 and "another speechchat run is writing" in done.err
    assert objects(str(out)) == {}


# ---- refusals ----


def test_refusals_come_before_any_work(store: Proxy, endpoint: FakeLLM, config: Path, speechchat: CommandLine) -> None:
    asked = len(endpoint.requests)
    out = URL.format("refused")
    cases = {
        ("s3://no-such-bucket/run",): (4, "there is no bucket 'no-such-bucket'"),
        ("s3://key:secret@bucket/run",): (2, "no credentials or options in a URL"),
        ("gs://bucket/run",): (2, "exactly once cannot be promised"),
        (out, "--set", "writer.budget=1"): (2, "writer.budget"),
    }
    for words, (status, said) in cases.items():
        done = speechchat("run", config, "--out", *words)
        assert done.status == status and said in done.err and done.err.count("\n") == 1, done.err
    store.harm = lambda request: "403" if request.method == "PUT" else ""
    done = speechchat("run", config, "--out", out)
    assert done.status == 4 and "denies these credentials access" in done.err and done.err.count("\n") == 1
    store.harm = lambda request: "403"
    done = speechchat("verify", out)
    assert done.status == 4 and "denies these credentials access" in done.err
    store.reset()
    assert len(endpoint.requests) == asked and objects(out) == {}


# ---- folders that lack what a disk has ----

LACKING = """
import errno, os, sys, fcntl
what, number = sys.argv[1], getattr(errno, sys.argv[2])
def lacks(*_): raise OSError(number, os.strerror(number))
setattr({"flock": fcntl, "link": os}[what], what, lacks)
sys.argv = ["speechchat", *sys.argv[3:]]
from pipeline.cli import main
main()
"""


def test_a_folder_without_hard_links(tmp_path: Path, config: Path, undisturbed: dict[str, bytes]) -> None:
    out = tmp_path / "run"
    words = ["run", str(config), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", LACKING, "link", "ENOTSUP", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(out) == undisturbed


def test_a_folder_without_locks(tmp_path: Path, config: Path) -> None:
    out = tmp_path / "run"
    words = ["run", str(config), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", LACKING, "flock", "ENOLCK", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "this file system has no locks" in tools.error_line(done.stderr)
    assert not tree(out)
