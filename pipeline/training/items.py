"""What an epoch is made of, and in which order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.training import order
from pipeline.training.selection import Selection, Table

Each = Literal["dialogue", "turn"]


@dataclass(frozen=True)
class Batches:
    """Items of like length together; every batch is a list.

    budget: what a batch may hold, in seconds of audio, or in what `length` gives (tokens, for example:
    `field("seconds") * 12.5 + field("characters") * 0.4`; dialogues and turns have both columns). padded: its longest
    item times their number must fit, as in a padded tensor; else their sum. most: items of a batch. pool: so many
    items, in the order of the epoch, are sorted by length together.
    """

    budget: float
    length: pc.Expression | None = None
    padded: bool = True
    most: int = 1 << 30
    pool: int = 2048

    def __post_init__(self) -> None:
        for name in ("budget", "most", "pool"):
            if not getattr(self, name) > 0:
                raise UsageError(f"batches.{name}: {getattr(self, name)} is not above 0")


@dataclass(frozen=True)
class Epoch:
    """items: numbers of items in the order of the epoch; edges: of the batches, None where each is by itself."""

    items: np.ndarray
    edges: np.ndarray | None

    def __len__(self) -> int:
        return len(self.items) if self.edges is None else len(self.edges) - 1

    def __getitem__(self, place: int) -> np.ndarray:
        if self.edges is None:
            return self.items[place : place + 1]
        return self.items[self.edges[place] : self.edges[place + 1]]


class Items:
    """row: int64 [n], the dialogue of each item in the catalog. turn: int64 [n], 0-based, or None for whole dialogues.
    chosen: of dialogues, bool for every turn of the catalog, or None for all."""

    def __init__(
        self,
        selection: Selection,
        shard: np.ndarray,
        each: Each,
        turns: pc.Expression | None,
        where: pc.Expression | None,
        weights: pc.Expression | None,
        batches: Batches | None,
    ):
        """shard: int, ascending, of each dialogue. Raises UsageError where nothing is left, or an option cannot be."""
        chosen = None if turns is None else _mask(selection.turns(), turns, "turns")
        keep = np.ones(len(shard), bool)
        if where is not None:
            keep = _mask(selection.dialogues(chosen), where, "where")
        self.turn: np.ndarray | None = None
        self.chosen = chosen
        if each == "turn":
            owner = selection.owners()
            among = np.flatnonzero(keep[owner] if chosen is None else keep[owner] & chosen)
            self.row = owner[among]
            self.turn = among - selection.offsets[self.row]
        else:
            if chosen is not None:
                keep &= np.bitwise_or.reduceat(chosen, selection.offsets[:-1])
            among = self.row = np.flatnonzero(keep)
        if not len(self.row):
            raise UsageError(f"nothing is left of {len(shard)} dialogues by where={where} and turns={turns}")
        self._shard = shard[self.row]
        self._weight: np.ndarray | None = None
        if weights is not None:
            self._weight = _numbers(selection.dialogues(chosen), weights, "weights")[self.row]
            if not (np.isfinite(self._weight) & (self._weight >= 0)).all():
                raise UsageError(f"weights: {weights} is not a number of at least 0 for every dialogue")
            if not self._weight.any():
                raise UsageError(f"weights: nothing is left: {weights} is 0 for every dialogue that is streamed")
        self._batches = batches
        self._length: np.ndarray | None = None
        if batches is not None:
            table = selection.turns() if each == "turn" else selection.dialogues(chosen)
            length = pc.field("seconds") if batches.length is None else batches.length
            self._length = _numbers(table, length, "batches.length")[among]
            if not (self._length <= batches.budget).all():
                longest = int(np.argmax(self._length))
                raise UsageError(
                    f"batches.budget: {selection.key(int(self.row[longest]))} has {self._length[longest]:g} by itself, "
                    f"and a batch holds {batches.budget:g}: raise the budget, or leave out what is longer "
                    "(where=field('seconds') < …)"
                )

    @cached_property
    def digest(self) -> str:
        """Of which items there are, how often and how long: the text of an expression leaves out what is long."""
        found = hashlib.sha256()
        for values in (self.row, self.turn, self.chosen, self._weight, self._length):
            if values is not None:  # rounded: another machine may reckon a last bit otherwise
                found.update(
                    str(values.dtype).encode() + (values.round(6) if values.dtype == float else values).tobytes()
                )
        return found.hexdigest()[:16]

    def epoch(self, seed: int, epoch: int, shuffle: int) -> Epoch:
        items = np.arange(len(self.row))
        if self._weight is not None:
            items = np.repeat(items, order.repeats(self._weight, seed, epoch))
        items = items[order.shuffled(self._shard[items], shuffle, seed, epoch)]
        if self._batches is None or self._length is None:
            return Epoch(items, None)
        chance = order.draw(len(items), seed, epoch, "batches") if shuffle else None
        batches = self._batches
        sort, edges = order.batched(
            self._length[items], batches.budget, batches.pool, batches.most, batches.padded, chance
        )
        return Epoch(items[sort], edges)


def _mask(table: Table, expression: pc.Expression, option: str) -> np.ndarray:
    """bool; what is unknown is not chosen."""
    found = table.evaluate(expression, option)
    if str(found.type) != "bool":
        raise UsageError(f"{option}: {expression} gives {found.type}, not true or false")
    return found.fill_null(False).to_numpy()


def _numbers(table: Table, expression: pc.Expression, option: str) -> np.ndarray:
    """float64; NaN for what is unknown. Raises UsageError for what is no number."""
    found = table.evaluate(expression, option)
    try:
        return found.cast("float64").to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(f"{option}: {expression} gives {found.type}, not numbers") from None
