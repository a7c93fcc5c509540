"""What a launch does, step by step: each step can be shown before it is done."""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import hashlib
import io
import os
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ConfigError, EndpointError, UsageError

# Patterns of names, of files and folders at any depth, that stay at home: models, runs, environments, keys.
SKIP = (
    *(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "build", "dist"),
    *("runs", "docs", "tests", ".env*", "*.pem", "*.key"),
)


class Step(Protocol):
    def show(self) -> str:
        """What `do` will do, for people; no value of a variable is in it."""

    def do(self) -> None: ...


class Launcher(Protocol):
    """One kind of cluster. Raises ConfigError if the settings lack what the kind needs."""

    def render(self) -> str:
        """The file that the cluster's own tools read, or the request."""

    def submit(self) -> list[Step]:
        """What starts the run, or goes on with it."""

    def stop(self) -> list[Step]: ...

    def follow(self) -> int:
        """Print the log until the run ends. Returns its exit status."""


@dataclass(frozen=True)
class Write:
    path: Path
    data: bytes

    def show(self) -> str:
        if self.data[:2] == b"\x1f\x8b":
            return (
                f"# write {self.path}: {len(self.data)} bytes of code, sha256 {hashlib.sha256(self.data).hexdigest()}"
            )
        return f"# write {self.path}:\n{self.data.decode()}"

    def do(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(self.data)
        except OSError as error:
            raise UsageError(f"{self.path}: not writable ({error.strerror}); name a place that is") from None


@dataclass(frozen=True)
class Call:
    """A command. `stdin` maps names there to variables here, given to it as lines of shell that export them."""

    words: Sequence[str]
    stdin: Mapping[str, str] = field(default_factory=dict)

    def show(self) -> str:
        given = ", ".join(f"{name} (from ${variable})" for name, variable in self.stdin.items())
        return shlex.join(self.words) + (f"  # on its standard input: {given}" if given else "")

    def do(self) -> None:
        lines = "".join(f"export {name}={shlex.quote(os.environ[here])}\n" for name, here in self.stdin.items())
        output(self.words, lines, show=True)


@dataclass(frozen=True)
class Action:
    """Something that is no command: a look before the first change, or a request."""

    shown: str
    do: Callable[[], None]

    def show(self) -> str:
        return f"# {self.shown}"


def need_variables(names: Iterable[str]) -> Action:
    wanted = sorted(names)

    def look() -> None:
        for name in wanted:
            if not os.environ.get(name):
                raise ConfigError(f"env: {name} is not set here; export it, or name another variable")

    return Action(f"needs in the environment: {', '.join(wanted) or 'nothing'}", look)


def output(words: Sequence[str], stdin: str = "", show: bool = False) -> str:
    """The standard output of a command, or, shown as it comes, nothing; its standard error goes on to ours.

    Raises UsageError if there is no such command, EndpointError if it fails.
    """
    pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        process = subprocess.Popen(words, **pipe, encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise UsageError(f"{words[0]}: not installed here; launch from a machine that has it") from None
    with process:
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):  # one that ends before it reads tells why by its exit status
            process.stdin.write(stdin)
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        kept = []
        for line in process.stdout:
            if show:
                print(line, end="", flush=True)
            else:
                kept.append(line)
    if process.returncode:
        raise EndpointError(f"`{shlex.join(words)}` ended with {process.returncode}; its own words are above")
    return "".join(kept)


def archive(working_dir: Path, skip: Path) -> bytes:
    """The code as .tar.gz, the same bytes for the same files; `skip` is one more folder that stays at home."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder, names, files in os.walk(working_dir):
            here = Path(folder)
            names[:] = sorted(name for name in names if not skipped(name) and here / name != skip)
            # Not what a link leads to nowhere, nor a socket.
            for name in sorted(name for name in files if not skipped(name) and (here / name).is_file()):
                info = tarfile.TarInfo((here / name).relative_to(working_dir).as_posix())
                data = (here / name).read_bytes()
                info.size, info.mode = len(data), 0o755 if os.access(here / name, os.X_OK) else 0o644
                tar.addfile(info, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def skipped(name: str) -> bool:
    """Whether a file or folder of this name stays at home."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in SKIP)
