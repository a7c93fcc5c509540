"""Rules on what was heard: which clips one lets pass, and the search for a good one. No model, no file."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from pipeline.config import JudgeConfig
from pipeline.dialogue import Language
from pipeline.engine.gate_measure import UNASKED, Case
from pipeline.listening_sections import WORDS
from pipeline.text.rates import error_rates

HEARD = (*sorted(WORDS), "logprob", "no_speech", "compression_ratio", "language")
"""Scores that each opinion has of its own; a clip passes if one opinion passes all gates on them."""
LIKELY = ("doubt", "surprise")
SOUND = ("chars_per_second", "pace", "lead", "tail", "hush", "snr", "mos_sig", "mos_bak", "mos_ovr")
LIKENESS = ("similarity",)

BUDGET: dict[Language, float] = {"en": 0.02, "zh": 0.05}
"""Share of good clips that a rule may refuse at the first take."""
TARGETS: dict[Language, dict[str, float]] = {
    "en": {"swapped": 0.99, "foreign": 0.99, "silence": 0.99, "cut": 0.95, "dropped": 0.95},
    "zh": {"swapped": 0.99, "foreign": 0.99, "silence": 0.99, "cut": 0.95, "dropped": 0.95, "substituted": 0.85},
}
"""Share of clips of a kind that should be caught."""
OTHERS = {"doubled": 0.5, "substituted": 0.5, "slow": 0.3, "fast": 0.3, "noise0": 0.1, "overdriven": 0.1, "voice": 0.3}
"""What a clip of a kind without a target counts beside one with; of those that are not here nothing."""
COST = 1.0
"""What a refused good clip counts, in shares: so much must be caught in return."""
GAIN = 0.01
"""By which another gate must better the rule."""
GATES = 6

_RATES = (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
_COUNTS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
LIMITS: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("wer", "cer", "mer", "ser", "tser", "per"), _RATES),
    **dict.fromkeys(("gap", "dropped", "added", "figures"), _COUNTS),
    "no_speech": (0.2, 0.4, 0.6, 0.8),
    "compression_ratio": (1.8, 2.0, 2.4),
    "pace": (1.2, 1.25, 1.3, 1.35, 1.4, 1.5, 1.6),
    "tail": (0.15, 0.2, 0.3),
    "hush": (0.4, 0.5, 0.7, 1.0),
}
FLOORS: dict[str, tuple[float, ...]] = {
    "logprob": (-1.5, -1.2, -1.0, -0.8, -0.6),
    "language": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    "pace": (0.5, 0.6, 0.65, 0.7, 0.75, 0.8),
    "lead": (0.005, 0.01, 0.02),
    "tail": (0.005, 0.01, 0.02),
    "snr": (10.0, 15.0, 20.0, 25.0, 30.0),
    "mos_sig": (2.2, 2.4, 2.6, 2.8, 3.0),
    "mos_bak": (2.4, 2.7, 3.0, 3.3, 3.6),
    "mos_ovr": (1.8, 2.0, 2.2, 2.4, 2.6, 2.8),
    "similarity": (0.5, 0.55, 0.6, 0.65, 0.7, 0.75),
}
APPEALS: dict[str, tuple[float, ...]] = {
    "doubt": (1.0, 2.0, 3.0, 4.0, 6.0),
    "surprise": (1.0, 2.0, 3.0, 4.0, 5.0),
    "longer": (0.0,),  # how likely the text is does not tell whether more was said
}
"""Grids of thresholds, coarse: a finer one would fit the clips and not the gate."""


@dataclass(frozen=True)
class Gate:
    """limit: at most `value`; floor: at least."""

    name: str
    side: Literal["limit", "floor"]
    value: float


@dataclass(frozen=True)
class Rule:
    """What a clip must pass. appeal: as `JudgeConfig.appeal`, by name."""

    gates: tuple[Gate, ...] = ()
    appeal: tuple[tuple[str, float], ...] = ()

    def section(self, side: Literal["limit", "floor"]) -> dict[str, float]:
        return {gate.name: gate.value for gate in sorted(self.gates, key=str) if gate.side == side}


def rule_of(judge: JudgeConfig, language: Language) -> Rule:
    """The gates of a configuration, whatever its mode."""
    limits = [Gate(name, "limit", value) for name, value in sorted(judge.limits.get(language, {}).items())]
    floors = [Gate(name, "floor", value) for name, value in sorted(judge.floors.get(language, {}).items())]
    mos = [Gate("mos_ovr", "floor", judge.min_mos)] if judge.min_mos is not None else []
    return Rule((*limits, *floors, *mos), tuple(sorted(judge.appeal.get(language, {}).items())))


class Table:
    """Clips of one language as arrays, float64, NaN where a score was not measured.

    of: by kind, bool [clips]. fault: bool [clips], whether it is refused before anybody listens. said: bool [clips,
    opinions], whether there is such an opinion; more than transcripts, where there are several right texts.
    """

    def __init__(self, cases: Sequence[Case], likeness: Sequence[Mapping[str, float]] | None = None):
        language = cases[0].language if cases else "en"
        rows = [list(_opinions(case, language)) for case in cases]
        width = max(map(len, rows), default=1) or 1
        self.language: Language = language
        kinds = np.array([case.kind for case in cases])
        self.of = {kind: kinds == kind for kind in dict.fromkeys(kinds.tolist())}
        self._count = len(cases)
        self.fault = np.array([bool(case.fault) for case in cases], bool)
        self.said = np.array([[place < len(row) for place in range(width)] for row in rows], bool).reshape(-1, width)
        self._heard = {
            name: np.array(
                [
                    [row[place].get(name, np.nan) if place < len(row) else np.nan for place in range(width)]
                    for row in rows
                ]
            ).reshape(-1, width)
            for name in HEARD
        }
        sound = [{score.name: score.value for score in case.scores} for case in cases]
        likeness = likeness or [{}] * len(cases)
        self._whole = {
            **{name: np.array([row.get(name, np.nan) for row in sound]) for name in SOUND},
            **{name: np.array([row.get(name, np.nan) for row in likeness]) for name in LIKENESS},
        }
        # By opinion, what was said of the text by then; and what was said last.
        self._likely = {
            name: np.array(
                [
                    [row[place].get(name, np.nan) if place < len(row) else np.nan for place in range(width)]
                    for row in rows
                ]
            ).reshape(-1, width)
            for name in LIKELY
        }
        last = np.array([max(len(row) - 1, 0) for row in rows], int)
        self._whole |= {name: values[np.arange(len(cases)), last] for name, values in self._likely.items()}

    def __len__(self) -> int:
        return self._count

    @property
    def names(self) -> list[str]:
        """Scores that some clip has."""
        both = {**self._heard, **self._whole}
        return [name for name, values in both.items() if np.isfinite(values).any() and name not in LIKELY]

    def best(self, name: str, side: Literal["limit", "floor"]) -> np.ndarray:
        """float64 [clips]: what decides under one gate alone: the opinion that is nearest to passing."""
        if name in self._whole:
            return self._whole[name]
        values = np.where(self.said, self._heard[name], np.inf if side == "limit" else -np.inf)
        return values.min(axis=1) if side == "limit" else values.max(axis=1)

    def mask(self, gate: Gate) -> np.ndarray:
        """bool [clips, opinions or 1]: who passes a gate; what was not measured does."""
        whole = gate.name in self._whole
        values = self._whole[gate.name][:, None] if whole else self._heard[gate.name]
        return ~(values > gate.value) if gate.side == "limit" else ~(values < gate.value)

    def excused(self, appeal: Sequence[tuple[str, float]]) -> np.ndarray:
        """bool [clips, opinions]: whose words may be other ones: by what was said of the text when it was heard, or
        later, as a run asks on until a clip passes."""
        if not appeal:
            return np.zeros(self.said.shape, bool)
        likely = self._within(self._likely, [(name, value) for name, value in appeal if name in LIKELY])
        others = self._within(
            self._heard | self._whole, [(name, value) for name, value in appeal if name not in LIKELY]
        )
        later: np.ndarray = np.logical_or.accumulate((likely & self.said)[:, ::-1], axis=1)[:, ::-1]
        return later & others

    def _within(self, found: Mapping[str, np.ndarray], limits: Sequence[tuple[str, float]]) -> np.ndarray:
        """bool [clips, opinions]: where all these were measured and are at most what stands beside them."""
        within = np.ones(self.said.shape, bool)
        for name, value in limits:
            within &= (found[name] if found[name].ndim == 2 else found[name][:, None]) <= value
        return within

    def passes(self, rule: Rule) -> np.ndarray:
        """bool [clips]."""
        return _State(self, rule).passes()

    def refused_by(self, rule: Rule) -> list[str]:
        """Why each clip is refused, "" if it is not: "faults", or the first gate that it fails by itself; "together"
        where each gate has an opinion that passes it, and none passes all."""
        passed, excused = self.passes(rule), self.excused(rule.appeal)
        reasons = []
        for place in range(len(self)):
            reason = "" if passed[place] else "faults" if self.fault[place] else "together"
            for gate in rule.gates if reason == "together" else ():
                heard = self.said[place]
                if not (self.mask(gate)[place] & heard).any() and not (
                    _may_be_excused(gate) and (excused[place] & heard).any()
                ):
                    reason = gate.name
                    break
            reasons.append(reason)
        return reasons


class _State:
    """A rule on a table, with what is shared by the rules that have one gate more."""

    def __init__(self, table: Table, rule: Rule):
        self._table = table
        self._strict = table.said & ~table.fault[:, None]
        self._eased = self._strict & table.excused(rule.appeal)
        for gate in rule.gates:
            self._strict, self._eased = self._and(gate)

    def _and(self, gate: Gate) -> tuple[np.ndarray, np.ndarray]:
        mask = self._table.mask(gate)
        return self._strict & mask, self._eased if _may_be_excused(gate) else self._eased & mask

    def passes(self, gate: Gate | None = None) -> np.ndarray:
        """bool [clips]; gate: one more."""
        strict, eased = self._and(gate) if gate else (self._strict, self._eased)
        return np.asarray(strict.any(axis=1) | eased.any(axis=1))


def _may_be_excused(gate: Gate) -> bool:
    return gate.side == "limit" and gate.name in WORDS


_rates = functools.lru_cache(maxsize=1 << 16)(error_rates)


def _opinions(case: Case, language: Language) -> Iterator[dict[str, float]]:
    likely: dict[str, float] = {}
    for opinion in case.opinions:
        own = opinion.model_dump(include={"logprob", "no_speech", "compression_ratio", "language"}, exclude_none=True)
        likely |= opinion.model_dump(include=set(LIKELY), exclude_none=True)
        for text in case.texts:
            yield {**_rates(text, opinion.text, language), **own, **likely}


def fit(table: Table) -> Rule:
    """The rule that catches most on these clips within the budget: gates are added as long as one betters it by GAIN,
    each time all thresholds are tried again, and all that with each appeal."""
    weights = _weights(table)
    appeals: list[tuple[tuple[str, float], ...]] = [()]
    if np.isfinite(table.best("doubt", "limit")).any():
        names = tuple(APPEALS)
        appeals += [tuple(zip(names, values, strict=True)) for values in product(*(APPEALS[name] for name in names))]
    found = [
        (rule, _loss(table, _State(table, rule).passes(), weights))
        for rule in (_grow(table, appeal, weights) for appeal in appeals)
    ]
    # An appeal is one more thing to explain: it must be worth it.
    plain = found[0]
    best = min(found, key=lambda pair: pair[1])
    return best[0] if best[1] < plain[1] - GAIN else plain[0]


def _grow(table: Table, appeal: tuple[tuple[str, float], ...], weights: Mapping[str, float]) -> Rule:
    rule = Rule((), appeal)
    loss = _loss(table, _State(table, rule).passes(), weights)
    while len(rule.gates) < GATES:
        better, lower = _step(table, rule, weights)
        if better is None or lower > loss - GAIN:
            return rule
        rule, loss = _tuned(table, replace(rule, gates=(*rule.gates, better)), weights)
    return rule


def _step(table: Table, rule: Rule, weights: Mapping[str, float]) -> tuple[Gate | None, float]:
    """The best gate to add to a rule, and the loss with it; of two that are as good the looser."""
    state = _State(table, rule)
    taken = {(gate.name, gate.side) for gate in rule.gates}
    best: tuple[Gate | None, float] = None, np.inf
    for gate in _candidates(table):
        if (gate.name, gate.side) not in taken:
            loss = _loss(table, state.passes(gate), weights)
            if loss < best[1] - 1e-12:
                best = gate, loss
    return best


def _tuned(table: Table, rule: Rule, weights: Mapping[str, float]) -> tuple[Rule, float]:
    """The rule with the best threshold of each gate in turn, until none changes."""
    changed = True
    while changed:
        changed = False
        for place, gate in enumerate(rule.gates):
            rest = replace(rule, gates=(*rule.gates[:place], *rule.gates[place + 1 :]))
            state = _State(table, rest)
            before = _loss(table, state.passes(gate), weights)
            for other in _candidates(table, gate):
                loss = _loss(table, state.passes(other), weights)
                if loss < before - 1e-12:
                    gate, before, changed = other, loss, True
            rule = replace(rule, gates=(*rule.gates[:place], gate, *rule.gates[place + 1 :]))
    return rule, _loss(table, _State(table, rule).passes(), weights)


def _candidates(table: Table, like: Gate | None = None) -> Iterator[Gate]:
    """Gates on the grids, the loosest of a score first; none on `UNASKED`, as a run would hear more than is known.

    like: only those of the same score and side.
    """
    names = set(table.names) - UNASKED[table.language]
    for side, grids in (("limit", LIMITS), ("floor", FLOORS)):
        for name, grid in grids.items():
            if name in names and (like is None or (like.name, like.side) == (name, side)):
                for value in sorted(grid, reverse=side == "limit"):
                    yield Gate(name, side, value)  # type: ignore[arg-type]


def _weights(table: Table) -> dict[str, float]:
    both = {**OTHERS, **dict.fromkeys(TARGETS[table.language], 1.0)}
    return {kind: weight for kind, weight in both.items() if kind in table.of}


def _loss(table: Table, passes: np.ndarray, weights: Mapping[str, float]) -> float:
    """What is missed, in shares of a kind, and what good clips cost; where the budget is used up, more than any rule
    without a gate has."""
    good = table.of["good"]
    refused, unavoidable = float(np.mean(~passes[good])), float(np.mean(table.fault[good]))
    missed = sum(weight * float(np.mean(passes[table.of[kind]])) for kind, weight in weights.items())
    return missed + COST * refused + 100 * max(0.0, refused - max(BUDGET[table.language], unavoidable))
