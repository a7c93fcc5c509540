"""What becomes of a unit that cannot be made: it is quarantined, with all that is known, and the run goes on."""

from __future__ import annotations

import json
import traceback

from pipeline.plan import Unit
from pipeline.shards.store import RunFolder, publish


def quarantine(folder: RunFolder, unit: Unit, error: BaseException, tries: int) -> str:
    """Write the unit's last error with its traceback; returns the line for people."""
    path = folder.quarantine(unit.number)
    record = {
        "unit": unit.number,
        "tries": tries,
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    publish(path, (json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode(), replace=True)
    first = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return f"unit {unit.number} is quarantined after {tries} tries: {first} (the traceback is in {path})"


def quarantined(folder: RunFolder) -> list[int]:
    """Units in quarantine."""
    paths = (folder.root / "quarantine").glob("*/unit-*.json")
    return sorted(int(path.stem.removeprefix("unit-")) for path in paths)
