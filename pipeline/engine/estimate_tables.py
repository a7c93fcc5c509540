"""What people see of an estimate."""

from __future__ import annotations

import math
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.engine.estimate import Estimate, number

_BYTES = ("B", "B/s")
_PREFIXES = ("", "k", "M", "G", "T", "P")


def show_estimate(found: Estimate, console: Console | None = None) -> None:
    """Figures, limits and assumptions, on standard output."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for group in dict.fromkeys(item.group for item in found.figures):
        table = _table("", "", "how")
        for item in found.figures:
            if item.group == group:
                table.add_row(item.name, amount(item.value, item.unit), Text(item.how))
        console.print(Text(f"\n{group}", "bold"), table, sep="\n")
    table = _table("", "wanted", "limit", "share", "how", "what moves it")
    for limit in found.limits:
        sizes = (amount(value, limit.unit) for value in (limit.wanted, limit.limit))
        table.add_row(limit.name, *sizes, f"{limit.share:.0%}", Text(limit.how), Text(limit.remedy))
    console.print(Text("\nwhere it would break first (above 100 % it does)", "bold"), table, sep="\n")
    table = _table("", "value", "unit", "basis", "source")
    for rate in found.assumptions:
        style = "yellow" if rate.basis == "not measured" else ""
        table.add_row(rate.key, number(rate.value), rate.unit, Text(rate.basis, style), Text(rate.source))
    console.print(Text("\nassumed (change any with --assume KEY=NUMBER)", "bold"), table, sep="\n")
    for note in found.notes:
        console.print(Text(f"! {note}"), soft_wrap=True)


def amount(value: float, unit: str) -> str:
    """A number as people read it: bytes with a prefix of powers of 1000, others with thousands apart."""
    if unit not in _BYTES:
        digits = 0 if abs(value) >= 100 or math.isclose(value, round(value), abs_tol=1e-9) else 2
        return f"{value:,.{digits}f}{' ' * bool(unit)}{unit}"
    place = 0
    while abs(value) >= 1000 and place < len(_PREFIXES) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.3g} {_PREFIXES[place]}{unit}"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        numeric = column in ("wanted", "limit", "share", "value")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table
