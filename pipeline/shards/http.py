"""Files behind a web server, to be read: nothing can be listed or written there.

Credentials come from the environment or from ~/.netrc, in each process by itself: no path holds them.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import DataError, StorageError, UsageError

if TYPE_CHECKING:
    import requests

TOKEN = "SPEECHCHAT_HTTP_TOKEN"
"""Environment variable whose value is sent as a bearer token, over https or to this machine."""
PAUSES = (0.1, 0.3, 1.0, 3.0, 8.0)
"""Seconds before a request is tried again; a server that asks for more is given up to PATIENCE."""
PATIENCE = 30.0
TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and without a byte."""
AT_ONCE = 8
"""Ranges that are asked for side by side."""
BLOCK = 8 << 20
"""Bytes that are asked for at once of a file that is read from its start to its end."""
GAP = 1 << 12
"""Bytes between two ranges that are rather fetched than asked around: what lies between members of a tar is less."""
_AGAIN = (429, 500, 502, 503, 504)


def http_place(text: str) -> HttpPath:
    """The path that a URL names. Raises UsageError for one with credentials or options."""
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("/")
    if "@" in host or set("?#") & set(rest):  # not repeated here: it may be a secret
        raise UsageError(
            f"{scheme}://…: no credentials or options in a URL; a token is taken from {TOKEN}, a name and a password "
            "from ~/.netrc"
        )
    try:
        named = urlsplit(f"//{host}")
        known = bool(named.hostname) and named.port != 0  # the port is parsed when it is asked for
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"{text}: name a host: https://HOST/PATH")
    return HttpPath("/", scheme.lower(), host, path)


class HttpPath(PurePosixPath):
    """https://HOST/PATH, with as much of `pathlib.Path` as reading asks for. Picklable; safe in threads and forks.

    Methods raise FileNotFoundError as a disk does, and StorageError, one line for the user, for what else a server may
    say. What is in passing (429, 500, 502, 503, 504, a broken connection) is tried again, ever later, a few times.
    """

    __slots__ = ()

    def __str__(self) -> str:
        text = super().__str__()
        return "{}://{}".format(*text[1:].split("/", 1)) if self.is_absolute() else text

    def as_posix(self) -> str:
        return str(self)

    def stat(self) -> Any:
        """Its size, as far as a server tells."""
        length = _ask(self, "HEAD")[0].get("Content-Length", "")
        if not length.isdigit():
            raise StorageError(f"{self}: the server does not tell its size (Content-Length); serve it as a plain file")
        return SimpleNamespace(st_size=int(length), st_mode=stat.S_IFREG)

    def is_file(self) -> bool:
        """Whether there is such a file."""
        try:
            _ask(self, "HEAD")
        except FileNotFoundError:
            return False
        return True

    exists = is_file

    def read_bytes(self) -> bytes:
        return _ask(self, "GET")[1]

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def open(self, mode: str = "rb", *, buffering: int = BLOCK) -> IO[bytes]:
        """For reading, in ranges of `buffering` bytes."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: a file behind a web server is opened with 'rb'")
        return io.BufferedReader(_Reader(self), max(buffering, 1))


class _Reader(io.RawIOBase):
    def __init__(self, path: HttpPath):
        self._path = path
        self._size = int(path.stat().st_size)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._at))
        if size:
            buffer[:size] = _range(self._path, self._at, size)
            self._at += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def http_ranges(path: HttpPath, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Of each (offset, size) its bytes, in order. Neighbours come with one request, several requests go side by side.

    Raises DataError for a range that the file does not have, FileNotFoundError, StorageError.
    """
    groups = deque(_neighbours(ranges))
    if len(groups) == 1:  # what a shuffled stream asks for, thousands of times
        yield from _group(path, groups[0])
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: deque[Future[list[bytes]]] = deque()
        try:
            while groups or waiting:
                while groups and len(waiting) < 2 * AT_ONCE:
                    waiting.append(pool.submit(_group, path, groups.popleft()))
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _group(path: HttpPath, group: Sequence[tuple[int, int]]) -> list[bytes]:
    """Of neighbours in order, which come with one request."""
    start = group[0][0]
    data = _range(path, start, sum(group[-1]) - start)
    return [data[offset - start : offset - start + size] for offset, size in group]


