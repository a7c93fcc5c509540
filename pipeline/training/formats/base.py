"""What a format is: it turns the samples of a unit into files, and at the end writes what joins them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config import Config
from pipeline.dialogue import Record, Split
from pipeline.shards.format import Encoded
from pipeline.shards.store import RunFolder

HIDDEN = ".speechchat"
"""Folder of an export with what it is and how far it came; no trainer looks into it."""

Piece = bytes | Iterable[bytes]
"""Content of a file: whole, or in pieces where it may be larger than memory."""


@dataclass(frozen=True)
class Part:
    """A unit of the run as it lies in the export. files: relative to the export's folder, in the order they were
    written."""

    unit: int
    split: Split
    samples: int
    files: tuple[str, ...]


class NoOptions(Record):
    """Of a format that has none."""


class Format(ABC):
    """Base of the formats: one file each, and a line in `pipeline.training.formats.FORMATS`.

    Made anew for each export. Same samples, same bytes: an export that was interrupted goes on unit by unit. Paths are
    relative to the export's folder, with forward slashes, and keep a folder below 10,000 files; what is there to make
    others from, and for no trainer, lies below HIDDEN.
    """

    name: ClassVar[str]
    """As in `--to NAME`."""
    Options: ClassVar[type[Record]] = NoOptions
    """What `--set KEY=VALUE` may say. A field of type Path is a file of the user's: the export is of its content."""

    def __init__(self, options: Any):
        """options: an instance of `Options`."""
        self.options = options

    def check(self, folder: RunFolder, config: Config) -> None:
        """Raises UsageError, one line that names the field and the way out, where the run lacks what the format
        needs. Called before anything is written; what the format wants to know of the run it keeps here."""
        return

    @abstractmethod
    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        """(path, content) of each file of a unit; the samples are those that were accepted, at least one, in order.
        Raises DataError, and UsageError for what the user gave beside the run."""

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        """Files that join the parts, which lie in `out`: an index, a card, a description for the trainer. The parts are
        in the order of units, those without a sample too, and may be walked through again and again."""
        return iter(())

    def notes(self) -> tuple[str, ...]:
        """What the user is told at the end, a line each: what is missing for the trainer, and the way to it."""
        return ()
