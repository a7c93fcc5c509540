"""The picture of a text report: yield by step, number of turns, length of turns."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.text_report import LanguageYield, TextReport
from pipeline.errors import UsageError
from pipeline.shards.disk import storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = {"en": "words", "zh": "characters"}
_COLORS = {"user": "#2c66b0", "assistant": "#d9822b"}
_KEPT, _DROPPED, _LIMIT = "#26734d", "#e3b5ac", "#a32020"
_BARS = 24  # of a histogram, about


def draw(report: TextReport, path: Path) -> None:
    """A PNG: yield by step above; below, a row a language, the number of turns and the length of turns by role.

    Raises UsageError where matplotlib is not installed or `path` can be no PNG, StorageError.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--png {path}: end the name in .png")
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"--png {path}: {path.parent} is a file; name a folder")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("matplotlib draws the pictures: pip install 'speechchat[inspect]', or give --no-png") from None
    languages = {name: item for name, item in report.languages.items() if item.kept}
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 2.6 + 2.4 * len(languages)), dpi=110, facecolor="white", layout="constrained")
        grid = figure.add_gridspec(1 + len(languages), 2)
        _draw_yield(figure.add_subplot(grid[0, :]), report)
        for row, (language, item) in enumerate(languages.items(), 1):
            _draw_turns(figure.add_subplot(grid[row, 0]), item, language)
            _draw_lengths(figure.add_subplot(grid[row, 1]), item, language)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = io.BytesIO()
            figure.savefig(picture, format="png")
            path.write_bytes(picture.getvalue())


def _draw_yield(axes: Axes, report: TextReport) -> None:
    names = ["written", *(step.step for step in report.steps)]
    kept = [report.written, *(step.kept for step in report.steps)]
    dropped = [0, *(step.entered - step.kept for step in report.steps)]
    bars = axes.bar(names, kept, color=["#8a8f98", *[_KEPT] * len(report.steps)])
    axes.bar(names, dropped, bottom=kept, color=_DROPPED)
    axes.bar_label(bars, labels=[f"{count:,}" for count in kept], fontsize=8)
    axes.set_ylim(0, 1.15 * max(1, *kept))  # room for the numbers on top
    axes.set(title="dialogues left after each step, and those that it dropped", ylabel="dialogues")
    _whole_numbers(axes, "y")


def _draw_turns(axes: Axes, item: LanguageYield, language: str) -> None:
    bars = axes.bar(list(item.turns), list(item.turns.values()), color=_KEPT)
    if len(item.turns) <= 8:
        axes.set_xticks(list(item.turns))
        axes.bar_label(bars, labels=[f"{count:,}" for count in item.turns.values()], fontsize=8)
    else:
        _whole_numbers(axes, "x")
    axes.margins(y=0.15)
    axes.set_xlim(min(item.turns) - 1.5, max(item.turns) + 1.5)  # a lone bar is no wall
    axes.set(title=f"{language}: turns of a dialogue", ylabel="dialogues")
    _whole_numbers(axes, "y")


def _draw_lengths(axes: Axes, item: LanguageYield, language: str) -> None:
    longest = max(max(sizes) for sizes in item.lengths.values())
    width = -(-(longest + 1) // _BARS)  # whole, or some bars would hold more lengths than others
    edges = [width * place - 0.5 for place in range(longest // width + 2)]
    axes.hist(
        [list(sizes) for sizes in item.lengths.values()],
        bins=edges,
        weights=[list(sizes.values()) for sizes in item.lengths.values()],
        label=list(item.lengths),
        color=[_COLORS[role] for role in item.lengths],
    )
    xlabel = _UNITS[language]
    if item.limit <= 3 * longest:
        axes.axvline(item.limit, color=_LIMIT, linestyle="--", linewidth=1, label=f"limit {item.limit}")
    else:  # the line would squeeze the bars into a corner
        xlabel += f" (limit {item.limit})"
    axes.legend(frameon=False)
    axes.set(title=f"{language}: length of turns", xlabel=xlabel, ylabel="turns")
    _whole_numbers(axes, "y")


def _whole_numbers(axes: Axes, axis: str) -> None:
    from matplotlib.ticker import MaxNLocator

    getattr(axes, f"{axis}axis").set_major_locator(MaxNLocator(nbins=8, integer=True))
