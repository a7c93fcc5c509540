"""What stands beside the shards of a release for people and hubs: the card, the table of licences, the checksums."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from pipeline.config import Config
from pipeline.dialogue import ModelUse, Sample
from pipeline.shards.card import channel_lines, totals_table
from pipeline.shards.release_list import Release, ReleaseShard
from pipeline.shards.stats import Stats

CARD, LICENCES, STATS, SUMS = "README.md", "LICENSES.md", "stats.json", "SHA256SUMS"
_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def card(release: Release, stats: Stats, config: Config) -> str:
    """Markdown with the header that hubs and `datasets` read."""
    head = {
        "language": sorted(stats.languages),
        "license": "other",
        "license_name": "see-licenses",
        "license_link": LICENCES,
        "size_categories": [size_category(release.samples)],
        "task_categories": ["text-to-speech", "automatic-speech-recognition", "audio-to-audio"],
        "tags": ["speech", "dialogue", "synthetic", "webdataset"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": _pattern(release, split)} for split in release.splits],
            }
        ],
        "dataset_info": {"features": features(release)},
    }
    first = next(iter(release.shards)).tar.path
    views = {name: view.content() for name, view in config.views.items() if name == release.view}
    missing = release.units_planned - release.units
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
            "---",
            "",
            "# Synthetic spoken dialogues",
            "",
            "All speech here is synthetic, and each sample says so (`provenance.synthetic`): text by an LLM and from",
            "corpora, spoken by text-to-speech models, kept where a speech recogniser understood it.",
            *([f"{missing} units of {release.units_planned} that were planned are not part of it."] if missing else []),
            "",
            *totals_table(stats),
            "",
            "| split | samples | hours | shards | GB |",
            "|---|---|---|---|---|",
            *(_split_row(split, list(release.of(split))) for split in release.splits),
            "",
            *channel_lines(views),
            "## Reading it",
            "",
            "Each sample has three members: `KEY.json`, `KEY.user.flac` and `KEY.assistant.flac`, one timeline on two",
            f"tracks of equal duration ({release.user_rate} and {release.assistant_rate} Hz). A turn is a slice of its",
            "speaker's track, from `start` to `end` seconds. Beside each shard lies an index of the same name",
            "(Parquet, a row a sample: durations, voices, scores, and where each member lies). `release.json` lists",
            "the shards with their sizes and checksums, and `sha256sum -c SHA256SUMS` checks them.",
            "",
            "```python",
            "import datasets  # with datasets[audio]: tracks as audio",
            f'rows = datasets.load_dataset(FOLDER, split="{release.splits[0]}", streaming=True)',
            "# or without it, tracks as bytes:",
            "kinds = {'__key__': 'string', '__url__': 'string'}",
            "kinds |= dict.fromkeys(('json', 'user.flac', 'assistant.flac'), 'binary')",
            "features = datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()})",
            f'rows = datasets.load_dataset(FOLDER, split="{release.splits[0]}", streaming=True, features=features)',
            "",
            "import webdataset",
            f'samples = webdataset.WebDataset("{first}", shardshuffle=False)',
            "",
            "from pipeline import DialogueStream  # speechchat",
            f'turns = DialogueStream(FOLDER, "{release.splits[0]}", each="turn")  # text, role and audio of each turn',
            "```",
            "",
            "## Licences",
            "",
            f"[{LICENCES}]({LICENCES}) has the terms of the texts, the voices and the models; they go with the data,",
            "and each sample names its own.",
            "",
        ]
    )


def licences(shards: Iterable[ReleaseShard], models: Sequence[ModelUse]) -> str:
    """Markdown: whose terms go with the data."""
    totals: Counter[tuple[str, str, str, str]] = Counter()
    for shard in shards:
        for use in shard.terms:
            totals[use.kind, use.name, use.license, use.consent] += use.samples
    lines = [
        "# Licences",
        "",
        "The terms of what the samples were made from and with. Each sample names its own.",
        "",
        "| what | name | licence | consent of the speakers | samples |",
        "|---|---|---|---|---|",
        *("| " + " | ".join([*map(_cell, key), str(count)]) + " |" for key, count in sorted(totals.items())),
        "",
        "| role of the model | name | licence | SHA-256 |",
        "|---|---|---|---|",
        *(f"| {_cell(use.role)} | {_cell(use.name)} | {_cell(use.license)} | {use.sha256[:16]} |" for use in models),
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _pattern(release: Release, split: str) -> str:
    """The tars of a split, as hubs name them."""
    nested = any(shard.tar.path.count("/") > 1 for shard in release.shards if shard.split == split)
    return f"{split}/*/*.tar" if nested else f"{split}/*.tar"


def _split_row(split: str, shards: Sequence[ReleaseShard]) -> str:
    samples, size = sum(shard.samples for shard in shards), sum(shard.tar.bytes for shard in shards)
    hours = sum(shard.seconds for shard in shards) / 3600
    return f"| {split} | {samples} | {hours:.3f} | {len(shards)} | {size / 1e9:.3f} |"


def size_category(samples: int) -> str:
    """As hubs name it."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    if samples < 1000:
        return "n<1K"
    place = len(str(samples)) - 4
    return f"{names[place]}<n<{names[place + 1]}" if place + 1 < len(names) else "n>1T"


def features(release: Release) -> list[dict[str, Any]]:
    """Of a row, in the form of a card's `dataset_info`."""
    tracks = (("user.flac", release.user_rate), ("assistant.flac", release.assistant_rate))
    return [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        {"name": "json", "struct": _fields(Sample)},
        *({"name": name, "dtype": {"audio": {"sampling_rate": rate}}} for name, rate in tracks),
    ]


def _fields(record: type[BaseModel]) -> list[dict[str, Any]]:
    return [
        {"name": name, **_kind(hint)}
        for name, hint in typing.get_type_hints(record).items()
        if name in record.model_fields
    ]


def _kind(hint: Any) -> dict[str, Any]:
    """Of a field of a closed schema: a record, a tuple of some, or a plain value."""
    if get_origin(hint) is tuple:
        inner = _kind(get_args(hint)[0])
        return {"list": inner["struct"] if "struct" in inner else inner.get("dtype")}
    if get_origin(hint) is Literal:
        return {"dtype": "string"}
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return {"struct": _fields(hint)}
    return {"dtype": _TYPES[hint]}
