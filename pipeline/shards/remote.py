"""Run folders on an S3-compatible store: paths that behave as those of a disk, and objects that are put once.

What relies on what: that an object is there, and what it holds, is asked of its exact key (HEAD, GET), which stores
answer consistently. An object comes to be by one conditional put (`If-None-Match: *`), whole or not at all; what was
put is never overwritten, and a put whose answer was lost is known again by its bytes. Listings, which may lag behind,
only find strangers and leftovers, count, and say which views there are.

Credentials, region and endpoint (AWS_ENDPOINT_URL) come from the environment or the store's own chain, in each process
by itself: no path holds them, so that they reach no configuration, log or manifest.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import IO, Any, cast

from pipeline.errors import DataError, StorageError, UsageError
from pipeline.shards.http import HttpPath, http_place, http_ranges

BLOCK = 8 << 20
"""Bytes that are asked for at once of an object that is read from its start to its end."""
_COPIED = 1 << 16
CONFIG = {"retries": {"mode": "standard", "max_attempts": 6}, "connect_timeout": 5, "read_timeout": 30}
"""Of botocore. With ROUNDS of them 500, 502, 503, 504 and a broken connection are tried again, ever later, for about a
minute; a store that takes requests and never answers, for six."""
ROUNDS = 2
"""Tries of s3fs around those of botocore: a download that broke off in the middle is begun anew only here."""
ONCE = {"retries": {"mode": "standard", "max_attempts": 2}, "connect_timeout": 5, "read_timeout": 20}
"""To find out whether the store is there at all."""


def place(run: Path | str) -> Path:
    """Where a run lives: a path of this machine, or s3://BUCKET/KEY. Raises UsageError for any other URL."""
    text = str(run)
    if not isinstance(run, str) or "://" not in text:
        return Path(run) if isinstance(run, str) else run
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if set("@:") & set(bucket) or set("@?") & set(rest):  # not repeated here: it may be a secret
        raise UsageError(
            f"{scheme}://…: no credentials or options in a URL; a store takes them from the environment "
            "(AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, …)"
        )
    if scheme != "s3":
        raise UsageError(
            f"{text}: a run lives in a folder or on an S3-compatible store (s3://BUCKET/PATH); of {scheme}:// it is "
            "not known here whether a put can be refused where something is, so that exactly once cannot be promised"
        )
    if not bucket or not key.strip("/"):
        raise UsageError(f"{text}: name a bucket and a path in it: s3://BUCKET/PATH")
    return cast(Path, StorePath("/", bucket, key))


def reading_place(text: Path | str) -> Path:
    """As `place`, for what is only read: also http:// and https://. Raises UsageError for any other URL."""
    if isinstance(text, str) and text.lower().startswith(("http://", "https://")):
        return cast(Path, http_place(text))
    return place(text)


def is_remote(path: object) -> bool:
    return isinstance(path, StorePath)


