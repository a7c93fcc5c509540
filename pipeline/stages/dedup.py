"""dedup: the one barrier between text and speech. All the text of a run → what of it is not spoken, and why.

For each unit that has text a file of verdicts is published (stages/verdicts.py): a line that says what was judged, then
a Reject for each dialogue that is dropped. The texts are read once, unit by unit; what must be known of them until all
are read lies in a scratch folder (text/dedup.py says how much), so that no dialogue stays in memory.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from pipeline.config import Config, digest
from pipeline.dialogue import Reject
from pipeline.errors import ConfigError
from pipeline.plan import Unit
from pipeline.shards.disk import sha256_file, storage_errors
from pipeline.shards.parts import scratch_file
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.candidates import (
    CONTAMINATED,
    ID_BYTES,
    Candidate,
    earlier_texts,
    read_text,
    run_name,
    settled_states,
    text_files,
    unit_number,
)
from pipeline.stages.verdicts import Chain, VerdictHead, read_verdicts
from pipeline.text.decontaminate import Benchmarks, Overlap
from pipeline.text.dedup import OPEN, OUT, Duplicates, Likeness
from pipeline.text.ngrams import UnitHasher, has_han, split_units

__all__ = ["apply_barrier", "check_barrier", "read_verdicts"]

VERSION = 1

_BATCH = 2048


def apply_barrier(
    config: Config, folder: RunFolder, units: Callable[[], Iterator[Unit]], progress: Callable[[int, int], None]
) -> None:
    """Publish the verdicts on every unit that has text; nothing is done where all of them are there and fit.

    Dialogues of `dedup.against` come first, but for those that were dropped there, then those of `units` in the order
    of ids. A unit without text is passed over. The verdicts on a unit that has its manifest stay what they are, and
    its dialogues count as they were judged, so that a run that grows says what one of its full length would; others are
    replaced where they changed. `progress` is told how many units of how many were read.

    Raises ConfigError (`dedup.against`, `dedup.benchmarks`), DataError for a text that is damaged, StorageError.
    """

    def judge(unit: Unit) -> _Judged | None:
        return _Judged(unit.number, _is_final(folder, unit)) if folder.text(unit.number).exists() else None

    judged = [item for _, item in folder.each(judge, units()) if item is not None]
    if all(unit.final for unit in judged):
        return
    stamp = _stamp(config, folder)
    if _all_fit(folder, judged, stamp):
        return
    scratch = scratch_file(folder.logs / "dedup")
    with storage_errors(scratch):
        shutil.rmtree(scratch, ignore_errors=True)  # left by a driver that was killed
        scratch.mkdir(parents=True)
        try:
            barrier = _Barrier(config, folder, scratch)
            barrier.read(judged, progress)
            barrier.publish(judged, stamp)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_barrier(config: Config, folder: RunFolder) -> None:
    """Raises ConfigError for what `apply_barrier` would refuse, before anything is paid for."""
    _earlier_runs(config, folder)
    _benchmarks(config)


@dataclass
class _Judged:
    """A unit that has text. final: its verdicts never change. candidates, sha256: of its text, once it was read."""

    unit: int
    final: bool
    candidates: int = 0
    sha256: str = ""


def _is_final(folder: RunFolder, unit: Unit) -> bool:
    return folder.load_manifest(unit.number, unit.split) is not None and folder.verdicts(unit.number).exists()


def _stamp(config: Config, folder: RunFolder) -> str:
    """Digest of what verdicts hang on beside the texts of the run: limits, and what benchmarks and earlier runs are
    called and hold, wherever they are. Raises ConfigError."""
    try:
        questions = [(path.name, sha256_file(path)) for path in config.dedup.benchmarks]
    except OSError:
        _benchmarks(config)  # says which file, and what to do
        raise
    runs = [(run_name(run), [_sums(run, path) for path in text_files(run)]) for run in _earlier_runs(config, folder)]
    limits = config.dedup.model_dump(mode="json", exclude={"against", "benchmarks"})
    return digest(VERSION, limits, questions, runs)


def _sums(run: RunFolder, text: Path) -> tuple[str, str]:
    """SHA-256 of a text of an earlier run, and of what was said of it."""
    verdicts = run.verdicts(unit_number(text))
    return sha256_file(text), sha256_file(verdicts) if verdicts.exists() else ""


def _all_fit(folder: RunFolder, judged: Sequence[_Judged], stamp: str) -> bool:
    chain = Chain(stamp)
    for item in judged:
        head = chain.head(sha256_file(folder.text(item.unit)))
        if item.final:
            continue
        try:
            with folder.verdicts(item.unit).open("rb") as file:
                if VerdictHead.model_validate_json(file.readline()) != head:
                    return False
        except (FileNotFoundError, ValidationError):
            return False
    return True


class _Barrier:
    """One pass over all texts, numbering the candidates, then the verdicts unit by unit."""

    def __init__(self, config: Config, folder: RunFolder, scratch: Path):
        self._folder = folder
        self._earlier = _earlier_runs(config, folder)
        self._benchmarks = _benchmarks(config)
        dedup = config.dedup
        self._duplicates = Duplicates(scratch, dedup.similarity, dedup.ngram) if dedup.enabled else None
        self._hasher = UnitHasher()
        self._ids = scratch / "ids"
        self._contaminated = scratch / "contaminated"
        self._ends: list[int] = []  # number of candidates up to the end of each earlier run
        self._count = 0

    def read(self, judged: Sequence[_Judged], progress: Callable[[int, int], None]) -> None:
        for run in self._earlier:
            self._add(earlier_texts(run))
            self._ends.append(self._count)
        self._add(self._own_texts(judged, progress))

    def _own_texts(self, judged: Sequence[_Judged], progress: Callable[[int, int], None]) -> Iterator[Candidate]:
        for number, item in enumerate(judged, 1):
            settled = settled_states(self._folder, item.unit) if item.final else None
            item.sha256, candidates = read_text(self._folder.text(item.unit), settled)
            item.candidates = len(candidates)
            yield from candidates
            progress(number, len(judged))

    def _add(self, candidates: Iterator[Candidate]) -> None:
        with self._ids.open("ab") as ids, self._contaminated.open("a") as notes:
            while batch := list(islice(candidates, _BATCH)):
                split = [split_units(turn) for item in batch for turn in item.turns]
                turns, counts = self._hasher.hash(split), [len(item.turns) for item in batch]
                states = [item.state for item in batch]
                overlaps = self._benchmarks.find(turns, counts) if self._benchmarks else {}
                for place, overlap in sorted(overlaps.items()):
                    if states[place] == OPEN:
                        states[place] = OUT
                        notes.write(json.dumps([self._count + place, _shared(batch[place], overlap)]) + "\n")
                if self._duplicates:
                    self._duplicates.add(turns, counts, [item.language for item in batch], states)
                ids.write(b"".join(f"{item.language} {item.id}".encode().ljust(ID_BYTES) for item in batch))
                self._count += len(batch)

    def publish(self, judged: Sequence[_Judged], stamp: str) -> None:
        likeness = self._duplicates.resolve() if self._duplicates else None
        chain = Chain(stamp)
        start = self._ends[-1] if self._ends else 0
        with self._contaminated.open() as notes:
            rejects = self._rejects(likeness, start, (json.loads(line) for line in notes))
            waiting = next(rejects, None)
            for item in judged:
                head, start = chain.head(item.sha256), start + item.candidates
                lines = [head.model_dump_json()]
                while waiting is not None and waiting[0] < start:
                    lines.append(waiting[1].model_dump_json())
                    waiting = next(rejects, None)
                path, data = self._folder.verdicts(item.unit), "".join(line + "\n" for line in lines).encode()
                if not item.final and not (path.exists() and path.read_bytes() == data):
                    publish(path, data, replace=True)

    def _rejects(
        self, likeness: Likeness | None, start: int, contaminated: Iterator[tuple[int, str]]
    ) -> Iterator[tuple[int, Reject]]:
        """Every dropped candidate from number `start` on, in order, with its number."""
        note = next(contaminated, None)
        with self._ids.open("rb") as ids:

            def named(number: int) -> tuple[str, str]:
                ids.seek(number * ID_BYTES)
                language, key = ids.read(ID_BYTES).decode().split()
                return language, key

            for number in range(start, self._count):
                if note is not None and note[0] == number:
                    reason, detail = CONTAMINATED, note[1]
                    note = next(contaminated, None)
                elif likeness is not None and likeness.of[number] >= 0:
                    other = int(likeness.of[number])
                    run = bisect_right(self._ends, other)
                    where = f" of {run_name(self._earlier[run])}" if run < len(self._earlier) else ""
                    reason = "duplicate" if likeness.exact[number] else "near duplicate"
                    detail = f"like {named(other)[1]}{where}, similarity {likeness.similarity[number]:.2f}"
                else:
                    continue
                language, key = named(number)
                yield number, Reject(id=key, language=language, stage="dedup", reason=reason, detail=detail)


def _shared(candidate: Candidate, overlap: Overlap) -> str:
    units = split_units(candidate.turns[overlap.turn])[overlap.start : overlap.end]
    text = "".join(units) if has_han("".join(units)) else " ".join(units)
    return f"turn {overlap.turn} shares {text!r} with {overlap.file.name}, row {overlap.row}"


def _benchmarks(config: Config) -> Benchmarks | None:
    dedup = config.dedup
    return Benchmarks(dedup.benchmarks, dedup.overlap) if dedup.benchmarks else None


def _earlier_runs(config: Config, folder: RunFolder) -> list[RunFolder]:
    runs = [RunFolder(path) for path in config.dedup.against] if config.dedup.enabled else []
    for run in runs:
        if run.root.resolve() == folder.root.resolve():
            raise ConfigError(f"dedup.against: {run.root} is this very run; take it out of the list")
        if not any(text_files(run)):
            raise ConfigError(
                f"dedup.against: {run.root} holds no dialogues/, so it is no run with text; mend the path or take it "
                "out of the list"
            )
    return runs
