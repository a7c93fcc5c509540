"""What a calibration found, as figures: each score by itself, the rule that is proposed, and the run's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.config import JudgeConfig
from pipeline.dialogue import Language
from pipeline.engine.gate_measure import UNASKED, Case
from pipeline.engine.gate_plan import KINDS
from pipeline.engine.gate_rules import BUDGET, FLOORS, LIMITS, TARGETS, Gate, Rule, Table, fit, rule_of
from pipeline.engine.gate_sides import SIDES, once, split, with_voices
from speakers.distinct import at_least, at_most

CONFIDENCE = 0.95
REFUSAL = 0.01
"""Share of good clips that a score by itself may refuse."""
SHOWN = 40
"""Clips of a kind that are listed where the rule is wrong about them."""


def figures(cases: Sequence[Case], judge: JudgeConfig, turns: Mapping[Language, Mapping[int, int]]) -> dict[str, Any]:
    """All figures, as in figures.json. judge: of the run; turns: of its dialogues, how many have so many turns.

    A language without good clips on both sides is only named, in `one_sided`.
    """
    languages: dict[str, Any] = {}
    heard = sorted({case.language for case in cases})
    speakers = {case.clip: case.voice for case in cases if case.kind == "good" and case.clip}
    for language in heard:
        own = [case for case in cases if case.language == language]
        found = _language(own, judge, turns.get(language, {}), speakers)
        if found:
            languages[language] = found
    one_sided = [language for language in heard if language not in languages]
    known = {"confidence": CONFIDENCE, "kinds": KINDS, "targets": TARGETS, "budget": BUDGET}
    return {**known, "languages": languages, "one_sided": one_sided}


def _language(
    cases: list[Case], judge: JudgeConfig, turns: Mapping[int, int], speakers: Mapping[str, str]
) -> dict[str, Any]:
    language = cases[0].language
    sides = split(cases, speakers)
    parts = {name: [case for case, side in zip(cases, sides, strict=True) if side == name] for name in SIDES}
    if any(not any(case.kind == "good" for case in part) for part in parts.values()):
        return {}
    # Each side by itself, so that no clip is compared with a voice of the other.
    sounds = {name: with_voices(part) for name, part in (*parts.items(), ("all", once(cases)))}
    tables = {name: Table(*sound) for name, sound in sounds.items()}
    everything = tables.pop("all")
    proposed, current = fit(tables["fit"]), rule_of(judge, language)
    return {
        "clips": {name: dict(Counter(case.kind for case in sounds[name][0])) for name in SIDES},
        "left_out": sum(side == "" for side in sides),
        "voices": {name: len({case.voice for case in part}) for name, part in parts.items()},
        "scores": _scores(tables["fit"], tables["held"]),
        "proposed": {
            **_plain(proposed),
            **{name: _judged(table, proposed, turns) for name, table in tables.items()},
            "wrong": _wrong(sounds["held"][0], tables["held"], proposed),
        },
        "current": {
            **_plain(current),
            **{name: _judged(table, current, turns) for name, table in (*tables.items(), ("all", everything))},
            "upper_bound": sorted({gate.name for gate in current.gates} & UNASKED[language]),
            "wrong": _wrong(sounds["all"][0], everything, current),
        },
    }


def share(hits: int, count: int) -> dict[str, float]:
    """A share with its 95 % interval (Clopper and Pearson 1934); of nothing 0, and anything from 0 to 1."""
    each = 1 - (1 - CONFIDENCE) / 2
    mean = hits / count if count else 0.0
    low, high = at_least(hits, count, each), at_most(hits, count, each)
    return {"hits": hits, "count": count, "share": _round(mean), "low": _round(low), "high": _round(high)}


def _round(value: float) -> float:
    return round(value, 4)


def _plain(rule: Rule) -> dict[str, Any]:
    return {"limits": rule.section("limit"), "floors": rule.section("floor"), "appeal": dict(rule.appeal)}


def _judged(table: Table, rule: Rule, turns: Mapping[int, int]) -> dict[str, Any]:
    """Good clips that are refused, bad ones that are caught, why, and what that makes of whole dialogues."""
    refused = ~table.passes(rule)
    shares = {kind: share(int(refused[of].sum()), int(of.sum())) for kind in KINDS for of in _clips(table, kind)}
    reasons = np.array(table.refused_by(rule))
    good = shares.pop("good")
    return {
        "refused": good,
        "caught": shares,
        "reasons": {kind: dict(Counter(reasons[of & refused].tolist()).most_common()) for kind, of in table.of.items()},
        "dialogues": _dialogues(good["share"], turns),
    }


def _clips(table: Table, kind: str) -> list[np.ndarray]:
    return [table.of[kind]] if kind in table.of else []


def _dialogues(refused: float, turns: Mapping[int, int]) -> dict[str, float] | None:
    """Of the run's dialogues, as long as they are, the share with a turn refused at the first take though all are good;
    and the factor by which a miss gets rarer because another turn of its dialogue is refused. Turns are taken to be
    independent. None where the run has no dialogue of the language."""
    total = sum(turns.values())
    if not total:
        return None
    whole = sum(count * (1 - refused) ** number for number, count in turns.items()) / total
    rest = sum(count * (1 - refused) ** (number - 1) for number, count in turns.items()) / total
    mean = sum(count * number for number, count in turns.items()) / total
    return {"turns": _round(mean), "refused": _round(1 - whole), "passing_beside": _round(rest)}


def _scores(fitted: Table, held: Table) -> dict[str, Any]:
    """Each score by itself: the threshold at 1 % of good clips refused (of those that were heard), on one side, and on
    the other what it refuses and catches; the area under its ROC by kind."""
    out: dict[str, Any] = {}
    for side, grids in (("limit", LIMITS), ("floor", FLOORS)):
        for name in grids:
            if name in fitted.names and name in held.names:
                found = _score(fitted, held, name, side)
                if found:
                    out[f"{name} {'≤' if side == 'limit' else '≥'}"] = found
    return out


def _score(fitted: Table, held: Table, name: str, side: Any) -> dict[str, Any] | None:
    values = fitted.best(name, side)[fitted.of["good"] & ~fitted.fault]
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return None
    allowed = int(REFUSAL * len(values))
    # Rounded outwards, so that the clip at the threshold still passes.
    outermost = values[-1 - allowed] if side == "limit" else values[allowed]
    threshold = float((np.ceil if side == "limit" else np.floor)(outermost * 1e4) / 1e4)
    gate = Gate(name, side, threshold)
    passes, decided = held.mask(gate) & held.said, held.best(name, side)
    refused = ~passes.any(axis=1) & ~held.fault
    sign = 1.0 if side == "limit" else -1.0
    good = sign * decided[held.of["good"] & ~held.fault]
    caught, areas = {}, {}
    for kind in KINDS:
        for of in _clips(held, kind):
            heard = of & ~held.fault
            bad = sign * decided[heard]
            if kind != "good" and np.isfinite(bad).any() and np.isfinite(good).any():
                caught[kind] = share(int(refused[heard].sum()), int(heard.sum()))
                areas[kind] = _round(area(good[np.isfinite(good)], bad[np.isfinite(bad)]))
    heard = held.of["good"] & ~held.fault
    refusals = share(int(refused[heard].sum()), int(heard.sum()))
    return {
        "name": name,
        "side": side,
        "threshold": _round(threshold),
        "refused": refusals,
        "caught": caught,
        "area": areas,
    }


def area(good: np.ndarray, bad: np.ndarray) -> float:
    """Area under the ROC: how often a bad clip has a higher value than a good one, half of it where they are equal."""
    order = np.sort(good)
    below, upto = np.searchsorted(order, bad, "left"), np.searchsorted(order, bad, "right")
    return float(np.mean((below + upto) / 2) / len(order))


def curve(table: Table, name: str, side: Any, kinds: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """ROC of a score: shares of good clips refused and of clips of these kinds caught, as the threshold goes; a clip
    with a fault is refused at any."""
    sign = 1.0 if side == "limit" else -1.0
    values = sign * np.where(np.isfinite(table.best(name, side)), table.best(name, side), sign * -1e9)
    values = np.where(table.fault, np.inf, values)
    bad = np.zeros(len(table), bool)
    for kind in kinds:
        bad |= table.of.get(kind, False)
    thresholds = np.append(np.unique(values[np.isfinite(values)])[::-1], -np.inf)
    good = np.sort(values[table.of["good"]])
    wrong = np.sort(values[bad])
    refused = 1 - np.searchsorted(good, thresholds, "right") / len(good)
    caught = 1 - np.searchsorted(wrong, thresholds, "right") / max(1, len(wrong))
    return refused, caught


def _wrong(cases: Sequence[Case], table: Table, rule: Rule) -> list[dict[str, str]]:
    """Good clips that are refused, and a few of each kind that pass: to be looked at and listened to."""
    passes, reasons, counts = table.passes(rule), table.refused_by(rule), Counter[str]()
    out = []
    for case, passed, reason in zip(cases, passes, reasons, strict=True):
        if (case.kind == "good") == bool(passed) or counts[case.kind] >= SHOWN:
            continue
        counts[case.kind] += 1
        heard = " | ".join(opinion.text for opinion in case.opinions)
        row = {"kind": case.kind, "voice": case.voice, "wanted": case.texts[0], "what": case.what, "heard": heard}
        out.append({**row, "reason": f"{reason} {case.fault}".strip(), "clip": case.clip})
    return sorted(out, key=lambda row: list(KINDS).index(row["kind"]))
