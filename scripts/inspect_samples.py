"""Look at a run and listen to it: `python scripts/inspect_samples.py RUN`.

Prints a table and every turn with what the recogniser heard, draws a picture a sample, and writes one HTML page with
players that needs nothing but itself. A run is read unit by unit, and no further than `--limit`.
"""

from __future__ import annotations

import base64
import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from inspect_picture import decoded, draw, failed, require_matplotlib
from pydantic import ValidationError
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline import audio
from pipeline.config import Config
from pipeline.dialogue import Dialogue, Language, Reject, Role, Sample, SampleTurn, Split, TextLine
from pipeline.engine.run import load_frozen
from pipeline.errors import DataError, SpeechchatError, UsageError
from pipeline.shards.format import Encoded
from pipeline.shards.reader import read_rejects, read_unit
from pipeline.shards.stats import Stats, run_stats
from pipeline.shards.store import Manifest, RunFolder, publish
from pipeline.text.rates import alignment

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ROLES: tuple[Role, ...] = ("user", "assistant")
KEY = re.compile(r"[a-z]+-(\d{6,})-\d{2,}")
TERMINAL_SCORES = {"wer", "cer", "per", "mos_ovr", "logprob", "chars_per_second"}  # the page has all of them
KEYS_COMPARED = 1000  # of the run's first keys, to name those nearest to an unknown one

Pieces = list[tuple[str, str, str]]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Entry:
    """A planned dialogue and what became of it. encoded: its clips, if it was accepted or they were kept."""

    line: TextLine
    encoded: Encoded | None
    reject: Reject | None

    @property
    def sample(self) -> Sample | None:
        return self.encoded.sample if self.encoded else None

    @property
    def verdict(self) -> str:
        return f"rejected ({self.reject.stage}: {self.reject.reason})" if self.reject else "accepted"


@dataclass(frozen=True)
class Card:
    """An entry as the page shows it. differences: for each turn, [] where nothing differs. flac and png: base64, "" if
    there is none. left, right: the ends of the picture's time axis as shares of its width."""

    entry: Entry
    differences: list[Pieces]
    flac: str = ""
    png: str = ""
    left: float = 0.0
    right: float = 1.0


