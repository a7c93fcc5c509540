"""What a calibration heard, kept as it goes.

OUT/heard.jsonl          a line a clip: what was said, wanted and heard, and the scores of the sound
OUT/clips/KK/KEY.flac    what engines said, before anything was done to it; may be removed, is then spoken again
OUT/figures.json, index.html, *.png    what is made of it (gate_calibrate.py)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from pipeline.config import Config
from pipeline.engine.gate_measure import Bench, Case, Keys, Made, measure
from pipeline.engine.gate_plan import Item, Probe
from pipeline.engine.pool import each, finished, one_thread_each
from pipeline.errors import DataError
from pipeline.shards.disk import storage_errors
from pipeline.shards.store import publish

HEARD = "heard.jsonl"

Tell = Callable[[int, int, float], None]
"""Told by the driver: clips heard, of how many, and CPU seconds that this call took for its own."""


def hear(items: Sequence[Item], out: Path, config: Config, tell: Tell) -> list[Case]:
    """The cases of all items, in their order; what was heard before is not heard again. Written down as it comes.

    What the first item that cannot be heard raises ends it: ConfigError, ModelError, EndpointError, BackendError,
    StorageError, RunIncomplete. KeyboardInterrupt keeps what is done.
    """
    keys = Keys(config)
    wanted = {keys.case(item, probe): (item, probe) for item in items for probe in item.probes}
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        path = out / HEARD
        known = {case.key: case for case in read_cases(path)} if path.is_file() else {}
        todo = [
            left
            for item in items
            if (left := _left(item, lambda item, probe: keys.case(item, probe) not in known)).probes
        ]
        if todo:
            bench = Bench(config, tuple(sorted(_engines(todo))), (out / "clips").absolute())
            # A line that was cut short is dropped before others follow it.
            _write(path, known.values())
            with path.open("ab") as file:
                _hear(bench, todo, len(wanted), known, file, tell)
        found = [known[key] for key in wanted]
        _write(path, [*(case for key, case in known.items() if key not in wanted), *found])
    return found


def _left(item: Item, wanted: Callable[[Item, Probe], bool]) -> Item:
    return replace(item, probes=tuple(probe for probe in item.probes if wanted(item, probe)))


def _engines(items: Iterable[Item]) -> set[str]:
    asked = [item.good for item in items] + [probe.said for item in items for probe in item.probes if probe.said]
    return {request.voice.engine for request in asked}


def _hear(bench: Bench, todo: list[Item], count: int, known: dict[str, Case], file: BinaryIO, tell: Tell) -> None:
    done, cpu = count - sum(len(item.probes) for item in todo), 0.0

    def keep(outcome: Made | Exception) -> tuple[int, float]:
        if isinstance(outcome, Exception):
            raise outcome
        known.update({case.key: case for case in outcome.cases})
        file.write(b"".join(_line(case) for case in outcome.cases))
        file.flush()
        return len(outcome.cases), outcome.cpu

    tell(done, count, cpu)
    with one_thread_each(), closing(each(partial(measure, bench), todo, bench.config.engine)) as outcomes:
        try:
            for _, outcome in outcomes:
                heard, spent = keep(outcome)
                done, cpu = done + heard, cpu + spent
                tell(done, count, cpu)
        except KeyboardInterrupt:
            for _, outcome in finished(outcomes):
                if isinstance(outcome, Made):
                    keep(outcome)
            raise
        finally:
            os.fsync(file.fileno())


def _line(case: Case) -> bytes:
    return case.model_dump_json().encode() + b"\n"


def _write(path: Path, cases: Iterable[Case]) -> None:
    """The same cases give the same bytes."""
    data = b"".join(map(_line, cases))
    if not path.is_file() or path.read_bytes() != data:
        publish(path, data, replace=True)


def recall(items: Sequence[Item], out: Path, config: Config) -> tuple[list[Case], int]:
    """What was heard of these items before, in their order, and how many clips they have.

    Raises ConfigError, ModelError, DataError.
    """
    keys = Keys(config)
    wanted = dict.fromkeys(keys.case(item, probe) for item in items for probe in item.probes)
    known = {case.key: case for case in read_cases(out / HEARD)}
    return [known[key] for key in wanted if key in known], len(wanted)


def latest(path: Path) -> list[Case]:
    """What was heard in the way in which the last clip was. Raises DataError, also where nothing was."""
    cases = read_cases(path)
    if not cases:
        raise _nothing(path)
    return [case for case in cases if case.bench == cases[-1].bench]


def read_cases(path: Path) -> list[Case]:
    """What was heard; a last line without its end, which a kill may leave, is passed over. Raises DataError."""
    cases = []
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise _nothing(path) from None
    for number, line in enumerate(lines[:-1], 1):
        try:
            cases.append(Case.model_validate_json(line))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"])) or "the line"
            raise DataError(
                f"{path}: line {number}: {place}: {fault['msg']}; remove the file to hear all again, or the line"
            ) from None
    return cases


def _nothing(path: Path) -> DataError:
    return DataError(f"{path}: nothing was heard yet; leave out --only evaluate")