class StorePath(PurePosixPath):
    """s3://BUCKET/KEY, with as much of `pathlib.Path` as a run asks for. Picklable.

    Methods raise FileNotFoundError and FileExistsError as a disk does, and StorageError, one line for the user, for
    what else a store may say. There are no folders: `mkdir` does nothing, `is_dir` says whether something lies below.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return f"s3:/{super().__str__()}" if self.is_absolute() else super().__str__()

    def as_posix(self) -> str:
        return str(self)

    @property
    def bucket(self) -> str:
        return self.parts[1]

    @property
    def key(self) -> str:
        return "/".join(self.parts[2:])

    def call(self, method: str, /, *, once: bool = False, **options: Any) -> Any:
        """A request of the S3 API about this object. once: hardly try again. Raises Refused for a condition that does
        not hold."""
        for pause in (0.1, 0.2, 0.4, 0.8, None):
            try:
                with store_errors(self):
                    return _filesystem(once).call_s3(method, Bucket=self.bucket, **options)
            except Busy:
                if pause is None:
                    break
                time.sleep(pause)
        raise StorageError(
            f"{self}: the store says again and again that somebody else is just putting it; see that nobody does, and "
            "run the same command again"
        )

    # ---- reading ----

    def head(self) -> dict[str, Any]:
        return dict(self.call("head_object", Key=self.key))

    def exists(self) -> bool:
        """Whether there is such an object."""
        try:
            self.head()
        except FileNotFoundError:
            return False
        return True

    is_file = exists

    def is_symlink(self) -> bool:
        return False

    def is_dir(self) -> bool:
        return next(self.walk_files(), None) is not None

    def stat(self) -> Any:
        """Size and time of change, as far as a store tells."""
        head = self.head()
        size, changed = head["ContentLength"], head["LastModified"].timestamp()
        return SimpleNamespace(st_size=size, st_mtime=changed, st_mode=stat.S_IFREG)

    def read_bytes(self) -> bytes:
        with store_errors(self):
            # One request: it would else be asked first how long the object is.
            return bytes(_filesystem().cat_file(f"{self.bucket}/{self.key}", max_concurrency=1))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def open(self, mode: str = "r", *, buffering: int = -1, block: int = BLOCK, **text: Any) -> IO[Any]:
        """For reading. block: bytes that are asked for at once."""
        with store_errors(self):
            inner = _filesystem().open(f"{self.bucket}/{self.key}", "rb", block_size=block, cache_type="readahead")
        file = io.BufferedReader(_Reader(self, inner), _COPIED)
        return file if "b" in mode else io.TextIOWrapper(file, **text)

    def walk_files(self) -> Iterator[tuple[StorePath, int]]:
        """Every object below, with its size, in the order of keys. What was put a moment ago may be missing."""
        for page in self._pages():
            for item in page["Contents"]:
                yield self._at(item["Key"]), item["Size"]

    def iterdir(self) -> Iterator[StorePath]:
        """Objects and folders just below."""
        for page in self._pages(Delimiter="/"):
            yield from (self._at(item["Key"]) for item in page["Contents"])
            yield from (self._at(item["Prefix"]) for item in page.get("CommonPrefixes", ()))

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Objects so many folders below; `*` stays within a name."""
        name, _, rest = pattern.partition("/")
        if not rest:
            for page in self._pages(Delimiter="/"):
                found = (self._at(item["Key"]) for item in page["Contents"])
                yield from (path for path in found if fnmatch(path.name, name))
        elif "*" not in name:
            yield from (self / name).glob(rest)
        else:
            for folder in self.iterdir():
                if fnmatch(folder.name, name):
                    yield from folder.glob(rest)

    def rglob(self, pattern: str) -> Iterator[StorePath]:
        return (path for path, _ in self.walk_files() if fnmatch(path.name, pattern))

    def _pages(self, **options: Any) -> Iterator[dict[str, Any]]:
        while True:
            page = self.call("list_objects_v2", Prefix=f"{self.key}/", **options)
            # What ends in "/" is no file: consoles and copying tools put it there to show an empty folder.
            page["Contents"] = [item for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _at(self, key: str) -> StorePath:
        return type(self)("/", self.bucket, key)

    # ---- writing ----

    def mkdir(self, **_: Any) -> None:
        """A store has no folders."""

    def resolve(self) -> StorePath:
        return self

    absolute = resolve

    def put(self, data: bytes, **condition: Any) -> str:
        """The ETag of the new object. condition: IfNoneMatch="*" or IfMatch=ETAG. Raises Refused."""
        return str(self.call("put_object", Key=self.key, Body=data, **condition)["ETag"])

    def write_bytes(self, data: bytes) -> int:
        self.put(data)
        return len(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> int:
        return self.write_bytes(text.encode(encoding))

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.head()
        self.call("delete_object", Key=self.key)

    def replace(self, target: StorePath) -> StorePath:
        target.write_bytes(self.read_bytes())
        self.unlink()
        return target


class _Reader(io.RawIOBase):
    """An open object; says as `store_errors` what goes wrong while it is read."""

    def __init__(self, path: StorePath, file: Any):
        self._path = path
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with store_errors(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


class Refused(FileExistsError):
    """The condition of a put does not hold: somebody else was there."""


class Busy(Refused):
    """Somebody else is just putting the same object."""


def _packages() -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError:
        raise UsageError("a run on s3:// needs the package s3fs: pip install 'speechchat[s3]'") from None


def _filesystem(once: bool = False) -> Any:
    """One for each process (a fork, too, gets its own). Listings are never remembered."""
    from s3fs import S3FileSystem

    found = S3FileSystem(config_kwargs=ONCE if once else CONFIG, use_listings_cache=False)
    found.retries = 1 if once else ROUNDS
    return found


def forget_clients() -> None:
    """Look for credentials and endpoint anew."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@contextlib.contextmanager
def store_errors(path: StorePath) -> Iterator[None]:
    """Turns what a store may say into FileNotFoundError, Refused, or one line for the user."""
    _packages()
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except (OSError, BotoCoreError, ClientError, HttpError) as error:
        cause = error if isinstance(error, ClientError) else error.__cause__
        told = cause.response.get("Error", {}) if isinstance(cause, ClientError) else {}
        code = str(told.get("Code", ""))
        if code == "InvalidRange":
            raise DataError(f"{path}: ends before what its index names: cut short, or changed since") from None
        if code == "NoSuchBucket":
            raise StorageError(f"{path}: there is no bucket {path.bucket!r}; make it, or mend the URL") from None
        if code in ("ConditionalRequestConflict", "409"):
            raise Busy(17, "is just being put", str(path)) from None
        if code in ("PreconditionFailed", "412") or isinstance(error, FileExistsError):
            raise Refused(17, "exists, or was changed", str(path)) from None
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(2, "no such object", str(path)) from None
        if isinstance(error, NoCredentialsError):
            why = "no credentials for it were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        elif isinstance(error, PermissionError):
            why = f"the store denies these credentials access ({code}: {_line(told.get('Message', error))})"
        else:
            why = f"the store failed ({_line(error)})"
        raise StorageError(
            f"{path}: {why}; nothing that was finished is lost: mend it and run the same command again"
        ) from error


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]


def require_store(path: Path) -> None:
    """Raises StorageError unless the bucket is there and may be listed: one request, which is hardly tried again."""
    cast(StorePath, path).call("list_objects_v2", once=True, Prefix=f"{cast(StorePath, path).key}/", MaxKeys=1)


def whole(path: Path) -> Path | io.BytesIO:
    """What pyarrow reads a small file from: from elsewhere one request gets all of it. Raises
    FileNotFoundError."""
    return path if isinstance(path, Path) else io.BytesIO(path.read_bytes())


def size_of(path: Path, file: Any) -> int:
    """Bytes of what was opened."""
    return os.fstat(file.fileno()).st_size if isinstance(path, Path) else int(file.seek(0, 2) - file.seek(0))


def read_ranges(path: Path, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Of each (offset, size) its bytes, in order."""
    if isinstance(path, StorePath):
        some = [(at, at + size) for at, size in ranges if size]  # a store would give all of it for an empty range
        starts, ends = [start for start, _ in some], [end for _, end in some]
        with store_errors(path):
            names = [f"{path.bucket}/{path.key}"] * len(some)
            found = iter(_filesystem().cat_ranges(names, starts, ends, on_error="raise"))
        yield from (next(found) if size else b"" for _, size in ranges)
        return
    if isinstance(path, HttpPath):
        yield from http_ranges(path, ranges)
        return
    with path.open("rb") as file:
        for offset, size in ranges:
            file.seek(offset)
            yield file.read(size)


def listed_sizes(folder: Path) -> dict[Path, int]:
    """Bytes of the objects below, as far as a listing knows them; nothing for a folder of this machine."""
    return dict(folder.walk_files()) if isinstance(folder, StorePath) else {}


def remove_tree(folder: Path) -> None:
    """All files below, if there are any. On a store, of those that a listing knows."""
    if isinstance(folder, StorePath):
        for path, _ in folder.walk_files():
            path.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
