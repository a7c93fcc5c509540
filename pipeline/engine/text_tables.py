"""What people see of a text report and of a preview. Texts are shown as they are: no markup in them is obeyed."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.engine.text_report import Excerpt, TextReport
from pipeline.sources import PreviewRow
from pipeline.stages.replies import Bill

_UNITS = {"en": "words", "zh": "characters"}
_NUMBER = re.compile(r"[$\d,.%–]*")
_NARROW = 72  # columns of a terminal below which tables are
_SPARE = ("share", "used")
_DETAIL = 300  # characters of a text that did not pass, or that is read from a source


class _Page:
    """Prints to standard output, or to `console`."""

    def __init__(self, console: Console | None):
        self._console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 100)

    def line(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style), highlight=False)

    def item(self, text: str) -> None:
        """An indented line; it is wrapped on a terminal alone, so that `grep` finds all of it."""
        if self._console.is_terminal:
            self._console.print(Padding(Text(text), (0, 0, 0, 4)), highlight=False)
        else:
            self._console.print(Text(f"    {text}"), highlight=False, soft_wrap=True)

    def table(self, title: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, str]]) -> None:
        """columns: heading by key; those where every row is empty are left out, and a table without rows is too. Where
        there is little room, so are those that say nothing new."""
        rows = list(rows)
        narrow = self._console.width < _NARROW
        shown = [key for key in columns if any(row.get(key) for row in rows) and not (narrow and key in _SPARE)]
        if not shown:
            return
        table = Table(
            box=None,
            padding=(0, 1 if narrow else 2, 0, 0),
            header_style="dim",
            show_header=any(columns[key] for key in shown),
        )
        for key in shown:
            numbers = all(_NUMBER.fullmatch(row.get(key, "")) for row in rows)
            table.add_column(columns[key], justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
        for row in rows:
            table.add_row(*(Text(row.get(key, "")) for key in shown))
        self.line()
        self.line(title, "bold")
        self._console.print(table, highlight=False)


def show_text(report: TextReport, console: Console | None = None) -> None:
    """The report on a run's text, on standard output."""
    page = _Page(console)
    _show_head(report, page)
    _show_sources(report, page)
    page.table(
        "yield",
        {"step": "step", "reached": "reached", "kept": "kept", "share": "", "dropped": "dropped", "refused": "refused"},
        (
            {
                "step": step.step,
                "reached": f"{step.entered:,}",
                "kept": f"{step.kept:,}",
                "share": _share(step.kept, step.entered),
                "dropped": _by_line(step.dropped),
                "refused": _by_line(step.refused),
            }
            for step in report.steps
            if report.written
        ),
    )
    if any(step.refused for step in report.steps):
        page.line("refused: replies of the LLM that were not used; most are asked for again")
    _show_kept(report, page)
    _show_account(report, page)
    for title, excerpts in (("survivors", report.survivors), ("rejects", report.rejects)):
        if excerpts:
            page.line()
            page.line(f"{len(excerpts)} random {title}", "bold")
        for excerpt in excerpts:
            _show_excerpt(excerpt, page)


def _show_head(report: TextReport, page: _Page) -> None:
    page.line(f"{report.written:,} of {report.planned:,} planned dialogues are written", "bold")
    if report.lost:
        page.line(f"not written, because their unit is in quarantine/ of the run folder: {report.lost:,}", "yellow")
    if not report.written:
        page.line("no unit has its text yet: give the `speechchat run` command again to go on", "yellow")
    elif report.kept:
        page.line(f"{report.kept:,} of them are kept ({_share(report.kept, report.written)})")
    else:
        page.line("none of them is kept: the yield below says which step dropped them", "yellow")
    waiting = sum(step.entered for step in report.steps if step.step == "dedup") - (report.compared or 0)
    if waiting:
        page.line(f"kept for now, as dedup has not compared them yet: {waiting:,}", "yellow")


def _show_sources(report: TextReport, page: _Page) -> None:
    headings = {"source": "source", "read": "rows read", "broken": "broken", "selected": "selected", "used": "used"}
    page.table(
        "sources",
        headings | {"dropped": "not selected"},
        (
            {
                "source": _plain(name),
                "read": f"{source.read:,}",
                "broken": f"{source.broken:,}" if source.broken else "",
                "selected": f"{source.selected:,}",
                "used": f"{source.used:,}",
                "dropped": _by_line(dict(sorted(source.dropped.items(), key=lambda item: -item[1]))),
            }
            for name, source in report.sources.items()
        ),
    )
    for source in report.sources.values():
        for row in source.first_broken:
            page.item(f"broken: {_plain(row, _DETAIL)}")


