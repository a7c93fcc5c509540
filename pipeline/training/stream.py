"""The stream: an epoch of dialogues, turns or batches, shuffled, shared out over ranks and workers, and resumable."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from pipeline.dialogue import Role
from pipeline.errors import DataError, UsageError
from pipeline.models import cache_folder
from pipeline.training import order
from pipeline.training.catalog import open_catalog
from pipeline.training.items import Batches, Each, Epoch, Items
from pipeline.training.reading import Check, Decoder
from pipeline.training.selection import Selection
from pipeline.training.state import (
    STATE_VERSION,
    State,
    Taken,
    compare,
    dump_state,
    leg_of,
    merge,
    parse_states,
    whole_legs,
)
from pipeline.training.world import find_world, loader_worker, shared_epoch

try:  # a DataLoader asks by its type whether a data set is a stream
    from torch.utils.data import IterableDataset
except ImportError:

    class IterableDataset:  # type: ignore[no-redef]
        """Stands where torch is not installed."""


_LOG = logging.getLogger("speechchat")
_AHEAD = 4
"""Items a thread that are read before they are asked for."""
_THREADS = 8
"""Of a stream from a store, which answers late."""


class DialogueStream(IterableDataset):
    """A run (a folder, or s3://BUCKET/PATH) or a release (there, or https://HOST/PATH) as a stream of examples.

    Each `iter()` gives what is left of an epoch; when that is over, the next one gives the next epoch. With a
    DataLoader that has workers, say `set_epoch` before each, as with torch's own sampler.

    split: train, validation or test; their voices are disjoint.
    each: `dialogue` or `turn`: what an item is.
    decode: False gives the bytes of whole dialogues (RawExample). With `turns`, or each="turn", only the turns
        asked for are read and decoded (TurnsExample, TurnExample); else both tracks whole (DialogueExample).
    turns: which turns: a role, or an expression such as `field("error_rate") < 0.05` (selection.py has the columns).
    where: which dialogues: an expression, such as `(field("language") == "zh") & (field("duration") < 30)`.
    weights: how often a dialogue comes in an epoch: an expression, such as
        `if_else(field("language") == "zh", 2.0, 1.0)`. The part behind the point is decided by chance in each epoch.
        None: each comes once.
    shuffle: shards come in random order, and items are shuffled within windows of so many; 0: as they lie.
    batches: see `Batches`.
    rank, ranks: of this process; unless given, torch.distributed, or RANK and WORLD_SIZE, say so.
    tail: `keep` shares out every item, so that some ranks have one item more than others; `drop` leaves out the last
        items of an epoch that do not come out even (other ones in each epoch).
    damage: `raise` ends at a damaged sample with a DataError; `skip` logs it, counts it in `skipped` and goes on.
    check: of whole dialogues: `payload` compares the checksum of every member, `headers` the tar headers only. (Of
        turns every byte that is read is checked.)
    threads: that read and decode ahead; None: 8 on a store, else none.
    cache: the folder in which the joined index is kept; None: where the models are.

    Raises UsageError and RunFolderError, one line, for what cannot be.
    """

    def __init__(
        self,
        run: Path | str,
        split: str = "train",
        *,
        each: Each = "dialogue",
        decode: bool = True,
        turns: Role | pc.Expression | None = None,
        where: pc.Expression | None = None,
        weights: pc.Expression | None = None,
        shuffle: int = 4096,
        seed: int = 0,
        batches: Batches | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        tail: Literal["keep", "drop"] = "keep",
        damage: Literal["raise", "skip"] = "raise",
        check: Check = "payload",
        threads: int | None = None,
        cache: Path | str | None = None,
    ):
        for name, value, known in (
            ("each", each, ("dialogue", "turn")),
            ("tail", tail, ("keep", "drop")),
            ("damage", damage, ("raise", "skip")),
            ("check", check, ("payload", "headers")),
        ):
            if value not in known:
                raise UsageError(f"{name}: {value!r} is none of {', '.join(known)}")
        if shuffle < 0 or (threads or 0) < 0:
            raise UsageError("shuffle and threads: not below 0")
        if not decode and (each == "turn" or turns is not None):
            raise UsageError("decode=False gives whole dialogues: leave out `turns` and each='turn'")
        if isinstance(turns, str):
            if turns not in ("user", "assistant"):
                raise UsageError(f"turns: {turns!r} is none of user, assistant, and no expression")
            turns = pc.field("role") == turns
        self._run, self._split, self._each, self._decode = run, split, each, decode
        self._turns, self._where, self._weights, self._batches = turns, where, weights, batches
        self._shuffle, self._seed, self._tail, self._check = shuffle, seed, tail, check
        self._skip = damage == "skip"
        self._threads = threads
        self._cache = Path(cache) if cache is not None else cache_folder() / "streams"
        self._given = (rank, ranks)
        self.rank, self.ranks = find_world(rank, ranks)
        self.skipped = 0
        """Damaged samples that were passed over in this epoch, or in the last one until the next begins; by this
        process or before its state was loaded."""
        self._epoch = 0
        self._legs: tuple[Taken, ...] = ()
        self._open: Taken | None = None
        self._iterated = False
        self._told, self._heard = shared_epoch(), 0
        self._data: _Data | None = None
        self._plan: tuple[int, Epoch] | None = None
        _ = self._streamed  # what cannot be is said now

    # ---- what there is ----

    @property
    def _streamed(self) -> _Data:
        if self._data is None:
            self._data = _Data(vars(self))
        return self._data

    def _planned(self) -> Epoch:
        if self._plan is None or self._plan[0] != self._epoch:
            self._plan = (self._epoch, self._streamed.epoch(self._epoch))
        return self._plan[1]

    def _left(self, legs: Sequence[Taken]) -> np.ndarray:
        """Items of the epoch that these legs have left."""
        items = order.left(len(self._planned()), [leg_of(leg) for leg in legs])
        return items[: len(items) // self.ranks * self.ranks] if self._tail == "drop" else items

    def _position(self, who: int, world: int) -> tuple[tuple[Taken, ...], int]:
        """The legs that are over for this consumer, and what it has taken since. Raises UsageError where the open leg
        is one of other consumers: to end it takes the states of all."""
        if self._open is None:
            return self._legs, 0
        if self._open.world == world and who in self._open.done:
            return self._legs, self._open.done[who]
        known = ", ".join(map(str, sorted(self._open.done)))
        raise UsageError(
            f"this state is of consumer {known} out of {self._open.world}, and this is {who} out of {world} (ranks × "
            "workers): give `load_state_dict` the states of all ranks (a list, or `merge_states`)"
        )

    @property
    def epoch(self) -> int:
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, unless it is the one that the stream is in already. Workers that a DataLoader keeps
        (persistent_workers) hear of it when the loader is iterated over the next time."""
        if not isinstance(epoch, int | np.integer):
            raise UsageError(f"set_epoch: {epoch!r} is no whole number")  # 1.0 would be shuffled otherwise than 1
        self._begin(int(epoch))
        self._heard += 1
        if self._told is not None:
            self._told[0], self._told[1] = epoch, self._heard

    def _begin(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._legs, self._open, self.skipped = epoch, (), None, 0

    def __len__(self) -> int:
        """Items (batches, where it makes some) of this rank in this epoch, those that were taken before too."""
        count = len(self._planned())
        if self._tail == "drop":
            return count // self.ranks
        return len(range(self.rank, count, self.ranks))

    # ---- the state ----

    def state_dict(self, taken: int | None = None, workers: int = 0, batch_size: int | None = None) -> dict[str, Any]:
        """How far this process is: a few numbers, for JSON or torch.save.

        Iterated over directly, or in a torchdata StatefulDataLoader, the stream knows. A plain DataLoader with workers
        tells it nothing: say how many items (or batches) were `taken` from it in this epoch since the stream was made
        or a state was loaded, with its `workers` and its `batch_size` (None: the stream's own items). Without workers
        it reads here, and what is said besides changes nothing. With damage="skip" that tells too little: behind
        damaged samples as many may come again.
        """
        if taken is None or (not workers and self._iterated):
            return dump_state(self._state(self._legs, self._open or self._begun()))
        count, size = max(workers, 1), batch_size or 1
        world = self.ranks * count
        own = [order.consumer(self.rank, self.ranks, worker, count) for worker in range(count)]
        legs = self._position(own[0], world)[0]
        before = [self._position(who, world)[1] for who in own]
        items = len(self._left(legs))
        rest = [len(range(who, items, world)) - done for who, done in zip(own, before, strict=True)]
        most = [-(-more // size) for more in rest]
        if not 0 <= taken <= sum(most):
            raise UsageError(
                f"state_dict(taken={taken}): this rank had {sum(most)} left in this epoch; count anew in each"
            )
        batches = order.rounds(most, taken)
        done = {who: had + min(n * size, more) for who, had, n, more in zip(own, before, batches, rest, strict=True)}
        return dump_state(self._state(legs, Taken(world=world, done=done)))

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Go on where a state was saved: one state, or those of all ranks. The number of ranks and workers may be
        another one, if the states of all are there.

        Raises UsageError for a state of other data, of another seed or order, or of a part of the ranks.
        """
        found = merge(parse_states(state))
        compare(self._state((), self._begun()).model_copy(update={"epoch": -1}), found)
        self._epoch, self._legs, self._open, self.skipped = found.epoch, found.legs, found.open, found.skipped
        if found.items != len(self._planned()):
            raise UsageError(
                f"this state is of an epoch of {found.items} items, and this one has {len(self._planned())}: damaged"
            )
        if len(found.open.done) == found.open.world:  # of the whole world: whoever comes now begins a leg of its own
            self._legs, self._open = whole_legs(found), None

    def _begun(self) -> Taken:
        """The leg of a worker that has taken nothing yet; outside of one, of a rank with whatever workers."""
        worker, workers = loader_worker() or (0, 1)
        return Taken(world=self.ranks * workers, done={order.consumer(self.rank, self.ranks, worker, workers): 0})

    def _state(self, legs: tuple[Taken, ...], open_leg: Taken) -> State:
        data = self._streamed
        return State(
            version=STATE_VERSION,
            data=data.catalog.digest,
            chosen=data.chosen,
            about=data.catalog.about,
            settings=self._settings(),
            epoch=self._epoch,
            items=len(self._planned()),
            legs=legs,
            open=open_leg,
        )

    def _settings(self) -> dict[str, str]:
        batches = self._batches
        return {
            "split": self._split,
            "each": self._each,
            "seed": str(self._seed),
            "shuffle": str(self._shuffle),
            "turns": str(self._turns),
            "where": str(self._where),
            "weights": str(self._weights),
            "tail": self._tail,
            **{f"batches.{name}": str(getattr(batches, name)) for name in Batches.__dataclass_fields__ if batches},
        }

    # ---- reading ----

    def __iter__(self) -> Iterator[Any]:
        now = find_world(*self._given)
        # A worker that a loader spawned knows nothing of the ranks, where the environment does not say so.
        if now != (self.rank, self.ranks) and (now != (0, 1) or loader_worker() is None):
            raise UsageError(
                f"the stream was made as rank {self.rank} of {self.ranks}, and this process is {now[0]} of {now[1]}: "
                "make the stream after torch.distributed.init_process_group, or give it rank and ranks"
            )
        if self._told is not None and loader_worker() is not None and self._heard != int(self._told[1]):
            self._heard = int(self._told[1])
            self._begin(int(self._told[0]))
        worker, workers = loader_worker() or (0, 1)
        who = order.consumer(self.rank, self.ranks, worker, workers)
        world = self.ranks * workers
        if not self._legs and self._open is None:
            self.skipped = 0
        self._legs, done = self._position(who, world)
        passed = self._open.skipped.get(who, 0) if self._open is not None else 0
        self._open, self._iterated = Taken(world=world, done={who: done}, skipped={who: passed}), True
        for examples, damaged in self._read_ahead(self._left(self._legs)[who::world][done:]):
            done += 1
            passed += len(damaged)
            self._open.done[who] = done  # in place: to make a record for each item takes as long as to read its JSON
            if damaged:
                self._open.skipped[who] = passed
                self.skipped += len(damaged)
                for line in damaged:
                    _LOG.warning("skipped: %s", line)
            if examples:
                item, examples = examples if self._batches else examples[0], []
                yield item
                del item  # what the trainer lets go is free before the next is read
        self._epoch, self._legs, self._open = self._epoch + 1, (), None

    def _read_ahead(self, places: np.ndarray) -> Iterator[tuple[list[Any], list[str]]]:
        """Of each item its examples, and what was passed over; in order."""
        planned, data = self._planned(), self._streamed
        threads = self._threads
        if threads is None:
            threads = 0 if isinstance(data.catalog.shards[0].path, Path) else _THREADS
        if not threads:
            for place in places:
                yield self._examples(data, planned[place])
            return
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[tuple[list[Any], list[str]]]] = deque()
            try:
                for place in places:
                    waiting.append(pool.submit(self._examples, data, planned[place]))
                    if len(waiting) > threads * _AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _examples(self, data: _Data, items: np.ndarray) -> tuple[list[Any], list[str]]:
        found, damaged = [], []
        for item in items.tolist():
            try:
                found.append(data.example(item))
            except DataError as error:
                if not self._skip:
                    raise DataError(f"{error}; {data.catalog.advice}") from None
                damaged.append(str(error))
        return found, damaged

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_plan": None}  # a spawned worker opens the index itself


class _Data:
    """What a stream reads, opened: in each process by itself."""

    def __init__(self, options: Mapping[str, Any]):
        self.catalog = open_catalog(options["_run"], options["_split"], options["_cache"])
        selection = Selection(self.catalog)
        shard = self.catalog.table["shard"].to_numpy()
        chosen = (options[f"_{name}"] for name in ("each", "turns", "where", "weights", "batches"))
        self._items = Items(selection, shard, *chosen)
        self._decoder = Decoder(self.catalog, selection, options["_check"])
        self._offsets = selection.offsets
        self._whole = self._decoder.dialogue if options["_decode"] else self._decoder.raw
        self._order = (options["_seed"], options["_shuffle"])

    @property
    def chosen(self) -> str:
        return self._items.digest

    def epoch(self, epoch: int) -> Epoch:
        seed, shuffle = self._order
        return self._items.epoch(seed, epoch, shuffle)

    def example(self, item: int) -> Any:
        """Raises DataError."""
        items = self._items
        row = int(items.row[item])
        if items.turn is not None:
            return self._decoder.turn(row, int(items.turn[item]))
        if items.chosen is None:
            return self._whole(row)
        numbers = np.flatnonzero(items.chosen[self._offsets[row] : self._offsets[row + 1]])
        return self._decoder.turns(row, numbers.tolist())
