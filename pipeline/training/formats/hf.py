"""Hugging Face: Parquet with Audio columns, a row a dialogue, and a card. `load_dataset(OUT)` reads it, and the hub.

The rule: docs "Create an audio dataset" and "Repository cards" of huggingface.co/docs/datasets, and
datasets/features/audio.py: a struct of `bytes` and `path`, and the features in the Parquet metadata. The tracks are the
run's own FLAC bytes. Of a sample these are left out: its version, split and rates (the data set has them), takes, the
recipes of the voices, and the digests of the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

from pipeline.config import Config
from pipeline.dialogue import Split
from pipeline.shards.format import Encoded
from pipeline.shards.store import RunFolder
from pipeline.training.formats.base import HIDDEN, Format, Part, Piece
from pipeline.training.formats.tables import parquet, table_path


class HuggingFace(Format):
    name: ClassVar[str] = "hf"

    def check(self, folder: RunFolder, config: Config) -> None:
        self._rates = (config.audio.user_rate, config.audio.assistant_rate)

    def unit(self, unit: int, split: Split, samples: Iterator[Encoded]) -> Iterator[tuple[str, Piece]]:
        facts: Counter[tuple[str, ...]] = Counter()

        def rows() -> Iterator[dict[str, Any]]:
            for encoded in samples:
                sample = encoded.sample
                facts["language", sample.language] += 1
                facts["text", sample.source.name, sample.source.license] += 1
                facts.update({(model.role, model.name, model.license) for model in sample.provenance.models})
                facts.update({("voice", voice.engine, voice.license) for voice in sample.voices})
                yield _row(encoded)

        yield table_path(unit, split), parquet(rows(), _features(*self._rates))
        yield _facts_path(unit), (json.dumps(sorted(facts.items()), ensure_ascii=False) + "\n").encode()

    def finish(self, out: Path, parts: Iterable[Part]) -> Iterator[tuple[str, Piece]]:
        facts: Counter[tuple[str, ...]] = Counter()
        rows: Counter[Split] = Counter()
        size: Counter[Split] = Counter()
        for part in parts:
            if part.samples:
                rows[part.split] += part.samples
                size[part.split] += (out / table_path(part.unit, part.split)).stat().st_size
                for fact, count in json.loads((out / _facts_path(part.unit)).read_text("utf-8")):
                    facts[tuple(fact)] += count
        yield "README.md", _card(rows, size, facts, _features(*self._rates)).encode()


def _facts_path(unit: int) -> str:
    return f"{HIDDEN}/facts/{unit // 1000:03d}/unit-{unit:06d}.json"


def _row(encoded: Encoded) -> dict[str, Any]:
    sample = encoded.sample
    return {
        **sample.model_dump(),
        "user": {"bytes": encoded.user, "path": f"{sample.key}.user.flac"},
        "assistant": {"bytes": encoded.assistant, "path": f"{sample.key}.assistant.flac"},
    }


def _features(user_rate: int, assistant_rate: int) -> Any:
    """What is taken of a sample: pyarrow passes over fields that have no column."""
    from datasets import Audio, Features, Value

    def columns(names: str, kind: str = "string") -> dict[str, Any]:
        return {name: Value(kind) for name in names.split()}

    word = {**columns("text"), **columns("start end", "float64")}
    turn = {
        **columns("role speaker written spoken author emotion style voice"),
        **columns("start end", "float64"),
        **columns("transcript metric"),
        **columns("error_rate", "float64"),
        "scores": [{**columns("name"), **columns("value", "float64")}],
        "disfluencies": [{**columns("kind"), **columns("start end", "int64")}],
        "words": [word],
    }
    return Features(
        {
            **columns("key language"),
            "user": Audio(sampling_rate=user_rate),
            "assistant": Audio(sampling_rate=assistant_rate),
            **columns("duration", "float64"),
            **columns("system"),
            "turns": [turn],
            "voices": [columns("id role engine gender age license consent")],
            "source": columns("name license row"),
            **columns("instruction topic persona scenario view"),
            "channel": [{**columns("name kind"), "parameters": [{**columns("name"), **columns("value", "float64")}]}],
            **columns("code_switch", "bool"),
            "text_scores": [{**columns("name"), **columns("value", "float64")}],
            "provenance": {
                **columns("synthetic", "bool"),
                **columns("generator"),
                **columns("seed", "int64"),
                "models": [columns("role name sha256 license")],
            },
        }
    )


def _card(rows: Counter[Split], size: Counter[Split], facts: Counter[tuple[str, ...]], features: Any) -> str:
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    splits = [split for split in get_args(Split) if rows[split]]
    languages = sorted(fact[1] for fact in facts if fact[0] == "language")
    head = DatasetCardData(
        language=languages,
        license="other",
        task_categories=["text-to-speech", "automatic-speech-recognition", "audio-to-audio"],
        tags=["speech", "dialogue", "synthetic"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}/*/*.parquet"} for split in splits],
            }
        ],
    )
    info = SplitDict({split: SplitInfo(split, size[split], rows[split]) for split in splits})
    total = size.total()
    described = DatasetInfo(features=features, splits=info, download_size=total, dataset_size=total)
    DatasetInfosDict({"default": described}).to_dataset_card_data(head)
    table = [
        f"| {kind} | {name} | {licence} | {count} |"
        for (kind, name, licence), count in sorted((fact, n) for fact, n in facts.items() if len(fact) == 3)
    ]
    lines = [
        "---",
        str(head),
        "---",
        "",
        "# Synthetic spoken dialogues",
        "",
        "All speech here is synthetic: text by an LLM and from a corpus, spoken by a text-to-speech model, kept only",
        "where a speech recogniser still understood it. Nobody was recorded for this data set.",
        "",
        "A row is a dialogue: two tracks of one timeline, `user` and `assistant`. A turn is the slice of its speaker's",
        "track from `start` to `end` seconds.",
        "",
        "## Made with",
        "",
        "| what | name | licence | dialogues |",
        "|---|---|---|---|",
        *table,
        "",
        "The terms of the sources, models and voices go with the data.",
        "",
    ]
    return "\n".join(lines)
