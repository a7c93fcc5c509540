"""The whole text campaign through both engines: what becomes of each dialogue, accounts and the hard cap."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.llm.chat import most_tokens
from pipeline.config import Config
from pipeline.engine.run import run
from pipeline.engine.text_report import TextReport, text_report
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.replies import Ledger
from pipeline.stages.write import read_text
from tests.command_line import CommandLine
from tests.engine.campaign import LOSSES, SPOILT, STEPS, Teller, Watch, configure, lines, part
from tests.fakes import Silent, config_file, tree, write_corpus
from tests.faulty_llm import PRICE, PROMPT_TOKENS, REPLY_TOKENS, Answer, FaultyLLM, completion, fails, faulty_llm
from tests.sources.data import alpaca, write

KINDS = ("local", "ray")
COST = (PROMPT_TOKENS * PRICE[0] + REPLY_TOKENS * PRICE[1]) / 1e6
BROKEN = ({"instruction": ["a", "list"]}, "[]", '{"instruction": "Do you like')
UNSPEAKABLE = {"instruction": "Write a Python function that sorts a list of numbers.", "output": "def f(x): return x"}


# ---- a server that misbehaves, beside one that refuses the key and one that is down ----------------------------------


@dataclass(frozen=True)
class Campaign:
    """All text of a run, as it was written. `refusing` is the endpoint that serves nobody."""

    config: Config
    folder: RunFolder
    server: FaultyLLM
    refusing: FaultyLLM
    teller: Teller
    told: Watch

    @property
    def report(self) -> TextReport:
        return text_report(self.folder, self.config)


def rows() -> list[Any]:
    found: list[Any] = alpaca(62)
    for place, broken in zip((3, 30, 50), BROKEN, strict=True):
        found.insert(place, broken)
    return [*found[:20], UNSPEAKABLE, *found[20:]]


def write_campaign(root: Path, kind: str, servers: ExitStack) -> Campaign:
    teller = Teller(LOSSES, SPOILT)
    server = servers.enter_context(faulty_llm(teller))
    refusing = servers.enter_context(faulty_llm(lambda number, body: fails(401)))
    nobody = servers.enter_context(socket.socket())
    nobody.bind(("127.0.0.1", 0))
    down = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
    data = write(root / "rows.jsonl", rows())
    web = {"kind": "instructions", "data": str(data), "license": "MIT", "max_broken": 0.1}
    urls = {"good": server.url, "gone": refusing.url, "down": down}
    endpoints = {name: {"base_url": url, "model": "m"} for name, url in urls.items()}
    writer = {"endpoints": endpoints, "prices": {"m": list(PRICE)}, "attempts": 2, "retries": 8, "timeout": 1.5}
    config = configure(
        root / "run.yaml",
        server.url,
        kind,
        dialogues=64,
        unit_size=32,
        sources={"web": web},
        text=STEPS,
        writer={**writer, "budget": 100},
        engine__writers=2,
    )
    told = Watch()
    run(config, root / "run", told, until="write")
    return Campaign(config, RunFolder(root / "run"), server, refusing, teller, told)


@pytest.fixture(scope="module")
def campaign(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Campaign]]:
    """The campaign of an engine; it is written when the first test asks for it."""
    made: dict[str, Campaign] = {}

    def of(kind: str) -> Campaign:
        if kind not in made:
            if kind == "ray":
                request.getfixturevalue("ray_here")
            made[kind] = write_campaign(tmp_path_factory.mktemp(kind), kind, servers)
        return made[kind]

    with ExitStack() as servers:
        yield of


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(campaign: Callable[[str], Campaign], kind: str) -> None:
    made = campaign(kind)
    assert set(made.teller.met) == {*LOSSES, *SPOILT, ""}  # every fault was met
    assert made.told.troubles == []
    texts = [line for unit in plan_units(made.config) for line in read_text(made.folder, unit)]
    assert len(texts) == 64 and all((line.dialogue is None) != (line.reject is None) for line in texts)
    rejected = Counter((line.reject.stage, line.reject.reason) for line in texts if line.reject)
    assert rejected["source", "exhausted"] == 2 and rejected["review", "coherence"] > 0
    assert rejected["rewrite", "not speakable"] > 0 and all(reason for _, reason in rejected)
    report = made.report
    assert report.written == 64 == report.kept + rejected.total() and report.kept > 40
    assert {(step.step, why): n for step in report.steps for why, n in step.dropped.items()} == dict(rejected)
    refusals = Counter(reason for step in report.steps for reason in step.refused)
    assert {"schema", "truncated", "length", "empty", "refusal", "content filter"} <= set(refusals)


@pytest.mark.parametrize("kind", KINDS)
def test_the_accounts_are_those_of_the_server(campaign: Callable[[str], Campaign], kind: str) -> None:
    made = campaign(kind)
    journal = lines(made.folder, made.config)
    paid = [line for line in journal if "text" in line]
    lost = [line for line in journal if "unsettled" in line]
    # Nothing was paid twice: every bill of the server is a reply or one that was lost on its way, each reply once.
    # (What was given up before the server had come to it is counted as lost, and was not billed.)
    assert len({line["key"] for line in paid}) == len(paid) > 200
    assert lost and len(paid) <= len(made.server.billed) <= len(paid) + len(lost)
    sums = made.report.account
    assert (sums.total.requests, sums.unsettled) == (len(paid), len(lost))
    assert sums.total.cost == pytest.approx(len(paid) * COST)
    assert sums.total.cost + sums.unsettled_cost > made.server.bill
    assert (sums.total.prompt_tokens, sums.total.completion_tokens) == (
        len(paid) * PROMPT_TOKENS,
        len(paid) * REPLY_TOKENS,
    )
    assert set(sums.by_step) == {"rewrite", "converse", "style", "review"}
    ledger = Ledger(made.folder.ledger, 100).sums()
    assert ledger.reserved == 0 and ledger.spent / 1e9 == pytest.approx(sums.total.cost, abs=1e-6)
    assert ledger.unsettled / 1e9 == pytest.approx(sums.unsettled_cost, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_observer_hears_of_all_and_once_of_a_dead_endpoint(campaign: Callable[[str], Campaign], kind: str) -> None:
    made = campaign(kind)
    report, told = made.report, made.told.last
    assert (told.dialogues, told.kept, told.replies) == (64, report.kept, report.account.total.requests)
    assert told.cost == pytest.approx(report.account.total.cost)
    assert told.tokens == told.replies * (PROMPT_TOKENS + REPLY_TOKENS)
    down, gone = sorted(told.notes)
    assert "writer.endpoints.gone" in gone and "OPENAI_API_KEY" in gone and gone.endswith("the other endpoints go on")
    assert "writer.endpoints.down" in down and "does not answer" in down and down.endswith("the other endpoints go on")
    assert made.refusing.billed == [] and made.refusing.seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_start_pays_nothing_and_changes_nothing(campaign: Callable[[str], Campaign], kind: str) -> None:
    made = campaign(kind)
    before, asked, journal = tree(made.folder.root), len(made.server.seen), lines(made.folder, made.config)
    run(made.config, made.folder.root, Silent(), until="write")
    assert tree(made.folder.root) == before
    assert len(made.server.seen) == asked and lines(made.folder, made.config) == journal


def test_texts_that_are_lost_are_composed_again_of_what_was_paid(campaign: Callable[[str], Campaign]) -> None:
    made = campaign("local")
    before, asked = tree(made.folder.root), len(made.server.seen)
    shutil.rmtree(made.folder.root / "dialogues")
    again = Watch()
    run(made.config, made.folder.root, again, until="write")
    assert tree(made.folder.root) == before and len(made.server.seen) == asked
    assert (again.last.dialogues, again.last.replies, again.last.cost) == (64, 0, 0)


def test_both_engines_write_the_same_text(campaign: Callable[[str], Campaign]) -> None:
    local, ray = (part(tree(campaign(kind).folder.root), "dialogues", "sources") for kind in KINDS)
    assert len(local) == 4 and local == ray


def test_the_rows_of_the_source_are_counted(campaign: Callable[[str], Campaign]) -> None:
    counts = campaign("local").report.sources["web"]
    assert (counts.read, counts.selected, counts.used, counts.broken) == (66, 62, 62, 3)
    assert counts.dropped == {"code": 1} and counts.first_broken[0].startswith("rows.jsonl#4: ")


# ---- the hard cap ---------------------------------------------------------------------------------------------------


class Meter:
    """A script that bills what a real endpoint would, and answers the first two requests together.

    With one request of a writer under way at a time, that takes two writers.
    """

    def __init__(self, together: int):
        self._gate = threading.Barrier(together)
        # So that a request is under way while the other writer meets the cap.
        self._seconds = 0.05 if together > 1 else 0.0

    def __call__(self, number: int, body: dict[str, Any]) -> Answer:
        if number <= self._gate.parties:
            self._gate.wait(60)
        else:
            time.sleep(self._seconds)
        size = sum(len(message["content"]) for message in body["messages"])
        usage = {"prompt_tokens": size // 4, "completion_tokens": 20}
        return Answer(body={**completion(f"Yes, and I would say {body['seed'] % 7 + 2} of them."), "usage": usage})


def dollars(answers: list[Answer]) -> float:
    used = [answer.body["usage"] for answer in answers]
    return sum(use["prompt_tokens"] * PRICE[0] + use["completion_tokens"] * PRICE[1] for use in used) / 1e6


@pytest.mark.parametrize("kind", KINDS)
def test_a_cap_ends_the_run_and_a_higher_one_finishes_it(
    tmp_path: Path, speechchat: CommandLine, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "ray":
        request.getfixturevalue("ray_here")
    corpus = write_corpus(tmp_path / "corpus", [f"Shall we take {n} of the apples?" for n in ("one", "two", "six")])
    writer = {"model": "m", "prices": {"m": list(PRICE)}, "concurrency": 1, "attempts": 1, "timeout": 60}

    def start(server: FaultyLLM, name: str, engine: str, **changes: Any) -> tuple[int, str]:
        path = tmp_path / f"{name}.yaml"
        config_file(path, server.url, corpus, dialogues=24, writer=writer | {"base_url": server.url}, **changes)
        done = speechchat("run", path, "--out", tmp_path / name, "--engine", engine, "--until", "write")
        assert "Traceback" not in done.err
        return done.status, (done.err.splitlines() or [""])[-1]

    with faulty_llm(Meter(1)) as server:
        assert start(server, "uncapped", "local")[0] == 0
        worst = max(_worst(body) for body in server.seen)
    writer["budget"] = cap = round(2.5 * worst, 6)
    assert dollars(server.billed) > cap
    with faulty_llm(Meter(2 if kind == "ray" else 1)) as server:
        status, said = start(server, "capped", kind, engine__writers=2)
        assert status == 5
        assert said.startswith(f"speechchat: writer.budget={cap:g}: $") and "raise writer.budget" in said
        folder = RunFolder(tmp_path / "capped")
        config = configure(tmp_path / "read.yaml", server.url, kind, dialogues=24)
        journal = lines(folder, config)
        assert 0 < dollars(server.billed) <= cap
        assert Ledger(folder.ledger, cap).sums().total / 1e9 <= cap
        # What was paid for is kept, of every writer.
        assert len(journal) == len(server.billed) < 24 and all("text" in line for line in journal)
        if kind == "ray":
            assert server.most_parallel == 2
        writer["budget"] = 1
        assert start(server, "capped", kind, engine__writers=2)[0] == 0
        assert len(server.billed) == 24 == len(lines(folder, config))
    texts = [part(tree(tmp_path / name), "dialogues") for name in ("uncapped", "capped")]
    assert len(texts[0]) == 12 and texts[0] == texts[1]


def _worst(body: dict[str, Any]) -> float:
    """Dollars that this request might have cost."""
    prompt, reply = most_tokens(body, Config().writer)
    return (prompt * PRICE[0] + reply * PRICE[1]) / 1e6
