"""`speechchat COMMAND`: one function a command, no logic."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.cli_clone import voices_clone
from pipeline.cli_gate import gate_app
from pipeline.cli_plan import plan
from pipeline.cli_repair import repair, verify
from pipeline.cli_status import status
from pipeline.cli_training import export, release
from pipeline.cli_views import views
from pipeline.cli_voices import voices_app
from pipeline.errors import ConfigError, ModelError, RunFolderError, SpeechchatError, UsageError
from pipeline.shards.remote import is_remote, place

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Bilingual spoken dialogues for the fine-tuning of speech language models.\n\n"
    "`speechchat models pull` fetches the embedded models, `speechchat run quickstart --out runs/demo` makes a small "
    "data set with them, `speechchat verify runs/demo` checks it.\n\n"
    "Exit status: 0 done · 1 damage found or units lost · 2 bad input · 3 a model or endpoint is missing · "
    "4 storage · 5 budget used up · 130 interrupted.",
)
models_app = typer.Typer(
    help="The embedded models: where they are, whether they are the right ones, and how to get them."
)
app.add_typer(models_app, name="models")
app.add_typer(voices_app, name="voices")
app.add_typer(gate_app, name="gate")
voices_app.command("clone")(voices_clone)


class _ReportUnlessNamed(TyperGroup):
    """`text RUN` is `text report RUN`: what is no command is a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        word = args[0] if args else ""
        mistyped = not Path(word).exists() and difflib.get_close_matches(word, self.commands, n=1, cutoff=0.7)
        if word and word not in self.commands and word not in ctx.help_option_names and not mistyped:
            args = ["report", *args]
        return super().parse_args(ctx, args)


text_app = typer.Typer(
    cls=_ReportUnlessNamed,
    no_args_is_help=True,
    help="The text of a run: `speechchat text RUN` reports on it, `speechchat text preview CONFIG` shows its sources.",
)
app.add_typer(text_app, name="text")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or s3://BUCKET/PATH", parser=place)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change a key, for example `--set dialogues=32`; repeatable"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(f"speechchat {__version__}")
        raise typer.Exit


@app.command()
def run(
    config: Annotated[
        str, typer.Argument(metavar="PRESET|FILE", help="a preset (see `speechchat presets`) or a YAML file")
    ],
    out: Annotated[
        Path, typer.Option(help="the run folder, or s3://BUCKET/PATH; a run there is resumed", parser=place)
    ],
    settings: SetOption = None,
    engine: Annotated[str | None, typer.Option(help="ray (default) or local: short for `--set engine.kind=…`")] = None,
    until: Annotated[
        str | None, typer.Option(help="write: stop when all text is written, to look at it or to edit it first")
    ] = None,
) -> None:
    """Make a data set: plan, write, cast, speak, listen, judge, pack.

    Kill it at any moment and give the same command again: it goes on where it was. A finished run is left as it is;
    with more `dialogues` it grows.
    """
    from pipeline.config import load_config
    from pipeline.console import ProgressDisplay
    from pipeline.engine.run import run as run_config
    from pipeline.engine.stats_tables import look, show_stats
    from pipeline.shards.store import RunFolder

    if until not in (None, "write"):
        raise ConfigError(f"--until {until!r}: a run can stop after `write` only")
    changes = [*(settings or []), *([f"engine.kind={engine}"] if engine else [])]
    configuration = load_config(config, changes)
    with _resumable(out), ProgressDisplay() as display:
        stats = run_config(configuration, out, display, "write" if until else None)
    if until:
        typer.echo(
            f"the text is in {out / 'dialogues'}. Look at it: speechchat text {out}. Edit it if you like, "
            "then give the command again without --until"
        )
        return
    show_stats(stats, look(RunFolder(out), configuration))
    typer.echo(f"\n{out} is finished. Look at it: python scripts/inspect_samples.py {out}")


@app.command()
def regate(
    source: RunArgument,
    out: Annotated[Path, typer.Option(help="the folder of the new run, or s3://BUCKET/PATH", parser=place)],
    settings: SetOption = None,
) -> None:
    """Judge a finished run again with other limits, without speaking or listening: `--set judge.limits.en.wer=0.05`."""
    from pipeline.console import ProgressDisplay
    from pipeline.engine.regate import regate as regate_run
    from pipeline.engine.run import load_frozen
    from pipeline.engine.stats_tables import look, show_stats
    from pipeline.shards.store import RunFolder

    with _resumable(out), ProgressDisplay() as display:
        stats = regate_run(source, out, settings or [], display)
    folder = RunFolder(out)
    show_stats(stats, look(folder, load_frozen(folder)[0]))


