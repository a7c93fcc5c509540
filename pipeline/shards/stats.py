"""Totals of a run, added up from its manifests and indexes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Config
from pipeline.dialogue import Record
from pipeline.errors import DataError
from pipeline.plan import unit_count
from pipeline.shards.store import Manifest, RunFolder

_COLUMNS = ("user_voice", "assistant_voice", "source_name", "license")


class RateMean(Record):
    """Mean error rate over the accepted turns of a language."""

    language: str
    metric: str
    mean: float
    turns: int


class SourceUse(Record):
    """Accepted dialogues whose text began in a source."""

    name: str
    license: str
    dialogues: int


class Stats(Record):
    """What a run holds; planned = accepted + rejected over the finished units.

    Durations are hours, of the common timeline and of speech by role. Nothing here depends on the clock or the
    machine.
    """

    units_planned: int
    units_finished: int
    dialogues_planned: int
    planned: int
    accepted: int
    rejected: dict[str, int]
    languages: dict[str, int]
    splits: dict[str, int]
    turns: int
    llm_turns: int
    retaken_turns: int
    hours: float
    user_hours: float
    assistant_hours: float
    voices: dict[str, int]
    sources: tuple[SourceUse, ...]
    error_rates: tuple[RateMean, ...]

    @property
    def complete(self) -> bool:
        return self.units_finished == self.units_planned


def run_stats(folder: RunFolder, config: Config) -> Stats:
    """Memory grows with the number of voices and sources, not of units. voices: accepted dialogues by voice."""
    totals: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    voices: Counter[str] = Counter()
    sources: Counter[tuple[str, str]] = Counter()
    rates: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    for manifest in folder.manifests():
        totals["units"] += 1
        for name in ("planned", "accepted", "turns", "llm_turns", "retaken_turns"):
            totals[name] += getattr(manifest, name)
        for name in ("seconds", "user_seconds", "assistant_seconds"):
            seconds[name] += getattr(manifest, name)
        rejected.update(manifest.rejected)
        languages.update(manifest.languages)
        splits[manifest.split] += manifest.accepted
        for rate in manifest.error_rates:
            sums = rates[rate.language, rate.metric]
            sums[0] += rate.total
            sums[1] += rate.turns
        index = _index(folder, manifest)
        voices.update(index["user_voice"] + index["assistant_voice"])
        sources.update(zip(index["source_name"], index["license"], strict=True))
    return Stats(
        units_planned=unit_count(config),
        units_finished=totals["units"],
        dialogues_planned=config.dialogues,
        planned=totals["planned"],
        accepted=totals["accepted"],
        rejected=dict(sorted(rejected.items())),
        languages=dict(sorted(languages.items())),
        splits=dict(sorted(splits.items())),
        turns=totals["turns"],
        llm_turns=totals["llm_turns"],
        retaken_turns=totals["retaken_turns"],
        hours=round(seconds["seconds"] / 3600, 6),
        user_hours=round(seconds["user_seconds"] / 3600, 6),
        assistant_hours=round(seconds["assistant_seconds"] / 3600, 6),
        voices=dict(sorted(voices.items())),
        sources=tuple(
            SourceUse(name=name, license=license, dialogues=count) for (name, license), count in sorted(sources.items())
        ),
        error_rates=tuple(
            RateMean(language=language, metric=metric, mean=round(total / turns, 6), turns=int(turns))
            for (language, metric), (total, turns) in sorted(rates.items())
        ),
    )


def _index(folder: RunFolder, manifest: Manifest) -> dict[str, list[str]]:
    """Some columns of a unit's index. Raises DataError."""
    path = folder.index(manifest.unit, manifest.split)
    if not manifest.accepted:
        return {name: [] for name in _COLUMNS}
    try:
        return dict(pq.ParquetFile(path).read(columns=list(_COLUMNS)).to_pydict())
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a readable index: {reason}; `speechchat verify {folder.root}` says more"
        ) from None


def stage_costs(folder: RunFolder) -> dict[str, dict[str, float]]:
    """wall, cpu and audio seconds by stage, from this machine's log; empty without one."""
    costs: dict[str, Counter[str]] = {}
    if folder.timings.exists():
        for line in folder.timings.read_text("utf-8", "replace").splitlines():
            try:
                stages = json.loads(line)["stages"]
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill or a full disk: a cost is no data
            for stage, cost in stages.items():
                costs.setdefault(stage, Counter()).update(cost)
    return {stage: dict(cost) for stage, cost in costs.items()}
