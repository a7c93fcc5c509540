"""`python -m scripts.launch KIND SETTINGS [submit|follow|stop|resume]`."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import EndpointError, SpeechchatError, UsageError
from scripts.launch.kuberay import Kuberay
from scripts.launch.ray_job import RayJob
from scripts.launch.ray_up import RayUp
from scripts.launch.settings import LaunchSettings, load_settings
from scripts.launch.slurm import Slurm
from scripts.launch.steps import Launcher, Write


class Kind(enum.StrEnum):
    job = "job"
    kuberay = "kuberay"
    slurm = "slurm"
    ssh = "ssh"


class Verb(enum.StrEnum):
    submit = "submit"
    follow = "follow"
    stop = "stop"
    resume = "resume"


KINDS: dict[Kind, Callable[[LaunchSettings], Launcher]] = {
    Kind.job: RayJob,
    Kind.kuberay: Kuberay,
    Kind.slurm: Slurm,
    Kind.ssh: RayUp,
}


def main(
    kind: Annotated[Kind, typer.Argument(help="a Ray cluster that is there; Kubernetes; Slurm; machines by ssh")],
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS", help="a file like scripts/launch/example.yaml")],
    verb: Annotated[Verb, typer.Argument(help="resume is submit: the run folder goes on where it was")] = Verb.submit,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what submit or stop would do, and do nothing")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="write the rendered file here, and do nothing else")] = None,
    follow: Annotated[bool, typer.Option(help="after submit, follow the log until the run ends")] = True,
) -> None:
    """Launch a run on a cluster, follow its log, stop it. The exit status is the run's own."""
    try:
        launcher = KINDS[kind](load_settings(settings))
        code = _main(launcher, verb, dry_run, out)
        if out is None and (verb == Verb.follow or (follow and not dry_run and verb != Verb.stop)):
            try:
                code = launcher.follow()
            except KeyboardInterrupt:
                typer.echo(f"\nthe run goes on; end it: python -m scripts.launch {kind} {settings} stop", err=True)
                code = 130
    except SpeechchatError as error:
        typer.echo(f"launch: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    raise typer.Exit(code)


def _main(launcher: Launcher, verb: Verb, dry_run: bool, out: Path | None) -> int:
    """All but following."""
    if out is not None:
        Write(out, launcher.render().encode()).do()
        typer.echo(f"wrote {out}")
        return 0
    if verb == Verb.follow:
        if dry_run:
            raise UsageError("--dry-run: follow changes nothing; leave it out")
        return 0
    code = 0
    for step in launcher.stop() if verb == Verb.stop else launcher.submit():
        if dry_run:
            typer.echo(step.show())
            continue
        try:
            step.do()
        except EndpointError as error:
            if verb != Verb.stop:
                raise
            typer.echo(f"launch: {error}", err=True)  # what does not answer keeps nothing else alive
            code = error.exit_code
    return code


if __name__ == "__main__":
    typer.run(main)
