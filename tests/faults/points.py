"""Named points of the write path, and what befalls a process that comes to one.

Functions of `os` are wrapped, in the process that is to suffer and nowhere else: the driver of a test, or a worker of
Ray, which `site/sitecustomize.py` reaches. Everything that the program itself does stays as it is.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

FAULTS, CLOCK = "SPEECHCHAT_TEST_FAULTS", "SPEECHCHAT_TEST_CLOCK"

Act = Literal["kill", "fill", "EIO", "ENOSPC", "EROFS"]
"""What happens: SIGKILL, a file that takes all room that is left on the disk, or what the system says."""


@dataclass(frozen=True)
class Point:
    """call: of `os`. path: a pattern of the file in the run folder; of a folder that is synced, followed by the name
    that was last renamed in it. half: so much of the file is there, and the rest is lost."""

    name: str
    call: str
    path: str
    when: Literal["before", "after"]
    half: bool = False


def _published(name: str, path: str) -> list[Point]:
    """Of a file that is written under a temporary name. path: a pattern."""
    folder, _, file = path.rpartition("/")
    return [
        Point(f"{name}-opened", "open", rf"{path}\.tmp", "after"),
        Point(f"{name}-half-written", "fsync", rf"{path}\.tmp", "before", half=True),
        Point(f"{name}-written", "fsync", rf"{path}\.tmp", "before"),
        Point(f"{name}-synced", "fsync", rf"{path}\.tmp", "after"),
        Point(f"{name}-renamed", "link", path, "after"),
        Point(f"{name}-temporary-removed", "unlink", rf"{path}\.tmp", "after"),
        Point(f"{name}-folder-synced", "fsync", f"{folder} {file}", "after"),
    ]


_UNIT = r"\d+/unit-\d+"
DRIVER = (
    Point("config-written", "fsync", r"config\.yaml\.tmp", "before"),
    Point("config-renamed", "replace", r"config\.yaml", "after"),
    *_published("rows", rf"sources/{_UNIT}\.jsonl")[:5],
    Point("totals-written", "fsync", r"stats\.json\.tmp", "before"),
    Point("totals-renamed", "replace", r"stats\.json", "after"),
    Point("card-renamed", "replace", r"README\.md", "after"),
)
"""That only the driver comes to."""
WRITER = (
    Point("reply-half-appended", "write", rf"logs/replies/{_UNIT}\.jsonl", "before", half=True),
    Point("reply-appended", "write", rf"logs/replies/{_UNIT}\.jsonl", "after"),
    *_published("text", rf"dialogues/{_UNIT}\.jsonl"),
    Point("replies-synced", "fsync", rf"logs/replies/{_UNIT}\.jsonl", "after"),
)
STUDIO = (
    Point("journal-opened", "open", rf"logs/studio/{_UNIT}\.txt", "after"),
    *_published("shard", rf"shards/[a-z]+/{_UNIT}\.tar"),
    *_published("index", rf"shards/[a-z]+/{_UNIT}\.parquet"),
    *_published("reject-clips", rf"rejects/{_UNIT}\.tar")[3:5],
    *_published("rejects", rf"rejects/{_UNIT}\.jsonl"),
    *_published("manifest", rf"shards/[a-z]+/{_UNIT}\.json"),
)
POINTS = {point.name: point for point in (*DRIVER, *WRITER, *STUDIO)}


@dataclass(frozen=True)
class Fault:
    """What happens once, whichever process of the run in `root` comes first. mark: a file that is made then. unit: the
    only one whose files count. after: so often the point is passed before."""

    root: str
    point: str
    mark: str
    act: Act = "kill"
    unit: int | None = None
    after: int = 0


def environment(faults: Sequence[Fault] = (), clock: float = 0.0) -> dict[str, str]:
    """Of a driver that is to suffer, and of all that it starts. clock: seconds that the wall clock jumps by, forward
    and back, every few calls."""
    site = os.path.join(os.path.dirname(__file__), "site")  # noqa: PTH118, PTH120  no pathlib in each Python that starts
    path = os.pathsep.join([site, os.environ["PYTHONPATH"]])
    told = {FAULTS: json.dumps([asdict(fault) for fault in faults]), CLOCK: str(clock)}
    return {**os.environ, "PYTHONPATH": path, **told}


def arm_from_environment() -> None:
    """For sitecustomize."""
    faults = [Fault(**item) for item in json.loads(os.environ.get(FAULTS, "[]"))]
    if faults:
        arm(faults)
    if jump := float(os.environ.get(CLOCK, "0")):
        shake_clock(jump)


def arm(faults: Sequence[Fault]) -> Callable[[], None]:
    """From now on this process suffers. Returns what puts an end to that."""
    trap = _Trap(faults)
    before = {name: getattr(os, name) for name in ("fsync", "write", "link", "unlink", "replace")}
    opened = io.open
    for name, call in before.items():
        setattr(os, name, trap.around(name, call))
    io.open = trap.around("open", opened)  # type: ignore[assignment]

    def disarm() -> None:
        for name, call in before.items():
            setattr(os, name, call)
        io.open = opened

    return disarm


class _Trap:
    def __init__(self, faults: Sequence[Fault]):
        self._armed = [(fault, POINTS[fault.point]) for fault in faults]
        self._roots = tuple({fault.root for fault in faults})
        self._passed = dict.fromkeys(faults, 0)
        self._renamed: dict[str, str] = {}

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def trapped(*args: Any, **options: Any) -> Any:
            path = _path(name, args)
            if not path.startswith(self._roots) or (name == "open" and "w" not in _mode(*args, **options)):
                return call(*args, **options)
            if name == "fsync" and path in self._renamed:
                path = f"{path} {self._renamed[path]}"
            taken = self._come(name, path, "before", args)
            result = call(*args, **options) if taken is None else taken
            if name in ("link", "replace"):
                folder, _, file = path.rpartition("/")
                self._renamed[folder] = file
            self._come(name, path, "after", args)
            return result

        return trapped

    def _come(self, name: str, path: str, when: str, args: tuple[Any, ...]) -> int | None:
        """What the call gives, where it is not to be made."""
        for fault, point in self._armed:
            if (point.call, point.when) != (name, when) or not _matches(fault, point, path):
                continue
            self._passed[fault] += 1
            if self._passed[fault] > fault.after and _first(fault.mark):
                return _befall(fault.act, point, path, args)
        return None


def _mode(file: object, mode: str = "r", *args: object, **options: object) -> str:
    """Of what is opened so."""
    return mode


def _path(name: str, args: tuple[Any, ...]) -> str:
    """Of the file that a call is about."""
    if name in ("fsync", "write"):
        with suppress(OSError):
            return os.readlink(f"/proc/self/fd/{args[0]}")  # noqa: PTH115
        return ""
    target = args[1] if name in ("link", "replace") else args[0]
    return "" if isinstance(target, int) else os.fsdecode(target)


def _matches(fault: Fault, point: Point, path: str) -> bool:
    """Whether the path lies in the run of the fault, is the point's, and of the fault's unit."""
    rest = path.removeprefix(fault.root + "/")
    own = fault.unit is None or f"unit-{fault.unit:06d}." in rest
    return own and rest != path and re.fullmatch(point.path, rest) is not None


def _first(mark: str) -> bool:
    """Whether nobody came before; the mark tells who did."""
    try:
        file = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.writev(file, [str(os.getpid()).encode()])
    os.close(file)
    return True


def _befall(act: str, point: Point, path: str, args: tuple[Any, ...]) -> int | None:
    if act == "fill":
        return _fill(f"{path}.filler")
    written = 0
    if point.half and point.call == "fsync":
        os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
    elif point.half:
        written = os.writev(args[0], [args[1][: len(args[1]) // 2]])
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if written:
        return written  # the system tells of a failure when nothing was written, else of what was
    number = getattr(errno, act)
    raise OSError(number, os.strerror(number), path)


def _fill(path: str) -> None:
    """Leave no room on the disk; a write that finds some takes that."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while os.writev(file, [bytes(1 << 16)]):
            pass
    os.close(file)


def shake_clock(jump: float) -> None:
    """The wall clock of this process jumps by so many seconds, forward and back."""
    real, real_ns, calls = time.time, time.time_ns, iter(range(10**12))

    def offset() -> float:
        """Nothing, forward, backward."""
        return (0.0, jump, -jump)[next(calls) // 2 % 3]

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)
