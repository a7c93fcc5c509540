"""What people see of the report and of a preview: the money, texts as they are, any width of terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipeline.backends.llm.base import Reply
from pipeline.config import Config
from pipeline.dialogue import SourceRow, TextLine
from pipeline.engine.text_report import text_report
from pipeline.engine.text_tables import show_preview
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.sources import PreviewRow
from pipeline.stages.replies import ReplyJournal
from tests.engine.text_runs import (
    NOBODY,
    PRICED,
    UNPRICED,
    all_steps,
    bill,
    one_unit,
    publish_text,
    reject,
    shown,
    write_run,
)


def test_what_each_kept_dialogue_cost(tmp_path: Path) -> None:
    """Two replies at a price, one without, and one for a dialogue that is not kept."""
    folder, config = one_unit(tmp_path, "One.", "")
    with ReplyJournal(folder.replies(0), NOBODY) as journal:
        bill(journal, "en-000000-00", "converse", Reply("a", "stop", PRICED, 1000, 500, 0.002))
        bill(journal, "en-000000-00", "review", Reply("a", "stop", UNPRICED, 400, 100, 0.0))
        bill(journal, "en-000000-01", "converse", Reply("a", "length", PRICED, 1000, 1000, 0.003))
        journal.append({"key": "k", "step": "converse", "dialogue": "en-000000-01", "unsettled": 0.0042})
    text = shown(text_report(folder, config))
    assert re.search(r"converse +2 +2,000 +1,500 +\$0.005 *\n", text)
    assert re.search(r"review +1 +400 +100 +– *\n", text) and re.search(r"all +3 +2,400 +1,600 +\$0.005", text)
    assert re.search(r"free +1 +400 +100 +– *\n", text)
    assert "no price is known of free: what its 500 tokens cost is not counted" in text
    assert "may have been billed: 1, $0.0042 at most" in text
    assert "replies that ended early: 1 length" in text
    assert "4,000 tokens and $0.005 for each dialogue that is kept" in text
    assert "50% of the tokens went to dialogues that are not kept" in text


def test_replies_that_another_run_paid_for_are_told(tmp_path: Path) -> None:
    folder, config = one_unit(tmp_path, "One.", "Two.", "")
    with ReplyJournal(folder.replies(0), NOBODY) as journal:
        bill(journal, "en-000000-00", "converse", Reply("a", "stop", PRICED, 10, 10, 0.1))
    report = text_report(folder, config)
    assert report.reused == 1
    assert "this run paid nothing for: 1" in shown(report)


# ---- how it looks ----------------------------------------------------------------------------------------------------

ODD = "[bold]Stop[/bold] :smile: [/] [red"


def test_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    folder, config = one_unit(tmp_path, ODD, "\x1b[31mred\u202e\n over", languages={"en": 1})
    text = shown(text_report(folder, config), terminal=True, width=200)
    assert f"user: {ODD}" in text and "\\x1b[31mred\\u202e over" in text
    assert "\x1b" not in text.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")


def test_long_details_become_one_line(tmp_path: Path) -> None:
    config = Config(dialogues=1, unit_size=1, languages={"en": 1})
    [unit] = plan_units(config)
    detail = '{"turns": [' + '{"role": "user",\n "text": "again and again"}, ' * 200
    lines = [
        TextLine(plan=plan, dialogue=None, reject=reject(plan, "style", "length", detail), failed=())
        for plan in unit.dialogues
    ]
    folder = RunFolder(tmp_path)
    publish_text(folder, unit, lines)
    report = text_report(folder, config)
    assert report.rejects[0].detail == detail  # machines get all of it
    [line] = [line for line in shown(report).splitlines() if "again" in line]
    assert len(line) < 320 and line.endswith("…")


@pytest.mark.parametrize("width", [40, 56, 100, 180])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    config = all_steps()
    folder, _ = write_run(tmp_path, config, 1)
    lines = shown(text_report(folder, config), width, terminal=True).splitlines()
    assert max(cell_len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines) <= width
    if width > 40:
        assert any(re.search(r"\d too long", line) for line in lines)


# ---- the preview -----------------------------------------------------------------------------------------------------


def previewed(rows: Sequence[PreviewRow]) -> str:
    console = Console(file=io.StringIO(), width=60)
    show_preview(rows, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_preview_shows_rows_as_they_are() -> None:
    source = {"name": "web", "license": "MIT", "row": "a.jsonl#1"}
    row = SourceRow.model_validate({"source": source, "lines": (ODD, "word " * 100), "system": "[i]kind[/i]"})
    text = previewed(
        [PreviewRow("web", "en", row, "", None), PreviewRow("[b]", None, None, "\x1b[1m {[/b]", "no JSON")]
    )
    lines = text.splitlines()
    assert lines[:3] == ["web en a.jsonl#1: selected", "    system: [i]kind[/i]", f"    user: {ODD}"]
    assert lines[3].startswith("    assistant: word word") and lines[3].endswith("…") and len(lines[3]) < 320
    assert lines[4:] == ["[b]: broken: no JSON", "    \\x1b[1m {[/b]", "1 selected, 1 broken"]
    assert "no row to show" in previewed([])
