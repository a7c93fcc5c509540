"""The dialogues of a run that inspect_samples.py shows, read from disk as they are taken."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from pipeline.dialogue import Language, Reject, Sample, Split, TextLine
from pipeline.errors import DataError, UsageError
from pipeline.shards.format import Encoded, TakeClip
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_rejects, read_takes, read_unit
from pipeline.shards.store import RunFolder

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
KEY = re.compile(r"[a-z]+-(\d{6,})-\d{2,}")
KEYS_COMPARED = 1000  # of the run's first keys, to name those nearest to an unknown one


@dataclass(frozen=True)
class Entry:
    """A planned dialogue and what became of it. encoded: its clips, if it was accepted or they were kept. takes: clips
    of its other takes, if they were."""

    line: TextLine
    encoded: Encoded | None
    reject: Reject | None
    takes: tuple[TakeClip, ...] = ()

    @property
    def sample(self) -> Sample | None:
        return self.encoded.sample if self.encoded else None

    @property
    def verdict(self) -> str:
        return f"rejected ({self.reject.stage}: {self.reject.reason})" if self.reject else "accepted"


def text_lines(folder: RunFolder, unit: int) -> list[TextLine]:
    """The plan of a unit and what was written for it. Raises DataError."""
    path = folder.text(unit)
    try:
        return [TextLine.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable: {str(error).splitlines()[0]}; see `speechchat verify`") from None


def unit_entries(folder: RunFolder, manifest: Manifest, only_rejected: bool = False) -> Iterator[Entry]:
    """The dialogues of a unit in the order of its plan. Raises DataError."""
    rejects = {reject.id: (reject, encoded) for reject, encoded in read_rejects(folder, manifest)}
    takes = read_takes(folder, manifest)
    accepted = iter(()) if only_rejected else read_unit(folder, manifest)
    for line in text_lines(folder, manifest.unit):
        if line.plan.id in rejects:
            reject, encoded = rejects[line.plan.id]
            yield Entry(line, encoded, reject, takes.get(line.plan.id, ()))
        elif not only_rejected:
            found = next(accepted, None)
            if found is None or found.sample.key != line.plan.id:
                shard = folder.shard(manifest.unit, manifest.split)
                raise DataError(f"{shard}: {line.plan.id} is not at its place; see `speechchat verify`")
            yield Entry(line, found, None)


def matching(folder: RunFolder, split: Split | None, language: Language | None, only_rejected: bool) -> Iterator[Entry]:
    """The finished dialogues that were asked for, read from disk as they are taken."""
    for manifest in folder.manifests():
        if split in (None, manifest.split) and (manifest.rejected or not only_rejected):
            for entry in unit_entries(folder, manifest, only_rejected):
                if language in (None, entry.line.plan.language):
                    yield entry


def find(folder: RunFolder, key: str) -> Entry:
    """The dialogue called `key`. Raises UsageError that names the nearest keys."""
    match = KEY.fullmatch(key)
    found = [folder.load_manifest(int(match[1]), split) for split in SPLITS] if match else []
    units = [manifest for manifest in found if manifest]
    for manifest in units:
        for entry in unit_entries(folder, manifest):
            if entry.line.plan.id == key:
                return entry
    manifests: Iterable[Manifest] = units or folder.manifests()
    known = (line.plan.id for manifest in manifests for line in text_lines(folder, manifest.unit))
    near = difflib.get_close_matches(key, list(islice(known, KEYS_COMPARED)), n=3, cutoff=0)
    hint = f"the nearest are {', '.join(near)}" if near else "no unit is finished yet"
    raise UsageError(f"{folder.root}: no finished dialogue has the key {key!r}; {hint}")