def text_lines(folder: RunFolder, unit: int) -> list[TextLine]:
    """The plan of a unit and what was written for it. Raises DataError."""
    path = folder.text(unit)
    try:
        return [TextLine.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable: {str(error).splitlines()[0]}; see `speechchat verify`") from None


def unit_entries(folder: RunFolder, manifest: Manifest, only_rejected: bool = False) -> Iterator[Entry]:
    """The dialogues of a unit in the order of its plan. Raises DataError."""
    rejects = {reject.id: (reject, encoded) for reject, encoded in read_rejects(folder, manifest)}
    accepted = iter(()) if only_rejected else read_unit(folder, manifest)
    for line in text_lines(folder, manifest.unit):
        if line.plan.id in rejects:
            reject, encoded = rejects[line.plan.id]
            yield Entry(line, encoded, reject)
        elif not only_rejected:
            found = next(accepted, None)
            if found is None or found.sample.key != line.plan.id:
                shard = folder.shard(manifest.unit, manifest.split)
                raise DataError(f"{shard}: {line.plan.id} is not at its place; see `speechchat verify`")
            yield Entry(line, found, None)


def matching(folder: RunFolder, split: Split | None, language: Language | None, only_rejected: bool) -> Iterator[Entry]:
    """The finished dialogues that were asked for, read from disk as they are taken."""
    for manifest in folder.manifests():
        if split in (None, manifest.split) and (manifest.rejected or not only_rejected):
            for entry in unit_entries(folder, manifest, only_rejected):
                if language in (None, entry.line.plan.language):
                    yield entry


def find(folder: RunFolder, key: str) -> Entry:
    """The dialogue called `key`. Raises UsageError that names the nearest keys."""
    match = KEY.fullmatch(key)
    found = [folder.load_manifest(int(match[1]), split) for split in SPLITS] if match else []
    units = [manifest for manifest in found if manifest]
    for manifest in units:
        for entry in unit_entries(folder, manifest):
            if entry.line.plan.id == key:
                return entry
    manifests: Iterable[Manifest] = units or folder.manifests()
    known = (line.plan.id for manifest in manifests for line in text_lines(folder, manifest.unit))
    near = difflib.get_close_matches(key, list(islice(known, KEYS_COMPARED)), n=3, cutoff=0)
    hint = f"the nearest are {', '.join(near)}" if near else "no unit is finished yet"
    raise UsageError(f"{folder.root}: no finished dialogue has the key {key!r}; {hint}")


def differences(turn: SampleTurn, language: Language) -> Pieces:
    """Reference against transcript, [] if they say the same after normalisation."""
    pieces = alignment(turn.spoken, turn.transcript, language)
    return pieces if any(op != "equal" for op, _, _ in pieces) else []


def lowest_mos(sample: Sample) -> float | None:
    values = [score.value for turn in sample.turns for score in turn.scores if score.name == "mos_ovr"]
    return min(values, default=None)


def repliers(sample: Sample) -> str:
    return " + ".join(sorted({turn.author for turn in sample.turns if turn.role == "assistant"}))


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
    if sample:
        for turn in sample.turns:
            first, *others = turn_lines(turn, sample.language)
            lines += [(2, first), *((6, line) for line in others)]
    elif entry.line.dialogue:
        lines += [(2, Text(f"{turn.role} ({turn.author}): {turn.spoken}")) for turn in entry.line.dialogue.turns]
    for failed_text in entry.line.failed:
        turn_of = f"turn {failed_text.turn}" if failed_text.turn >= 0 else "the whole"
        where = f"not spoken, {turn_of}, {failed_text.author}, {failed_text.reason}"
        lines.append((2, Text(f"{where}: {failed_text.text}", "dim")))
    for indent, line in lines:
        console.print(Padding(line, (0, 0, 0, indent), expand=False))


def about(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    """What the text was made of, as far as something is known, and its marks."""
    for name in ("instruction", "topic", "persona", "scenario", "system"):
        if value := getattr(dialogue, name):
            yield name, value
    if dialogue.scores:
        yield "review", ", ".join(f"{score.name} {score.value:g}" for score in dialogue.scores)


def labels(turn: SampleTurn) -> str:
    """Emotion, style and disfluencies of a turn."""
    return ", ".join(filter(None, (turn.emotion, turn.style, *(item.kind for item in turn.disfluencies))))


def turn_lines(turn: SampleTurn, language: Language) -> Iterator[Text]:
    yield Text.assemble(
        f"{turn.start:6.2f}–{turn.end:5.2f} s  ",
        (f"{turn.role:9}", "blue" if turn.role == "user" else "yellow"),
        f" {turn.voice}, by {turn.author}  ",
        (f"{turn.metric} {turn.error_rate:.3f}", "red" if failed(turn) else "green"),
        (f"  {labels(turn)}", "dim"),
    )
    if turn.written != turn.spoken:
        yield Text(f"written  {turn.written}")
    yield Text(f"spoken   {turn.spoken}", "bold")
    yield Text.assemble("heard    ", marked(turn, language))
    for take in turn.takes:
        if take.reason:
            what = f"take {take.take} at speed {take.speed:g} refused for {take.reason}"
            yield Text(f"{what}, {turn.metric} {take.error_rate:.3f}, heard {take.transcript!r}", "dim")
    scores = [f"{score.name} {score.value:.2f}" for score in turn.scores if score.name in TERMINAL_SCORES]
    yield Text("  ".join(scores), "dim")


def marked(turn: SampleTurn, language: Language) -> Text:
    """The transcript; where it differs, normalised, with what was lost struck out in red and what was put in green."""
    pieces = differences(turn, language)
    if not pieces:
        return Text(turn.transcript)
    parts = []
    for op, said, heard in pieces:
        if op == "equal":
            parts.append(Text(said))
        else:
            parts += [Text(f"[-{said}-]", "red strike")] if said else []
            parts += [Text(f"[+{heard}+]", "bold green")] if heard else []
    return Text(" " if language == "en" else "").join(parts)


def stereo(encoded: Encoded) -> bytes:
    """Both tracks as one FLAC at the higher of their rates: the user left, the agent right."""
    rate = max(encoded.sample.user_rate, encoded.sample.assistant_rate)
    sides = [audio.resample(decoded(encoded, role), rate).audio for role in ROLES]
    length = min(map(len, sides))
    return audio.encode_flac(audio.to_pcm(np.stack([side[:length] for side in sides], axis=1)), rate)


def make_card(entry: Entry, out: Path, pictures: bool) -> Card:
    """Everything the page needs of an entry; the picture is also written to `out` as KEY.png."""
    if entry.encoded is None:
        return Card(entry, [])
    sample = entry.encoded.sample
    marks = [differences(turn, sample.language) for turn in sample.turns]
    flac = base64.b64encode(stereo(entry.encoded)).decode()
    if not pictures:
        return Card(entry, marks, flac)
    png, left, right = draw(entry.encoded, entry.verdict, entry.reject is None)
    publish(out / f"{sample.key}.png", png, replace=True)
    return Card(entry, marks, flac, base64.b64encode(png).decode(), left, right)


def render_page(
    folder: RunFolder, config: Config, stats: Stats, entries: list[Entry], out: Path, pictures: bool
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(about=about, failed=failed, labels=labels, lowest_mos=lowest_mos, repliers=repliers)
    cards = (make_card(entry, out, pictures) for entry in entries)
    template = environment.get_template("inspect.html.j2")
    return template.render(
        name=folder.root.resolve().name,
        stats=stats,
        limits=config.judge.limits,
        shown=len(entries),
        cards=cards,
    )


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
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
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
