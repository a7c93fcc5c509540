"""export: a run, or a view of one, in the format of a trainer. Unit by unit, so that an interrupted one goes on.

    OUT/.speechchat/export.json               what this is an export of: written first, never changed
    OUT/.speechchat/done/000/unit-000000.json a unit is there: its files and their sizes, and the shard it was made from
    OUT/.speechchat/finished.json             the joint files are there, and over which units; written last
    OUT/…                                     as the format has it

Each file is written under a temporary name, synced and renamed; what it is made of never depends on when and how often
the export was interrupted.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.dialogue import Record, Split
from pipeline.errors import UsageError
from pipeline.plan import unit_splits
from pipeline.shards.disk import sha256_file, storage_errors
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import one_line
from pipeline.shards.remote import is_remote, place
from pipeline.training.export_folder import (
    VERSION,
    Finished,
    UnitDone,
    What,
    Written,
    claimed,
    publish,
    read_record,
    to_json,
    write,
)
from pipeline.training.export_units import Units, all_there
from pipeline.training.formats import find_format
from pipeline.training.formats.base import HIDDEN, Format, Part
from pipeline.training.source import SourceRun, open_run


@dataclass(frozen=True)
class Summary:
    """What an export holds; missing: units of the plan that the run has not finished, added: units of this call.

    files and bytes: those for the trainer. notes: what its user has to know, a line each.
    """

    units: int
    missing: int
    added: int
    samples: int
    files: int
    bytes: int
    notes: tuple[str, ...] = ()


Progress = Callable[[Summary], None]
"""Called when the number of units is known, and after each: `units` are to be there, `added` of this call are."""
Each = Callable[[Units, Iterable[Manifest]], Iterable[tuple[UnitDone, bool]]]


def export(
    run: Path | str,
    format: str,
    out: Path | str,
    splits: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    each: Each = map,
) -> Summary:
    """Write the finished units of `run` to the folder `out`, or finish or extend the export that is there.

    splits: all that the run has for None. options: of the format. each: `map`, or what does the same over processes;
    the bytes do not depend on it. Raises RunFolderError, UsageError (an unknown format, split or option; a folder that
    holds something else), DataError for a damaged shard, StorageError.
    """
    kind = find_format(format)
    source = open_run(run)
    chosen = _options(kind, options or {})
    maker = kind(chosen)
    target = place(out)
    if is_remote(target):
        raise UsageError(f"{out}: an export is written to a folder of this machine; copy it to a store from there")
    if not is_remote(source.folder.root) and target.resolve().is_relative_to(source.folder.root):
        raise UsageError(f"{out}: lies in the run itself, whose files are all its own; name another folder")
    what = What(
        version=VERSION,
        format=format,
        run=source.identity,
        splits=_splits(source, splits),
        options=_identity(chosen),
    )
    maker.check(source.folder, source.config)
    work = _Export(source, maker, target, what.splits, progress, each)
    summary = work.begin()
    with storage_errors(target), claimed(target, what, run):
        return work.make(summary)


class _Export:
    def __init__(
        self,
        source: SourceRun,
        maker: Format,
        out: Path,
        splits: tuple[Split, ...],
        progress: Progress | None,
        each: Each,
    ):
        self._source, self._maker, self._out, self._splits = source, maker, out, splits
        self._units = Units(source, maker, out)
        self._each = each
        self._tell = progress or (lambda summary: None)

    def begin(self) -> Summary:
        """Of what is to be there. Raises UsageError where that is nothing."""
        units = sum(1 for _ in self._manifests())
        planned = sum(split in self._splits for _, split in unit_splits(self._source.config))
        if not units:
            raise UsageError(
                f"{self._source.folder.root}: no unit of split {', '.join(self._splits)} is finished; finish the run, "
                "or choose other splits"
            )
        return Summary(units, planned - units, 0, 0, 0, 0)

    def make(self, summary: Summary) -> Summary:
        self._tell(summary)
        seen = hashlib.sha256()
        for done, made in self._each(self._units, self._manifests()):
            seen.update(to_json(done))
            summary = _count(replace(summary, added=summary.added + made), done.files, done.samples)
            self._tell(summary)
        joint = self._finish(seen.hexdigest())
        return replace(_count(summary, joint, 0), notes=self._maker.notes())

    def _manifests(self) -> Iterator[Manifest]:
        for manifest in self._source.folder.manifests(self._source.config):
            if manifest.split in self._splits:
                yield manifest

    def _finish(self, units: str) -> tuple[Written, ...]:
        place = self._out / HIDDEN / "finished.json"
        found = read_record(place, Finished)
        if found and all_there(self._out, found.files) and found.units == units:
            return found.files
        place.unlink(missing_ok=True)  # from here on they may have another size
        parts = _Parts(self)
        files = tuple(write(self._out, *item) for item in self._maker.finish(self._out, parts))
        publish(place, to_json(Finished(units=units, files=files)))
        return files

    def parts(self) -> Iterator[Part]:
        for manifest in self._manifests():
            done = self._units.record(manifest.unit)
            if done is not None:  # the run may be growing
                yield Part(done.unit, done.split, done.samples, tuple(item.path for item in done.files))


class _Parts(Iterable[Part]):
    """Read from the disk each time."""

    def __init__(self, export: _Export):
        self._export = export

    def __iter__(self) -> Iterator[Part]:
        return self._export.parts()


def _splits(source: SourceRun, names: Sequence[str] | None) -> tuple[Split, ...]:
    """In the order train, validation, test. Raises UsageError."""
    has = {split for split, weight in source.config.splits.items() if weight > 0}
    for name in names or ():
        if name not in has:
            near = difflib.get_close_matches(name, has, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"--split {name!r}: {meant}this run has: {', '.join(sorted(has))}")
    return tuple(split for split in get_args(Split) if split in (set(names) if names else has))


def _options(kind: type[Format], options: Mapping[str, Any]) -> Record:
    """Raises UsageError naming the option, and those that there are."""
    known = kind.Options.model_fields
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            meant = f"did you mean {near[0]!r}? " if near else ""
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise UsageError(f"--set {name}: no option of the format {kind.name}; {meant}{has}")
    try:
        return kind.Options.model_validate(dict(options))
    except ValidationError as error:
        raise UsageError(f"--set {one_line(error)}") from None


def _identity(options: Record) -> dict[str, Any]:
    """What the options say, whatever their files are called. Raises UsageError for a file that is not there."""
    values = {}
    for name, value in options:
        if isinstance(value, Path):
            if not value.is_file():
                raise UsageError(f"--set {name}={value}: there is no such file")
            value = sha256_file(value)
        values[name] = value
    return json.loads(json.dumps(values))


def _count(summary: Summary, files: Iterable[Written], samples: int) -> Summary:
    shown = [item.bytes for item in files if not item.path.startswith(f"{HIDDEN}/")]
    return replace(
        summary,
        samples=summary.samples + samples,
        files=summary.files + len(shown),
        bytes=summary.bytes + sum(shown),
    )
