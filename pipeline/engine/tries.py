"""What is known about dialogues that killed or hung their workers, in a journal that a new driver reads too.

A studio notes in `RunFolder.crash_journal` which dialogue it has in hand. Whoever finds it there after a death knows
the suspect; a dialogue that was in hand at `engine.tries` deaths is rejected alone, so that its neighbours come out.
"""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from pydantic import TypeAdapter

from pipeline.config import Config
from pipeline.dialogue import Record
from pipeline.plan import Unit
from pipeline.shards.disk import storage_errors
from pipeline.shards.parts import scratch_file
from pipeline.shards.store import RunFolder, publish


class Deaths(Record):
    """Of a dialogue, or rather of its workers. last: how, for people."""

    deaths: int
    last: str


_DEATHS = TypeAdapter(dict[str, Deaths])


class Tries:
    """Deaths by dialogue. Only the driver writes them."""

    def __init__(self, folder: RunFolder, config: Config):
        self._folder = folder
        self._tries = config.engine.tries

    def suspects(self, unit: int) -> list[str]:
        """The dialogues that the worker had in hand which last had the unit."""
        try:
            return self._folder.crash_journal(unit).read_text("utf-8").split()
        except FileNotFoundError:
            return []

    def blame(self, unit: int, ids: Iterable[str], what: str) -> None:
        """One more death of each of these. what: how, for people ("died", "hung for 60 s")."""
        known = self._read(unit)
        for id in ids:
            known[id] = Deaths(deaths=known[id].deaths + 1 if id in known else 1, last=what)
        publish(self._path(unit), _DEATHS.dump_json(known, indent=1) + b"\n", replace=True)

    def poisoned(self, unit: Unit) -> dict[str, str]:
        """The dialogues of the unit that are to be rejected unheard, with what is known."""
        return {
            id: f"its worker {record.last} each of {record.deaths} times that it was spoken"
            for id, record in self._read(unit.number).items()
            if record.deaths >= self._tries
        }

    def _path(self, unit: int) -> Path:
        return self._folder.crash_journal(unit).with_suffix(".json")

    def _read(self, unit: int) -> dict[str, Deaths]:
        try:
            return _DEATHS.validate_json(self._path(unit).read_bytes())
        except (FileNotFoundError, ValueError):  # a log, like the others: without it a count begins anew
            return {}


class DeathNote:
    """For a driver that speaks by itself: a segfault ends it, and tells nobody but this file.

    A kill from outside leaves it empty, so that nobody is blamed for that.
    """

    def __init__(self, folder: RunFolder):
        self._path = scratch_file(folder.logs / "fatal.log")
        self._folder = folder
        self._file: TextIO | None = None

    def settle(self, tries: Tries) -> list[str]:
        """Blame whom the last driver had in hand when it died by a fault; lines for people. Whom it had in hand when
        something else ended it is no suspect any more."""
        told = ""
        with contextlib.suppress(FileNotFoundError):
            told = self._path.read_text("utf-8", errors="replace").strip()
            self._path.unlink()
        fault = told.split("\n")[0].removeprefix("Fatal Python error: ")
        lines = []
        for journal in sorted((self._folder.logs / "studio").glob("*/unit-*.txt")):
            unit = int(journal.stem.removeprefix("unit-"))
            suspects = tries.suspects(unit)
            if suspects and fault:
                lines += [f"{id} was in hand when the last driver died ({fault})" for id in suspects]
                tries.blame(unit, suspects, f"died ({fault})")
            if suspects:
                journal.write_text("")
        return lines

    def open(self) -> None:
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8")
        faulthandler.enable(self._file)

    def close(self) -> None:
        if self._file is not None:
            faulthandler.disable()
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._file = None
