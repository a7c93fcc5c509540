"""Totals of a run, added up from its manifests, its indexes and its lists of rejects, unit by unit."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Config
from pipeline.dialogue import Record, Repair
from pipeline.errors import DataError
from pipeline.plan import unit_count
from pipeline.shards.format import ROLES
from pipeline.shards.store import Manifest, RunFolder
from pipeline.shards.tally import LengthSum, RefusalSum, RepairSum, bucket_order
from pipeline.shards.yields import FIRST, FirstTakes, VoiceYield, Yield, add_up, of_language, worst

_COLUMNS = (
    *("user_voice", "assistant_voice", "source_name", "license"),
    *(f"{role}_{field}" for role in ROLES for field in FIRST),
)


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

    Durations are hours, of the common timeline and of speech by role. worst_voices: of those with at least five turns
    and one that failed, the ones of which it is surest that few turns pass at their first take. Nothing here depends on
    the clock or the machine.
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
    by_language: tuple[Yield, ...]
    by_engine: tuple[Yield, ...]
    lengths: tuple[LengthSum, ...]
    refusals: tuple[RefusalSum, ...]
    repairs: tuple[RepairSum, ...]
    worst_voices: tuple[VoiceYield, ...]

    @property
    def complete(self) -> bool:
        return self.units_finished == self.units_planned


def run_stats(folder: RunFolder, config: Config) -> Stats:
    """Memory grows with the number of voices and sources, not of units. voices: accepted dialogues by voice.

    Raises DataError.
    """
    totals: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    voices: Counter[str] = Counter()
    sources: Counter[tuple[str, str]] = Counter()
    rates: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
    planned: Counter[str] = Counter()
    lengths: dict[tuple[Any, ...], LengthSum] = {}
    refusals: dict[tuple[Any, ...], RefusalSum] = {}
    repairs: dict[tuple[Any, ...], RepairSum] = {}
    first = FirstTakes()
    for manifest in folder.manifests():
        totals["units"] += 1
        for name in ("planned", "accepted", "turns", "llm_turns", "retaken_turns"):
            totals[name] += getattr(manifest, name)
        for name in ("seconds", "user_seconds", "assistant_seconds"):
            seconds[name] += getattr(manifest, name)
        rejected.update(manifest.rejected)
        languages.update(manifest.languages)
        planned.update(manifest.languages)
        planned.update(manifest.rejected_languages)
        splits[manifest.split] += manifest.accepted
        for rate in manifest.error_rates:
            sums = rates[rate.language, rate.metric]
            sums[0] += rate.total
            sums[1] += rate.turns
        add_up(lengths, manifest.lengths, ("language", "bucket"))
        add_up(refusals, manifest.refusals, ("reason",))
        add_up(repairs, manifest.repairs, ("rung",))
        index = _index(folder, manifest)
        voices.update(index["user_voice"] + index["assistant_voice"])
        sources.update(zip(index["source_name"], index["license"], strict=True))
        first.add(folder, manifest, index)
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
        by_language=tuple(
            of_language(name, count, languages[name], lengths.values()) for name, count in sorted(planned.items())
        ),
        by_engine=tuple(first.yields("engine")),
        lengths=tuple(sorted(lengths.values(), key=lambda item: (item.language, bucket_order(item.bucket)))),
        refusals=tuple(sorted(refusals.values(), key=lambda item: (-item.turns, item.reason))),
        repairs=tuple(
            repairs[rung,].model_copy(update={"seconds": round(repairs[rung,].seconds, 3)})
            for rung in get_args(Repair)
            if (rung,) in repairs
        ),
        worst_voices=tuple(worst(first.yields("voice"))),
    )


def _index(folder: RunFolder, manifest: Manifest) -> dict[str, list[Any]]:
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


class Efficiency(Record):
    """What was kept for what was spent, over the units whose costs this machine's log holds.

    hours: of audio, kept; cpu_hours: of the studios' own processes (speaking to packing, repairs included; neither the
    writer's, nor those of an engine or a recogniser in another process). gpu_hours: of the GPUs that the studios held
    (engine.studio_gpus) while they had units in hand, busy or not. per_cpu_hour, per_gpu_hour: None where the log
    holds none.
    """

    units: int
    hours: float
    cpu_hours: float
    gpu_hours: float
    per_cpu_hour: float | None
    per_gpu_hour: float | None


def stage_costs(folder: RunFolder) -> dict[str, dict[str, float]]:
    """wall, cpu and audio seconds by stage, from this machine's log; empty without one."""
    costs: dict[str, Counter[str]] = {}
    for _, _, stages in _timings(folder):
        for stage, cost in stages.items():
            costs.setdefault(stage, Counter()).update(cost)
    return {stage: dict(cost) for stage, cost in costs.items()}


def efficiency(folder: RunFolder) -> Efficiency:
    """Raises DataError for a manifest that is damaged."""
    cpu, gpu, units = 0.0, 0.0, set()
    for unit, gpus, stages in _timings(folder):
        if "speak" in stages:  # else only its text was written
            units.add(unit)
            cpu += sum(cost.get("cpu", 0.0) for cost in stages.values())
            gpu += gpus * sum(cost.get("held", 0.0) for cost in stages.values())
    seconds = sum(manifest.seconds for manifest in folder.manifests() if manifest.unit in units)
    return Efficiency(
        units=len(units),
        hours=round(seconds / 3600, 6),
        cpu_hours=round(cpu / 3600, 6),
        gpu_hours=round(gpu / 3600, 6),
        per_cpu_hour=round(seconds / cpu, 6) if cpu else None,
        per_gpu_hour=round(seconds / gpu, 6) if gpu else None,
    )


def _timings(folder: RunFolder) -> Iterator[tuple[int, float, dict[str, dict[str, float]]]]:
    """Unit, GPUs of its studio, costs by stage."""
    if folder.timings.exists():
        with folder.timings.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    found = json.loads(line)
                    yield found["unit"], float(found.get("gpus", 0)), found["stages"]
                except (ValueError, KeyError, TypeError):
                    continue  # torn by a kill or a full disk: a cost is no data
