"""verify: is what lies in the run folder what was published, and is every planned dialogue accounted for?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

from pipeline.config import Config
from pipeline.dialogue import Split
from pipeline.plan import Unit, plan_units
from pipeline.shards.card import card
from pipeline.shards.reader import one_line
from pipeline.shards.remote import StorePath
from pipeline.shards.stats import Stats, run_stats
from pipeline.shards.store import RunFolder
from pipeline.shards.unit_check import UnitReport, check_unit

__all__ = ["Verification", "verify"]

TOPS = ("shards", "rejects", "dialogues")
"""Folders of the run in which every file belongs to a unit."""

Checker = Callable[[Unit], UnitReport]
Mapper = Callable[[Checker, Iterable[Unit]], Iterator[UnitReport]]
"""As the built-in `map`: the reports come in the order of the units."""


@dataclass
class Verification:
    """What was checked and what is wrong. problems: one line each, naming the file. missing: units not made yet.

    damaged: finished units of which something is not as it was published; whole: the number of the others; altered:
    how many of the damaged ones have a file that is not the one of their manifest. unreadable: those of the problems
    where the system refused a file. Damaged files beside: inputs (what units are made from) and totals. strangers:
    files that no unit knows; leftovers: of units that are not finished.
    """

    units: int = 0
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    whole: int = 0
    altered: int = 0
    unreadable: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    totals: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.missing

    def add(self, report: UnitReport) -> None:
        self.problems += report.problems
        self.inputs += report.inputs
        self.bytes += report.bytes
        self.samples += report.samples
        self.seconds += report.seconds
        self.altered += not report.published
        self.unreadable += report.unreadable
        if not report.finished:
            self.missing.append(report.unit)
        elif report.damaged:
            self.damaged.append(report.unit)
        else:
            self.whole += 1
        self.units += report.finished


def verify(
    folder: RunFolder,
    config: Config,
    decode: bool = False,
    digests: Mapping[str, str] | None = None,
    *,
    check: Checker | None = None,
    each: Mapper = map,
) -> Iterator[Verification]:
    """Check unit after unit, yielding the state so far after each.

    Without `decode` the lengths are those that the FLAC headers state; with it every clip is decoded.
    digests: of the run's stages, as its config.yaml has them; no unit of another configuration may lie here.
    check: what is done with each unit, instead of `check_unit`; each: does it to all of them.
    """
    state = Verification()
    if check is None:
        check = partial(check_unit, folder, decode=decode, digests=digests)
    around = _Around(folder, state)
    waiting: list[Unit] = []  # those that were handed out, so that the plan is made once

    def planned() -> Iterator[Unit]:
        for unit in plan_units(config):
            waiting.append(unit)
            yield unit

    for report in each(check, planned()):
        state.add(report)
        around.add(waiting.pop(0), report)
        yield state
    around.finish()
    if state.ok:
        _check_totals(folder, config, state)
    yield state


def _check_totals(folder: RunFolder, config: Config, state: Verification) -> None:
    """stats.json is what the manifests add up to, and the card says so too."""
    stats = run_stats(folder, config)
    why = ""
    try:
        if Stats.model_validate_json(folder.stats.read_bytes()) != stats:
            why = "is not what the units add up to"
    except (OSError, ValueError) as error:
        why = f"not readable: {one_line(error)}"
    found = [(folder.stats, why)] if why else []
    if not folder.card.is_file():
        found.append((folder.card, "missing"))
    elif folder.card.read_bytes() != card(stats, config, folder).encode():
        found.append((folder.card, "is not the card of this run"))
    for path, why in found:
        state.totals.append(str(path))
        state.problems.append(f"{path}: {why}; give the run's command again to write it anew")


def _walk(top: Path, seen: set[Path]) -> Iterator[list[Path]]:
    """The files below `top`, folder by folder, without what lies in those of `seen`."""
    if isinstance(top, StorePath):
        yield from ([path] for path, _ in top.walk_files() if seen.isdisjoint(path.parents))
        return
    for place, folders, files in os.walk(top):
        root = Path(place)
        folders[:] = sorted(name for name in folders if root / name not in seen)
        yield sorted(root / name for name in files)


class _Around:
    """Finds files that are nobody's. Units come by in their order and lie in folders of a thousand, so that a folder is
    looked through when its last unit has come by, and memory does not grow with the run."""

    def __init__(self, folder: RunFolder, state: Verification):
        self._folder = folder
        self._state = state
        self._known: set[Path] = set()
        self._unfinished: set[Path] = set()
        self._open = ""  # name of the folder that units now come from
        self._seen: set[Path] = set()

    def add(self, unit: Unit, report: UnitReport) -> None:
        folder = self._folder
        text = folder.text(unit.number)
        if text.parent.name != self._open:
            self._close()
            self._open = text.parent.name
        self._known |= {text, folder.manifest(unit.number, unit.split)}
        self._known |= {folder.root / name for name in report.files}
        if not report.finished:
            self._unfinished |= set(folder.unit_files(unit.number, unit.split))
        elif report.problems:  # what its manifest names may not be what is its own
            self._known |= set(folder.unit_files(unit.number, unit.split))

    def finish(self) -> None:
        self._close()
        for top in TOPS:
            self._look(self._folder.root / top)

    def _close(self) -> None:
        if self._open:
            splits = [f"shards/{split}" for split in get_args(Split)]
            for top in (*splits, *TOPS[1:]):
                place = self._folder.root / top / self._open
                self._look(place)
                self._seen.add(place)
        self._known.clear()
        self._unfinished.clear()

    def _look(self, top: Path) -> None:
        """Through a folder and all below it that was not looked through yet."""
        for paths in _walk(top, self._seen):
            for path in paths:
                if path in self._unfinished:
                    self._state.leftovers.append(str(path))
                    self._state.problems.append(
                        f"{path}: no manifest names this file, its unit is not finished; resume the run"
                    )
                elif path not in self._known:
                    self._state.strangers.append(str(path))
                    self._state.problems.append(f"{path}: no manifest names this file; resume the run, or remove it")
