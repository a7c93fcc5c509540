"""What a stream gives, by name."""

from __future__ import annotations

from typing import Any

from pipeline.training.stream import DialogueStream


def names(item: Any) -> list[tuple[str, int]]:
    """Of an item: (key, turn) of all that is in it."""
    return [(one.key, getattr(one, "turn", -1)) for one in (item if isinstance(item, list) else [item])]


def take(stream: DialogueStream, count: int | None = None) -> list[tuple[str, int]]:
    found = []
    for number, item in enumerate(stream, 1):
        found += names(item)
        if number == count:
            break
    return found
