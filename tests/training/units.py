"""What the tests of formats compare an export with, and samples that no run has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import audio
from pipeline.dialogue import Split
from pipeline.shards.format import Encoded
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder
from pipeline.training.formats.base import Piece


def samples(run: RunFolder, split: Split) -> list[Encoded]:
    return [encoded for manifest in run.manifests() if manifest.split == split for encoded in read_unit(run, manifest)]


def tracks(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """int16 of the user and of the assistant."""
    return audio.decode(encoded.user)[0], audio.decode(encoded.assistant)[0]


def changed(encoded: Encoded, **fields: Any) -> Encoded:
    """The same sound with other metadata."""
    return replace(encoded, sample=encoded.sample.model_copy(update=fields))


def write(out: Path, files: Iterable[tuple[str, Piece]]) -> tuple[str, ...]:
    """As the driver does, one after the other; returns their paths."""
    paths = []
    for path, content in files:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content if isinstance(content, bytes) else b"".join(content))
        paths.append(path)
    return tuple(paths)


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of what is there for the trainer."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("."):
            yield name, path.read_bytes()
