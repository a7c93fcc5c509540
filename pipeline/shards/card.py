"""The dataset card: RUN/README.md, with the metadata header that hubs read."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.config import Config
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder


def card(stats: Stats, config: Config, folder: RunFolder) -> str:
    """Markdown; the same run always gives the same text."""
    frozen = yaml.safe_load(folder.config.read_text("utf-8"))
    models = frozen["provenance"]["models"]
    head = {
        "language": sorted(stats.languages),
        "license": "other",
        "task_categories": ["text-to-speech", "automatic-speech-recognition", "audio-to-audio"],
        "tags": ["speech", "dialogue", "synthetic", "webdataset"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"shards/{split}/*/*.tar"} for split in sorted(stats.splits)],
            }
        ],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        "# Synthetic spoken dialogues",
        "",
        "All speech here is synthetic: text by an LLM and from a corpus, spoken by a text-to-speech model, kept only",
        "where a speech recogniser still understood it. Nobody was recorded for this data set.",
        "",
        *totals_table(stats),
        "",
        *channel_lines(frozen.get("views") or {}),
        "## Reading it",
        "",
        "Each sample has three members: `KEY.json`, `KEY.user.flac` and `KEY.assistant.flac`, one timeline on two",
        f"tracks of equal duration ({config.audio.user_rate} and {config.audio.assistant_rate} Hz). A turn is a slice",
        "of its speaker's track, from `start` to `end` seconds.",
        "",
        "## Made with",
        "",
        "| role | model | licence | SHA-256 |",
        "|---|---|---|---|",
        *[f"| text | {source.name} | {source.license} | |" for source in stats.sources],
        *[f"| {item['role']} | {item['name']} | {item['license']} | {item['sha256'][:16]} |" for item in models],
        "",
        "Each sample names the source of its text and that source's licence. The terms of the models above go with",
        "the data.",
        "",
    ]
    return "\n".join(lines)


def totals_table(stats: Stats) -> list[str]:
    rates = ", ".join(f"{rate.language} {rate.metric.upper()} {rate.mean:.3f}" for rate in stats.error_rates)
    rejected = ", ".join(f"{count} {reason}" for reason, count in stats.rejected.items()) or "none"
    return [
        "| | |",
        "|---|---|",
        f"| dialogues | {stats.accepted} accepted of {stats.planned} planned in {stats.units_finished} units |",
        f"| rejected | {rejected} |",
        f"| turns | {stats.turns}, of which {stats.llm_turns} were written by the LLM and the others by people |",
        f"| hours | {stats.hours:.3f} (speech: user {stats.user_hours:.3f}, assistant {stats.assistant_hours:.3f}) |",
        f"| voices | {len(stats.voices)} |",
        f"| mean error rate of the recogniser | {rates or 'none'} |",
    ]


def channel_lines(views: dict[str, dict[str, Any]]) -> list[str]:
    """Of a view: what happened to the user's track."""
    lines = []
    for name, view in views.items():
        lines += [
            f"## The view `{name}`",
            "",
            "The same dialogues as those of the run that this folder lies in, with the same keys. Only the user's",
            "track is another: it went through these steps, in this order, and what was drawn for a dialogue is in",
            "its `channel`. Transcripts, error rates and scores are those of the clean clips.",
            "",
            "| step | drawn from |",
            "|---|---|",
        ]
        for step in view["steps"]:
            settings = {key: value for key, value in view[step].items() if key not in ("files", "license")}
            if recordings := view[step].get("files"):
                settings["recordings"] = len(recordings)
            lines.append(f"| {step} | {', '.join(f'{key} {value}' for key, value in settings.items())} |")
        lines.append("")
    return lines
