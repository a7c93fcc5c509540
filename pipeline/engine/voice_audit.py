"""The audit of a voice library: who is measured, measuring on every CPU, going on where it was, and what is written.

OUT/voices.parquet    a row a measured voice: scores, embeddings, nearest voices; what a second audit goes on from
OUT/audit.json        every figure (voice_figures.py)
OUT/rejected.txt      an id and the reasons a line: voices that should not speak
OUT/clips/ID.flac     what a voice said
OUT/index.html        the page to look and listen (voice_page.py), and OUT/map.png
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.engine.pool import each_together, finished, one_thread_each
from pipeline.engine.voice_figures import figures
from pipeline.engine.voice_measure import Bench, Item, Keys, Measured, kin, measure
from pipeline.engine.voice_page import write_page
from pipeline.engine.voice_plan import Limits, Plan
from pipeline.errors import ConfigError, DataError
from pipeline.shards.disk import storage_errors
from pipeline.shards.store import publish
from pipeline.voice import Voice
from speakers.library import VoiceLibrary
from speakers.recipes import describe
from speakers.sentences import Use

SAVE = 15.0
"""Seconds after which what was measured is saved: this much is lost if the driver is killed."""
KIN = 3
"""Voices that a process is given at a time, at most."""
_EMBEDDINGS: Mapping[Use, str] = {"embed": "embedding", "check": "embedding_check", "more": "embedding_more"}
_RATES = ("wer", "cer", "per")


Tell = Callable[[int, int, float], None]
"""Told by the driver: voices measured, of how many, and CPU seconds that measuring took."""


def audit(library: VoiceLibrary, out: Path, config: Config, plan: Plan, limits: Limits, tell: Tell) -> dict[str, Any]:
    """Measure who was not measured yet, and write all files of `out`. The figures, as in audit.json.

    Raises ConfigError, ModelError, EndpointError, StorageError, DataError for a damaged table, RunIncomplete.
    """
    measured = measure_all(library, out, config, plan, tell)
    found = figures(library, plan, limits, measured)
    rows = [
        _row(voice, measured[voice.id], plan) | found.voices.get(voice.id, {})
        for voice in library.voices
        if voice.id in measured
    ]
    shown = [row for row in rows if row["id"] in plan.ids]
    with storage_errors(out):
        _write(out / "voices.parquet", rows)
        publish(out / "audit.json", json.dumps(found.summary, indent=1, ensure_ascii=False).encode(), replace=True)
        refused = [f"{row['id']}\t{'; '.join(row['reasons'])}\n" for row in shown if row["reasons"]]
        publish(out / "rejected.txt", "".join(refused).encode(), replace=True)
        write_page(out, shown, found.summary)
    return found.summary


def measure_all(library: VoiceLibrary, out: Path, config: Config, plan: Plan, tell: Tell) -> dict[str, Measured]:
    """What was measured, by id, here or by an audit before: of every voice of the plan, and of others that an audit of
    this library with these models measured. Saved as it goes."""
    voices = [voice for voice in library.voices if voice.id in plan.ids]
    for voice in voices:
        if voice.engine not in config.tts.engines:
            raise ConfigError(
                f"voice {voice.id!r} is of the engine {voice.engine!r}, which tts.engines does not have: "
                "name a configuration that has it with --config"
            )
    names = tuple(sorted({voice.engine for voice in voices}))
    engines = {name: config.tts.engines[name] for name in names}
    config = config.model_copy(update={"tts": config.tts.model_copy(update={"engines": engines})})
    bench, table = Bench(config, names, (out / "clips").absolute()), out / "voices.parquet"
    keys = Keys(config)
    known = read_measured(table) if table.is_file() else {}
    keep = {
        voice.id: old
        for voice in library.voices
        if (old := known.get(voice.id)) and old.key == keys.key(voice, old.uses) and _has_clip(old, bench.clips)
    }
    asked = [Item(voice, plan.uses(voice.id), keys.key(voice, plan.uses(voice.id))) for voice in voices]
    todo = [item for item in asked if item.voice.id not in keep or not _serves(keep[item.voice.id], item)]
    rows = {voice.id: voice for voice in library.voices if voice.id in plan.ids or voice.id in keep}

    def save() -> None:
        if keep:
            _write(table, [_row(voice, keep[id], plan) for id, voice in rows.items() if id in keep])

    with storage_errors(out):
        bench.clips.mkdir(parents=True, exist_ok=True)
        try:
            _measure_rest(bench, todo, len(asked), keep, save, tell)
        finally:
            save()
    return keep


def _serves(old: Measured, item: Item) -> bool:
    """Whether it is what would be measured now. Another embedding beside it changes nothing of the rest."""
    return set(item.uses) <= set(old.uses) <= {*item.uses, "more"}


def _has_clip(item: Measured, clips: Path) -> bool:
    """A voice that said nothing has none."""
    return not item.pace or (clips / f"{item.id}.flac").is_file()


def _measure_rest(
    bench: Bench, todo: list[Item], count: int, measured: dict[str, Measured], save: Callable[[], None], tell: Tell
) -> None:
    """Adds to `measured`. What the first voice that cannot be measured raises ends it. count: voices of the plan."""

    def keep(item: Item, outcome: Measured | Exception) -> float:
        if isinstance(outcome, Exception):
            raise outcome
        measured[item.voice.id] = outcome
        return outcome.cpu

    done, saved, cpu = count - len(todo), time.monotonic(), 0.0
    tell(done, count, cpu)
    # Kin go to one process, a few at a time, so that it can use one clip for several.
    groups = [batch for _, group in groupby(sorted(todo, key=kin), key=kin) for batch in _batched(group)]
    with one_thread_each(), closing(each_together(partial(measure, bench), groups, bench.config.engine)) as outcomes:
        try:
            for item, outcome in outcomes:
                done, cpu = done + 1, cpu + keep(item, outcome)
                tell(done, count, cpu)
                if time.monotonic() - saved > SAVE:
                    save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            for item, outcome in finished(outcomes):
                if isinstance(outcome, Measured):
                    keep(item, outcome)
            raise


def _batched(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
    waiting = iter(items)
    while batch := tuple(islice(waiting, KIN)):
        yield batch


def _row(voice: Voice, item: Measured, plan: Plan) -> dict[str, Any]:
    return {
        "id": voice.id,
        "key": item.key,
        "uses": list(item.uses),
        "language": voice.languages[0],
        "gender": voice.gender,
        "age": voice.age,
        "split": voice.split,
        "engine": voice.engine,
        "described": describe(voice.recipe),
        "shift": voice.recipe.shift,
        "sample": voice.id in plan.sample,
        "selected": voice.id in plan.selected,
        "base": voice.id in plan.base,
        "faults": list(item.faults),
        "heard": item.heard,
        **{name: item.rates.get(name) for name in _RATES},
        "mos": item.mos,
        "pace": item.pace,
        "pitch": item.pitch,
        **{column: item.embeddings.get(use) for use, column in _EMBEDDINGS.items()},
        "reasons": [],
        **{name: None for to in NEAR for name in (to, f"{to}_cosine")},
    }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """voices.parquet; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        **dict.fromkeys(("uses", "faults", "reasons"), pa.list_(pa.string())),
        **dict.fromkeys(("sample", "selected", "base"), pa.bool_()),
        **dict.fromkeys(("shift", *_RATES, "mos", "pace", "pitch"), pa.float64()),
        **dict.fromkeys(_EMBEDDINGS.values(), pa.list_(pa.float32())),
    }
    texts = ("id", "key", "language", "gender", "age", "split", "engine", "described", "heard")
    near = {name: kind for to in NEAR for name, kind in ((to, pa.string()), (f"{to}_cosine", pa.float64()))}
    schema = pa.schema([*dict.fromkeys(texts, pa.string()).items(), *kinds.items(), *near.items()])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd", write_statistics=False)
    publish(path, sink.getvalue().to_pybytes(), replace=True)


NEAR = ("nearest", "nearest_base", "nearest_selected")
"""Columns of the nearest voice (among the sample, the stock voices, the selected ones; of the same language), each with
its cosine beside it; null where there is none."""


def read_measured(path: Path) -> dict[str, Measured]:
    """What an audit measured, by id. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
        return {row["id"]: _measured(row) for row in rows}
    except (OSError, KeyError, TypeError, pa.ArrowException):
        raise DataError(f"{path}: not the table of an audit, or damaged; remove it, or name another --out") from None


def _measured(row: Mapping[str, Any]) -> Measured:
    embeddings = {use: row[column] for use, column in _EMBEDDINGS.items() if row[column] is not None}
    return Measured(
        id=row["id"],
        key=row["key"],
        uses=tuple(row["uses"]),
        faults=tuple(row["faults"]),
        heard=row["heard"],
        rates={name: row[name] for name in _RATES if row[name] is not None},
        mos=row["mos"],
        pace=row["pace"],
        pitch=row["pitch"],
        embeddings={use: np.asarray(values, np.float32) for use, values in embeddings.items()},
    )
