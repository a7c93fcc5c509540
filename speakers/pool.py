"""All recipes that the base voices of one cell (language, gender, split) can yield, in a seeded order."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, product
from math import comb
from typing import NamedTuple

from pipeline.dialogue import Language, Split, derive_seed
from pipeline.voice import Gender, Recipe, Voice
from speakers.recipes import CHILD_SHIFT, canonical, like_parents

WEIGHT_STEPS = 20
"""Weights are multiples of 1 / 20, from LEAST / 20 on."""
LEAST = 2
SHIFT_STEP = 0.25
SPEED_STEP = 0.02
MOST = 5_000
"""Sets of parents of a kind that are looked at; of more, so many are drawn. There are that many from 12 parents on."""
PITCH: Mapping[str, tuple[float, float]] = {"female": (130, 330), "male": (70, 200), "child": (200, 400)}
"""Median F0 in Hz within which a voice is taken for what it is called."""


@dataclass(frozen=True)
class Limits:
    """What may be drawn for a language. shift: semitones; speed: 1 is the parents' own; both inclusive.

    lenders: languages whose voices may lend their sound to one that speaks like voices of this language.
    """

    shift: tuple[float, float]
    speed: tuple[float, float]
    lenders: tuple[Language, ...] = ()


class Cell(NamedTuple):
    """Voices of one cell share their parents, and with those of another split none."""

    language: Language
    gender: Gender
    split: Split

    def __str__(self) -> str:
        return f"{self.language} {'women' if self.gender == 'female' else 'men'} of {self.split}"


class Base(NamedTuple):
    """A style of an engine, and the voice that is nothing but it."""

    style: str
    voice: Voice


class _Parents(NamedTuple):
    """Who lends the sound, who the manner of speaking, and the shifts with which they still sound as what they are."""

    sound: tuple[str, ...]
    manner: tuple[str, ...]
    shifts: tuple[float, ...]


class Pool:
    """All recipes that a cell can yield. They fall into kinds by how many parents lend their sound and how many their
    manner of speaking; the kinds take turns, because most recipes by far are of the kind with the most parents."""

    def __init__(self, cell: Cell, bases: Sequence[Base], limits: Limits, near: float, seed: int):
        self._cell = cell
        self._seed = seed
        self._near = near
        self._shifts, self._speeds = _steps(limits.shift, SHIFT_STEP), _steps(limits.speed, SPEED_STEP)
        mine = [base for base in bases if (base.voice.gender, base.voice.split) == (cell.gender, cell.split)]
        self._native = {base.style: base.voice for base in mine if cell.language in base.voice.languages}
        self._lent = {base.style: base.voice for base in mine if set(limits.lenders) & set(base.voice.languages)}
        self._bases = {**self._lent, **self._native}
        # The shifts that keep the pitch of each within what is heard of such people.
        self._fitting = {
            name: {shift for shift in self._shifts if _plausible(voice, shift)} for name, voice in self._native.items()
        }
        self._kinds = {(sound, manner): self._parents(sound, manner) for sound in (1, 2, 3) for manner in (0, 1, 2)}
        # Where the shifts of each begin, were all written one after the other; the last number is how many there are.
        self._starts = {
            kind: list(accumulate((len(item.shifts) for item in items), initial=0))
            for kind, items in self._kinds.items()
        }

    def _parents(self, sound: int, manner: int) -> list[_Parents]:
        # Who lends only the sound does not know how this language is spoken: somebody else must.
        lenders, speakers = sorted(self._bases if manner else self._native), sorted(self._native)
        if comb(len(lenders), sound) * comb(len(speakers), manner) <= MOST:
            pairs = list(product(combinations(lenders, sound), combinations(speakers, manner)))
        else:
            draw = self._random(sound, manner, "parents")
            some = (
                (tuple(sorted(draw.sample(lenders, sound))), tuple(sorted(draw.sample(speakers, manner))))
                for _ in range(MOST)
            )
            pairs = sorted(set(some))
        shifts = {names: self._shared(names) for names in {prosody or timbre for timbre, prosody in pairs}}
        return [
            _Parents(timbre, prosody, shifts[prosody or timbre])
            for timbre, prosody in pairs
            if timbre != prosody and shifts[prosody or timbre] and self._alike({*timbre, *prosody})
        ]

    def _shared(self, names: tuple[str, ...]) -> tuple[float, ...]:
        return tuple(sorted(set.intersection(*(self._fitting[name] for name in names))))

    def _alike(self, names: set[str]) -> bool:
        """Whether all are of one engine, and those of each language speak about as fast; of two languages, rates cannot
        be compared."""
        if len({self._bases[name].engine for name in names}) > 1:
            return False
        for group in (self._native, self._lent.keys() - self._native.keys()):
            rates = [self._bases[name].rate for name in names if name in group and self._bases[name].rate]
            if rates and max(rates) > self._near * min(rates):
                return False
        return True

    def _random(self, *purpose: object) -> random.Random:
        return random.Random(derive_seed(self._seed, "voices", *self._cell, *purpose))

    @property
    def size(self) -> int:
        return sum(self._size(*kind) for kind in self._kinds)

    def _size(self, sound: int, manner: int) -> int:
        return self._starts[sound, manner][-1] * len(_MIXES[sound]) * len(_MIXES[manner]) * len(self._speeds)

    def recipes(self, known: set[str]) -> Iterator[Recipe]:
        """All of them once, in a seeded order, without those in `known`."""
        streams = {kind: _shuffled(self._size(*kind), self._random(*kind)) for kind in self._kinds}
        while streams:
            for kind, stream in list(streams.items()):
                number = next(stream, None)
                if number is None:
                    del streams[kind]
                    continue
                recipe = self._recipe(*kind, number)
                if canonical(recipe) not in known:
                    yield recipe

    def _recipe(self, sound: int, manner: int, number: int) -> Recipe:
        number, speed = divmod(number, len(self._speeds))
        number, first = divmod(number, len(_MIXES[sound]))
        number, second = divmod(number, len(_MIXES[manner]))
        starts = self._starts[sound, manner]
        place = bisect_right(starts, number) - 1
        parents = self._kinds[sound, manner][place]
        return Recipe(
            timbre=tuple(zip(parents.sound, _MIXES[sound][first], strict=True)),
            prosody=tuple(zip(parents.manner, _MIXES[manner][second], strict=True)),
            shift=parents.shifts[number - starts[place]],
            speed=self._speeds[speed],
        )

    def voice(self, id: str, recipe: Recipe) -> Voice:
        parents = [self._bases[name] for name in recipe.parents]
        plain = Voice(
            id=id,
            gender=self._cell.gender,
            languages=(self._cell.language,),
            engine=parents[0].engine,
            license=" AND ".join(sorted({voice.license for voice in parents})),
            consent="; ".join(sorted({voice.consent for voice in parents})),
            split=self._cell.split,
            recipe=recipe,
        )
        return like_parents(plain, self._native)


def _compositions(parents: int, steps: int = WEIGHT_STEPS) -> list[tuple[int, ...]]:
    """Ways to share out the steps among so many parents, each with LEAST or more."""
    if parents < 2:
        return [(steps,) * parents]
    firsts = range(LEAST, steps - LEAST * (parents - 1) + 1)
    return [(first, *rest) for first in firsts for rest in _compositions(parents - 1, steps - first)]


# By number of parents: their weights; of none, one empty mix.
_MIXES = [[tuple(step / WEIGHT_STEPS for step in steps) for steps in _compositions(number)] for number in range(4)]


def _plausible(voice: Voice, shift: float) -> bool:
    young = voice.age == "child" or (voice.gender == "female" and shift >= CHILD_SHIFT)
    low, high = PITCH["child" if young else voice.gender]
    return not voice.pitch or low <= voice.pitch * 2 ** (shift / 12) <= high


def _steps(span: tuple[float, float], step: float) -> list[float]:
    return [round(span[0] + number * step, 2) for number in range(round((span[1] - span[0]) / step) + 1)]


def _shuffled(size: int, draw: random.Random) -> Iterator[int]:
    """0 … size - 1 in a random order, one at a time (Fisher and Yates; only what was moved is remembered)."""
    moved: dict[int, int] = {}
    for last in range(size - 1, -1, -1):
        pick = draw.randrange(last + 1)
        yield moved.get(pick, pick)
        moved[pick] = moved.pop(last, last)
