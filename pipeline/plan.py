"""config → units → planned dialogues: a pure function, and a longer plan begins with the shorter one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

from pipeline.config import Config
from pipeline.dialogue import Language, PlannedDialogue, Split, derive_seed

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Unit:
    """The work that becomes one shard: planned dialogues of one split.

    languages: of its dialogues, in order. before: how many of each language the units before it have. seed: of the run.
    """

    number: int
    split: Split
    languages: tuple[Language, ...]
    before: tuple[tuple[Language, int], ...]
    seed: int

    @cached_property
    def dialogues(self) -> tuple[PlannedDialogue, ...]:
        """Made when they are asked for: who resumes a long run only walks past most units."""
        ordinals, made = dict(self.before), []
        for index, language in enumerate(self.languages):
            key = f"{language}-{self.number:06d}-{index:02d}"
            made.append(
                PlannedDialogue(
                    id=key,
                    unit=self.number,
                    index=index,
                    ordinal=ordinals[language],
                    split=self.split,
                    language=language,
                    seed=derive_seed(self.seed, key),
                )
            )
            ordinals[language] += 1
        return tuple(made)


def unit_count(config: Config) -> int:
    return config.dialogues // config.unit_size


def expected(weights: Mapping[Name, float], count: int) -> dict[Name, float]:
    """How many of the first `count` of a plan fall to each name, to within one."""
    total = math.fsum(weights.values())
    return {name: count * weights[name] / total for name in sorted(weights) if weights[name] > 0}


def unit_splits(config: Config) -> Iterator[tuple[int, Split]]:
    """Number and split of each unit, in order: all that its files are named by, much faster than its plan."""
    return enumerate(islice(_apportion(config.splits), unit_count(config)))


def plan_units(config: Config) -> Iterator[Unit]:
    """The units of a run, in order; memory does not grow with their number."""
    languages = _apportion(config.languages)
    splits = _apportion(config.splits)
    ordinals = dict.fromkeys(config.languages, 0)
    for number in range(unit_count(config)):
        unit = Unit(
            number,
            next(splits),
            tuple(islice(languages, config.unit_size)),
            tuple(sorted(ordinals.items())),
            config.seed,
        )
        yield unit
        for language in ordinals:
            ordinals[language] += unit.languages.count(language)


def _apportion(weights: Mapping[Name, float]) -> Iterator[Name]:
    """An endless sequence in which every prefix holds each name as near to its weight as it can.

    The next name is the one furthest behind its share; on a tie the first by name, so that the order in which
    a configuration lists them means nothing.
    """
    total = math.fsum(weights.values())  # the same in any order of the weights, as `sum` is not
    names = [name for name in sorted(weights) if weights[name] > 0]
    shares = [weights[name] / total for name in names]
    counts = [0] * len(names)
    for step in itertools.count(1):
        furthest, chosen = -math.inf, 0
        for place, share in enumerate(shares):
            behind = share * step - counts[place]
            if behind > furthest:
                furthest, chosen = behind, place
        counts[chosen] += 1
        yield names[chosen]
