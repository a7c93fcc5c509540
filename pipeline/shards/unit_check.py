"""Is a unit of the run what was published, and are its planned dialogues accounted for?"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dialogue import Reject, Sample, TextLine
from pipeline.errors import DataError
from pipeline.plan import Unit
from pipeline.shards.disk import sha256_file
from pipeline.shards.index import INDEX_SCHEMA, index_row
from pipeline.shards.manifest import FileFact, Manifest
from pipeline.shards.reader import one_line, parse_rejects, parse_take
from pipeline.shards.sample_check import check_clip, walk_samples
from pipeline.shards.store import RunFolder
from pipeline.shards.tars import HashedFile, walk_members
from pipeline.shards.writer import recorded_takes, summarize

_T = TypeVar("_T")


@dataclass
class UnitReport:
    """What was found of a unit; picklable. problems: one line each, naming the file.

    finished: it has a manifest, be it a damaged one. damaged: it has, and something of the unit is not as it was
    published. published: each of its files is, byte by byte, the one that its manifest names. unreadable: those of the
    problems where the system refused a file (no permission, a share that is gone), so that nobody knows. files: those
    that the manifest names, relative to the run. inputs: damaged files that the unit was, or will be, made from: its
    rows, text and verdicts.
    """

    unit: int
    finished: bool = False
    damaged: bool = False
    published: bool = True
    unreadable: list[str] = field(default_factory=list)
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    files: tuple[str, ...] = ()
    inputs: list[str] = field(default_factory=list)

    def refused(self, path: Path, error: OSError) -> None:
        """The system would not give `path`, or the file that `error` names."""
        line = f"{error.filename or path}: not readable: {error.strerror}"
        self.problems.append(line)
        if error.errno == errno.EIO:  # the disk has lost it
            self.published = False
        else:
            self.unreadable.append(line)


class _NotPublished(DataError):
    """A file is not the one that the manifest names; what lies inside it says nothing more."""


def check_unit(folder: RunFolder, unit: Unit, decode: bool, digests: Mapping[str, str] | None) -> UnitReport:
    """Every file of the unit is read once. Without `decode` the lengths are those that the FLAC headers state; with it
    every clip is decoded. digests: of the run's stages; a unit of another configuration is a problem."""
    report = UnitReport(unit.number)
    path = folder.manifest(unit.number, unit.split)
    try:
        report.finished = folder.has(unit.number, unit.split)
        manifest = folder.load_manifest(unit.number, unit.split)
        if manifest is not None:
            report.files = tuple(fact.path for fact in manifest.files)
            if digests is not None and _manifest_digests(manifest) != dict(digests):
                report.problems.append(f"{path}: made with another configuration than {folder.config}")
            report.problems.extend(_Check(folder, unit, manifest, decode, report).run())
    except DataError as error:
        report.problems.append(str(error))
    except OSError as error:
        report.refused(path, error)
    report.damaged = bool(report.problems)
    return report


def check_file(path: Path, size: int, sha256: str) -> str:
    """What is wrong with a published file, "" if nothing is."""
    problem = _check_size(path, size)
    if not problem and sha256_file(path) != sha256:
        problem = _other_hash(path)
    return problem


def _check_size(path: Path, size: int) -> str:
    if not path.is_file():
        return f"{path}: missing, though its manifest names it"
    found = path.stat().st_size
    if found != size:
        return f"{path}: {found} bytes where {size} were published: {'cut short' if found < size else 'grown'}"
    return ""


def _other_hash(path: Path) -> str:
    return f"{path}: its SHA-256 is not the published one: damaged or changed"


