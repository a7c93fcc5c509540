"""The index of a shard: a Parquet file beside it with a row a sample, in the same order. What a viewer filters, a
reader seeks and statistics add up lies here, so that none of them opens a tar.

Columns that are lists have an entry for each turn, in the order of the turns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

from pipeline.audio.flac import block_size, frame_ranges
from pipeline.dialogue import Role, Sample
from pipeline.shards.format import Encoded, Member

ROLES: tuple[Role, Role] = ("user", "assistant")
PARQUET: Mapping[str, Any] = MappingProxyType({"compression": "lz4", "use_dictionary": False})
"""How an index is written: of so few rows dictionaries are longer than what they stand for, and thousands of indexes
are joined in a third of the time that zstd takes."""
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("language", pa.string()),
        ("duration", pa.float64()),
        ("user_seconds", pa.float64()),
        ("assistant_seconds", pa.float64()),
        ("turns", pa.int32()),
        ("llm_turns", pa.int32()),
        ("user_voice", pa.string()),
        ("assistant_voice", pa.string()),
        *[
            (f"{role}_{field}", kind)
            for role in ROLES
            for field, kind in (
                ("first_voice", pa.string()),
                ("first_engine", pa.string()),
                ("turns", pa.int32()),
                ("first_passed", pa.int32()),
            )
        ],
        ("metric", pa.string()),
        ("error_rate_mean", pa.float64()),
        ("error_rate_max", pa.float64()),
        ("mos_ovr_min", pa.float64()),
        ("source_name", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        *[
            (f"{member}_{field}", kind)
            for member in ("json", "user", "assistant")
            for field, kind in (("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.int64()))
        ],
        *[(f"{role}_{field}", pa.int32()) for role in ROLES for field in ("rate", "block")],
        ("turn_role", pa.list_(pa.string())),
        *[
            (f"turn_{field}", pa.list_(kind))
            for field, kind in (
                ("start", pa.float64()),
                ("end", pa.float64()),
                ("characters", pa.int32()),
                ("error_rate", pa.float64()),
                ("offset", pa.int64()),
                ("size", pa.int64()),
                ("crc32", pa.int64()),
            )
        ],
        ("scores", pa.list_(pa.struct([("name", pa.string()), ("values", pa.list_(pa.float64()))]))),
        ("text_scores", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
    ]
)


def index_row(encoded: Encoded, members: tuple[Member, ...]) -> dict[str, Any]:
    """One row of the index. Raises DataError for a track whose frames cannot be found.

    first_voice, first_engine: who spoke the first takes of a role; first_passed: those of its turns that passed then.
    ROLE_block: samples of a FLAC frame. turn_offset, turn_size, turn_crc32: of the frames that hold a turn, in its
    track's member: whoever wants one turn reads no more. turn_characters: of its spoken text. scores: of each score its
    value for every turn, null where it has none.
    """
    sample = encoded.sample
    voices = {voice.role: voice.id for voice in sample.voices}
    rates = [turn.error_rate for turn in sample.turns]
    mos = [score.value for turn in sample.turns for score in turn.scores if score.name == "mos_ovr"]
    row: dict[str, Any] = {
        "key": sample.key,
        "language": sample.language,
        "duration": sample.duration,
        "user_seconds": speech_seconds(sample, "user"),
        "assistant_seconds": speech_seconds(sample, "assistant"),
        "turns": len(sample.turns),
        "llm_turns": sum(turn.author == "llm" for turn in sample.turns),
        "user_voice": voices["user"],
        "assistant_voice": voices["assistant"],
        **{key: value for role in ROLES for key, value in _first_takes(sample, role).items()},
        "metric": sample.turns[0].metric,
        "error_rate_mean": sum(rates) / len(rates),
        "error_rate_max": max(rates),
        "mos_ovr_min": min(mos) if mos else None,
        "source_name": sample.source.name,
        "source": sample.source.row,
        "license": sample.source.license,
    }
    for name, member in zip(("json", "user", "assistant"), members, strict=True):
        row |= {f"{name}_offset": member.offset, f"{name}_size": member.size, f"{name}_crc32": member.checksum}
    return row | _turns(encoded)


def _turns(encoded: Encoded) -> dict[str, Any]:
    sample, turns = encoded.sample, encoded.sample.turns
    row: dict[str, Any] = {}
    places = [(0, 0)] * len(turns)
    checksums = [0] * len(turns)
    tracks = (("user", encoded.user, sample.user_rate), ("assistant", encoded.assistant, sample.assistant_rate))
    for role, flac, rate in tracks:
        name = f"{sample.key}.{role}.flac"
        row |= {f"{role}_rate": rate, f"{role}_block": block_size(flac, name)}
        own = [number for number, turn in enumerate(turns) if turn.role == role]
        spans = [turn_span(turns[number].start, turns[number].end, rate) for number in own]
        for number, (offset, size) in zip(own, frame_ranges(flac, spans, name), strict=True):
            places[number] = (offset, size)
            checksums[number] = crc32(memoryview(flac)[offset : offset + size])
    scores: dict[str, list[float | None]] = {}
    for number, turn in enumerate(turns):
        for score in turn.scores:
            scores.setdefault(score.name, [None] * len(turns))[number] = score.value
    return row | {
        "turn_role": [turn.role for turn in turns],
        "turn_start": [turn.start for turn in turns],
        "turn_end": [turn.end for turn in turns],
        "turn_characters": [len(turn.spoken) for turn in turns],
        "turn_error_rate": [turn.error_rate for turn in turns],
        "turn_offset": [offset for offset, _ in places],
        "turn_size": [size for _, size in places],
        "turn_crc32": checksums,
        "scores": [{"name": name, "values": values} for name, values in scores.items()],
        "text_scores": [{"name": score.name, "value": score.value} for score in sample.text_scores],
    }


def turn_span(start: float, end: float, rate: int) -> tuple[int, int]:
    """First sample of a turn in its track, and the one behind its last; start, end: seconds."""
    return round(start * rate), round(end * rate)


def _first_takes(sample: Sample, role: Role) -> dict[str, Any]:
    turns = [turn for turn in sample.turns if turn.role == role]
    first = [turn.takes[0] for turn in turns if turn.takes]
    return {
        f"{role}_first_voice": first[0].voice if first else "",
        f"{role}_first_engine": first[0].engine if first else "",
        f"{role}_turns": len(turns),
        f"{role}_first_passed": sum(not take.reason for take in first),
    }


def speech_seconds(sample: Sample, role: Role) -> float:
    return sum(turn.end - turn.start for turn in sample.turns if turn.role == role)


def index_bytes(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), buffer, **PARQUET)
    return buffer.getvalue()
