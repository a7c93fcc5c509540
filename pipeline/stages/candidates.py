"""The dialogues of a run as the barrier reads them: what is compared of a text, and what is known of it."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pipeline.dialogue import Language
from pipeline.errors import DataError
from pipeline.shards.store import RunFolder
from pipeline.stages.verdicts import load_verdicts
from pipeline.text.dedup import DROPPED, KEPT, OPEN, OUT

ID_BYTES = 32
"""The longest "language id" in UTF-8."""
CONTAMINATED = "contaminated"
"""The reason of a reject that holds a benchmark question; all others are for a likeness."""


@dataclass(frozen=True)
class Candidate:
    """A dialogue as it is judged. state: OPEN, KEPT, OUT or DROPPED (text/dedup.py)."""

    id: str
    language: Language
    turns: tuple[str, ...]
    state: int


def text_files(run: RunFolder) -> list[Path]:
    """The texts of a run that has no plan here, in the order of units."""
    found = (run.root / "dialogues").glob("*/unit-*.jsonl")
    # Who edits by hand may leave a copy beside the text.
    texts = (path for path in found if path.stem.removeprefix("unit-").isdecimal())
    return sorted(texts, key=unit_number)


def unit_number(text: Path) -> int:
    """The unit that a text is of, by its name."""
    return int(text.stem.removeprefix("unit-"))


def run_name(run: RunFolder) -> str:
    """What a reader calls a run: verdicts are kept, and its path may be another tomorrow."""
    return run.root.resolve().name


def earlier_texts(run: RunFolder) -> Iterator[Candidate]:
    """The dialogues of an earlier run, in the order of ids; those that were dropped there are OUT."""
    for path in text_files(run):
        _, candidates = read_text(path, dict.fromkeys(settled_states(run, unit_number(path)), OUT))
        yield from candidates


def settled_states(run: RunFolder, unit: int) -> dict[str, int]:
    """The states of those that were dropped of a unit, by what was said of it then."""
    found = load_verdicts(run.verdicts(unit))
    rejects = found[1].values() if found else ()
    return {reject.id: OUT if reject.reason == CONTAMINATED else DROPPED for reject in rejects}


def read_text(path: Path, settled: Mapping[str, int] | None) -> tuple[str, list[Candidate]]:
    """SHA-256 of a text, and its dialogues in the order of ids. settled: the states of those that were dropped, where
    all others were kept; None where nothing is known. Blank lines and a byte order mark are passed over.
    Raises DataError.

    Parsed by hand: the models of dialogue.py would take most of the time of the barrier.
    """
    data = path.read_bytes()
    rows = []
    for number, line in enumerate(data.removeprefix(BOM_UTF8).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if row["dialogue"] is None:
                continue
            plan, turns = row["plan"], tuple(turn["spoken"] for turn in row["dialogue"]["turns"])
            "".join(turns)  # raises TypeError where a turn is no text
            name = f"{plan['language']} {plan['id']}"
            if plan["language"] not in ("en", "zh") or len(name.encode()) > ID_BYTES or len(name.split()) != 2:
                raise ValueError(f"{name!r} is no language and id")
            state = OPEN if settled is None else settled.get(plan["id"], KEPT)
            rows.append((int(plan["index"]), Candidate(plan["id"], plan["language"], turns, state)))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: line {number} is not the text of a dialogue ({type(error).__name__}: {error}); mend it, or "
                "remove the file, and run the same command again"
            ) from None
    rows.sort(key=lambda row: row[0])
    return sha256(data).hexdigest(), [candidate for _, candidate in rows]
