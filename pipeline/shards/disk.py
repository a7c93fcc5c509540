"""Files of a disk: how one comes to exist, and locks.

A file is written under a temporary name, synced, read back, and renamed without overwriting.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from pipeline.errors import RunFolderError, StorageError
from pipeline.shards.readback import checksum, forget
from pipeline.shards.remote import is_remote

TEMPORARY = ".tmp"


class PendingFile:
    """A file on its way: written under a temporary name, hashed as it goes, published by `commit`."""

    def __init__(self, path: Path):
        self.path = path
        self.bytes = 0
        self._sha = hashlib.sha256()
        self._check = xxhash.xxh3_64()
        self._temporary = path.with_name(path.name + TEMPORARY)
        with storage_errors(path):
            make_folder(path.parent)
            self._file = self._temporary.open("wb")

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError:
            with storage_errors(self.path):
                raise
        self._sha.update(data)
        self._check.update(data)
        self.bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self.bytes

    def commit(self, replace: bool = False) -> tuple[int, str]:
        """Publish; returns (bytes, sha256). Raises StorageError if what was read back is not what was written."""
        with storage_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            forget(self._file.fileno())
            self._file.close()
            if checksum(self._temporary) != self._check.intdigest():
                raise StorageError(f"{self._temporary}: what the disk gives back is not what was written")
            if replace:
                self._temporary.replace(self.path)
            else:
                rename_new(self._temporary, self.path)
            sync_folder(self.path.parent)
        return self.bytes, self._sha.hexdigest()

    def abort(self) -> None:
        """Leave nothing. Errors of the disk are passed over: one of them is mostly what led here, and is told."""
        with contextlib.suppress(OSError):
            self._file.close()  # tries once more to write what the disk would not take
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def rename_new(source: Path, target: Path) -> None:
    """Rename that never overwrites: a hard link fails where the target exists, on local disks and on NFS.

    Where the file system has no hard links, the driver's lock is what keeps two writers apart.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        source.rename(target)
        return
    source.unlink()


def make_folder(folder: Path) -> None:
    """With its parents, each synced into its own: what is published in it survives a power cut with it."""
    if not folder.is_dir():
        if not folder.parent.exists():
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    if is_remote(folder):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns what a full or read-only disk raises into one line for the user."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "no space left on the device",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file size limit is reached",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission denied",
            errno.ENOTDIR: "a part of this path is a file",
            errno.EISDIR: "this is a folder",
            errno.ENAMETOOLONG: "the name is too long",
            errno.EIO: "the device failed to read or write",
        }
        if error.errno not in reasons:
            raise
        raise StorageError(
            f"{error.filename or path}: {reasons[error.errno]}; "
            "nothing that was finished is lost: mend it and run the same command again"
        ) from error


def open_lock(path: Path) -> BinaryIO:
    return path.open("ab", buffering=0)


def try_lock(file: BinaryIO, kind: int) -> bool:
    try:
        take_lock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_lock(file: BinaryIO, kind: int) -> None:
    try:
        fcntl.flock(file, kind)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        raise RunFolderError(
            f"{file.name}: this file system has no locks ({error.strerror}), so two runs could write here at once; "
            "mount it with locks (flock), or choose another folder"
        ) from None
