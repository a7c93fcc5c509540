"""Parquet files with Audio columns, written piece by piece."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

ROW_GROUP_BYTES = 64 << 20
"""Of sound in a row group, and so in memory, here and where it is read."""
ROW_GROUP_ROWS = 100
"""At most: a viewer of the hub reads whole row groups."""


class _Sink(io.RawIOBase):
    """What was written since it was last drained."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def drain(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


def parquet(rows: Iterable[dict[str, Any]], features: Any) -> Iterator[bytes]:
    """A Parquet file in pieces. features: `datasets.Features`, which go into its metadata, so that `datasets` and the
    hub know of Audio."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, sink = _schema(features), _Sink()
    writer = pq.ParquetWriter(sink, schema, compression="zstd", write_page_index=True)
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value["bytes"]) for value in row.values() if isinstance(value, dict) and "bytes" in value)
        if size >= ROW_GROUP_BYTES or len(group) >= ROW_GROUP_ROWS:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            yield from sink.drain()
            group, size = [], 0
    if group:
        writer.write_table(pa.Table.from_pylist(group, schema=schema))
    writer.close()
    yield from sink.drain()


def _schema(features: Any) -> Any:
    """With lists described as every version of `datasets` reads them: those before 4 know no feature called List."""
    schema = features.arrow_schema
    described = json.loads(schema.metadata[b"huggingface"])
    return schema.with_metadata({"huggingface": json.dumps(_plain_lists(described))})


def _plain_lists(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("_type") == "List":
            return [_plain_lists(node["feature"])]
        return {key: _plain_lists(value) for key, value in node.items()}
    return node


def table_path(unit: int, split: str) -> str:
    return f"data/{split}/{unit // 1000:03d}/unit-{unit:06d}.parquet"
