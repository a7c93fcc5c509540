"""Look at a run and listen to it: `python scripts/inspect_samples.py RUN`.

Prints a table and every turn with what the recogniser heard, draws a picture a sample, and writes one HTML page with
players that needs nothing but itself. A run is read unit by unit, and no further than `--limit`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from inspect_entries import Entry, find, matching
from inspect_page import ROLES, about, lowest_mos, render_page, repliers
from inspect_picture import require_matplotlib
from inspect_turns import Mark, TurnView, views
from pydantic import ValidationError
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.config import Config
from pipeline.dialogue import Language, Split
from pipeline.engine.run import load_frozen
from pipeline.errors import DataError, SpeechchatError
from pipeline.shards.remote import place
from pipeline.shards.stats import Stats, run_stats
from pipeline.shards.store import RunFolder, publish

# The page has all of them.
TERMINAL_SCORES = {"wer", "cer", "per", "gap", "dropped", "added", "figures"} | {
    *("pace", "similarity", "snr", "mos_ovr", "logprob", "chars_per_second")
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def print_tables(console: Console, entries: list[Entry]) -> None:
    accepted = Table(box=None, title="accepted")
    for name in (
        "key",
        "split",
        "",
        "seconds",
        "turns",
        "user",
        "agent",
        "replies by",
        "worst rate",
        "lowest MOS",
    ):
        accepted.add_column(name, justify="right" if name in ("seconds", "turns", "lowest MOS") else "left")
    rejected = Table("key", "split", "", "stage", "reason", "detail", box=None, title="rejected")
    for entry in entries:
        plan, reject, sample = entry.line.plan, entry.reject, entry.sample
        if reject:
            rejected.add_row(plan.id, plan.split, plan.language, reject.stage, reject.reason, reject.detail)
        elif sample:
            worst = max(sample.turns, key=lambda turn: turn.error_rate)
            mos = lowest_mos(sample)
            accepted.add_row(
                *(plan.id, plan.split, plan.language, f"{sample.duration:.1f}", str(len(sample.turns))),
                *(next(voice.id for voice in sample.voices if voice.role == role) for role in ROLES),
                *(repliers(sample), f"{worst.metric} {worst.error_rate:.3f}", f"{mos:.2f}" if mos else ""),
            )
    for table in (accepted, rejected):
        if table.row_count:
            console.print(table)


def print_entry(console: Console, entry: Entry) -> None:
    plan, sample = entry.line.plan, entry.sample
    head = Text.assemble("\n", (plan.id, "bold"), f"  {plan.language} · {plan.split} · ")
    head.append(entry.verdict, "red" if entry.reject else "green")
    if sample:
        source = sample.source
        head.append(f" · {sample.duration:.2f} s · {source.name} {source.row} ({source.license})")
    lines: list[tuple[int, Text]] = [(0, head)]
    if entry.reject:
        lines.append((2, Text(entry.reject.detail, "red")))
    if entry.line.dialogue:
        lines += [(2, Text(f"{name}: {value}", "dim")) for name, value in about(entry.line.dialogue)]
    for turn in views(entry):
        first, *others = turn_lines(turn, plan.language)
        lines += [(2, first), *((6, line) for line in others)]
    for failed_text in entry.line.failed:
        turn_of = f"turn {failed_text.turn}" if failed_text.turn >= 0 else "the whole"
        where = f"not spoken, {turn_of}, {failed_text.author}, {failed_text.reason}"
        lines.append((2, Text(f"{where}: {failed_text.text}", "dim")))
    for indent, line in lines:
        console.print(Padding(line, (0, 0, 0, indent), expand=False))


def turn_lines(turn: TurnView, language: Language) -> Iterator[Text]:
    where = f"{turn.span[0]:6.2f}–{turn.span[1]:5.2f} s  " if turn.span else f"turn {turn.number}  "
    head = Text.assemble(where, (f"{turn.role:9}", "blue" if turn.role == "user" else "yellow"))
    head.append(f" {turn.voice}, by {turn.author}  " if turn.voice else f" by {turn.author}  ")
    if turn.error_rate is not None:
        head.append(f"{turn.metric} {turn.error_rate:.3f}", "red" if turn.failed else "green")
    yield head.append(f"  {turn.labels}", "dim")
    if turn.written != turn.spoken:
        yield Text(f"written  {turn.written}")
    yield Text(f"spoken   {turn.spoken}", "bold")
    if turn.error_rate is not None:
        yield Text.assemble("heard    ", marked(turn.marks, turn.transcript, language))
    for attempt in turn.attempts:
        take = attempt.take
        if take.reason or take.repair:
            outcome = f"refused for {take.reason}" if take.reason else "passed"
            line = Text(f"take {take.take}, {attempt.how}: {outcome}", "dim")
            line.append(f", asked for {take.text!r}" if take.text else "")
            if take.seconds:
                line.append(f", {turn.metric} {take.error_rate:.3f}, heard ")
                line.append_text(marked(attempt.marks, take.transcript, language))
            yield line
    scores = [f"{score.name} {score.value:.2f}" for score in turn.scores if score.name in TERMINAL_SCORES]
    if scores:
        yield Text("  ".join(scores), "dim")


def marked(marks: Sequence[Mark], transcript: str, language: Language) -> Text:
    """The transcript; where it differs, normalised, with what was lost struck out in red and what was put in green."""
    if not marks:
        return Text(transcript)
    parts = []
    for mark in marks:
        if mark.same:
            parts.append(Text(mark.said_text))
        else:
            parts += [Text(f"[-{mark.said_text}-]", "red strike")] if mark.said else []
            parts += [Text(f"[+{mark.heard_text}+]", "bold green")] if mark.heard else []
    return Text(" " if language == "en" else "").join(parts)


def totals(folder: RunFolder, config: Config) -> Stats:
    """What stats.json says, or the sum so far where the run has not come to its end."""
    if not folder.stats.exists():
        return run_stats(folder, config)
    try:
        return Stats.model_validate_json(folder.stats.read_bytes())
    except ValidationError:
        raise DataError(f"{folder.stats}: not readable as totals; `speechchat run` writes it anew") from None


@app.command()
def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or s3://BUCKET/PATH", parser=place)],
    key: Annotated[
        str | None, typer.Option(help="one dialogue, accepted or rejected; the filters do not count then")
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="only what was rejected")] = False,
    split: Annotated[Split | None, typer.Option(help="only this split")] = None,
    language: Annotated[Language | None, typer.Option(help="only this language")] = None,
    limit: Annotated[int, typer.Option(min=1, help="the most dialogues to show")] = 20,
    out: Annotated[Path | None, typer.Option(help="folder for page and pictures  [default: RUN/logs/inspect]")] = None,
    png: Annotated[bool, typer.Option("--png/--no-png", help="draw a picture of each sample")] = True,
) -> None:
    """Show the samples of a run: a table, the turns with what was heard, pictures, and a page with players."""
    try:
        show(RunFolder(run), key, rejected, split, language, limit, out, png)
    except SpeechchatError as error:
        typer.echo(f"inspect_samples: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def show(
    folder: RunFolder,
    key: str | None,
    rejected: bool,
    split: Split | None,
    language: Language | None,
    limit: int,
    out: Path | None,
    pictures: bool,
) -> None:
    config, _ = load_frozen(folder)
    if pictures:
        require_matplotlib()
    stats = totals(folder, config)
    entries = [find(folder, key)] if key else list(islice(matching(folder, split, language, rejected), limit))
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    if not entries:
        console.print("no finished dialogue of this run is what you asked for")
        return
    print_tables(console, entries)
    for entry in entries:
        print_entry(console, entry)
    out = out or folder.logs / "inspect"
    page = render_page(folder, config, stats, entries, out, pictures)
    publish(out / "index.html", page.encode(), replace=True)
    console.print(f"\n{len(entries)} of {stats.planned} finished dialogues shown", style="dim")
    if pictures and any(entry.encoded for entry in entries):
        console.print(f"pictures: {out / '*.png'}", soft_wrap=True)
    console.print(f"page:     {out / 'index.html'}", soft_wrap=True)


if __name__ == "__main__":
    app()
