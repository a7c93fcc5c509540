"""Rows of a data set on the hub, streamed by `datasets`."""

from __future__ import annotations

from typing import Any

from pipeline.config import SourceConfig, digest
from pipeline.errors import ConfigError
from pipeline.sources.base import shorten
from pipeline.sources.files import RawRow, Reading


class HubRecords:
    """A split of a data set on the hub, or of whatever else `datasets.load_dataset` takes.

    digest: over name, subset, split and revision. key: the configuration's, for messages.
    """

    def __init__(self, source: SourceConfig, key: str):
        self.origin = source.data or ""
        self.key = key
        self.subset, self.split, self.revision = source.subset, source.split, source.revision
        self.digest = digest(self.origin, self.subset, self.split, self.revision)

    def read(self, position: Any = None) -> Reading:
        """Raises ConfigError where the hub has no such data set or cannot be reached."""
        return _HubReading(self, position)


class _HubReading(Reading):
    """position: {row: number of the last row, stream: the state of `datasets`}."""

    def __init__(self, records: HubRecords, position: Any):
        import datasets

        self._errors = (OSError, ValueError, datasets.exceptions.DatasetsError)
        self._records = records
        try:
            self._stream = datasets.load_dataset(
                records.origin,
                records.subset,
                split=records.split,
                revision=records.revision,
                streaming=True,
            )
        except self._errors as error:
            raise ConfigError(
                f"{records.key}: {records.origin!r} is no file or folder here, and no data set can be read under that "
                f"name: {shorten(str(error))}; correct the name, subset, split or revision, or download it"
            ) from None
        self._stream = self._stream.decode(False)  # no library for images or audio is needed to drop them
        self._number = 0
        if position is not None:
            self._number = position["row"]
            self._stream.load_state_dict(position["stream"])
        self._rows = iter(self._stream)

    def __next__(self) -> RawRow:
        records = self._records
        try:
            value = next(self._rows)
        except self._errors as error:
            raise ConfigError(
                f"{records.key}: {records.origin!r}: row {self._number + 1} cannot be read: {shorten(str(error))}; "
                "nothing that was finished is lost: run the same command again, or download the data set"
            ) from None
        self._number += 1
        return RawRow(records.origin, self._number, value)

    @property
    def position(self) -> Any:
        return {"row": self._number, "stream": self._stream.state_dict()}
