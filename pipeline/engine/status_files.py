"""What a run's folder tells of its units, read again and again without reading the same twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from pipeline.engine.heartbeat import Session
from pipeline.shards.lease import is_claim
from pipeline.shards.parts import PartLog
from pipeline.shards.remote import StorePath, is_remote

_SETTLED = 2 * 10**9
"""Nanoseconds after which a folder's time of change tells of every change: some disks count in seconds."""


@dataclass(frozen=True)
class Made:
    """A finished unit. time: seconds since 1970, 0 where it is not known."""

    planned: int
    accepted: int
    seconds: float
    time: float


@dataclass
class Log:
    """RUN/logs/timings.jsonl, read on from where it was left. cpu: seconds; written: when texts were done."""

    path: Path
    made: dict[int, Made] = field(default_factory=dict)
    written: list[float] = field(default_factory=list)
    sessions: dict[float, Session] = field(default_factory=dict)
    cpu: float = 0.0
    _offset: int = 0
    _rest: bytes = b""

    def read(self) -> None:
        if is_remote(self.path):
            for part in PartLog(self.path).read(self._offset):
                self._offset += 1
                for line in part.split(b"\n"):
                    self._take(line)
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while block := file.read(2**20):
                    self._offset += len(block)
                    *lines, self._rest = (self._rest + block).split(b"\n")
                    for line in lines:
                        self._take(line)
        except FileNotFoundError:
            return
        if self._take(self._rest):  # a line ends where the next one begins
            self._rest = b""

    def _take(self, line: bytes) -> bool:
        """Whether it is a whole line; what a kill or an older program left is passed over."""
        try:
            data = json.loads(line)
            if "session" in data:
                session = Session.model_validate(data["session"])
                self.sessions[session.started] = session
                return True
            stages, moment = data["stages"], float(data.get("time", 0.0))
            self.cpu += sum(cost.get("cpu", 0.0) for cost in stages.values())
            if "planned" in data:
                made = Made(int(data["planned"]), int(data["accepted"]), float(data["seconds"]), moment)
                self.made[int(data["unit"])] = made
            elif "write" in stages:
                self.written.append(moment)
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
            return False
        return True


class Names:
    """Files `unit-NUMBER` + suffix, `depth` folders below `root`. A folder that has not changed is not listed again."""

    def __init__(self, root: Path, depth: int, suffix: str):
        self._root = root
        self._depth = depth
        self._suffix = suffix
        self._seen: dict[str, tuple[int, dict[int, Path]]] = {}

    def look(self) -> dict[int, Path]:
        """Path by unit."""
        found: dict[int, Path] = {}
        if isinstance(self._root, StorePath):
            sized = self._root.walk_files()
            return dict(self._numbered((path.name, path) for path, size in sized if not is_claim(size)))
        for folder in sorted(self._folders(str(self._root), self._depth)):
            found |= self._list(folder)
        return found

    def _numbered(self, files: Iterable[tuple[str, Path]]) -> Iterator[tuple[int, Path]]:
        for name, path in files:
            stem = name.removeprefix("unit-").removesuffix(self._suffix)
            if name.endswith(self._suffix) and stem.isdecimal():
                yield int(stem), path

    def _folders(self, folder: str, depth: int) -> Iterator[str]:
        if depth == 0:
            yield folder
            return
        try:
            with os.scandir(folder) as entries:
                inside = [entry.path for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return
        for item in inside:
            yield from self._folders(item, depth - 1)

    def _list(self, folder: str) -> dict[int, Path]:
        looked = time.time_ns()
        changed = Path(folder).stat().st_mtime_ns
        known = self._seen.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        with os.scandir(folder) as entries:
            found = dict(self._numbered((entry.name, Path(entry.path)) for entry in entries))
        if looked - changed > _SETTLED:
            self._seen[folder] = changed, found
        return found
