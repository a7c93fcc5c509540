"""`speechchat plan`: what a configuration would make, and what that would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError
from pipeline.shards.remote import place


def plan(
    config: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="a preset or a YAML file")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="change a key, for example `--set dialogues=32`; repeatable"),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="hours, CPU and GPU hours, tokens, money, files, bytes, wall time")
    ] = False,
    pilot: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="a small run of the same engines, whose rates are taken", parser=place),
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="cores of the cluster, for the wall time")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of the cluster")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=NUMBER", help="gpu_hour, cpu_hour or token_million, in your currency; repeatable"),
    ] = None,
    assume: Annotated[
        list[str] | None, typer.Option(metavar="KEY=NUMBER", help="put another number under the estimate; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for machines")] = False,
) -> None:
    """What a configuration would make: units, dialogues by language and split. With --estimate what that would take and
    where it would break first, each figure with its assumption. Loads no model and makes nothing."""
    from pipeline.config import load_config
    from pipeline.engine.estimate import Cluster
    from pipeline.engine.estimate import estimate as make_estimate
    from pipeline.engine.estimate_tables import show_estimate
    from pipeline.plan import expected, unit_count

    configuration = load_config(config, settings or [])
    if not estimate:
        named = {"--pilot": pilot, "--cpus": cpus, "--gpus": gpus, "--price": price, "--assume": assume}
        if unused := [name for name, value in named.items() if value is not None]:
            raise UsageError(f"{unused[0]} belongs to an estimate; add --estimate")
    if cpus is None and gpus is not None:
        raise UsageError("--gpus alone is no cluster; name its cores too, with --cpus")
    cluster = None if cpus is None else Cluster(cpus, gpus or 0.0)
    found = make_estimate(configuration, cluster, pilot, assume or [], price or []) if estimate else None
    shape = {
        "dialogues": configuration.dialogues,
        "unit_size": configuration.unit_size,
        "units": unit_count(configuration),
        "languages": expected(configuration.languages, configuration.dialogues),
        "splits": expected(configuration.splits, unit_count(configuration)),
    }
    if as_json:
        import json

        typer.echo(json.dumps({**shape, "estimate": found.model_dump() if found else None}, ensure_ascii=False))
        return
    typer.echo(f"{shape['dialogues']:,} dialogues in {shape['units']:,} units of {shape['unit_size']}")
    for name, unit in (("languages", "dialogues"), ("splits", "units")):
        parts = (f"{count:,.0f} {key}" for key, count in shape[name].items())  # type: ignore[attr-defined]
        typer.echo(f"{name}: {', '.join(parts)} ({unit}, to within one)")
    if found:
        show_estimate(found)
