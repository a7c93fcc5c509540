"""Voice libraries as Parquet: what is written is read, and what is no table of voices is told so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.voice import Recipe, Voice
from speakers import VoiceLibrary, load_library
from speakers.build import build
from speakers.table import COLUMNS, read_embeddings, read_table, write_table

BUILT = build(load_library(), len(load_library().voices) + 300)
EMBEDDED = Voice(
    id="kim",
    gender="male",
    languages=("en", "zh"),
    engine="yours",
    license="MIT",
    recipe=Recipe(embedding=(0.25, -1.5), speed=0.9),
)


def table(tmp_path: Path, library: VoiceLibrary = BUILT) -> Path:
    write_table(library, tmp_path / "voices.parquet")
    return tmp_path / "voices.parquet"


def cloned(tmp_path: Path) -> VoiceLibrary:
    clip = tmp_path / "clips" / "eva.wav"
    clip.parent.mkdir()
    clip.write_bytes(b"some sound")
    recipe = Recipe(clip=str(clip), clip_text="hello", clip_sha256="ab" * 32)
    return VoiceLibrary((EMBEDDED.model_copy(update={"id": "eva", "recipe": recipe}),))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    library = VoiceLibrary((*BUILT.voices, EMBEDDED))
    path = table(tmp_path, library)
    assert read_table(path).voices == library.voices == load_library(path).voices
    assert read_table(path).digest == library.digest
    assert [item.name for item in tmp_path.iterdir()] == ["voices.parquet"]


def test_the_same_voices_are_the_same_bytes(tmp_path: Path) -> None:
    first = table(tmp_path).read_bytes()
    assert table(tmp_path, VoiceLibrary(tuple(voice.model_copy() for voice in BUILT.voices))).read_bytes() == first
    assert table(tmp_path, VoiceLibrary(BUILT.voices[:-1])).read_bytes() != first


def test_columns_are_there_to_filter_by(tmp_path: Path) -> None:
    rows = pq.read_table(table(tmp_path, VoiceLibrary((*BUILT.voices, EMBEDDED)))).to_pylist()
    assert all(tuple(row) == COLUMNS for row in rows)
    assert {row["kind"] for row in rows} == {"styles", "embedding"}
    for row, voice in zip(rows, BUILT.voices, strict=False):
        assert tuple(row["parents"]) == voice.recipe.parents and row["rate"] == voice.rate
        stored = json.loads(row["recipe"])
        assert stored["timbre"] == dict(voice.recipe.timbre)
        assert ("shift" in stored) == (voice.recipe.shift != 0)  # what is not said by default is left out


def test_embeddings_of_those_that_were_measured(tmp_path: Path) -> None:
    path, id = tmp_path / "voices.parquet", BUILT.voices[3].id
    write_table(BUILT, path, {id: np.array([0.5, 0.25, -1], np.float32)})
    measured = read_embeddings(path)
    assert list(measured) == [id] and measured[id].dtype == np.float32 and measured[id].tolist() == [0.5, 0.25, -1]
    assert read_table(path).voices == BUILT.voices
    assert read_embeddings(table(tmp_path)) == {}


def test_clips_travel_with_the_table(tmp_path: Path) -> None:
    path = table(tmp_path, cloned(tmp_path))
    assert json.loads(pq.read_table(path)["recipe"][0].as_py())["clip"] == "clips/eva.wav"
    shutil.copytree(tmp_path, tmp_path / "moved")
    moved = read_table(tmp_path / "moved" / "voices.parquet")
    assert moved.voice("eva").recipe.clip == str(tmp_path / "moved" / "clips" / "eva.wav")
    assert moved.digest == read_table(path).digest
    (tmp_path / "clips" / "eva.wav").unlink()
    with pytest.raises(ConfigError, match=r"voices\.parquet: recipe\.clip \(eva\): there is no file .*eva\.wav"):
        read_table(path)


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path)
    data = path.read_bytes()
    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "foreign.parquet")
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name, told in {
        "foreign.parquet": r"no table of voices, it lacks the column 'languages'",
        "cut.parquet": r"cannot be read \(damaged, or no Parquet\)",
        "empty.parquet": r"cannot be read \(damaged, or no Parquet\)",
        "none.parquet": r"cannot be read \(there is no such file",
    }.items():
        with pytest.raises(ConfigError, match=told) as caught:
            load_library(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_flipped_bit_never_makes_another_voice(tmp_path: Path) -> None:
    """Parquet's page checksums find it, or it lies where no voice is."""
    path = table(tmp_path)
    data = bytearray(path.read_bytes())
    refused = 0
    for place in range(100, len(data), 397):
        damaged = data.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert read_table(path).voices == BUILT.voices
        except ConfigError as error:
            assert "voices.parquet" in str(error)
            refused += 1
    assert refused > 15


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("recipe", "{", r"voices\.1\.recipe \(.*\): no JSON: '{'"),
        ("recipe", '{"timbre": {"af_sky": 0.5}}', r"voices\.1\.recipe\.timbre \(.*\): the weights sum to 1"),
        ("gender", "robot", r"voices\.1\.gender \(.*\): .*'robot'"),
        ("id", BUILT.voices[0].id, r"the id '.*' is there more than once"),
    ],
)
def test_a_bad_value_is_told_where(tmp_path: Path, column: str, value: str, told: str) -> None:
    path = table(tmp_path)
    read = pq.read_table(path)
    values = read[column].to_pylist()
    values[1] = value
    pq.write_table(read.set_column(COLUMNS.index(column), read.schema.field(column), [values]), path)
    with pytest.raises(ConfigError, match=told) as caught:
        read_table(path)
    assert "voices.parquet" in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(ConfigError, match="the table has no voices"):
        read_table(path)
