"""How far a stream is: small, of plain values, and exact for any number of ranks and workers.

What each consumer of an epoch has taken is one number, so a state is a few numbers a consumer. A state that a rank or a
worker saved knows its own consumer only; `merge_states` joins those of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError

from pipeline.dialogue import Record
from pipeline.errors import UsageError
from pipeline.training.order import Leg, left

STATE_VERSION = 1
_KEY = "speechchat_stream"
_BEHIND = "_steps_since_snapshot"
"""Of torchdata's StatefulDataLoader: how many batches it has given since the states that it holds."""


class Taken(Record):
    """Items that each consumer out of `world` has taken in a leg, of those that are known. skipped: damaged samples
    that each passed over, of those that are known."""

    world: int
    done: dict[int, int]
    skipped: dict[int, int] = Field(default_factory=dict)


class State(Record):
    """data, chosen: digests of what there is, and of what is streamed of it; about: it in words. settings: each that
    decides which items there are and in which order. items: of the epoch. legs: those that are over, whole; open: the
    present one."""

    version: int
    data: str
    chosen: str
    about: str
    settings: dict[str, str]
    epoch: int
    items: int
    legs: tuple[Taken, ...]
    open: Taken

    @property
    def skipped(self) -> int:
        """Damaged samples that were passed over in this epoch, of the consumers that are known."""
        return sum(sum(leg.skipped.values()) for leg in (*self.legs, self.open))


def dump_state(state: State) -> dict[str, Any]:
    return {_KEY: state.model_dump(mode="json")}


def parse_states(state: object) -> list[State]:
    """Every state of a stream in what was saved: a state, or whatever holds states, as torchdata's loader does. Raises
    UsageError."""
    states = []
    for found in _walk(state):
        version = found.get("version") if isinstance(found, Mapping) else None
        if version != STATE_VERSION:
            raise UsageError(f"this state of a stream has version {version!r}, and this program reads {STATE_VERSION}")
        try:
            states.append(State.model_validate(found))
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(
                f"this state of a stream is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from None
    if not states:
        raise UsageError("no state of a stream: save what `state_dict()` of the stream, or of its loader, returns")
    return states


def _walk(value: object) -> Iterator[Any]:
    if isinstance(value, Mapping):
        if _KEY in value:
            yield value[_KEY]
            return
        if value.get(_BEHIND):
            raise UsageError(
                f"this state of a loader is {value[_BEHIND]} batches old: make it with snapshot_every_n_steps=1"
            )
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)


def merge_states(states: Iterable[object]) -> dict[str, Any]:
    """The one state of a whole world, from those of its ranks (of the stream, or of a loader around it).

    Raises UsageError where they are not of one moment of one stream, or one is missing.
    """
    return dump_state(merge([state for item in states for state in parse_states(item)]))


def merge(states: list[State]) -> State:
    """Raises UsageError as `merge_states`."""
    if not states:
        raise UsageError("no state to merge")
    newest = max(state.epoch for state in states)
    # Who has finished an epoch is at the start of the next one already, while others are still in it.
    behind = [state for state in states if state.epoch < newest]
    if behind:
        if any(state.epoch != newest - 1 for state in behind) or any(
            any(state.open.done.values()) for state in states if state.epoch == newest
        ):
            raise UsageError(
                f"these states are of epochs {sorted({state.epoch for state in states})}: save all ranks at one moment"
            )
        states = [state if state.epoch < newest else _finished(state, behind[0]) for state in states]
    world = max(state.open.world for state in states)
    states = [_spread(state, world) for state in states]
    first = states[0]
    done: dict[int, int] = {}
    skipped: dict[int, int] = {}
    for state in states:
        compare(first, state)
        if (state.epoch, state.legs, state.open.world) != (first.epoch, first.legs, first.open.world):
            raise UsageError("these states are not of one moment: save all ranks at the same one")
        for who, count in state.open.done.items():
            if done.setdefault(who, count) != count:
                raise UsageError(f"two of these states are of consumer {who}, and differ: give each rank's once")
        skipped |= state.open.skipped
    whole = Taken(world=first.open.world, done=dict(sorted(done.items())), skipped=dict(sorted(skipped.items())))
    return first.model_copy(update={"open": whole})


def _finished(state: State, behind: State) -> State:
    """Of a consumer that has taken all it had, as a state of the epoch that the others are still in."""
    total = behind.items
    for leg in behind.legs:
        total -= sum(leg.done.values())
    done = {who: len(range(who, total, behind.open.world)) for who in state.open.done}
    legs, world = behind.legs, behind.open.world
    return state.model_copy(
        update={"epoch": behind.epoch, "items": behind.items, "legs": legs, "open": Taken(world=world, done=done)}
    )


def _spread(state: State, world: int) -> State:
    """Of a rank that has taken nothing yet, as one with as many workers as the others have (`order.consumer`)."""
    own = state.open
    if own.world == world or world % own.world or any(own.done.values()):
        return state
    done = {who + more: 0 for who in own.done for more in range(0, world, own.world)}
    return state.model_copy(update={"open": Taken(world=world, done=done)})


def compare(mine: State, other: State) -> None:
    """Raises UsageError, saying what differs, where `other` is not a state of the same stream."""
    if other.data != mine.data:
        raise UsageError(
            f"this state is of other data: {other.about}, and here is {mine.about}; stream what it was saved with, or "
            "begin without the state"
        )
    for name in sorted(mine.settings.keys() | other.settings.keys()):
        here, there = mine.settings.get(name, "unset"), other.settings.get(name, "unset")
        if here != there:
            raise UsageError(
                f"this state is of a stream with {name}={there}, and this one has {name}={here}: with another {name} "
                "the items are others, or come in another order; set it as it was, or begin without the state"
            )
    if other.chosen != mine.chosen:
        raise UsageError(
            "this state is of a stream whose where, turns, weights or batches.length chose or weighed other items: set "
            "them as they were (their texts are the same as far as they are shown), or begin without the state"
        )
    if other.epoch == mine.epoch and other.items != mine.items:
        raise UsageError(f"this state is of an epoch of {other.items} items, and this one has {mine.items}")


def whole_legs(state: State) -> tuple[Taken, ...]:
    """Every leg in which something was taken. Raises UsageError where not all consumers of one are known, or more was
    taken than there is."""
    legs = tuple(leg for leg in (*state.legs, state.open) if any(leg_of(leg).done))
    left(state.items, [leg_of(leg) for leg in legs])
    return legs


def leg_of(taken: Taken) -> Leg:
    missing = [who for who in range(taken.world) if who not in taken.done]
    if missing:
        known = ", ".join(map(str, sorted(taken.done))) or "none"
        raise UsageError(
            f"this state tells of consumer {known} out of {taken.world} only: give `load_state_dict` the states of all "
            "ranks (a list, or `merge_states`)"
        )
    return Leg(taken.world, tuple(taken.done[who] for who in range(taken.world)))
