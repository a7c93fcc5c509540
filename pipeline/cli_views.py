"""`speechchat views`: acoustic variants of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.shards.remote import place

if TYPE_CHECKING:
    from pipeline.shards.manifest import Manifest


def views(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or s3://BUCKET/PATH", parser=place)],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="views to make")] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="PRESET|FILE", help="its `views` say what they are; without names, all of them"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="for example `--set views.phone.noise.snr=[0,10]`; repeatable"),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="ray (default) or local: short for `--set engine.kind=…`")] = None,
) -> None:
    """Make acoustic variants of a run's finished samples: rooms, noise, telephone, speed, of the user's track only.

    phone, room, crowd and speed need no configuration. A view lies in RUN/views/NAME, laid out like a run; the run
    itself stays as it is. Give the same command again to go on, or when the run has grown.
    """
    from pipeline.engine.views import choose_views, make_views

    changes = [*(settings or []), *([f"engine.kind={engine}"] if engine else [])]
    chosen, where = choose_views(run, names or [], config, changes)
    try:
        with ViewDisplay() as display:
            totals = make_views(run, chosen, where, display)
    except KeyboardInterrupt:
        typer.echo("interrupted: finished units are kept; give the same command again to go on", err=True)
        raise typer.Exit(130) from None
    for name, stats in zip(chosen, totals, strict=True):
        typer.echo(f"{run / 'views' / name}: {stats.accepted} dialogues, {stats.hours:.4f} h")


class ViewDisplay:
    """A ViewObserver: one bar a view, on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("view {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units · {task.fields[seconds]:.0f} s of audio ·"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bar = TaskID(0)
        self._seconds = 0.0

    def __enter__(self) -> ViewDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def began(self, name: str, units: int, finished: int) -> None:
        self._seconds = 0.0
        self._bar = self._bars.add_task(name, total=units, completed=finished, seconds=0.0)

    def finished(self, manifest: Manifest) -> None:
        self._seconds += manifest.seconds
        self._bars.update(self._bar, advance=1, seconds=self._seconds)

    def trouble(self, message: str) -> None:
        self._console.print(f"! {message}", style="yellow", markup=False, soft_wrap=True)
