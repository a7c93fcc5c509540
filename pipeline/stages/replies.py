"""Replies that are paid for once: the journal of a unit, and the account of a run.

A line is appended in one call as soon as a reply is there, so a killed process loses no reply that it had; a power cut
may, as the file is synced when the unit is done and not before. On a store, which cannot append, the lines that have
come while the last part was put make the next part (shards/parts.py).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.config import Config
from pipeline.dialogue import Record
from pipeline.errors import DataError, StorageError
from pipeline.plan import Unit, plan_units
from pipeline.shards.disk import storage_errors
from pipeline.shards.parts import PartLog, read_log
from pipeline.shards.remote import is_remote
from pipeline.shards.store import RunFolder
from pipeline.stages.ledger import Ledger, Sums

__all__ = [
    "Account",
    "Bill",
    "Ledger",
    "ReplyJournal",
    "account",
    "dialogue_costs",
    "rebuild_ledger",
    "repair_journal",
    "reply_key",
]

_REPLY = ("text", "finish", "model", "endpoint", "prompt_tokens", "completion_tokens", "cost")


def reply_key(prompt: Prompt, fingerprint: str) -> str:
    """SHA-256 over all that reaches a reply, in hex. fingerprint: the writer's."""
    parts = (prompt.messages, prompt.language, prompt.seed, prompt.schema, prompt.max_tokens, fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ReplyJournal:
    """A unit's replies of the LLM, for one worker; a context manager.

    path: of the journal, made with the first reply. reuse: the journal of the same unit in an earlier run. ledger:
    where there is a budget. A last line that was torn is cut off; other damage raises DataError.
    """

    def __init__(self, path: Path, writer: Writer, reuse: Path | None = None, ledger: Ledger | None = None):
        self._path = path
        self._writer = writer
        self._ledger = ledger
        self._file: int | None = None
        self._parts = PartLog(path) if is_remote(path) else None
        self._waiting: list[dict[str, Any]] = []  # lines for the next part
        self._putting = asyncio.Lock()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._known: dict[str, Reply] = {}
        for source in (reuse, path):
            for line in _lines(source) if source else ():
                if "text" in line:
                    self._known[line["key"]] = Reply(known=True, **{name: line[name] for name in _REPLY})

    async def ask(self, prompt: Prompt) -> Reply:
        """The reply that was paid for earlier, or a new one. Prompts that are the same are asked once, also side by
        side. Raises what the writer raises; errors are not kept, replies that were cut off or refused are."""
        key = reply_key(prompt, self._writer.fingerprint(prompt))
        if key in self._known:
            return self._known[key]
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self._known:
                head = {"key": key, "step": prompt.step, "dialogue": prompt.dialogue}
                [reply] = await self._writer.reply([replace(prompt, meter=_Meter(self, head, self._ledger))])
                await self._keep({**head, **{name: getattr(reply, name) for name in _REPLY}})
                self._known[key] = replace(reply, known=True)
                return reply
        return self._known[key]

    async def _keep(self, line: dict[str, Any]) -> None:
        """As `append`; others are written meanwhile, where that takes a while."""
        if self._parts is None:
            self.append(line)
            return
        self._waiting.append(line)
        async with self._putting:
            if any(item is line for item in self._waiting):  # else it went with another's part
                taken, self._waiting = self._waiting, []
                try:
                    await asyncio.to_thread(self._parts.append, b"".join(map(_encoded, taken)))
                except StorageError:
                    self._waiting = taken + self._waiting
                    raise

    def append(self, line: dict[str, Any]) -> None:
        """Write a line with the time (seconds since 1970). Raises StorageError."""
        data = _encoded(line)
        if self._parts is not None:
            self._parts.append(data)
            return
        with storage_errors(self._path):
            if self._file is None:
                self._file = _open(self._path)
            written = os.write(self._file, data)
            if written < len(data):
                # A full disk takes a part: leave no torn line for the next one to be glued to.
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Sync and close. Safe to call again."""
        waiting, self._waiting = self._waiting, []
        if self._parts is not None and waiting:  # of those who were called off while they waited for their turn
            self._parts.append(b"".join(map(_encoded, waiting)))
        file, self._file = self._file, None
        if file is not None:
            with storage_errors(self._path):
                try:
                    os.fsync(file)
                finally:
                    os.close(file)

    def __enter__(self) -> ReplyJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps({**line, "time": round(time.time(), 3)}, ensure_ascii=False).encode() + b"\n"


class _Meter:
    """Counts the requests for one prompt: in the ledger, and in the journal those that may have been billed unseen."""

    def __init__(self, journal: ReplyJournal, head: dict[str, Any], ledger: Ledger | None):
        self._journal = journal
        self._head = head
        self._ledger = ledger

    async def reserve(self, dollars: float) -> None:
        if self._ledger is not None:
            await self._ledger.reserve(dollars)

    def settle(self, reserved: float, cost: float | None) -> None:
        if self._ledger is not None:
            self._ledger.settle(reserved, cost)
        if cost is None:
            self._journal.append({**self._head, "unsettled": reserved})


def repair_journal(folder: RunFolder, unit: int) -> Path:
    """Every reply that the studio has paid for to repair a unit's turns."""
    return folder.logs / "repairs" / folder.replies(unit).relative_to(folder.logs / "replies")


class Bill(Record):
    """requests: replies that came. tokens: as billed, of prompts and of replies. cost: dollars."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Account(Record):
    """What a run has paid for, in whole and by step, by model and by how replies ended.

    unsettled: requests that may have been billed though no reply came; unsettled_cost: the most they cost, in dollars.
    """

    total: Bill
    by_step: dict[str, Bill]
    by_model: dict[str, Bill]
    by_finish: dict[str, int]
    unsettled: int
    unsettled_cost: float


def account(folder: RunFolder, units: Iterable[Unit]) -> Account:
    """The sum over the journals of `units`; what another run had paid for is not in them. Raises DataError."""
    sums: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    finishes: Counter[str] = Counter()
    unsettled: list[float] = [0, 0.0]
    for unit in units:
        for line in _paid(folder, unit):
            if "unsettled" in line:
                unsettled = [unsettled[0] + 1, unsettled[1] + line["unsettled"]]
                continue
            finishes[line["finish"]] += 1
            for key in (("", ""), ("step", line["step"]), ("model", line["model"])):
                for place, amount in enumerate((1, line["prompt_tokens"], line["completion_tokens"], line["cost"])):
                    sums[key][place] += amount
    bills = {key: _bill(*amounts) for key, amounts in sorted(sums.items())}
    return Account(
        total=bills.get(("", ""), Bill()),
        by_step={name: bill for (by, name), bill in bills.items() if by == "step"},
        by_model={name: bill for (by, name), bill in bills.items() if by == "model"},
        by_finish=dict(sorted(finishes.items())),
        unsettled=int(unsettled[0]),
        unsettled_cost=unsettled[1],
    )


def dialogue_costs(folder: RunFolder, units: Iterable[Unit]) -> Iterator[dict[str, Bill]]:
    """For each unit, what each of its dialogues has paid for, by id. Raises DataError."""
    for unit in units:
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
        for line in _paid(folder, unit):
            if "text" in line:
                for place, amount in enumerate((1, line["prompt_tokens"], line["completion_tokens"], line["cost"])):
                    sums[line["dialogue"]][place] += amount
        yield {name: _bill(*amounts) for name, amounts in sums.items()}


def rebuild_ledger(folder: RunFolder, config: Config) -> Sums:
    """Set the ledger of a run from its journals. For the driver, before any worker is at work. Raises DataError."""
    paid = account(folder, plan_units(config))
    ledger = Ledger(folder.ledger, config.writer.budget or 0.0)
    try:
        return ledger.rebuild(paid.total.cost, paid.unsettled_cost)
    finally:
        ledger.close()


def _paid(folder: RunFolder, unit: Unit) -> Iterator[dict[str, Any]]:
    yield from _lines(folder.replies(unit.number))
    yield from _lines(repair_journal(folder, unit.number))


def _bill(requests: float, prompt_tokens: float, completion_tokens: float, cost: float) -> Bill:
    return Bill(
        requests=int(requests), prompt_tokens=int(prompt_tokens), completion_tokens=int(completion_tokens), cost=cost
    )


def _open(path: Path) -> int:
    """A journal for appending; a torn last line is cut off, or the next one would be glued to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    data = path.read_bytes()
    os.ftruncate(file, data.rfind(b"\n") + 1)
    return file


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal, none if there is no such file. Raises DataError."""
    try:
        with storage_errors(path):
            data = read_log(path)
    except FileNotFoundError:
        return
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            record = json.loads(line)
            if "unsettled" not in record:
                for name in ("key", "step", "dialogue", *_REPLY):
                    record[name]
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{path}: line {number} is no reply: remove the line; it will be paid for again") from None
        yield record
