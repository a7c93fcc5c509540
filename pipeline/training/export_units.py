"""The units of an export: each is made by itself, in whichever process, from its shard alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.dialogue import Record
from pipeline.errors import UsageError
from pipeline.shards.manifest import Manifest
from pipeline.training.export_folder import UnitDone, Written, publish, read_record, there, to_json, write
from pipeline.training.formats import find_format
from pipeline.training.formats.base import HIDDEN, Format
from pipeline.training.source import SourceRun, open_run, read_samples


class Units:
    """Called with a manifest: makes what is missing of the unit, and returns its record and whether it was made."""

    def __init__(self, source: SourceRun, maker: Format, out: Path):
        self._source, self._maker, self._out = source, maker, out

    def __call__(self, manifest: Manifest) -> tuple[UnitDone, bool]:
        """Raises UsageError for what somebody changed in the folder, DataError, StorageError."""
        done = self._done(manifest)
        return (self._write(manifest), True) if done is None else (done, False)

    def record(self, unit: int) -> UnitDone | None:
        done: UnitDone | None = read_record(self._place(unit), UnitDone)
        return done

    def _place(self, unit: int) -> Path:
        return self._out / HIDDEN / "done" / f"{unit // 1000:03d}" / f"unit-{unit:06d}.json"

    def _done(self, manifest: Manifest) -> UnitDone | None:
        """What is there of a unit, None where it is to be made."""
        done = self.record(manifest.unit)
        if done is None:
            return None
        if done.shard != self._shard_sum(manifest):
            raise UsageError(
                f"{self._out}: unit {manifest.unit} was made from another shard than the run has now; remove the "
                "folder or name another"
            )
        return done if all_there(self._out, done.files) else None

    def _write(self, manifest: Manifest) -> UnitDone:
        files: list[Written] = []
        if manifest.accepted:
            samples = read_samples(self._source.folder, manifest)
            found = self._maker.unit(manifest.unit, manifest.split, samples)
            files = [write(self._out, path, content) for path, content in found]
        done = UnitDone(
            unit=manifest.unit,
            split=manifest.split,
            samples=manifest.accepted,
            shard=self._shard_sum(manifest),
            files=tuple(files),
        )
        publish(self._place(manifest.unit), to_json(done))
        return done

    def _shard_sum(self, manifest: Manifest) -> str:
        shard = self._source.folder.shard(manifest.unit, manifest.split)
        fact = manifest.file(self._source.folder.relative(shard)) if manifest.accepted else None
        return fact.sha256 if fact else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (str(self._source.folder.root), self._maker.name, self._maker.options, str(self._out))


@lru_cache(maxsize=1)
def _opened(run: str, format: str, options: Record, out: str) -> Units:
    """In another process, once for all units that it makes."""
    source, maker = open_run(run), find_format(format)(options)
    maker.check(source.folder, source.config)
    return Units(source, maker, Path(out))


def all_there(out: Path, files: Sequence[Written]) -> bool:
    """Each is looked at: those that are not missing may be somebody's own by now (`there`)."""
    found = [there(out, item) for item in files]
    return all(found)
