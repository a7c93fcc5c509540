"""release.json: what a release holds, in order, so that it is read where nothing can be listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from pipeline.dialogue import Language, Record, Split
from pipeline.errors import DataError, UsageError
from pipeline.shards.manifest import FileFact
from pipeline.shards.remote import reading_place

RELEASE_VERSION = 1
RELEASE_LIST = "release.json"


def _below(fact: FileFact) -> FileFact:
    path = PurePosixPath(fact.path)
    if path.is_absolute() or ".." in path.parts or "\\" in fact.path or "://" in fact.path:
        raise ValueError(f"{fact.path!r} is no path below the release")
    return fact


ReleaseFile = Annotated[FileFact, AfterValidator(_below)]
"""path: relative to the folder of release.json, with forward slashes."""


class TermsUse(Record):
    """Samples that something went into which has terms of its own. kind: "text" (name: of the source) or "voices"
    (name: the engine that spoke). consent: why the voices may be used, "" for text."""

    kind: str
    name: str
    license: str
    consent: str
    samples: int


class ReleaseShard(Record):
    """A joined shard; its file beside it, PATH.json, is this record.

    release: identity of the release that it is of. number: from 0 on, within its split. tar, index: the members lie in
    the tar as in a run's, and the index has the columns of a run's (index.INDEX_SCHEMA). units: of the run, how many
    were joined. seconds: of audio.
    """

    version: int
    release: str
    split: Split
    number: int
    tar: ReleaseFile
    index: ReleaseFile
    units: int
    samples: int
    seconds: float
    languages: dict[Language, int]
    terms: tuple[TermsUse, ...]


class Release(Record):
    """What a reader needs to know of a release.

    release: its identity: another run, other units or another size have another. synthetic: true, each sample says so.
    view: of the run, "" for the run itself. digests: of the run's stages. size: bytes that a shard was to have.
    user_rate, assistant_rate: Hz. shards: split by split, in the order of the run.
    """

    version: int
    release: str
    synthetic: bool
    view: str
    digests: dict[str, str]
    units_planned: int
    units: int
    samples: int
    seconds: float
    user_rate: int
    assistant_rate: int
    size: int
    shards: tuple[ReleaseShard, ...]

    @property
    def splits(self) -> tuple[Split, ...]:
        return tuple(dict.fromkeys(shard.split for shard in self.shards))

    def of(self, split: Split) -> Iterator[ReleaseShard]:
        """The shards of a split, in order."""
        return (shard for shard in self.shards if shard.split == split)


def is_release(place: Path) -> bool:
    """Whether there is a release.json in a folder, on a store, or below a URL."""
    return (place / RELEASE_LIST).is_file()


def read_release(place: Path | str) -> Release:
    """The release in a folder, or below s3://BUCKET/PATH or https://HOST/PATH. Raises UsageError where there is none,
    DataError for one that is damaged, or that another version of the program wrote, and StorageError."""
    folder = reading_place(place)
    path = folder / RELEASE_LIST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder}: holds no {RELEASE_LIST}, so it is no release; `speechchat release RUN OUT` makes one"
        ) from None
    return parse_release(path, data)


def parse_release(path: Path, data: bytes) -> Release:
    """Raises DataError naming `path`, where the data is from."""
    version = _version(data)
    if version is not None and version != RELEASE_VERSION:
        raise DataError(
            f"{path}: it is of version {version} and this version of speechchat reads {RELEASE_VERSION}; read it with "
            "the one that made it"
        )
    try:
        return Release.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: not a list of a release: {f'{field}: ' if field else ''}{first['msg']}; fetch it again"
        ) from None


def _version(data: bytes) -> Any:
    """What a list says of itself; None where it says nothing."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    return content.get("version") if isinstance(content, dict) else None
