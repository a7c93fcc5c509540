"""config → units → planned dialogues: a pure function, and a longer plan begins with the shorter one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pipeline.config import Config
from pipeline.dialogue import PlannedDialogue, Split, derive_seed

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Unit:
    """The work that becomes one shard: planned dialogues of one split."""

    number: int
    split: Split
    dialogues: tuple[PlannedDialogue, ...]


def unit_count(config: Config) -> int:
    return config.dialogues // config.unit_size


def expected(weights: Mapping[Name, float], count: int) -> dict[Name, float]:
    """How many of the first `count` of a plan fall to each name, to within one."""
    total = math.fsum(weights.values())
    return {name: count * weights[name] / total for name in sorted(weights) if weights[name] > 0}


def plan_units(config: Config) -> Iterator[Unit]:
    """The units of a run, in order; memory does not grow with their number."""
    languages = _apportion(config.languages)
    splits = _apportion(config.splits)
    ordinals = dict.fromkeys(config.languages, 0)
    for number in range(unit_count(config)):
        split = next(splits)
        dialogues = []
        for index in range(config.unit_size):
            language = next(languages)
            key = f"{language}-{number:06d}-{index:02d}"
            dialogues.append(
                PlannedDialogue(
                    id=key,
                    unit=number,
                    index=index,
                    ordinal=ordinals[language],
                    split=split,
                    language=language,
                    seed=derive_seed(config.seed, key),
                )
            )
            ordinals[language] += 1
        yield Unit(number, split, tuple(dialogues))


def _apportion(weights: Mapping[Name, float]) -> Iterator[Name]:
    """An endless sequence in which every prefix holds each name as near to its weight as it can.

    The next name is the one furthest behind its share; on a tie the first by name, so that the order in which
    a configuration lists them means nothing.
    """
    total = math.fsum(weights.values())  # the same in any order of the weights, as `sum` is not
    shares = {name: weights[name] / total for name in sorted(weights) if weights[name] > 0}
    counts = dict.fromkeys(shares, 0)
    step = 0
    while True:
        step += 1
        name = max(shares, key=lambda item: shares[item] * step - counts[item])
        counts[name] += 1
        yield name
