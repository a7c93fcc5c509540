"""Accounts and the hard cap, against a server that misbehaves and keeps its own bill."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.backends.llm.endpoint import Site
from pipeline.backends.llm.openai import OpenAIWriter
from pipeline.config import Config, WriterConfig
from pipeline.errors import BackendError, BudgetError, DataError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.replies import Ledger, ReplyJournal, account, dialogue_costs, rebuild_ledger
from tests.faulty_llm import (
    HANG,
    PRICE,
    PROMPT_TOKENS,
    REPLY_TOKENS,
    RESET,
    FaultyLLM,
    fails,
    faulty_llm,
    mixture,
    says,
)

COST = (PROMPT_TOKENS * PRICE[0] + REPLY_TOKENS * PRICE[1]) / 1e6

MANY = 1000
UNITS = 4


def run_config(url: str, **writer: Any) -> Config:
    settings = {"base_url": url, "model": "m", "prices": {"m": PRICE}, "retries": 20, "timeout": 1.5, "max_tokens": 20}
    return Config(dialogues=UNITS, unit_size=1, writer=WriterConfig(**{**settings, **writer}))


async def write(config: Config, folder: RunFolder, units: Sequence[int], count: int) -> list[Reply]:
    """Ask `count` prompts of units, shared out among them."""
    site = Site("writer", str(config.writer.base_url), "m", concurrency=config.writer.concurrency)
    writer = OpenAIWriter(config.writer, [site], backoff=0.001)
    budget = config.writer.budget
    ledger = Ledger(folder.ledger, budget) if budget else None
    journals = {unit: ReplyJournal(folder.replies(unit), writer, None, ledger) for unit in units}
    try:
        return await ask_all(journals, count)
    finally:
        for journal in journals.values():
            journal.close()
        await writer.close()


async def ask_all(journals: dict[int, ReplyJournal], count: int) -> list[Reply]:
    async def one(number: int) -> Reply:
        unit = list(journals)[number % len(journals)]
        message = {"role": "user", "content": f"line {number}"}
        return await journals[unit].ask(Prompt((message,), "en", 7, step=f"step {number % 3}", dialogue=f"d{unit}"))

    tasks = [asyncio.ensure_future(one(number)) for number in range(count)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def journal_lines(folder: RunFolder) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for unit in range(UNITS)
        if folder.replies(unit).exists()
        for line in folder.replies(unit).read_text("utf-8").splitlines()
    ]


def test_a_thousand_prompts_through_every_fault(tmp_path: Path) -> None:
    """Nothing is lost, nothing is paid twice, and the accounts add up to the server's own bill."""
    shares = {
        "429 seconds": 0.03,
        "429 date": 0.02,
        "500": 0.05,
        "503": 0.02,
        "reset": 0.02,
        "hang": 0.004,
        "cut": 0.02,
    }
    shares |= {"wrong schema": 0.02, "empty": 0.02, "refusal": 0.02}
    folder = RunFolder(tmp_path)
    with faulty_llm(mixture(11, shares)) as server:
        config = run_config(server.url, concurrency=32, budget=100)
        found = asyncio.run(write(config, folder, range(UNITS), MANY))
        lines = journal_lines(folder)
        replies = [line for line in lines if "text" in line]
        lost = [line for line in lines if "unsettled" in line]

        assert len(found) == len(replies) == MANY
        assert Counter(reply.text for reply in found) == Counter(line["text"] for line in replies)
        assert {reply.finish for reply in found} == {"stop", "empty", "refusal"}
        written = [line["text"] for line in replies if line["text"].startswith('{"line"')]
        assert len(set(written)) == len(written) > 900
        # Every completion that was billed is a line, or one of those that were lost on the way.
        on_the_way = sum(answer.act != "send" or isinstance(answer.body, bytes) for answer in server.billed)
        assert len(server.billed) - MANY <= len(lost)
        assert len(lost) >= on_the_way > 20

        sums = account(folder, plan_units(config))
        assert sums.total.requests == MANY == sum(sums.by_finish.values())
        assert sums.total.cost == pytest.approx(
            (MANY - sums.by_finish["empty"]) * COST + sums.by_finish["empty"] * COST
        )
        assert sums.total.prompt_tokens == MANY * PROMPT_TOKENS
        assert sums.unsettled == len(lost)
        assert sums.total.cost + sums.unsettled_cost >= server.bill
        assert sum(bill.cost for bill in sums.by_step.values()) == pytest.approx(sums.total.cost)
        assert set(sums.by_step) == {"step 0", "step 1", "step 2"} and set(sums.by_model) == {"m"}
        costs = list(dialogue_costs(folder, plan_units(config)))
        assert [list(one) for one in costs] == [[f"d{unit}"] for unit in range(UNITS)]
        assert sum(bill.requests for one in costs for bill in one.values()) == MANY
        ledger = Ledger(folder.ledger, 100).sums()
        assert ledger.reserved == 0
        assert ledger.spent == pytest.approx(sums.total.cost * 1e9, abs=MANY)
        assert ledger.unsettled == pytest.approx(sums.unsettled_cost * 1e9, abs=MANY)

        paid = len(server.seen)
        again = asyncio.run(write(config, folder, range(UNITS), MANY))
        assert [reply.text for reply in again] == [reply.text for reply in found]
        assert all(reply.known for reply in again)
        assert len(server.seen) == paid
        assert journal_lines(folder) == lines