def _show_kept(report: TextReport, page: _Page) -> None:
    page.table(
        "languages",
        {
            "language": "language",
            "written": "written",
            "kept": "kept",
            "share": "",
            "turns": "dialogues by number of turns",
        },
        (
            {
                "language": language,
                "written": f"{item.written:,}",
                "kept": f"{item.kept:,}",
                "share": _share(item.kept, item.written),
                "turns": ", ".join(f"{turns}: {count:,}" for turns, count in item.turns.items()),
            }
            for language, item in report.languages.items()
        ),
    )
    page.table(
        "turns that are kept",
        {"who": "", "turns": "turns", "mean": "mean", "longest": "longest", "limit": "limit", "unit": ""},
        (
            {
                "who": f"{language} {role}",
                "turns": f"{sum(sizes.values()):,}",
                "mean": f"{sum(size * count for size, count in sizes.items()) / sum(sizes.values()):.1f}",
                "longest": str(max(sizes)),
                "limit": str(item.limit),
                "unit": _UNITS[language],
            }
            for language, item in report.languages.items()
            for role, sizes in item.lengths.items()
        ),
    )
    labels = report.labels
    turns = sum(labels.authors.values())
    lines = [
        ("turns by author", _by_count(labels.authors)),
        ("emotions", _by_count(labels.emotions)),
        ("styles", _by_count(labels.styles)),
        ("disfluencies", _by_count(labels.disfluencies)),
        ("code-switched", f"{labels.code_switched:,} dialogues" if labels.code_switched else ""),
        ("mean review", ", ".join(f"{name} {mean:.2f}" for name, mean in labels.scores.items())),
    ]
    if labels.disfluencies:
        lines[3] = ("disfluencies", f"{lines[3][1]}, in {labels.disfluent_turns:,} of {turns:,} turns")
    page.table("labels", {"name": "", "counts": ""}, ({"name": name, "counts": text} for name, text in lines if text))


def _show_account(report: TextReport, page: _Page) -> None:
    account, total = report.account, report.account.total
    if total.requests:
        _show_bills("what was paid for, by step", {**account.by_step, "all": total}, page)
    if len(account.by_model) > 1:
        _show_bills("by model", account.by_model, page)
    cut = {finish: count for finish, count in account.by_finish.items() if finish != "stop"}
    if cut:
        page.line(f"replies that ended early: {_by_count(cut)}")
    for name, bill in account.by_model.items():
        if not bill.cost:
            model = _plain(name) or "a model"
            page.line(f"no price is known of {model}: what its {_tokens(bill):,} tokens cost is not counted")
    if account.unsettled:
        most = f", {_dollars(account.unsettled_cost)} at most" if account.unsettled_cost else ""
        page.line(f"requests that no reply came to and that may have been billed: {account.unsettled:,}{most}")
    if report.reused:
        page.line(f"dialogues with replies of the LLM that this run paid nothing for: {report.reused:,}")
    if total.requests and report.kept:
        price = f" and {_dollars(total.cost / report.kept)}" if total.cost else ""
        page.line(f"{_tokens(total) / report.kept:,.0f} tokens{price} for each dialogue that is kept", "bold")
        waste = _tokens(total) - _tokens(report.kept_bill)
        page.line(f"{_share(waste, _tokens(total))} of the tokens went to dialogues that are not kept")


def _show_bills(title: str, bills: Mapping[str, Bill], page: _Page) -> None:
    priced = any(bill.cost for bill in bills.values())
    page.table(
        title,
        {"for": "", "replies": "replies", "prompt": "prompt tokens", "reply": "reply tokens", "cost": "dollars"},
        (
            {
                "for": _plain(name),
                "replies": f"{bill.requests:,}",
                "prompt": f"{bill.prompt_tokens:,}",
                "reply": f"{bill.completion_tokens:,}",
                "cost": _dollars(bill.cost) if bill.cost else "–" if priced else "",
            }
            for name, bill in bills.items()
        ),
    )


def _show_excerpt(excerpt: Excerpt, page: _Page) -> None:
    fault = f"  {excerpt.step}: {excerpt.reason}" if excerpt.step else ""
    page.line(_plain(excerpt.id + fault), "yellow" if fault else "green")
    for turn in excerpt.turns:
        page.item(_plain(turn))
    if excerpt.detail:
        page.item(_plain(excerpt.detail, _DETAIL))


def show_preview(rows: Iterable[PreviewRow], console: Console | None = None) -> None:
    """Rows of the sources, as they were mapped, with what the selection says of each."""
    page = _Page(console)
    verdicts: Counter[str] = Counter()
    for item in rows:
        row = item.row
        if row is None:
            verdicts["broken"] += 1
            page.line(f"{_plain(item.source)}: broken: {_plain(item.fault or '', _DETAIL)}", "red")
            page.item(_plain(item.raw, _DETAIL))
            continue
        verdicts[item.fault or "selected"] += 1
        verdict = f"not selected: {item.fault}" if item.fault else "selected"
        head = f"{item.source} {item.language or '?'} {row.source.row}"
        page.line(f"{_plain(head)}: {verdict}", "yellow" if item.fault else "green")
        about = {"system": row.system, "topic": row.topic, "persona": row.persona, "scenario": row.scenario}
        lines = [*about.items(), *((("user", "assistant")[place % 2], line) for place, line in enumerate(row.lines))]
        for name, text in lines:
            if text:
                page.item(f"{name}: {_plain(text, _DETAIL)}")
    page.line(_by_count(dict(verdicts.most_common())) or "the sources have no row to show", "bold")


def _plain(text: str, limit: int = 0) -> str:
    """One line; signs that would not show, or would steer the terminal, as escapes. limit: characters, 0 for all."""
    line = " ".join(text.split())
    if limit and len(line) > limit:
        line = f"{line[: limit - 1]}…"
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def _by_line(counts: Mapping[str, int]) -> str:
    return "\n".join(f"{count:,} {_plain(name)}" for name, count in counts.items())


def _by_count(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count:,} {_plain(name)}" for name, count in counts.items())


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else ""


def _tokens(bill: Bill) -> int:
    return bill.prompt_tokens + bill.completion_tokens


def _dollars(amount: float) -> str:
    """Down to a millionth of a cent: a short reply of a small model costs about a thousandth of one."""
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.01 else f"${amount:.8f}".rstrip("0")
