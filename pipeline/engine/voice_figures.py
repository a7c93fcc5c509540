"""The figures of an audit: from what was measured of some voices to what is known of their library."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from pipeline.dialogue import Language
from pipeline.engine.voice_measure import Measured
from pipeline.engine.voice_plan import Limits, Plan
from pipeline.voice import Voice
from speakers.distinct import (
    CONFIDENCE,
    at_least,
    at_most,
    distinct_set,
    equal_error,
    nearest,
    pairs_at_most,
)
from speakers.library import VoiceLibrary

THRESHOLDS = (0.85, 0.80)
"""Cosines of means of three sentences under which two voices count as different speakers."""
FOLLOWED: Mapping[Language, str] = {"en": "wer", "zh": "per"}
"""The rate that a voice is refused by."""
BINS = 40
"""Of the histograms of cosines from 0 to 1."""


@dataclass(frozen=True)
class Figures:
    """summary: audit.json. voices: by id, the columns of voices.parquet that follow from the others."""

    summary: dict[str, Any]
    voices: dict[str, dict[str, Any]]


def reasons(voice: Voice, item: Measured, limits: Limits) -> list[str]:
    """Why the voice should not speak, [] if nothing speaks against it."""
    rate = FOLLOWED[voice.languages[0]]
    value = item.rates.get(rate)
    found = [f"fault {fault}" for fault in item.faults]
    if value is not None and value > limits.error:
        found.append(f"{rate} {value:.3f}")
    if item.mos is not None and item.mos < limits.mos:
        found.append(f"mos {item.mos:.2f}")
    return found


def figures(library: VoiceLibrary, plan: Plan, limits: Limits, measured: Mapping[str, Measured]) -> Figures:
    """measured: of every voice of the plan."""
    chosen = [voice for voice in library.voices if voice.id in plan.ids]
    why = {voice.id: reasons(voice, measured[voice.id], limits) for voice in chosen}
    columns: dict[str, dict[str, Any]] = {voice.id: {"reasons": why[voice.id]} for voice in chosen}
    sample = [voice for voice in chosen if voice.id in plan.sample]
    languages: dict[Language, dict[str, Any]] = {}
    for language in sorted({voice.languages[0] for voice in chosen}):
        room = _Room(language, [voice for voice in chosen if voice.languages[0] == language], plan, measured, why)
        total = sum(voice.languages[0] == language for voice in library.voices)
        languages[language] = room.figures(total)
        for id, near in room.near.items():
            columns[id] |= near
    summary = {
        "library": {"digest": library.digest, "voices": len(library.voices), "balance": _balance(library.voices)},
        "measured": {name: len(getattr(plan, name)) for name in ("sample", "selected", "base", "within")},
        "limits": {"error": limits.error, "mos": limits.mos},
        "confidence": CONFIDENCE,
        "passed": _passed(sample, why),
        "passed_selected": _passed([voice for voice in chosen if voice.id in plan.selected], why),
        "languages": languages,
        "scores": _scores(sample, measured, why),
    }
    return Figures(summary, columns)


def _passed(voices: Sequence[Voice], why: Mapping[str, list[str]]) -> dict[str, Any]:
    """How many of them nothing speaks against, and the share that this is of all such voices at least."""
    good = sum(not why[voice.id] for voice in voices)
    words = Counter(word for voice in voices for word in {reason.split()[0] for reason in why[voice.id]})
    return {
        "voices": len(voices),
        "passed": good,
        "share": _share(good, len(voices)),
        "at_least": _round(at_least(good, len(voices))),
        "reasons": dict(sorted(words.items())),
    }


def _balance(voices: Iterable[Voice]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("language", "gender", "split", "age", "cell")}
    for voice in voices:
        language = voice.languages[0]
        counts["language"][language] += 1
        counts["cell"][f"{language} {voice.gender} {voice.split}"] += 1
        for name in ("gender", "split", "age"):
            counts[name][getattr(voice, name)] += 1
    return {name: dict(sorted(count.items())) for name, count in counts.items()}


def _scores(
    voices: Sequence[Voice], measured: Mapping[str, Measured], why: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Means over the voices of the sample, by language, then by gender and by shift within it."""
    groups: dict[tuple[str, str, str], list[Voice]] = {}
    for voice in voices:
        facts = {"all": "", "gender": voice.gender, "shift": _band(voice.recipe.shift)}
        for by, value in facts.items():
            groups.setdefault((voice.languages[0], by, value), []).append(voice)
    return [
        {"language": key[0], "by": key[1], "value": key[2], **_means([measured[v.id] for v in group])}
        | {"passed": _share(sum(not why[v.id] for v in group), len(group))}
        for key, group in sorted(groups.items())
    ]


def _band(shift: float) -> str:
    """Two semitones wide, around 0."""
    middle = 2 * math.floor(shift / 2 + 0.5)
    return f"{middle - 1:+d} to {middle + 1:+d} st"


def _means(items: Sequence[Measured]) -> dict[str, Any]:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return _round(fmean(known)) if known else None

    rates = {rate: mean(item.rates.get(rate) for item in items) for rate in ("wer", "cer", "per")}
    heard = {"pace": mean(item.pace or None for item in items), "pitch": mean(item.pitch or None for item in items)}
    return {"voices": len(items), **rates, "mos": mean(item.mos for item in items), **heard}


