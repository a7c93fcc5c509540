"""The folder of an export: what it is an export of, what is there, and how a file comes to lie in it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from pipeline.dialogue import Record, Split
from pipeline.errors import DataError, RunFolderError, UsageError
from pipeline.shards.disk import PendingFile, make_folder, open_lock, try_lock
from pipeline.shards.reader import one_line
from pipeline.training.formats.base import HIDDEN, Piece

VERSION = 2
"""Of how exports are written: another one does not go on where this one was."""


class What(Record):
    """What a folder is an export of. run: its identity; options: of the format, a file by its SHA-256."""

    version: int
    format: str
    run: str
    splits: tuple[Split, ...]
    options: dict[str, Any]


class Written(Record):
    """A file of an export: relative to its folder, size in bytes."""

    path: str
    bytes: int


class UnitDone(Record):
    """A unit that lies in an export. shard: SHA-256 of what it was made from, "" for a unit without a sample."""

    unit: int
    split: Split
    samples: int
    shard: str
    files: tuple[Written, ...]


class Finished(Record):
    """The joint files. units: SHA-256 over the records of the units that they join."""

    units: str
    files: tuple[Written, ...]


@contextlib.contextmanager
def claimed(out: Path, what: What, run: Path | str) -> Iterator[None]:
    """Be the one who writes this export. Raises UsageError for a folder that holds anything else, and leaves it."""
    place = out / HIDDEN / "export.json"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the export")
    found = read_record(place, What)
    if found is None and out.is_dir() and (other := sorted(item.name for item in out.iterdir() if item.name != HIDDEN)):
        raise UsageError(f"{out} is not empty ({other[0]!r} is in it) and no export; name another folder")
    if found is not None and found != what:
        raise UsageError(f"{out} holds another export: {difference(found, what, run)}; name another folder")
    make_folder(place.parent)
    with open_lock(place.with_name("lock")) as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            raise RunFolderError(f"{out}: another export is writing to this folder; wait for it or stop it")
        if found is None:
            publish(place, to_json(what))
        yield


def difference(found: What, what: What, run: Path | str) -> str:
    if found.version != what.version:
        return f"of version {found.version} of the program's exports, this one writes {what.version}"
    if found.format != what.format:
        return f"in the format {found.format}, not {what.format}"
    if found.run != what.run:
        return f"of another run than {run}"
    if found.splits != what.splits:
        return f"of the splits {', '.join(found.splits)}, not {', '.join(what.splits)}"
    names = sorted(name for name in found.options | what.options if found.options.get(name) != what.options.get(name))
    return f"with {', '.join(f'{name}={found.options.get(name)}' for name in names)}"


def there(out: Path, item: Written) -> bool:
    """Raises UsageError for a file that has another size than was written: it would else be overwritten."""
    path = out / item.path
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if size != item.bytes:
        raise UsageError(
            f"{path}: {size} bytes where {item.bytes} were written; remove it to have it made again, or keep it and "
            "name another folder"
        )
    return True


def to_json(record: Record) -> bytes:
    return (record.model_dump_json() + "\n").encode()


def read_record(path: Path, kind: type[Any]) -> Any:
    """The record that lies there, or None. Raises DataError."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise DataError(f"{path}: damaged: {one_line(error)}; remove the export and make it anew") from None


def write(out: Path, path: str, content: Piece) -> Written:
    """path: below `out`."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} is no path below the export's folder")
    return Written(path=path, bytes=publish(out / path, content))


def publish(path: Path, content: Piece) -> int:
    """Make `content` the file `path`, whole or not at all; returns its size in bytes."""
    pending = PendingFile(path)
    try:
        for piece in (content,) if isinstance(content, bytes) else content:
            pending.write(piece)
        return pending.commit(replace=True)[0]
    except BaseException:
        pending.abort()
        raise
