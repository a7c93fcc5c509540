"""`speechchat gate`: how well the gate tells good clips from bad ones, and at which thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError

gate_app = typer.Typer(help="The gate: how many good turns it refuses, and how many bad ones it lets pass.")


@gate_app.callback()
def _root() -> None:
    """Keeps `calibrate` a word of its own."""


@gate_app.command("calibrate")
def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder; its text is enough")],
    out: Annotated[Path, typer.Option(help="the folder for what is found; one that is there is gone on with")],
    good: Annotated[int, typer.Option(min=1, help="clips of each kind and language")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="another seed draws other turns")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; one a CPU if not named")] = None,
    only: Annotated[
        str | None, typer.Option(help="hear: nothing is reckoned; evaluate: what was heard before is reckoned anew")
    ] = None,
    kinds: Annotated[str | None, typer.Option(help="kinds of clips, with commas between; all if not named")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="PRESET|FILE", help="speak, listen and judge as this says, not as the run did")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key; repeatable")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="write the proposed judge.limits, floors and appeal, YAML")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print figures.json")] = False,
) -> None:
    """Calibrate the gate: speak turns of a run, spoil them in known ways, listen, and see what each threshold tells.

    Interrupt it at any moment and give the same command again: what was heard is kept.
    """
    from pipeline.engine.counting import CountProgress
    from pipeline.engine.gate_calibrate import (
        Request,
        evaluate,
        heard,
        heard_before,
        settle,
        write_rule,
    )
    from pipeline.engine.gate_page import words
    from pipeline.engine.gate_store import HEARD

    if only not in (None, "hear", "evaluate"):
        raise UsageError(f"--only {only}: hear or evaluate")
    chosen = tuple(kind.strip() for kind in kinds.split(",")) if kinds else ()
    request = Request(run, out, good, seed, workers, config, tuple(settings or ()), chosen)
    configuration = settle(request)
    try:
        if only == "evaluate":
            cases = heard_before(request, configuration, lambda line: typer.echo(line, err=True))
        else:
            cases = heard(request, configuration, CountProgress("heard", "clip"))
    except KeyboardInterrupt:
        typer.echo("interrupted: what was heard is kept; give the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if only == "hear":
        typer.echo(f"{len(cases)} clips heard: {out / HEARD}")
        return
    found = evaluate(request, configuration, cases)
    lines = [json.dumps(found, ensure_ascii=False)] if as_json else [*words(found), f"Look: {out / 'index.html'}"]
    typer.echo("\n".join(lines))
    if write is not None:
        write_rule(found, write)
