"""What people see of the totals of a run: its yields, its repairs, and what went wrong most often."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import Config
from pipeline.engine.worst_words import WordReport, worst_words
from pipeline.shards.stats import Efficiency, Stats, efficiency, stage_costs
from pipeline.shards.store import RunFolder
from pipeline.shards.yields import FEW
from pipeline.text.rates import MAIN_METRIC


@dataclass(frozen=True)
class Findings:
    """What is looked up beside the totals. costs: by stage, of this machine's log. gated: whether turns could fail."""

    words: WordReport
    efficiency: Efficiency
    costs: dict[str, dict[str, float]]
    gated: bool


def look(folder: RunFolder, config: Config) -> Findings:
    """Raises DataError."""
    return Findings(
        worst_words(folder), efficiency(folder), stage_costs(folder), gated=config.judge.mode != "score_only"
    )


def show_stats(stats: Stats, found: Findings, console: Console | None = None) -> None:
    """The closing tables of a run, on standard output."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    for name, value in [*_totals(stats, found.gated), *_costs(found)]:
        table.add_row(name, value)
    console.print(table)
    for title, columns, rows in _tables(stats):
        if rows:
            console.print(Text(f"\n{title}", "bold"))
            table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
            for number, column in enumerate(columns):
                table.add_column(column, justify="right" if number else "left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for line in _words(found.words, stats.units_finished):
        console.print(Text(line))


def _totals(stats: Stats, gated: bool) -> Iterable[tuple[str, str]]:
    yield "units", f"{stats.units_finished} of {stats.units_planned}"
    by_language = ", ".join(f"{count} {language}" for language, count in stats.languages.items())
    share = _share(stats.accepted, stats.planned)
    yield "accepted", f"{stats.accepted} of {stats.planned} dialogues ({share}): {by_language or 'none'}"
    for reason, count in stats.rejected.items():
        yield "rejected", f"{count} × {reason}"
    yield "splits", ", ".join(f"{count} {split}" for split, count in stats.splits.items())
    yield (
        "turns",
        f"{stats.turns}, {stats.llm_turns} written by the LLM, {stats.retaken_turns} accepted after another take",
    )
    yield "hours", f"{stats.hours:.4f} (speech: user {stats.user_hours:.4f}, assistant {stats.assistant_hours:.4f})"
    yield "voices", str(len(stats.voices))
    for language, metric in MAIN_METRIC.items():
        own = {rate.metric: rate for rate in stats.error_rates if rate.language == language}
        if main := own.pop(metric, None):
            others = ", ".join(f"{rate.metric.upper()} {rate.mean:.2%}" for rate in own.values())
            also = f" ({others})" if others else ""
            yield f"{metric.upper()} {language}", f"{main.mean:.2%} mean over {main.turns} accepted turns{also}"
    if not gated:
        yield "gates", "none (judge.mode is score_only): whatever was heard passes, so that yields say nothing of it"


def _costs(found: Findings) -> Iterable[tuple[str, str]]:
    costs = found.costs
    spoken = costs.get("speak", {}).get("audio", 0)
    if "write" in costs and spoken:
        yield "RTF write", f"{costs['write']['wall'] / spoken:.2f} wall (seconds a second of audio; units overlap)"
    for stage, cost in costs.items():
        if cost.get("audio"):
            yield (
                f"RTF {stage}",
                f"{cost['wall'] / cost['audio']:.2f} wall, {cost['cpu'] / cost['audio']:.2f} CPU "
                f"(seconds a second of audio, {cost['audio']:.0f} s went through)",
            )
    spent = found.efficiency
    if spent.per_cpu_hour is None:
        yield "kept per CPU hour", "not known: no unit was spoken on this machine, or its log is gone"
    else:
        yield (
            "kept per CPU hour",
            f"{spent.per_cpu_hour:.3f} h of audio ({spent.hours:.4f} h in {spent.units} logged units for "
            f"{spent.cpu_hours:.4f} CPU hours of the studios; writer and models in other processes not counted)",
        )
        if spent.per_gpu_hour is not None:
            yield (
                "kept per GPU hour",
                f"{spent.per_gpu_hour:.3f} h of audio ({spent.gpu_hours:.4f} hours of GPUs that studios held, with "
                "units in hand)",
            )


_Row = Sequence[str]


def _tables(stats: Stats) -> Iterable[tuple[str, _Row, list[_Row]]]:
    turns = ("turns", "at the first take", "in the end")
    yield (
        "yield by language and engine (of the first takes)",
        ("", "dialogues kept", *turns),
        [
            (
                item.name,
                f"{item.accepted} of {item.dialogues} ({_share(item.accepted, item.dialogues)})",
                *_passed(item.turns, item.first, item.passed),
            )
            for item in (*stats.by_language, *stats.by_engine)
        ],
    )
    yield (
        "yield by length of the turn (words, Han characters)",
        ("", *turns),
        [(f"{item.language} {item.bucket}", *_passed(item.turns, item.first, item.passed)) for item in stats.lengths],
    )
    yield (
        "why first takes are refused",
        ("", "turns", "saved by another take"),
        [(item.reason, str(item.turns), f"{item.saved} ({_share(item.saved, item.turns)})") for item in stats.refusals],
    )
    yield (
        "repairs (voice, engine: of whole speakers)",
        ("", "tried on turns", "saved", "takes", "seconds of audio"),
        [
            (
                item.rung,
                str(item.turns),
                f"{item.saved} ({_share(item.saved, item.turns)})",
                str(item.takes),
                f"{item.seconds:.1f}",
            )
            for item in stats.repairs
        ],
    )
    yield (
        f"voices that fail most surely at the first take (of those with {FEW} turns or more)",
        ("", "dialogues kept", "turns", "at the first take", "95 % interval"),
        [
            (
                item.name,
                f"{item.accepted} of {item.dialogues}",
                str(item.turns),
                f"{item.first} ({_share(item.first, item.turns)})",
                f"{item.low:.0%} to {item.high:.0%}",
            )
            for item in stats.worst_voices
        ],
    )


def _passed(turns: int, first: int, passed: int) -> _Row:
    return str(turns), f"{first} ({_share(first, turns)})", f"{passed} ({_share(passed, turns)})"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _words(report: WordReport, finished: int) -> Iterable[str]:
    if not report.words:
        return
    where = "all units" if report.units == finished else f"{report.units} of {finished} units"
    yield f"\ncontent words most often lost at the first take ({report.turns} turns, {where})"
    for language in sorted({item.language for item in report.words}):
        own = (item for item in report.words if item.language == language)
        yield f"{language}  " + ", ".join(f"{item.word} {item.lost} of {item.said}" for item in own)