class _Check:
    """One unit that has a manifest."""

    def __init__(self, folder: RunFolder, unit: Unit, manifest: Manifest, decode: bool, report: UnitReport):
        self._folder = folder
        self._unit = unit
        self._manifest = manifest
        self._decode = decode
        self._report = report
        self._path = folder.manifest(unit.number, unit.split)

    def run(self) -> Iterator[str]:
        folder, unit, manifest, report = self._folder, self._unit, self._manifest, self._report
        if not self._names_its_files():
            yield f"{self._path}: does not name exactly the files of its unit"
            return
        found: dict[Path, Any] = {}
        inside: list[str] = []
        for path, parse in self._parsers().items():
            fact = manifest.file(folder.relative(path))
            if fact is None:
                continue
            report.bytes += fact.bytes
            try:
                found[path] = _read_published(path, fact, parse)
            except _NotPublished as error:
                report.published = False
                if path == folder.text(unit.number):
                    report.inputs.append(str(path))
                yield str(error)
            except DataError as error:
                inside.append(str(error))
        if not report.published:
            return
        yield from inside
        if not inside:
            yield from self._compare(found)

    def _names_its_files(self) -> bool:
        folder, number, split, manifest = self._folder, self._unit.number, self._unit.split, self._manifest
        files = {folder.text(number)}
        if manifest.accepted:
            files |= {folder.shard(number, split), folder.index(number, split)}
        if manifest.rejected:
            files |= {folder.rejects(number)}
        kept = {folder.reject_clips(number), folder.reject_takes(number)} if manifest.rejected else set()
        named = [fact.path for fact in manifest.files]
        must, may = (set(map(folder.relative, paths)) for paths in (files, kept))
        return len(set(named)) == len(named) and must <= set(named) <= must | may

    def _parsers(self) -> dict[Path, Callable[[HashedFile], Any]]:
        """How each file that a unit may have is read, from its start to its end."""
        folder, number, split = self._folder, self._unit.number, self._unit.split
        return {
            folder.text(number): _read_text,
            folder.shard(number, split): self._read_shard,
            folder.index(number, split): _read_index,
            folder.rejects(number): lambda file: parse_rejects(file.path, file.read(file.size)),
            folder.reject_clips(number): lambda file: [item.sample.key for item, _ in walk_samples(file, self._decode)],
            folder.reject_takes(number): self._read_takes,
        }

    def _read_shard(self, file: HashedFile) -> tuple[list[Sample], list[dict[str, Any]]]:
        """The samples, and the rows that their index must have."""
        samples, rows = [], []
        for encoded, members in walk_samples(file, self._decode):
            samples.append(encoded.sample)
            rows.append(index_row(encoded, members))
        return samples, rows

    def _read_takes(self, file: HashedFile) -> list[tuple[str, int, int]]:
        """(id, turn, take) of each clip. Raises DataError for one that is none."""
        places = []
        for member, data in walk_members(file):
            key, clip = parse_take(file.path, member, data)
            check_clip(f"{file.path}: {member.name}", data, self._decode)
            places.append((key, clip.turn, clip.take))
        if not places:
            raise DataError(f"{file.path}: holds no clip")
        return places

    def _compare(self, found: Mapping[Path, Any]) -> Iterator[str]:
        """What each file says against what the others say, and the plan."""
        folder, unit, manifest = self._folder, self._unit, self._manifest
        samples, rows = found.get(folder.shard(unit.number, unit.split), ([], []))
        if samples:
            index = folder.index(unit.number, unit.split)
            if not found[index].equals(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)):
                yield f"{index}: does not say what the shard holds"
        rejects: list[Reject] = found.get(folder.rejects(unit.number), [])
        if found.get(folder.reject_clips(unit.number), []) != [reject.id for reject in rejects if reject.clips]:
            yield f"{folder.rejects(unit.number)}: does not say which clips were kept"
        takes = found.get(folder.reject_takes(unit.number), [])
        expected = ((reject.id, *place) for reject in rejects for place in sorted(recorded_takes(reject)))
        for key, turn, take in takes:
            if (key, turn, take) not in expected:  # takes from it up to there: what was passed comes no more
                yield (
                    f"{folder.reject_takes(unit.number)}: {key}.{turn:02d}-{take:02d}.flac is no take of "
                    f"{folder.rejects(unit.number)}, or not at its place"
                )
        yield from self._accounts([sample.key for sample in samples], [reject.id for reject in rejects])
        if found[folder.text(unit.number)] != list(unit.dialogues):
            yield f"{folder.text(unit.number)}: does not hold exactly the planned dialogues"
        digests = _manifest_digests(manifest)
        if any(_digests(sample) != digests for sample in samples):
            yield f"{self._path}: its digests are not those of its samples"
        if summarize(unit, samples, rejects, len(takes), digests, manifest.files) != manifest:
            yield f"{self._path}: its counts are not those of the shard and the rejects"
        self._report.samples = len(samples)
        self._report.seconds = sum(sample.duration for sample in samples)

    def _accounts(self, accepted: Sequence[str], rejected: Sequence[str]) -> Iterator[str]:
        """planned = accepted + rejected, by id."""
        planned = [item.id for item in self._unit.dialogues]
        if sorted([*accepted, *rejected]) != sorted(planned):
            yield f"{self._path}: planned dialogues are not exactly the accepted and the rejected ones"
        order = {key: place for place, key in enumerate(planned)}
        if [order.get(key, -1) for key in accepted] != sorted(order.get(key, -1) for key in accepted):
            yield f"{self._path}: samples are not in the order of the plan"


def _read_published(path: Path, fact: FileFact, parse: Callable[[HashedFile], _T]) -> _T:
    """What `parse` makes of a file, which is hashed as it reads. Raises _NotPublished, whatever `parse` says of it, if
    the file is not the one of the manifest, and else the DataError of `parse`."""
    if problem := _check_size(path, fact.bytes):
        raise _NotPublished(problem)
    problem_inside = None
    with HashedFile(path) as file:
        try:
            found = parse(file)
        except DataError as error:
            problem_inside = error
        if file.sha256() != fact.sha256:
            raise _NotPublished(_other_hash(path))
    if problem_inside is not None:
        raise problem_inside
    return found


def _read_text(file: HashedFile) -> list[Any]:
    """The planned dialogues that a text is of. An editor may have left a byte order mark and blank lines in it."""
    lines = file.read(file.size).removeprefix(b"\xef\xbb\xbf").splitlines()
    try:
        return [TextLine.model_validate_json(line).plan for line in lines if line.strip()]
    except ValueError as error:
        raise DataError(f"{file.path}: not readable: {one_line(error)}") from None


def _read_index(file: HashedFile) -> pa.Table:
    try:
        return pq.ParquetFile(pa.BufferReader(file.read(file.size))).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file.path}: not a readable index: {one_line(error)}") from None


def _manifest_digests(manifest: Manifest) -> dict[str, str]:
    return {"text": manifest.text_digest, "speech": manifest.speech_digest, "judge": manifest.judge_digest}


def _digests(sample: Sample) -> dict[str, str]:
    made = sample.provenance
    return {"text": made.text_digest, "speech": made.speech_digest, "judge": made.judge_digest}
