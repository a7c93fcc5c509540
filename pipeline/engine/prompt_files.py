"""Where reference clips come from: a folder with a sub-folder a speaker, a table, or a data set on the hub.

A table is a .csv, .jsonl, .json or .parquet with a row a clip; COLUMNS has the names that its fields may have. In a
folder it is called `metadata`; there a row without a file says what is true of all clips of its speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pipeline.config import SourceConfig
from pipeline.dialogue import Language
from pipeline.errors import UsageError
from pipeline.sources.files import SUFFIXES, FileRecords, Records
from pipeline.sources.hub import HubRecords
from pipeline.voice import Age, Gender

COLUMNS = {
    "file": ("file", "file_name", "path", "audio"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "text": ("text", "sentence", "transcription", "transcript"),
    "gender": ("gender", "sex"),
    "languages": ("languages", "language", "lang", "locale"),
    "age": ("age",),
}
KEY = "voices clone"
_GENDERS: dict[str, Gender] = {
    **dict.fromkeys(("female", "f", "woman", "女", "female_feminine"), "female"),
    **dict.fromkeys(("male", "m", "man", "男", "male_masculine"), "male"),
}
_NO_SOUND = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".md", ".yaml", ".textgrid", ".lab"})


@dataclass(frozen=True)
class Prompt:
    """A reference clip that nobody has listened to: a file, or the bytes of one (`data`, then `path` is but a name).

    name: what a message calls it. gender: None, languages: () where nothing says so.
    """

    name: str
    path: Path
    speaker: str
    data: bytes | None = None
    text: str = ""
    gender: Gender | None = None
    languages: tuple[Language, ...] = ()
    age: Age = "adult"


def find_prompts(source: str, split: str = "train") -> Iterator[Prompt]:
    """The prompts of a folder or a file, in the order of their paths or rows, or of a data set on the hub (`split`).

    Raises UsageError for a source that does not exist or does not say who speaks.
    """
    place = Path(source)
    if place.is_file():
        return _of_rows(FileRecords(place, KEY), place.parent)
    if place.is_dir():
        tables = [place / f"metadata{suffix}" for suffix in SUFFIXES if (place / f"metadata{suffix}").is_file()]
        if len(tables) > 1:
            raise UsageError(f"{place}: {tables[0].name} and {tables[1].name}: which of them counts? Keep one")
        return _of_folder(place, tables[0] if tables else None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return _of_rows(HubRecords(SourceConfig(data=source, split=split), KEY), Path())
    raise UsageError(f"{place}: no such folder; name one that holds reference clips, with a sub-folder a speaker")


def _of_folder(folder: Path, table: Path | None) -> Iterator[Prompt]:
    facts: dict[str, Prompt] = {}
    if table is not None:
        records = FileRecords(table, KEY)
        if any(_field(row.value, "file") for row in records.read()):
            yield from _of_rows(records, folder)
            return
        facts = {prompt.speaker: prompt for prompt in _of_rows(records, folder)}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in _NO_SOUND)
    for path in files:
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if len(inside.parts) == 1:
            raise UsageError(
                f"{path}: whose voice is it? Put the clips of each speaker into a sub-folder, or say so in "
                f"{folder / 'metadata.csv'} with the columns file and speaker"
            )
        speaker = inside.parts[0]
        known = facts.get(speaker, Prompt("", path, speaker))
        yield replace(known, name=str(path), path=path, text=known.text or _text_beside(path))


def _of_rows(records: Records, folder: Path) -> Iterator[Prompt]:
    for row in records.read():
        where = f"{records.origin}, row {row.number}"
        if row.fault or not isinstance(row.value, dict):
            raise UsageError(f"{where}: {row.fault or 'no map of fields'}; mend or remove it")
        speaker = str(_field(row.value, "speaker") or "").strip()
        if not speaker:
            raise UsageError(f"{where}: no speaker; name each in a column {COLUMNS['speaker'][0]!r}")
        file = _field(row.value, "file")
        sound = file if isinstance(file, dict) else {"path": file}  # a map is how `datasets` stores sound
        data = sound.get("bytes")
        name = str(sound.get("path") or f"{row.number}.audio")
        path = folder / name
        yield Prompt(
            name=where if data is not None else str(path),
            path=path,
            data=data,
            speaker=speaker,
            text=str(_field(row.value, "text") or "").strip() or ("" if data is not None else _text_beside(path)),
            gender=_gender(row.value, where),
            languages=_languages(row.value, where),
            age=_age(row.value),
        )


def _field(row: Any, name: str) -> Any:
    """The first of the columns that may hold it and is not empty."""
    given: dict[str, Any] = row if isinstance(row, dict) else {}
    return next((given[column] for column in COLUMNS[name] if given.get(column) not in (None, "")), None)


def _gender(row: dict[str, Any], where: str) -> Gender | None:
    said = _field(row, "gender")
    if said is None:
        return None
    if str(said).strip().lower() not in _GENDERS:
        raise UsageError(f"{where}: gender {said!r}: female or male is wanted; leave it out to take that of --gender")
    return _GENDERS[str(said).strip().lower()]


def _languages(row: dict[str, Any], where: str) -> tuple[Language, ...]:
    said = _field(row, "languages")
    parts = said if isinstance(said, list) else re.split(r"[,;\s]+", str(said or "").strip())
    return read_languages([str(part) for part in parts if part], where)


def read_languages(names: list[str], where: str) -> tuple[Language, ...]:
    """`zh-CN` and `zh_CN` are zh. Raises UsageError for a language that is neither en nor zh."""
    known = get_args(Language)
    found = {re.split(r"[-_]", name.strip().lower())[0]: name for name in names}
    if unknown := [name for code, name in found.items() if code not in known]:
        raise UsageError(f"{where}: language {unknown[0]!r}: {' and '.join(known)} are known")
    return tuple(code for code in known if code in found)


def _age(row: dict[str, Any]) -> Age:
    """Data sets name ages in many ways; what is not ours is taken for an adult's."""
    said = str(_field(row, "age") or "").strip().lower()
    return said if said in get_args(Age) else "adult"  # type: ignore[return-value]


def _text_beside(path: Path) -> str:
    file = path.with_suffix(".txt")
    return " ".join(file.read_text("utf-8", "replace").split()) if file.is_file() else ""
