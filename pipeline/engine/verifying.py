"""verify on every CPU, with what the stages know of the files that units are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from pipeline.config import Config
from pipeline.engine.pool import in_order
from pipeline.errors import DataError
from pipeline.plan import Unit
from pipeline.shards.disk import sha256_file
from pipeline.shards.store import RunFolder
from pipeline.shards.unit_check import UnitReport, check_unit
from pipeline.shards.verify import Verification, verify
from pipeline.stages.draw import read_rows
from pipeline.stages.verdicts import load_verdicts
from pipeline.stages.write import read_text

HASHED, DECODED = 32, 4
"""Units that a process takes at once, without and with decoding: a process costs a second of imports, which a run must
be worth; one of fewer units is checked in this process."""


def verify_run(
    folder: RunFolder,
    config: Config,
    decode: bool = False,
    digests: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> Iterator[Verification]:
    """As `verify`, over `workers` processes (one a CPU for None), with the rows, the texts of unfinished units and the
    verdicts of the barrier. What is found does not depend on `workers`. Raises RunIncomplete for a killed process."""
    check = partial(check_with_inputs, folder, decode, digests)
    each = partial(in_order, workers=workers, group=DECODED if decode else HASHED)
    return verify(folder, config, decode, digests, check=check, each=each)


def check_with_inputs(folder: RunFolder, decode: bool, digests: Mapping[str, str] | None, unit: Unit) -> UnitReport:
    """A unit, and what it was made from or will be.

    No manifest names those files but the text of a finished unit: of the others it is found whether they can be read,
    and are this unit's.
    """
    report = check_unit(folder, unit, decode, digests)
    try:
        for path, why in _damaged_inputs(folder, unit, report):
            if str(path) not in report.inputs:
                report.inputs.append(str(path))
                if why not in report.problems:
                    report.problems.append(why)
    except OSError as error:
        report.refused(folder.text(unit.number), error)
    return report


def _damaged_inputs(folder: RunFolder, unit: Unit, report: UnitReport) -> Iterator[tuple[Path, str]]:
    rows, text, verdicts = folder.rows(unit.number), folder.text(unit.number), folder.verdicts(unit.number)
    if rows.exists():
        try:
            if len(read_rows(folder, unit.number)) != len(unit.dialogues):
                yield rows, f"{rows}: not a row for each dialogue of its unit; remove it and run again"
        except DataError as error:
            yield rows, str(error)
    if text.exists() and (report.damaged or not report.finished):
        try:
            read_text(folder, unit)
        except DataError as error:
            yield text, str(error)
    if verdicts.exists():
        try:
            found = load_verdicts(verdicts)
        except DataError as error:
            yield verdicts, str(error)
            return
        planned = {item.id for item in unit.dialogues}
        # Before its unit is spoken a text may be edited; the barrier then judges it anew.
        kept = report.finished and not report.damaged
        if found and (not found[1].keys() <= planned or (kept and found[0].text_sha256 != sha256_file(text))):
            yield verdicts, f"{verdicts}: belongs to another text than {text}; remove it and run again"
