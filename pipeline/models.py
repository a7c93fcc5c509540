"""Model files: where they are, whether they are the right ones, and how to get them.

A model is a folder of files, each pinned by SHA-256 (model_registry.py). It is looked up in the
configuration, in an installed package that holds it whole, and in the cache: $SPEECHCHAT_CACHE,
$XDG_CACHE_HOME/speechchat, or ~/.cache/speechchat. Nothing here touches a network but `pull` (model_pull.py),
and no worker calls that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from pipeline.dialogue import ModelUse
from pipeline.errors import ModelError
from pipeline.model_registry import MODELS, Model, ModelFile, WheelPart, model

State = Literal["present", "missing", "corrupt"]

__all__ = [
    "MODELS",
    "ModelStatus",
    "cache_folder",
    "check",
    "locate",
    "main_file",
    "model",
    "pull",
    "status",
    "uses",
]


@dataclass(frozen=True)
class ModelStatus:
    """One line of `speechchat models`. size: bytes; detail: what is wrong, "" where nothing is."""

    name: str
    role: str
    license: str
    source: str
    size: int
    state: State
    path: Path
    detail: str


def cache_folder() -> Path:
    """The folder that holds what was fetched; it need not exist."""
    if own := os.environ.get("SPEECHCHAT_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "speechchat"


def model_folder(name: str) -> Path:
    """The model's folder in the cache; it need not exist."""
    return cache_folder() / "models" / model(name).name


def locate(name: str, override: Path | None = None) -> Path:
    """The folder that holds the model's files, checked. Downloads nothing.

    override: a folder of the user's own (or its main file), taken as it is. Raises ModelError where a file is
    missing or, unless it is the user's own, has another checksum than it should.
    """
    item = model(name)
    if override is not None:
        return _own_folder(item, override)
    folder = _installed_folder(item) or model_folder(name)
    if fault := _fault(item, folder):
        raise ModelError(fault)
    return folder


def main_file(name: str, override: Path | None = None) -> Path:
    """The model's main file, as `locate` finds it (an override may be that file, under any name)."""
    item = model(name)
    folder = locate(name, override)
    return override if override is not None and override.is_file() else folder / item.main


def uses(name: str, role: str, override: Path | None = None) -> ModelUse:
    """The model's identity and licence, for a sample's provenance.

    sha256: of the main file; for a model without one, over the names and checksums of its files. An override
    that is not the known model is named as the user's own: its licence cannot be known here.
    """
    item = model(name)
    sha256 = _identity(item, locate(name, override), main_file(name, override))
    known = {file.name: file.sha256 for file in item.files}
    expected = known[item.main] if item.main else _digest(known.items())
    if override is not None and sha256 != expected:
        return ModelUse(role=role, name=f"{name} (the user's own)", sha256=sha256, license="unknown")
    return ModelUse(role=role, name=name, sha256=sha256, license=item.license)


def check(name: str) -> Path:
    """Like `locate`, but reads every byte again."""
    item = model(name)
    folder = _installed_folder(item) or model_folder(name)
    if fault := _fault(item, folder, fresh=True):
        raise ModelError(fault)
    return folder


def status(fresh: bool = False) -> list[ModelStatus]:
    """Every known model and how it stands. fresh: reads every byte again."""
    lines = []
    for item in MODELS.values():
        folder = _installed_folder(item) or model_folder(item.name)
        fault = _fault(item, folder, fresh) or ""
        whole = all((folder / file.name).is_file() for file in item.files)
        state: State = "present" if not fault else "corrupt" if whole else "missing"
        lines.append(ModelStatus(item.name, item.role, item.license, item.source, item.size, state, folder, fault))
    return lines


def pull(names: Iterable[str] = (), progress: Callable[[str], None] = lambda line: None) -> None:
    """Fetches what is missing or wrong of the named models, or of all where none is named.

    progress: gets one line a file (megabytes, source, seconds).
    Raises ModelError that says what was tried, StorageError where the cache cannot be written.
    """
    from pipeline.model_pull import fetch

    for item in [model(name) for name in names] or list(MODELS.values()):
        folder = _installed_folder(item)
        if folder is not None and _fault(item, folder) is None:
            progress(f"{item.name}: in an installed package")
            continue
        fetch(item, model_folder(item.name), progress)


