"""verify finds indexes, manifests and records that lie, behind checksums that fit."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dialogue import Sample
from pipeline.shards.format import sample_json
from pipeline.shards.index import index_bytes
from pipeline.shards.manifest import Manifest
from pipeline.shards.store import RunFolder
from tests.shards.damage import Members, checked, problems, refit, repack


@pytest.mark.parametrize("column", pq.read_schema(io.BytesIO(index_bytes([]))).names)
def test_an_index_that_lies(folder: RunFolder, column: str) -> None:
    path = folder.index(0, "train")
    table = pq.read_table(path)
    values = table[column].to_pylist()
    last = values[-1]
    if isinstance(last, list):
        values[-1] = last[1:] or [{"name": "coherence", "value": 4.0}]
    else:
        values[-1] = f"{last}x" if isinstance(last, str) else (last or 0) + 1
    number = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(number, table.schema.field(column), pa.array(values, table.schema.types[number])),
        path,
    )
    refit(folder)
    assert "does not say what the shard holds" in problems(folder, path)


def test_an_index_that_is_none(folder: RunFolder) -> None:
    folder.index(0, "train").write_bytes(b"PAR1 and nothing else")
    refit(folder)
    assert "not a readable index" in problems(folder, folder.index(0, "train"))


@pytest.mark.parametrize("name", [name for name in Manifest.model_fields if name != "files"])
def test_a_manifest_that_lies(folder: RunFolder, name: str) -> None:
    manifest = folder.load_manifest(0, "train")
    assert manifest is not None
    value = getattr(manifest, name)
    lie: Any
    if name == "split":
        lie = "test"
    elif isinstance(value, str):
        lie = "f" * 16
    elif isinstance(value, dict):
        lie = {**value, "en": 7}
    elif isinstance(value, tuple):
        lie = value[1:]
    else:
        lie = value + 1
    refit(folder, **{name: lie})
    assert problems(folder, folder.manifest(0, "train"))


def test_a_manifest_that_names_other_files(folder: RunFolder) -> None:
    manifest = folder.load_manifest(0, "train")
    assert manifest is not None
    for number, fact in enumerate(manifest.files):
        others = manifest.files[:number] + manifest.files[number + 1 :]
        strange = fact.model_copy(update={"path": "../elsewhere.json"})
        for files in (others, (*others, strange), (*manifest.files, fact)):
            refit_text = manifest.model_copy(update={"files": files}).model_dump_json()
            folder.manifest(0, "train").write_text(refit_text)
            assert checked(folder).problems, fact.path


@pytest.mark.parametrize(
    "change",
    [
        {"turns": ()},
        {"voices": ()},
        {"duration": math.nan},
        {"duration": math.inf},
        {"duration": -1.0},
        {"duration": 1e300},
        {"user_rate": 10**30},
        {"split": "test"},
        {"language": "zh"},
    ],
    ids=str,
)
def test_a_record_that_cannot_be(folder: RunFolder, change: dict[str, Any]) -> None:
    def lie(content: Members) -> Members:
        sample = Sample.model_validate_json(content[0][1])
        assert all(getattr(sample, name) != value for name, value in change.items())
        text = sample.model_copy(update=change).model_dump()
        return [(content[0][0], json.dumps(text).encode()), *content[1:]]

    path = repack(folder, lie)
    assert checked(folder).problems
    if "split" not in change and "language" not in change:
        assert ".json: " in problems(folder, path) or ".flac: " in problems(folder, path)


def test_a_turn_outside_of_the_timeline(folder: RunFolder) -> None:
    def lie(content: Members) -> Members:
        sample = Sample.model_validate_json(content[0][1])
        late = sample.turns[-1].model_copy(update={"end": sample.duration + 0.01})
        content[0] = (
            content[0][0],
            sample_json(sample.model_copy(update={"turns": (*sample.turns[:-1], late)})),
        )
        return content

    path = repack(folder, lie)
    assert "lies outside the timeline" in problems(folder, path)