def test_what_is_cancelled_on_its_way_is_counted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    async def leave(config: Config, server: FaultyLLM) -> None:
        task = asyncio.ensure_future(write(config, folder, [0], 3))
        while len(server.seen) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with faulty_llm(lambda number, body: HANG) as server:
        config = run_config(server.url, budget=5, timeout=20)
        asyncio.run(leave(config, server))
        sums = account(folder, plan_units(config))
        assert (sums.total.requests, sums.unsettled) == (0, 3)
        ledger = Ledger(folder.ledger, 5).sums()
        assert ledger.reserved == 0 and ledger.unsettled / 1e9 >= server.bill


def test_no_number_of_workers_passes_the_budget(tmp_path: Path) -> None:
    """Four workers, with replies that are lost on the way: the server's own bill stays below the cap."""
    folder, budget, ended = RunFolder(tmp_path), 60 * COST, []

    def spend(url: str, unit: int) -> None:
        try:
            asyncio.run(write(run_config(url, concurrency=8, budget=budget), folder, [unit], 60))
        except BudgetError as error:
            ended.append(error)

    with faulty_llm(mixture(5, {"reset": 0.08, "cut": 0.08, "500": 0.1})) as server:
        workers = [threading.Thread(target=spend, args=(server.url, unit)) for unit in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert len(ended) == 4
        sums = Ledger(folder.ledger, budget).sums()
        assert 0 < server.bill <= budget
        assert sums.total / 1e9 <= budget and sums.reserved == 0
        # It was spent, too: what is left would not cover many more.
        assert sums.total / 1e9 > 0.6 * budget


def test_the_budgets_end_is_told(tmp_path: Path) -> None:
    with faulty_llm() as server:
        config = run_config(server.url, concurrency=1, budget=10 * COST)
        with pytest.raises(BudgetError) as caught:
            asyncio.run(write(config, RunFolder(tmp_path), [0], 50))
        assert str(caught.value).startswith("writer.budget=0.0006: $0.000")
        assert str(caught.value).endswith(
            "what was written is kept: raise writer.budget and give the same command again"
        )
        kept = len(journal_lines(RunFolder(tmp_path)))
        assert 0 < kept == len(server.billed) < 10
        found = asyncio.run(write(run_config(server.url, budget=1), RunFolder(tmp_path), [0], 50))
        assert sum(reply.known for reply in found) == kept
        assert len(server.billed) == 50


def reserve(ledger: Ledger, dollars: float) -> None:
    asyncio.run(ledger.reserve(dollars))


def test_reservations_are_shared_and_given_back(tmp_path: Path) -> None:
    mine, other = (Ledger(tmp_path / "ledger.json", 1.0, patience=0.2) for _ in range(2))
    reserve(mine, 0.7)
    with pytest.raises(BudgetError, match=r"\$0\.0000 is spent, \$0\.7000 is held .* may cost \$0\.4000"):
        reserve(other, 0.4)
    mine.settle(0.7, 0.1)
    reserve(other, 0.4)
    other.settle(0.4, None)
    with pytest.raises(BudgetError, match=r"\$0\.5000 is spent \(\$0\.4000 of it by requests that ended without"):
        reserve(mine, 0.6)


def test_room_that_own_requests_hold_is_waited_for(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json", 1.0)
    order = []

    async def second() -> None:
        await ledger.reserve(0.9)
        order.append("second")

    async def run() -> None:
        await ledger.reserve(0.9)
        waiting = asyncio.ensure_future(second())
        await asyncio.sleep(0)
        order.append("first settles")
        ledger.settle(0.9, 0.05)
        await waiting

    asyncio.run(run())
    assert order == ["first settles", "second"]


def test_reservations_of_the_dead_stay_counted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    config = run_config("http://127.0.0.1:9/v1", budget=5)
    dead = Ledger(folder.ledger, 5)
    reserve(dead, 2)
    reserve(dead, 1)
    dead.settle(1, 0.25)  # and it died before the reply was in its journal
    dead.close()
    sums = rebuild_ledger(folder, config)
    assert (sums.spent, sums.reserved, sums.unsettled) == (0, 0, 2.25e9)
    assert rebuild_ledger(folder, config) == sums
    with pytest.raises(BudgetError):
        reserve(Ledger(folder.ledger, 5), 3)


def test_a_ledger_is_set_from_the_journals(tmp_path: Path) -> None:
    """Also where an earlier start had no budget, so no ledger."""
    folder = RunFolder(tmp_path)
    with faulty_llm(lambda number, body: RESET if number == 1 else says("Done.")) as server:
        config = run_config(server.url, concurrency=1)
        asyncio.run(write(config, folder, [0, 1], 6))
        paid = account(folder, plan_units(config))
        sums = rebuild_ledger(folder, run_config(server.url, budget=1))
    assert sums.spent == round(6 * COST * 1e9) and sums.unsettled == round(paid.unsettled_cost * 1e9) > 0
    assert paid.unsettled == 1


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("spent: 5")
    with pytest.raises(DataError, match=r"ledger\.json: not a ledger: remove it"):
        Ledger(tmp_path / "ledger.json", 1)


def test_an_error_costs_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with (
        faulty_llm(lambda number, body: fails(500)) as server,
        pytest.raises(BackendError),
    ):
        asyncio.run(write(run_config(server.url, budget=1, retries=2), folder, [0], 1))
    assert Ledger(folder.ledger, 1).sums().total == 0
    assert not folder.replies(0).exists()
