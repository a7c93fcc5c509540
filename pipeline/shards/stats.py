"""Totals of a run, added up from its manifests, its indexes and its lists of rejects, unit by unit."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from pipeline.config import Config
from pipeline.dialogue import Record, Repair
from pipeline.plan import unit_count
from pipeline.shards.parts import open_log
from pipeline.shards.store import RunFolder
from pipeline.shards.sums import RATE, SECOND, Sums
from pipeline.shards.tally import LengthSum, RefusalSum, RepairSum, bucket_order
from pipeline.shards.yields import VoiceYield, Yield, of_language, worst

LENGTH = ("turns", "first", "passed")
YIELD = ("dialogues", "accepted", *LENGTH)


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
    """All read anew; memory grows with the number of voices and sources, not of units. Raises DataError."""
    return stats_of(run_sums(folder, config), config)


def run_sums(folder: RunFolder, config: Config) -> Sums:
    """What `run_stats` adds up."""
    sums = Sums()
    sums.add(folder, folder.manifests(config))
    return sums


def stats_of(sums: Sums, config: Config) -> Stats:
    """The totals of the units that were added up. voices: accepted dialogues by voice."""
    finished, planned, accepted, turns, llm_turns, retaken = sums.numbers("units", 6)
    hours, user_hours, assistant_hours = (round(number / SECOND / 3600, 6) for number in sums.numbers("seconds", 3))
    languages = sums.counts("languages")
    lengths = [
        LengthSum.model_validate({"language": language, "bucket": bucket, **_named(LENGTH, numbers)})
        for (language, bucket), numbers in sums.of("lengths")
    ]
    refusals = [
        RefusalSum(reason=reason, turns=turns, saved=saved) for (reason,), (turns, saved) in sums.of("refusals")
    ]
    repairs = {rung: numbers for (rung,), numbers in sums.of("repairs")}
    return Stats(
        units_planned=unit_count(config),
        units_finished=finished,
        dialogues_planned=config.dialogues,
        planned=planned,
        accepted=accepted,
        rejected=sums.counts("rejected"),
        languages=languages,
        splits=sums.counts("splits"),
        turns=turns,
        llm_turns=llm_turns,
        retaken_turns=retaken,
        hours=hours,
        user_hours=user_hours,
        assistant_hours=assistant_hours,
        voices=sums.counts("voices"),
        sources=tuple(
            SourceUse(name=name, license=license, dialogues=count) for (name, license), (count,) in sums.of("sources")
        ),
        error_rates=tuple(
            RateMean(language=language, metric=metric, mean=round(total / RATE / turns, 6), turns=turns)
            for (language, metric), (total, turns) in sums.of("rates")
        ),
        by_language=tuple(
            of_language(name, count, languages.get(name, 0), lengths) for name, count in sums.counts("planned").items()
        ),
        by_engine=tuple(first_takes(sums, "engine")),
        lengths=tuple(sorted(lengths, key=lambda item: (item.language, bucket_order(item.bucket)))),
        refusals=tuple(sorted(refusals, key=lambda item: (-item.turns, item.reason))),
        repairs=tuple(
            RepairSum(rung=rung, turns=turns, saved=saved, takes=takes, seconds=round(spoken / SECOND, 3))
            for rung, (turns, saved, takes, spoken) in (
                (rung, repairs[rung]) for rung in get_args(Repair) if rung in repairs
            )
        ),
        worst_voices=tuple(worst(first_takes(sums, "voice"))),
    )


def first_takes(sums: Sums, kind: str) -> Iterator[Yield]:
    """By who spoke the first takes ("voice" or "engine"); those without a name spoke none."""
    for (what, name), numbers in sums.of("first"):
        if what == kind and name:
            yield Yield.model_validate({"name": name, **_named(YIELD, numbers)})


def _named(names: Sequence[str], numbers: Sequence[int]) -> dict[str, int]:
    return dict(zip(names, numbers, strict=True))


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
    with contextlib.suppress(FileNotFoundError), open_log(folder.timings) as lines:
        for line in lines:
            try:
                found = json.loads(line)
                yield found["unit"], float(found.get("gpus", 0)), found["stages"]
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill or a full disk: a cost is no data