def is_right(file: ModelFile, folder: Path) -> bool:
    """Whether the file is there with the checksum it should have."""
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size and checksum(path, folder) == file.sha256


def checksum(path: Path, folder: Path, fresh: bool = False) -> str:
    """SHA-256 of a file in `folder`.

    Remembered by size and modification time: workers that start later need not read half a gigabyte again.
    """
    stat = path.stat()
    seen = [stat.st_size, stat.st_mtime_ns]
    stamp = _stamp(folder)
    name = path.relative_to(folder).as_posix()
    stamps = _read_stamps(stamp)
    entry = stamps.get(name)
    if not fresh and isinstance(entry, list) and entry[:2] == seen and len(entry) == 3:
        return str(entry[2])
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    # A cache that cannot be written only costs the time to read the file again.
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        temporary = stamp.with_name(f"{stamp.name}.{uuid.uuid4().hex}.tmp")
        temporary.write_text(json.dumps({**stamps, name: [*seen, found]}, indent=0))
        temporary.replace(stamp)
    return found


def installed(part: WheelPart) -> Path | None:
    """The part's file in an installed package of that very version."""
    try:
        package = metadata.distribution(part.package)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(part.member)))
    return path if package.version == part.version and path.is_file() else None


def _installed_folder(item: Model) -> Path | None:
    """The folder of an installed package that holds every file whole and under its own name."""
    folders = set()
    for file in item.files:
        path = installed(file.parts[0]) if len(file.parts) == 1 else None
        if path is None or path.name != file.name:
            return None
        folders.add(path.parent)
    return folders.pop() if len(folders) == 1 else None


def _fault(item: Model, folder: Path, fresh: bool = False) -> str | None:
    """What is wrong with the model in this folder, as one line that names the way out."""
    way_out = f"run `speechchat models pull {item.name}`" + (f", or set {item.key}" if item.key else "")
    for file in item.files:
        path = folder / file.name
        if not path.is_file():
            return f"model {item.name}: {path} is missing; {way_out}"
        if path.stat().st_size != file.size:
            return f"model {item.name}: {path} has {path.stat().st_size} bytes, expected {file.size}; {way_out}"
        if (found := checksum(path, folder, fresh)) != file.sha256:
            return (
                f"model {item.name}: {path} is not the file it should be "
                f"(sha256 {found[:12]}, expected {file.sha256[:12]}); {way_out}"
            )
    return None


def _own_folder(item: Model, override: Path) -> Path:
    setting = f"{item.key}={override}" if item.key else str(override)
    if override.is_file() and item.main and item.needed == (item.main,):
        return override.parent
    if not override.is_dir():
        raise ModelError(f"model {item.name}: {setting} is no folder; name one that holds {_holds(item)}")
    for name in item.needed:
        if not (override / name).is_file():
            raise ModelError(
                f"model {item.name}: {name} is missing in {setting}; put it there, or drop the setting and "
                f"run `speechchat models pull {item.name}`"
            )
    if not item.main and not _own_files(item, override):
        raise ModelError(f"model {item.name}: {setting} holds no {_holds(item)}")
    return override


def _holds(item: Model) -> str:
    return " and ".join(item.needed) or f"{Path(item.files[0].name).parent}/*{Path(item.files[0].name).suffix}"


def _own_files(item: Model, folder: Path) -> list[Path]:
    """The files of a model without a main file: whatever lies where its known files lie."""
    first = Path(item.files[0].name)
    return sorted((folder / first.parent).glob(f"*{first.suffix}"))


def _identity(item: Model, folder: Path, main: Path) -> str:
    if item.main:
        return checksum(main, folder)
    paths = _own_files(item, folder)
    return _digest((path.relative_to(folder).as_posix(), checksum(path, folder)) for path in paths)


def _digest(files: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in sorted(files)).encode()).hexdigest()


def _stamp(folder: Path) -> Path:
    """Where checksums of this folder's files are remembered: never outside the cache."""
    models = cache_folder() / "models"
    if folder.parent == models:
        return folder / ".checked.json"
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return models / ".checked" / f"{name}.json"


def _read_stamps(stamp: Path) -> dict[str, object]:
    try:
        data = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
