"""`speechchat export` and `speechchat release`: what leaves for trainers and hubs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline.errors import UsageError
from pipeline.shards.remote import place
from pipeline.training.formats import FORMATS

if TYPE_CHECKING:
    from pipeline.training.export import Summary

_TOGETHER = 8
"""Units that a process exports at a time."""
_FORMATS = "\n\n".join(f"`{name}`: {about}" for name, (_, about) in FORMATS.items())


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run or a view of one, or s3://BUCKET/PATH", parser=place)
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="a new folder, or that of an export to go on with", parser=place)
    ],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="one of those above")],
    split: Annotated[
        list[str] | None, typer.Option(help="train, validation or test; repeatable. Without: all that the run has")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="an option of the format, see its page; repeatable"),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; one a CPU if not named")] = None,
) -> None:
    from pipeline.config import assign_settings
    from pipeline.engine.pool import in_order
    from pipeline.training.export import export as export_run

    options: dict[str, Any] = {}
    assign_settings(options, settings or [])
    try:
        with ExportDisplay() as display:
            each = partial(in_order, workers=workers, group=_TOGETHER)
            summary = export_run(run, to, out, split, options, display.show, each)
    except KeyboardInterrupt:
        typer.echo("interrupted: finished units are kept; give the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if summary.missing:
        typer.echo(
            f"! {summary.missing} units of the plan are not finished, so they are not in it; finish the run and give "
            "the same command again",
            err=True,
        )
    for note in summary.notes:
        typer.echo(f"! {note}", err=True)
    typer.echo(
        f"{out}: {summary.samples} dialogues of {summary.units} units in {summary.files} files, "
        f"{summary.bytes / 1e6:.1f} MB" + ("" if summary.added else "; it was finished already")
    )


export.__doc__ = f"""Write a run's dialogues in the format of a trainer.

Kill it at any moment and give the same command again: it goes on; when the run has grown, too.

{_FORMATS}
"""


class ExportDisplay:
    """One bar with an estimate of the end, on standard error."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("export"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units · {task.fields[samples]} dialogues, {task.fields[megabytes]:.0f} MB ·"),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> ExportDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, summary: Summary) -> None:
        fields: dict[str, Any] = {"samples": summary.samples, "megabytes": summary.bytes / 1e6}
        if self._bar is None:
            self._bar = self._bars.add_task("", total=summary.units, **fields)
        else:
            self._bars.update(self._bar, advance=1, **fields)


def release(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="a run, or a view of one: a folder, or s3://BUCKET/PATH", parser=place)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to publish, made here", parser=place)],
    size: Annotated[str, typer.Option(metavar="BYTES", help="of a shard, about: 1GB, 500MB, 1GiB")] = "1GB",
    partial: Annotated[bool, typer.Option("--partial", help="release what is there of an unfinished run")] = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="release a run whose samples name a model by its path on some machine")
    ] = False,
) -> None:
    """Make of a run what is published: few large shards, each with an index; a card, licences, checksums.

    Every member is copied as it is and held against the index. Kill it at any moment and give the same command again;
    a finished release is left as it is. `sha256sum -c SHA256SUMS` checks it anywhere.
    """
    from pipeline.engine.run import load_frozen
    from pipeline.shards.store import RunFolder
    from pipeline.training.release import release as make_release

    folder = RunFolder(run).require()
    config, frozen = load_frozen(folder)
    try:
        with ReleaseDisplay() as display:
            made = make_release(
                folder, config, frozen, out, _bytes(size), partial=partial, paths=paths, watcher=display
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: finished shards are kept; give the same command again to go on", err=True)
        raise typer.Exit(130) from None
    total = sum(shard.tar.bytes for shard in made.shards)
    shards = "1 shard" if len(made.shards) == 1 else f"{len(made.shards)} shards"
    typer.echo(
        f"{out}: {made.samples} samples, {made.seconds / 3600:.4f} h, {shards}, {total / 1e9:.3f} GB. "
        f"Read {out / 'README.md'} before you publish it"
    )


def _bytes(size: str) -> int:
    try:
        found = TypeAdapter(ByteSize).validate_python(size)
    except ValidationError:
        found = ByteSize(0)
    if found < 1:
        raise UsageError(f"--size {size!r}: write a number of bytes, such as 1GB, 500MB or 1GiB")
    return int(found)


class ReleaseDisplay:
    """A Watcher: a bar, on standard error."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("release"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False),
        )
        self._bar = TaskID(0)

    def __enter__(self) -> ReleaseDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars.tasks:
            self._bars.stop()

    def began(self, size: int) -> None:
        self._bar = self._bars.add_task("release", total=size)
        self._bars.start()

    def copied(self, size: int) -> None:
        self._bars.update(self._bar, advance=size)
