"""`speechchat status`: how far a run is, from wherever its folder is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.shards.remote import place

if TYPE_CHECKING:
    from pipeline.engine.status import Rate, Status, Utilisation

PAUSE = 5.0  # seconds between two looks


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or s3://BUCKET/PATH", parser=place)],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for machines, a line each time")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="look again and again while a driver is alive")] = False,
) -> None:
    """How far a run is: units, dialogues, rate, time left, use of its workers, cost, and the last errors.

    Reads the folder only, from any machine that sees it, while the run goes on or later. A driver that has not been
    heard of for half a minute counts as gone.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from pipeline.engine.status import Watch

    eye = Watch(run)
    console = Console(highlight=False)
    found = eye.look()
    try:
        if watch and console.is_terminal and not as_json:
            with Live(Text(describe(found)), console=console, auto_refresh=False) as live:
                while found.state == "running":
                    time.sleep(PAUSE)
                    found = eye.look()
                    live.update(Text(describe(found)), refresh=True)
            return
        typer.echo(found.model_dump_json() if as_json else describe(found))
        while watch and found.state == "running":
            time.sleep(PAUSE)
            found = eye.look()
            typer.echo(found.model_dump_json() if as_json else "\n" + describe(found))
    except KeyboardInterrupt:
        return  # who looks on may stop looking


def describe(found: Status) -> str:
    """For people, a line a subject; what is not known is left out."""
    return "\n".join(f"{name:<11}{text}".rstrip() for name, text in _lines(found) if text)


def _lines(found: Status) -> Iterator[tuple[str, str]]:
    yield "run", found.run
    yield "state", _state(found)
    yield (
        "units",
        _joined(
            f"{found.units_done} of {found.units_planned} done",
            found.in_flight and f"{found.in_flight} in flight",
            found.quarantined and f"{found.quarantined} quarantined",
            f"{found.units_written} with text",
        ),
    )
    yield (
        "dialogues",
        _joined(
            f"{found.dialogues} of {found.dialogues_planned} done",
            found.spoken and f"{found.spoken} in units under way",
            f"yield {found.share:.1%}" if found.share is not None else "",
            f"{found.hours:.2f} h of audio",
        ),
    )
    yield "rate", _joined(_rate("now", found.recent), _rate("over all", found.overall))
    yield "time left", "" if found.seconds_left is None else f"about {_clock(found.seconds_left)}"
    yield "busy", _joined(_busy("now", found.busy_recent), _busy("over all", found.busy))
    cost = found.cost
    yield (
        "cost",
        _joined(
            f"{cost.cpu_hours:.2f} CPU hours in studios, {cost.driver_cpu_hours:.2f} in the driver",
            cost.tokens and f"{cost.tokens} tokens",
            cost.dollars and f"${cost.dollars:.2f}",
        ),
    )
    for error in found.errors:
        yield "!", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(error.time))} {error.message}"


def _state(found: Status) -> str:
    driver = found.driver
    if driver is None:
        return found.state
    who = f"{driver.host}, process {driver.pid}"
    if driver.alive:
        return f"{found.state} ({driver.phase}) on {who}, heard of {driver.age:.0f} s ago"
    how = driver.outcome or "was killed, or cannot be heard from here"
    return f"{found.state}: the last driver ({who}) {how}, {_clock(driver.age)} ago"


def _rate(label: str, rate: Rate | None) -> str:
    return f"{label} {rate.units:.1f} units, {rate.hours:.2f} h of audio an hour" if rate else ""


def _busy(label: str, busy: Utilisation | None) -> str:
    if busy is None or (busy.writers is None and busy.studios is None):
        return ""
    workers = [f"{name} {value:.0%}" for name, value in _workers(busy) if value is not None]
    stages = ", ".join(f"{name} {value:.0%}" for name, value in busy.stages.items())
    return f"{label} {', '.join(workers)}{f' ({stages})' if stages else ''}"


def _workers(busy: Utilisation) -> Iterator[tuple[str, float | None]]:
    yield "writers", busy.writers
    yield "studios", busy.studios


def _joined(*parts: str | int | float) -> str:
    return " · ".join(str(part) for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
