"""A voice library as a Parquet table: a row a voice, for tens of thousands of them and for tools that filter.

Columns: id, languages (list), gender, age, accent, rate, pitch, engine, kind, recipe (JSON, what is not said by default
is left out; a clip's path is relative to the table), parents (list), license, consent, split, embedding (list of
float32, null where it was not measured). kind and parents follow from the recipe; they are there to filter by.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.voice import Voice
from speakers.library import VoiceLibrary, library_of, validate_voices
from speakers.recipes import canonical

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    "id",
    "languages",
    "gender",
    "age",
    "accent",
    "rate",
    "pitch",
    "engine",
    "kind",
    "recipe",
    "parents",
    "license",
    "consent",
    "split",
    "embedding",
)
# Those that are a voice's own, as they are.
_FIELDS = ("id", "languages", "gender", "age", "accent", "rate", "pitch", "engine", "license", "consent", "split")


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = pa.list_(pa.string())
    kinds = {
        "languages": texts,
        "parents": texts,
        "rate": pa.float64(),
        "pitch": pa.float64(),
        "embedding": pa.list_(pa.float32()),
    }
    return pa.schema([pa.field(name, kinds.get(name, pa.string()), nullable=name == "embedding") for name in COLUMNS])


def write_table(library: VoiceLibrary, path: Path, embeddings: Mapping[str, np.ndarray] | None = None) -> None:
    """Write `library` to `path`; the same voices give the same bytes. What was there before is replaced at once.

    embeddings: of voices that were measured, by id: float32, shape [n]. Raises OSError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    measured = embeddings or {}
    rows = [_row(voice, path.absolute().parent, measured.get(voice.id)) for voice in library.voices]
    table = pa.Table.from_pylist(rows, schema=_schema())
    partial = path.with_name(f".{path.name}.partial")
    try:
        # Statistics of one row group skip nothing, and nothing checks them.
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True, write_statistics=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _row(voice: Voice, folder: Path, embedding: np.ndarray | None) -> dict[str, Any]:
    recipe = voice.recipe
    if recipe.clip:
        recipe = recipe.model_copy(update={"clip": Path(os.path.relpath(recipe.clip, folder)).as_posix()})
    return {
        **{name: getattr(voice, name) for name in _FIELDS},
        "kind": recipe.kind,
        "recipe": canonical(recipe),
        "parents": voice.recipe.parents,
        "embedding": None if embedding is None else np.asarray(embedding, np.float32),
    }


def read_table(path: Path) -> VoiceLibrary:
    """The voices of a table. Raises ConfigError naming the file, the row and the field."""
    rows = _read(path, [*_FIELDS, "recipe"]).to_pylist()
    if not rows:
        raise ConfigError(f"{path}: the table has no voices")
    for number, row in enumerate(rows):
        try:
            row["recipe"] = json.loads(row["recipe"])
        except (TypeError, ValueError):
            raise ConfigError(f"{path}: voices.{number}.recipe ({row['id']}): no JSON: {row['recipe']!r}") from None
    voices = validate_voices(rows, str(path), [str(row["id"]) for row in rows])
    return library_of((_placed(voice, path) for voice in voices), str(path))


def read_embeddings(path: Path) -> dict[str, np.ndarray]:
    """The measured embeddings of a table by voice, float32, shape [n]. Raises ConfigError."""
    table = _read(path, ["id", "embedding"])
    pairs = zip(table["id"].to_pylist(), table["embedding"], strict=True)
    return {id: np.asarray(value.values.to_numpy(), np.float32) for id, value in pairs if value.is_valid}


def _read(path: Path, columns: list[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = [name for name in _schema().names if name not in file.schema_arrow.names]
            if missing:
                raise ConfigError(
                    f"{path}: this is no table of voices, it lacks the column {missing[0]!r}; "
                    "`speechchat voices build` makes one"
                )
            return file.read(columns=columns).cast(pa.schema([_schema().field(name) for name in columns]))
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        reason = "damaged, or no Parquet" if path.is_file() else "there is no such file"
        raise ConfigError(
            f"{path}: the voice library cannot be read ({reason}); `speechchat voices build` makes one"
        ) from None


def _placed(voice: Voice, path: Path) -> Voice:
    if not voice.recipe.clip:
        return voice
    clip = Path(os.path.normpath(path.absolute().parent / voice.recipe.clip))
    if not clip.is_file():
        raise ConfigError(f"{path}: recipe.clip ({voice.id}): there is no file {clip}")
    return voice.model_copy(update={"recipe": voice.recipe.model_copy(update={"clip": str(clip)})})
