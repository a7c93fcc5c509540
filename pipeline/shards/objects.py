"""How an object comes to be on a store: gathered here, put once, read back."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import Any, cast

from pipeline.errors import StorageError
from pipeline.shards.remote import BLOCK, Refused, StorePath, store_errors

PART = 64 << 20
"""Bytes that are put at once; more go up in parts of this size."""


class PendingObject:
    """As store.PendingFile, for an object: gathered in memory, or in an unnamed file here, and put by `commit`."""

    def __init__(self, path: Path, claim: str = ""):
        self.path = cast(StorePath, path)
        self.bytes = 0
        self._claim = claim
        self._sha = hashlib.sha256()
        self._file = tempfile.SpooledTemporaryFile(PART)  # noqa: SIM115  closed by commit and abort

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: {error.strerror}; what goes to {self.path} waits there until it is whole: "
                "set TMPDIR to a folder with room, and run the same command again"
            ) from error
        self._sha.update(data)
        self.bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self.bytes

    def commit(self, replace: bool = False) -> tuple[int, str]:
        """Publish; returns (bytes, sha256). Raises FileExistsError where another object is, StorageError if what lies
        there is not what was put."""
        condition: dict[str, Any] = {} if replace else {"IfMatch": self._claim} if self._claim else {"IfNoneMatch": "*"}
        self._file.seek(0)
        etag, refused = self._etag(), False
        try:
            if self.bytes <= PART:
                self.path.put(self._file.read(), **condition)
            else:
                self._put_parts(condition)
        except Refused:
            refused = True  # perhaps by ourselves: a put is tried again where its answer was lost
        except FileNotFoundError:
            refused = True  # the claim is gone
        same = self._is_there(etag)
        self._file.close()
        if refused and not same:
            raise FileExistsError(17, "another object is there", str(self.path))
        if not same:
            raise StorageError(f"{self.path}: what the store gives back is not what was put")
        return self.bytes, self._sha.hexdigest()

    def abort(self) -> None:
        self._file.close()

    def _etag(self) -> str:
        """What S3 calls an object of these bytes: the MD5, of the whole or of the parts' MD5s and their number."""
        sums = []
        while part := self._file.read(PART):
            sums.append(hashlib.md5(part, usedforsecurity=False))
        self._file.seek(0)
        if self.bytes <= PART:
            return sums[0].hexdigest() if sums else hashlib.md5(b"", usedforsecurity=False).hexdigest()
        whole = hashlib.md5(b"".join(item.digest() for item in sums), usedforsecurity=False)
        return f"{whole.hexdigest()}-{len(sums)}"

    def _is_there(self, etag: str) -> bool:
        """Whether the object is of our bytes: by its ETag, or where that is no MD5 (encrypted objects), it is read."""
        try:
            head = self.path.head()
        except FileNotFoundError:
            return False
        if head["ContentLength"] != self.bytes:
            return False
        if head["ETag"].strip('"') == etag:
            return True
        sha = hashlib.sha256()
        with self.path.open("rb") as file, store_errors(self.path):
            while block := file.read(BLOCK):
                sha.update(block)
        return sha.digest() == self._sha.digest()

    def _put_parts(self, condition: dict[str, Any]) -> None:
        upload: dict[str, Any] = {"Key": self.path.key}
        upload["UploadId"] = self.path.call("create_multipart_upload", **upload)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            while part := self._file.read(PART):
                number = len(parts) + 1
                etag = self.path.call("upload_part", **upload, PartNumber=number, Body=part)["ETag"]
                parts.append({"PartNumber": number, "ETag": etag})
            self.path.call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:
            with contextlib.suppress(StorageError, OSError):
                self.path.call("abort_multipart_upload", **upload)
            raise


def sweep_uploads(root: Path) -> None:
    """End the uploads below that a killed process left: their parts cost, and nobody sees them. For the driver."""
    folder = cast(StorePath, root)
    while True:
        found = folder.call("list_multipart_uploads", Prefix=f"{folder.key}/")
        for item in found.get("Uploads", ()):
            with contextlib.suppress(FileNotFoundError):
                folder.call("abort_multipart_upload", Key=item["Key"], UploadId=item["UploadId"])
        if not found.get("IsTruncated"):
            return
