"""What a format is: it turns the samples of a unit into files, and at the end writes what joins them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from pipeline.config import Config
from pipeline.dialogue import Split
from pipeline.shards.format import Encoded
from pipeline.shards.store import RunFolder

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


class Format(Protocol):
    """One file a format. Same samples, same bytes: an export that was interrupted goes on unit by unit.

    Paths are relative to the export's folder, with forward slashes, and keep a folder below 10,000 files.
    """

    name: ClassVar[str]
    """As in `--to NAME`."""
    about: ClassVar[str]
    """One line: whose format it is and what it looks like."""

    def check(self, folder: RunFolder, config: Config) -> None:
        """Raises UsageError, one line that names the field and the way out, where the run lacks what the format
        needs."""

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        """(path, content) of each file of a unit; the samples are those that were accepted, in order. Raises
        DataError."""

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        """Files that join the parts, which lie in `out`: an index, a card, a description for the trainer."""
