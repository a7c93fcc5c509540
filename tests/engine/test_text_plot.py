"""The picture of the report holds every dialogue and stays readable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.engine.text_plot import draw
from pipeline.engine.text_report import text_report
from pipeline.errors import StorageError, UsageError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from tests.engine.text_runs import (
    STEPS,
    alive,
    all_steps,
    one_unit,
    publish_text,
    write_run,
)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that was saved."""
    saved: list[Figure] = []
    real = Figure.savefig

    def savefig(figure: Figure, *words: Any, **more: Any) -> None:
        saved.append(figure)
        real(figure, *words, **more)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def heights(axes: Any) -> list[int]:
    return [round(bar.get_height()) for bar in axes.patches if bar.get_height()]


def test_the_picture_holds_every_dialogue(tmp_path: Path, figures: list[Figure]) -> None:
    config = all_steps(96, 8)
    folder, known = write_run(tmp_path / "run", config, 3)
    report = text_report(folder, config)
    draw(report, tmp_path / "new" / "text.png")
    [figure] = figures
    steps, *rest = figure.axes
    assert heights(steps)[: len(STEPS) + 1] == [known.written, *(step.kept for step in report.steps)]
    assert len(rest) == 4
    for language, turns, lengths in zip(("en", "zh"), rest[::2], rest[1::2], strict=True):
        item = report.languages[language]  # type: ignore[index]
        assert heights(turns) == list(item.turns.values())
        assert sum(heights(lengths)) == sum(sum(sizes.values()) for sizes in item.lengths.values())
        limits = [np.asarray(line.get_xdata())[0] for line in lengths.lines]
        assert limits == [config.text.max_units[language]]  # type: ignore[index]


def test_many_numbers_of_turns_stay_readable(tmp_path: Path, figures: list[Figure]) -> None:
    config = Config(dialogues=60, unit_size=60, languages={"en": 1}, text={"max_units": {"en": 1000}})
    [unit] = plan_units(config)
    folder = RunFolder(tmp_path / "run")
    publish_text(folder, unit, [alive(plan, 2 * place + 2) for place, plan in enumerate(unit.dialogues)])
    draw(text_report(folder, config), tmp_path / "text.png")
    _, turns, lengths = figures[0].axes
    assert len(turns.patches) == 60 and 4 <= len(turns.get_xticks()) <= 12
    assert len(lengths.lines) == 0  # a limit far off would squeeze the bars
    assert "limit 1000" in lengths.get_xlabel()


def test_pictures_that_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = one_unit(tmp_path / "run", "One.")
    report = text_report(folder, config)
    with pytest.raises(UsageError, match=r"end the name in \.png"):
        draw(report, tmp_path / "text.gif")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError, match=r"folder\.png"):
        draw(report, tmp_path / "folder.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="--no-png"):
        draw(report, tmp_path / "text.png")
