"""The report on a run's text: its sums add up, it says what is missing, and it shows texts as they are."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.dialogue import TextLine
from pipeline.engine.text_plot import draw
from pipeline.engine.text_report import text_report
from pipeline.errors import DataError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder, publish
from tests.engine.text_runs import (
    STEPS,
    alive,
    all_steps,
    one_unit,
    publish_text,
    reject,
    shown,
    write_run,
)

# ---- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_sums_add_up(tmp_path: Path, seed: int) -> None:
    config = all_steps()
    folder, known = write_run(tmp_path, config, seed)
    report = text_report(folder, config)
    assert (report.planned, report.written, report.kept) == (24, known.written, known.kept)
    assert report.compared == known.compared and report.reused == report.lost == 0
    # Every dialogue is with one step, and none is lost between two of them.
    assert [step.step for step in report.steps] == list(STEPS)
    assert {step.step: step.dropped for step in report.steps} == {step: dict(known.dropped[step]) for step in STEPS}
    assert {step.step: step.refused for step in report.steps} == {step: dict(known.refused[step]) for step in STEPS}
    left = [report.written, *(step.kept for step in report.steps)]
    assert [step.entered for step in report.steps] == left[:-1] and left[-1] == report.kept
    assert all(step.entered - sum(step.dropped.values()) == step.kept for step in report.steps)
    # The languages make up the whole, and the turns are those of what is kept.
    languages = report.languages.values()
    assert sum(item.written for item in languages) == known.written
    assert [sum(item.turns.values()) for item in languages] == [item.kept for item in languages]
    assert sum(item.kept for item in languages) == known.kept
    turns = sum(sum(sizes.values()) for item in languages for sizes in item.lengths.values())
    assert turns == known.turns == sum(report.labels.authors.values())
    assert turns == sum(count * number for item in languages for count, number in item.turns.items())
    # Tokens and dollars: by step, by model, and the part that was not in vain.
    account = report.account
    assert {step: bill.prompt_tokens + bill.completion_tokens for step, bill in account.by_step.items()} == dict(
        known.tokens
    )
    for name in ("requests", "prompt_tokens", "completion_tokens", "cost"):
        total = getattr(account.total, name)
        assert sum(getattr(bill, name) for bill in account.by_step.values()) == pytest.approx(total)
        assert sum(getattr(bill, name) for bill in account.by_model.values()) == pytest.approx(total)
    assert account.total.cost == pytest.approx(known.cost)
    assert (account.unsettled, account.unsettled_cost) == (known.unsettled, 0.25 * known.unsettled)
    assert report.kept_bill.prompt_tokens + report.kept_bill.completion_tokens == known.kept_tokens
    assert report.kept_bill.cost == pytest.approx(known.kept_cost)


def test_labels_are_counted_on_what_is_kept(tmp_path: Path) -> None:
    config = all_steps(4, 4, languages={"en": 1, "zh": 1})
    [unit] = plan_units(config)
    lines = [alive(plan) for plan in unit.dialogues]
    folder = RunFolder(tmp_path)
    publish_text(folder, unit, lines, [reject(unit.dialogues[0], "dedup", "duplicate")])
    labels = text_report(folder, config).labels
    assert [plan.language for plan in unit.dialogues] == ["en", "zh", "en", "zh"]  # the first one is dropped
    assert labels.emotions == {"glad": 3} and labels.styles == {"casual": 3} and labels.authors == {"llm": 6}
    assert labels.disfluencies == {"filler": 1} and labels.disfluent_turns == 1 and labels.code_switched == 2
    assert labels.scores == {"safety": 4.0}
    text = shown(text_report(folder, config))
    for line in (r"emotions +3 glad", r"disfluencies +1 filler, in 1 of 6 turns", r"code-switched +2 dialogues"):
        assert re.search(line, text)


def test_a_stage_that_a_person_wrote_in_counts_too(tmp_path: Path) -> None:
    config = Config(dialogues=2, unit_size=2)
    [unit] = plan_units(config)
    lines = [
        TextLine(plan=plan, dialogue=None, reject=reject(plan, "judge", "dull"), failed=()) for plan in unit.dialogues
    ]
    folder = RunFolder(tmp_path)
    publish_text(folder, unit, lines)
    assert text_report(folder, config).steps[-1].dropped == {"dull": 2}


def test_the_yield_names_the_steps_that_are_on(tmp_path: Path) -> None:
    folder, config = one_unit(tmp_path, "One.", "")
    report = text_report(folder, config)
    assert [step.step for step in report.steps] == ["source", "converse", "filter"]
    assert report.compared is None and "dedup" not in shown(report)


# ---- excerpts --------------------------------------------------------------------------------------------------------


def test_excerpts_are_a_draw_that_does_not_change(tmp_path: Path) -> None:
    folder, config = one_unit(tmp_path, *[f"Line {'x' * (n + 1)}." if n % 2 else "" for n in range(60)])
    few, many, none = (text_report(folder, config, count) for count in (5, 10, 0))
    assert [len(report.survivors) for report in (few, many, none)] == [5, 10, 0]
    assert {item.id for item in few.survivors} < {item.id for item in many.survivors}
    assert few == text_report(folder, config, 5)
    assert all(int(item.id[-2:]) % 2 and item.step == "" and len(item.turns) == 2 for item in many.survivors)
    assert all((item.step, item.reason, item.detail) == ("filter", "url", "what was said") for item in many.rejects)
    # Not the first ones: ten of thirty that are in a row would be no draw.
    numbers = [int(item.id[-2:]) for item in many.survivors]
    assert numbers == sorted(numbers) and max(numbers) - min(numbers) > 20


def test_a_duplicate_is_shown_with_its_text(tmp_path: Path) -> None:
    config = all_steps(2, 2, languages={"en": 1})
    [unit] = plan_units(config)
    folder = RunFolder(tmp_path)
    verdict = reject(unit.dialogues[1], "dedup", "duplicate", "like en-000000-00, similarity 1.00")
    publish_text(folder, unit, [alive(plan, say="Same.") for plan in unit.dialogues], [verdict])
    [found] = text_report(folder, config).rejects
    assert found.turns == ("user: Same.", "assistant: Same.") and found.detail == verdict.detail


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_a_run_without_text_says_so(tmp_path: Path) -> None:
    report = text_report(RunFolder(tmp_path), all_steps())
    assert (report.written, report.kept, report.languages) == (0, 0, {})
    text = shown(report)
    assert "0 of 24 planned dialogues are written" in text and "`speechchat run`" in text
    assert "yield" not in text and "paid" not in text and "random" not in text


def test_a_run_that_keeps_nothing_says_so(tmp_path: Path) -> None:
    folder, config = one_unit(tmp_path / "run", "", "")
    report = text_report(folder, config)
    text = shown(report)
    assert "none of them is kept" in text and "2 url" in text and "turns that are kept" not in text
    draw(report, tmp_path / "text.png")
    assert (tmp_path / "text.png").read_bytes().startswith(b"\x89PNG")


def test_text_that_the_barrier_has_not_judged_is_told(tmp_path: Path) -> None:
    config = all_steps(8, 4)
    folder = RunFolder(tmp_path)
    first, second = plan_units(config)
    publish_text(
        folder, first, [alive(plan) for plan in first.dialogues], [reject(first.dialogues[0], "dedup", "duplicate")]
    )
    publish_text(folder, second, [alive(plan) for plan in second.dialogues])
    report = text_report(folder, config)
    assert (report.kept, report.compared) == (7, 4)
    assert "dedup has not compared them yet: 4" in shown(report)
    # A text that was edited since is another text.
    edited = [alive(plan, say="Edited.") for plan in first.dialogues]
    publish(folder.text(0), "".join(line.model_dump_json() + "\n" for line in edited).encode(), replace=True)
    assert text_report(folder, config).compared == 0


def test_units_in_quarantine_are_told(tmp_path: Path) -> None:
    config = all_steps(8, 4)
    folder = RunFolder(tmp_path)
    publish(folder.quarantine(1), b"{}\n")
    report = text_report(folder, config)
    assert report.lost == 4 and "in quarantine/ of the run folder: 4" in shown(report)


@pytest.mark.parametrize("broken", ["text", "verdicts", "journal"])
def test_damage_is_named(tmp_path: Path, broken: str) -> None:
    config = all_steps(2, 2)
    [unit] = plan_units(config)
    folder = RunFolder(tmp_path)
    publish_text(folder, unit, [alive(plan) for plan in unit.dialogues], [])
    path = {"text": folder.text(0), "verdicts": folder.verdicts(0), "journal": folder.replies(0)}[broken]
    publish(path, b"{nonsense}\n", replace=True)
    with pytest.raises(DataError, match=re.escape(str(path))):
        text_report(folder, config)


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    peaks = []
    for units in (2, 12):
        config = Config(dialogues=40 * units, unit_size=40, languages={"en": 1})
        folder = RunFolder(tmp_path / str(units))
        for unit in plan_units(config):
            publish_text(folder, unit, [alive(plan, say="word " * 100) for plan in unit.dialogues])
        text_report(folder, config)  # imports and caches
        tracemalloc.start()
        text_report(folder, config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
