"""What the barrier said of a unit's text: the file, and whether it still belongs to the text."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pipeline.dialogue import Record, Reject
from pipeline.errors import DataError
from pipeline.shards.disk import sha256_file
from pipeline.shards.store import RunFolder


class VerdictHead(Record):
    """What a file of verdicts was made from: the unit's text, the configuration with the benchmark files, and the
    texts of the units before it."""

    text_sha256: str
    dedup: str
    before: str


def read_verdicts(folder: RunFolder, unit: int) -> dict[str, Reject]:
    """What the barrier dropped of a unit, by id. Raises DataError where there is no verdict on its text as it is."""
    path = folder.verdicts(unit)
    found = load_verdicts(path)
    if found is None:
        raise DataError(f"{path}: missing, so this text has not passed the barrier; run the same command again")
    head, rejects = found
    if head.text_sha256 != sha256_file(folder.text(unit)):
        raise DataError(f"{path}: belongs to another text than {folder.text(unit)}; run the same command again")
    return rejects


def load_verdicts(path: Path) -> tuple[VerdictHead, dict[str, Reject]] | None:
    """What a file says, None where there is none. Raises DataError for one that says nothing."""
    try:
        head, *lines = path.read_bytes().splitlines()
        rejects = [Reject.model_validate_json(line) for line in lines]
        return VerdictHead.model_validate_json(head), {reject.id: reject for reject in rejects}
    except FileNotFoundError:
        return None
    except ValueError:  # no line at all, or one that is none of ours
        raise DataError(f"{path}: not a file of verdicts; remove it and run the same command again") from None


class Chain:
    """The heads of one unit after the other. `before` is a running hash: a verdict hangs on the texts before it too,
    and a crash between two files must not leave one that was made from a text since changed."""

    def __init__(self, stamp: str) -> None:
        self._stamp = stamp
        self._texts = sha256()

    def head(self, text_sha256: str) -> VerdictHead:
        head = VerdictHead(text_sha256=text_sha256, dedup=self._stamp, before=self._texts.hexdigest()[:16])
        self._texts.update(text_sha256.encode())
        return head