@app.command()
def stats(source: RunArgument, as_json: JsonOption = False) -> None:
    """Totals of a run: accepted, rejected by reason, hours, error rates, real-time factors; yields by language, engine,
    length and reason; what repairs saved and cost; the worst voices and words."""
    from pipeline.engine.run import load_frozen
    from pipeline.engine.stats_tables import look, show_stats
    from pipeline.shards.stats import first_takes, run_sums, stats_of
    from pipeline.shards.store import RunFolder

    folder = RunFolder(source).require()
    config, _ = load_frozen(folder)
    sums = run_sums(folder, config)
    totals, found = stats_of(sums, config), look(folder, config)
    if as_json:
        voices = [item.model_dump() for item in first_takes(sums, "voice")]
        more = {"by_voice": voices, "stage_seconds": found.costs, "efficiency": found.efficiency.model_dump()}
        typer.echo(json.dumps({**totals.model_dump(), **more, "worst_words": found.words.model_dump()}))
    else:
        show_stats(totals, found)


@app.command()
def presets(name: Annotated[str | None, typer.Argument(help="print this preset, resolved")] = None) -> None:
    """List the presets, or print one with every key and its value."""
    from pipeline.config import explain, load_config, preset_names

    if name is None:
        typer.echo("\n".join(preset_names()))
    else:
        typer.echo(explain(load_config(name)))


@text_app.command("report")
def text_report(
    source: RunArgument,
    png: Annotated[Path | None, typer.Option(help="where the histograms go; RUN/logs/text.png if not named")] = None,
    no_png: Annotated[bool, typer.Option("--no-png", help="draw nothing")] = False,
    excerpts: Annotated[int, typer.Option(min=0, help="random survivors and random rejects to show")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Yield by step and reason, lengths, tokens and cost, and random survivors and rejects to read."""
    from pipeline.engine.run import load_frozen
    from pipeline.engine.text_plot import draw
    from pipeline.engine.text_report import text_report as make_report
    from pipeline.engine.text_tables import show_text
    from pipeline.shards.store import RunFolder

    folder = RunFolder(source).require()
    report = make_report(folder, load_frozen(folder)[0], excerpts)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        show_text(report)
    if not no_png and (png or report.kept):
        target = png or folder.logs / "text.png"
        try:
            draw(report, target)
            typer.echo(f"histograms: {target}", err=as_json)
        except UsageError as error:
            if png:
                raise
            typer.echo(f"no histograms: {error}", err=True)  # nobody asked for them by name


@text_app.command("preview")
def text_preview(
    config: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="a preset or a YAML file")],
    settings: SetOption = None,
    limit: Annotated[int, typer.Option(min=1, help="rows of each source")] = 10,
) -> None:
    """The first rows of each source: how their fields are mapped, and what the selection says. Costs nothing."""
    from pipeline.config import load_config
    from pipeline.engine.text_tables import show_preview
    from pipeline.sources.preview import preview

    show_preview(preview(load_config(config, settings or []), limit))


@models_app.callback(invoke_without_command=True)
def models_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models: role, licence, source, state, place."""
    from pipeline import models

    if context.invoked_subcommand:
        return
    rows = models.status()
    if as_json:
        typer.echo(json.dumps([{**vars(row), "path": str(row.path)} for row in rows]))
        return
    table = Table("model", "role", "licence", "MB", "state")
    for row in rows:
        table.add_row(row.name, row.role, row.license, f"{row.size / 1e6:.0f}", row.state)
    Console(highlight=False).print(table)
    for row in rows:
        typer.echo(f"{row.name}\n  at   {row.path}\n  from {row.source}")
        if row.detail:
            typer.echo(f"  ! {row.detail}")


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(help="models; all of them if none is named")] = None,
) -> None:
    """Fetch what is missing: parts joined, every file checked against its SHA-256."""
    from pipeline import models

    models.pull(names or [], lambda line: typer.echo(line, err=True))


@models_app.command("check")
def models_check(
    names: Annotated[list[str] | None, typer.Argument(help="models; all of them if none is named")] = None,
) -> None:
    """Read every byte again and compare the checksums."""
    from pipeline import models

    faults = []
    for name in names or models.MODELS:
        try:
            typer.echo(f"{name}: {models.check(name)}")
        except ModelError as error:
            faults.append(str(error))
    if faults:
        raise ModelError("; ".join(faults))


app.command()(plan)
app.command()(verify)
app.command()(repair)
app.command()(views)
app.command()(status)
app.command()(export)
app.command()(release)


@contextlib.contextmanager
def _resumable(out: Path):  # type: ignore[no-untyped-def]
    """Ctrl-C and SIGTERM end a run cleanly and say how to go on. Raises RunFolderError where `out` can be no folder."""
    for folder in (out, *out.parents) if not is_remote(out) else ():
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"{folder} is a file; --out must name a folder")

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted: finished units and all written text are kept in {out}; give the same command again to go on",
            err=True,
        )
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the command line; errors meant for users become one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign must not end a run
    try:
        app()
    except SpeechchatError as error:
        typer.echo(f"speechchat: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