def _neighbours(ranges: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    group: list[tuple[int, int]] = []
    for offset, size in ranges:
        if group:
            start, end = group[0][0], sum(group[-1])
            if not 0 <= offset - end <= GAP or offset + size - start > BLOCK:
                yield group
                group = []
        group.append((offset, size))
    if group:
        yield group


def _range(path: HttpPath, offset: int, size: int) -> bytes:
    """Exactly these bytes."""
    if not size:
        return b""
    headers, data = _ask(path, "GET", offset, size)
    told = headers.get("Content-Range", f"bytes {offset}-{offset + len(data) - 1}/*")
    if len(data) != size or not told.startswith(f"bytes {offset}-{offset + size - 1}/"):
        raise DataError(
            f"{path}: gave {len(data)} bytes ({told}) where {size} from byte {offset} on belong: cut short, or another "
            "file than its index says"
        )
    return data


def _ask(path: HttpPath, method: str, offset: int = 0, size: int = 0) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of an answer; size: of the range that is asked for, 0 for all."""
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    headers = {"Range": f"bytes={offset}-{offset + size - 1}"} if size else {}
    for pause in (*PAUSES, None):
        wait = 0.0
        try:
            with _session(os.getpid()).request(
                method, str(path), headers=headers, auth=_token(path), stream=True, timeout=TIMEOUT
            ) as response:
                if response.status_code not in _AGAIN:
                    _check(path, response, offset, size)
                    return response.headers, response.raw.read(decode_content=False)
                why = f"{response.status_code} {response.reason}"
                asked = response.headers.get("Retry-After", "")
                wait = min(float(asked), PATIENCE) if asked.isdigit() else 0.0
        except (RequestException, HTTPError) as error:
            why = " ".join(str(error).split())[:200]
        if pause is not None:
            time.sleep(max(pause, wait))
    raise StorageError(f"{path}: the server failed again and again ({why}); give the same command again later")


def _check(path: HttpPath, response: requests.Response, offset: int, size: int) -> None:
    """Raises for an answer that is not what was asked for."""
    status = response.status_code
    if status in (404, 410):
        raise FileNotFoundError(2, "no such file", str(path))
    if status == 416:
        raise DataError(f"{path}: ends before byte {offset}: cut short, or another file than its index says")
    if status in (401, 403):
        raise StorageError(
            f"{path}: the server denies access ({status}); give it a token in {TOKEN}, or a name and a password in "
            "~/.netrc (never in the URL)"
        )
    if size and status == 200 and (offset, response.headers.get("Content-Length")) != (0, str(size)):
        raise StorageError(
            f"{path}: the server ignores Range requests, so that all of a file would come for each part of it; use a "
            "server that honours them (nginx, an object store, a hub), or fetch the files first"
        )
    if status not in (200, 206):
        raise StorageError(f"{path}: the server answers {status} {response.reason}; is the URL right?")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise StorageError(f"{path}: the server sends it compressed though it was not asked to; serve it as it is")


@functools.lru_cache(maxsize=2)
def _session(process: int) -> requests.Session:
    """One for each process: connections that a fork inherits are its parent's. It keeps them, and its threads share it;
    proxies and ~/.netrc are its business."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "speechchat"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=2 * AT_ONCE))
    return session


def _token(path: HttpPath) -> Callable[[Any], Any] | None:
    """Sends the token; not where anybody on the way could read it, nor to another host that a redirect names."""
    token, host = os.environ.get(TOKEN), urlsplit(str(path)).hostname
    if not token or (path.parts[1] != "https" and host not in ("localhost", "127.0.0.1", "::1")):
        return None

    def add(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return add
