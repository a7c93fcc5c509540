"""The manifest of a unit: what it holds, and the proof that it is there."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from pipeline.dialogue import Language, Record, Split
from pipeline.errors import DataError
from pipeline.shards.lease import CLAIM
from pipeline.shards.tally import LengthSum, RefusalSum, RepairSum

MANIFEST_VERSION = 2


class FileFact(Record):
    """A published file: its name in the run folder, size in bytes and SHA-256."""

    path: str
    bytes: int
    sha256: str


class RateSum(Record):
    """To average an error rate: the sum over `turns` accepted turns, and which rate it is."""

    language: Language
    metric: str
    total: float
    turns: int


class Manifest(Record):
    """What a finished unit holds; its file is the proof that the unit is there. Durations are seconds.

    languages: accepted dialogues; rejected_languages: the others. takes: clips of takes that were not kept. repairs,
    lengths, refusals: over all turns that were spoken, of accepted and of rejected dialogues.
    """

    version: int
    unit: int
    split: Split
    planned: int
    accepted: int
    rejected: dict[str, int]
    languages: dict[str, int]
    rejected_languages: dict[str, int]
    takes: int
    turns: int
    llm_turns: int
    retaken_turns: int
    seconds: float
    user_seconds: float
    assistant_seconds: float
    error_rates: tuple[RateSum, ...]
    repairs: tuple[RepairSum, ...]
    lengths: tuple[LengthSum, ...]
    refusals: tuple[RefusalSum, ...]
    text_digest: str
    speech_digest: str
    judge_digest: str
    files: tuple[FileFact, ...]

    def file(self, suffix: str) -> FileFact | None:
        """The file whose path starts or ends so."""
        return next((item for item in self.files if item.path.endswith(suffix)), None)


def manifest_bytes(path: Path) -> bytes | None:
    """None where there is none, or a claim (lease.py)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return None if data.startswith(CLAIM) else data


def read_manifest(path: Path) -> Manifest | None:
    """None as `manifest_bytes`. Raises DataError naming a file that is damaged, or that another version of the program
    wrote."""
    data = manifest_bytes(path)
    return None if data is None else parse_manifest(path, data)


def parse_manifest(path: Path, data: bytes) -> Manifest:
    """Raises DataError naming `path`, where the data is from."""
    try:
        manifest = Manifest.model_validate_json(data)
        if manifest.version == MANIFEST_VERSION:
            return manifest
        version, problem = manifest.version, ""
    except ValidationError as error:
        version, problem = _version(data), f"{error.errors()[0]['msg']}; remove it and run again"
    if version != MANIFEST_VERSION:
        problem = (
            f"of this version of speechchat: it is of version {version} and this one reads {MANIFEST_VERSION}; "
            "make the run anew in another folder, or read it with the version that made it"
        )
    raise DataError(f"{path}: not a manifest{' ' if version != MANIFEST_VERSION else ': '}{problem}")


def _version(data: bytes) -> int:
    """Of a manifest that cannot be read whole; the present one where it does not say."""
    try:
        content = json.loads(data)
    except ValueError:
        return MANIFEST_VERSION
    version = content.get("version") if isinstance(content, dict) else None
    return version if isinstance(version, int) else MANIFEST_VERSION
