"""Which units of a run are finished, and what they add up to, in one pass over their manifests.

What was added up is remembered in RUN/logs/totals.json, with the units that it is of and a checksum of their manifests:
while these are the same bytes, they are read and not parsed, and no index or list of rejects is read again. It is a
log: without it, or where a manifest is another one, all is added up anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from pipeline.config import Config
from pipeline.dialogue import Record
from pipeline.engine.base import Done
from pipeline.errors import StorageError
from pipeline.plan import unit_count, unit_splits
from pipeline.shards.manifest import MANIFEST_VERSION, Manifest, manifest_bytes, parse_manifest
from pipeline.shards.stats import Stats, stats_of
from pipeline.shards.store import RunFolder, publish
from pipeline.shards.sums import SECOND, VERSION, Sums

_VERSIONS = (VERSION, MANIFEST_VERSION)


class _Remembered(Record):
    """units: ranges, from the first number to before the second. mark: the sum of the XXH3 (128 bits, in hex) of their
    manifests, which hangs on no order. rows: of `Sums`."""

    versions: tuple[int, int] = _VERSIONS
    units: tuple[tuple[int, int], ...] = ()
    mark: str = "0"
    rows: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = ()


class Totals:
    """For who holds the driver's lock. finished: numbers of the units that were seen to have a manifest. Memory grows
    by the numbers of the units, and else with the number of voices and sources."""

    def __init__(self, folder: RunFolder, config: Config):
        self.finished: set[int] = set()
        self._folder = folder
        self._config = config
        before = _load(folder.totals)
        self._sums = Sums(before.rows)
        self._counted = {unit for ends in before.units for unit in range(*ends)}
        self._mark = int(before.mark, 16)
        self._marks: dict[bool, int] = {True: 0, False: 0}  # of manifests that were seen: counted units, and others

    def begin(self) -> Done:
        """See what is finished, before any work is done. Raises DataError for a manifest that is damaged, or of another
        version."""
        done = Done()
        for number, path, data in self._unseen():
            if number not in self._counted:
                done.add(parse_manifest(path, data))
        if not self._same():
            for manifest in self._load(self._counted):
                done.add(manifest)
            return done
        units, planned, accepted, *_ = self._sums.numbers("units", 6)
        seconds, *_ = self._sums.numbers("seconds", 3)
        return Done(
            done.units + units, done.planned + planned, done.accepted + accepted, done.seconds + seconds / SECOND
        )

    def stats(self) -> Stats:
        """The totals, with the units that were finished since. Raises DataError, StorageError."""
        for _ in self._unseen():
            pass
        same = self._same()
        sums, new = (self._sums, self.finished - self._counted) if same else (Sums(), self.finished)
        sums.add(self._folder, self._load(new))
        if new or not same:
            self._remember(sums)
        return stats_of(sums, self._config)

    def _unseen(self) -> Iterator[tuple[int, Path, bytes]]:
        """Units that were not seen to be finished, with their manifest."""
        if len(self.finished) == unit_count(self._config):
            return
        unseen = ((number, split) for number, split in unit_splits(self._config) if number not in self.finished)
        paths = ((number, self._folder.manifest(number, split)) for number, split in unseen)
        for (number, path), data in self._folder.each(lambda item: manifest_bytes(item[1]), paths):
            if data is None:
                continue
            self._marks[number in self._counted] += xxhash.xxh3_128_intdigest(data)
            self.finished.add(number)
            yield number, path, data

    def _load(self, wanted: set[int]) -> Iterator[Manifest]:
        units = (unit for unit in unit_splits(self._config) if unit[0] in wanted) if wanted else ()
        for _, manifest in self._folder.each(lambda unit: self._folder.load_manifest(*unit), units):
            if manifest is not None:
                yield manifest

    def _same(self) -> bool:
        """Whether what is remembered is of the manifests that are there."""
        return self._counted <= self.finished and _hex(self._marks[True]) == _hex(self._mark)

    def _remember(self, sums: Sums) -> None:
        found = _Remembered(
            units=tuple(_ranges(sorted(self.finished))),
            mark=_hex(sum(self._marks.values())),
            rows=tuple((key, tuple(numbers)) for key, numbers in sums.rows()),
        )
        body = found.model_dump_json().encode()
        publish(self._folder.totals, b"%s\n%s\n" % (_check(body), body), replace=True)
        self._sums, self._counted, self._mark = sums, set(self.finished), sum(self._marks.values())
        self._marks = {True: self._mark, False: 0}


def _load(path: Path) -> _Remembered:
    """Nothing, where the file is missing, damaged, or of another version."""
    try:
        check, body = path.read_bytes().split(b"\n")[:2]
        if check == _check(body):
            found = _Remembered.model_validate_json(body)
            if found.versions == _VERSIONS:
                return found
    except (OSError, ValueError, StorageError):
        pass
    return _Remembered()


def _check(body: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(body).encode()


def _hex(mark: int) -> str:
    return f"{mark % (1 << 128):x}"


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Of numbers in order: from the first to before the second."""
    start = end = -1
    for number in numbers:
        if number != end:
            if start >= 0:
                yield start, end
            start = number
        end = number + 1
    if start >= 0:
        yield start, end