class _Room:
    """The measured voices of one language. near: by id, columns of their nearest voices."""

    def __init__(
        self,
        language: Language,
        voices: Sequence[Voice],
        plan: Plan,
        measured: Mapping[str, Measured],
        why: Mapping[str, list[str]],
    ):
        self.language = language
        self._plan = plan
        self._measured = measured
        self._why = why
        self._all = [voice.id for voice in voices]
        self._ids = [id for id in self._all if "embed" in measured[id].embeddings]
        self._rows = self._embeddings(self._ids, "embed")
        self.near: dict[str, dict[str, Any]] = {id: {} for id in self._ids}
        for name, group in (("nearest", plan.sample), ("nearest_base", plan.base), ("nearest_selected", plan.selected)):
            self._find(name, [id for id in self._ids if id in group])

    def _embeddings(self, ids: Sequence[str], use: str) -> np.ndarray:
        rows = [self._measured[id].embeddings[use] for id in ids]
        return np.array(rows, np.float64) if ids else np.zeros((0, 1))

    def _find(self, name: str, others: list[str]) -> None:
        places = {id: place for place, id in enumerate(others)}
        found = nearest(self._rows, self._embeddings(others, "embed"), [places.get(id, -1) for id in self._ids])
        for id, item in zip(self._ids, found, strict=True):
            if item.place >= 0:
                self.near[id] |= {name: others[item.place], f"{name}_cosine": _round(item.cosine)}

    def figures(self, total: int) -> dict[str, Any]:
        """total: voices of the language in the library."""
        sample = [id for id in self._ids if id in self._plan.sample]
        cosines = {name: self._cosines(sample, name) for name in ("nearest", "nearest_base", "nearest_selected")}
        within = self._within()
        return {
            "voices": total,
            "sample": sum(id in self._plan.sample for id in self._all),
            "within": _spread(within["cosines"]),
            "same_voice": within["same_voice"],
            **{name: _spread(values) for name, values in cosines.items()},
            "distinct": {f"{limit:g}": self._distinct(limit) for limit in THRESHOLDS},
            "coverage": self._coverage(),
            "near_copies": self._near_copies(sample, within["cosines"], total),
        }

    def _cosines(self, ids: Iterable[str], name: str) -> list[float]:
        return [self.near[id][f"{name}_cosine"] for id in ids if name in self.near[id]]

    def _within(self) -> dict[str, Any]:
        """Cosines of a voice to itself over other sentences, and how well those tell it from others."""
        ids = [id for id in self._ids if id in self._plan.within and "more" in self._measured[id].embeddings]
        table = self._embeddings(ids, "embed") @ self._embeddings(ids, "more").T
        same, apart = np.diag(table).tolist(), table[~np.eye(len(ids), dtype=bool)].tolist()
        error = equal_error(same, apart) if apart else None
        told = {"rate": _round(error.rate), "threshold": _round(error.threshold)} if error else None
        return {"cosines": same, "same_voice": told}

    def _distinct(self, limit: float) -> dict[str, int]:
        """Sizes of the largest sets found of voices that pass and are mutually distinct: lower bounds for the library.

        selected: over both sets of sentences that they are claimed for.
        """
        good = [id for id in self._ids if not self._why[id]]
        selected = [id for id in good if id in self._plan.selected and "check" in self._measured[id].embeddings]
        sizes = {}
        for name, group in (("sample", self._plan.sample), ("base", self._plan.base), ("all", self._plan.ids)):
            rows = self._embeddings([id for id in good if id in group], "embed")
            sizes[name] = len(distinct_set(rows @ rows.T >= limit))
        first, second = self._embeddings(selected, "embed"), self._embeddings(selected, "check")
        sizes["selected"] = len(distinct_set(np.maximum(first @ first.T, second @ second.T) >= limit))
        return sizes

    def _coverage(self) -> dict[str, Any] | None:
        """The share of the sample that is as near to a selected voice as two of one voice's neighbourhood are."""
        if not any(id in self._plan.selected for id in self._ids):
            return None
        sample = [id for id in self._all if id in self._plan.sample]
        near = [self.near.get(id, {}).get("nearest_selected_cosine", 0.0) for id in sample]
        hits = sum(
            id in self._plan.selected or cosine >= THRESHOLDS[0] for id, cosine in zip(sample, near, strict=True)
        )
        share = {"covered": hits, "share": _share(hits, len(sample))}
        return share | {"at_least": _round(at_least(hits, len(sample))), "at_most": _round(at_most(hits, len(sample)))}

    def _near_copies(self, sample: list[str], within: list[float], total: int) -> dict[str, Any] | None:
        """Pairs of the sample that are as alike as a voice is to itself."""
        if not within or len(sample) < 2:
            return None
        limit = float(np.median(within))
        rows = self._embeddings(sample, "embed")
        table = np.triu(rows @ rows.T, 1)
        pairs = [(float(table[a, b]), sample[a], sample[b]) for a, b in zip(*np.nonzero(table >= limit), strict=True)]
        possible = len(sample) * (len(sample) - 1) // 2
        share = len(pairs) / possible
        bound = pairs_at_most(share, len(sample))
        return {
            "cosine": _round(limit),
            "pairs": len(pairs),
            "of": possible,
            "share": _round(share),
            "at_most": _round(bound),
            "expected_a_voice": _round(share * (total - 1), 1),
            "named": [[a, b, _round(cosine)] for cosine, a, b in sorted(pairs, reverse=True)],
        }


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    points = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    names = ("p5", "p25", "median", "p75", "p95")
    counts, _ = np.histogram(np.clip(values, 0, 1), bins=BINS, range=(0, 1))
    return {
        "count": len(values),
        **{name: _round(float(point)) for name, point in zip(names, points, strict=True)},
        "histogram": counts.tolist(),
    }


def _share(part: int, whole: int) -> float:
    return _round(part / whole) if whole else 0.0


def _round(value: float, digits: int = 4) -> float:
    return round(value, digits)
