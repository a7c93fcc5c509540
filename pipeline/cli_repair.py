"""`speechchat verify` and `speechchat repair`: what of a run is not as it was published, and taking it out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.shards.remote import place

if TYPE_CHECKING:
    from pipeline.shards.verify import Verification

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or s3://BUCKET/PATH", parser=place)]
DecodeOption = Annotated[bool, typer.Option("--decode", help="decode every clip, not only its header")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="processes; one a CPU if not named")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


def verify(
    source: RunArgument, decode: DecodeOption = False, workers: WorkersOption = None, as_json: JsonOption = False
) -> None:
    """Check a run: sha256, tar structure, members, lengths, counts, planned = accepted + rejected."""
    from pipeline.engine.run import load_frozen
    from pipeline.engine.verifying import verify_run
    from pipeline.shards.store import RunFolder
    from pipeline.shards.verify import Verification

    folder = RunFolder(source).require()
    config, frozen = load_frozen(folder)
    state = Verification()
    with _shown() as show:
        for state in verify_run(folder, config, decode, frozen.digests, workers):
            show(state)
    if as_json:
        typer.echo(json.dumps({**vars(state), "ok": state.ok}))
    else:
        for problem in state.problems:
            typer.echo(problem)
        if state.missing:
            typer.echo(f"{source}: {len(state.missing)} units are not made yet; run the same command again to finish")
        verdict = "all is well" if state.ok else f"{len(state.problems)} problems, {len(state.missing)} units missing"
        if state.problems:
            verdict += f"; `speechchat repair {source} --dry-run` says what to do"
        typer.echo(
            f"{state.units} units, {state.samples} samples, {state.seconds:.1f} s of audio, "
            f"{state.bytes / 1e6:.1f} MB: {verdict}"
        )
    raise typer.Exit(0 if state.ok else 1)


def repair(
    source: RunArgument,
    decode: DecodeOption = False,
    foreign: Annotated[bool, typer.Option("--foreign", help="remove files that are not of this run, too")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="remove nothing, say what would be")] = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take out of a run what is damaged; its own command then makes exactly that again.

    Verifies first. A unit of which something is damaged goes as a whole, its manifest first; its text stays unless that
    is damaged itself. Exit status 0 when nothing was damaged or all of it was removed.
    """
    from pipeline.engine.mending import lines
    from pipeline.engine.mending import repair as repair_run
    from pipeline.engine.run import load_frozen
    from pipeline.shards.store import RunFolder

    folder = RunFolder(source).require()
    config, frozen = load_frozen(folder)
    with _shown() as show:
        options = {"decode": decode, "foreign": foreign, "dry_run": dry_run}
        done = repair_run(folder, config, frozen.digests, **options, workers=workers, progress=show)
    if as_json:
        typer.echo(json.dumps({**vars(done), "found": vars(done.found), "dry_run": dry_run}))
    else:
        for line in lines(done, dry_run):
            typer.echo(line)
        word = "would be removed" if dry_run else "removed"
        files = len(done.removed) + len(done.moved)
        typer.echo(
            f"{len(done.units)} units and {files} files {word}, {done.found.whole} units are whole"
            if files
            else f"nothing is damaged, {done.found.whole} units are whole"
        )
        if done.again:
            typer.echo(f"to make what is missing: {done.again}")
    raise typer.Exit(1 if dry_run and (done.removed or done.moved) else 0)


@contextmanager
def _shown() -> Iterator[Callable[[Verification], None]]:
    """A line on standard error that says how far it is."""
    with Console(stderr=True, highlight=False).status("verifying") as status:
        yield lambda state: status.update(
            f"verifying: {state.units} units, {state.samples} samples, {state.bytes / 1e6:.1f} MB"
        )
