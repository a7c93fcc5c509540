"""The page that inspect_samples.py writes: players, pictures, differences and attempts, in one file that needs nothing
else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from inspect_entries import Entry
from inspect_picture import decoded, draw
from inspect_turns import RUNGS, TurnView, views

from pipeline import audio
from pipeline.config import Config
from pipeline.dialogue import Dialogue, Language, Role, Sample, Score
from pipeline.listening_sections import SCORES, JudgeConfig
from pipeline.shards.format import Encoded
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder, publish
from pipeline.text.rates import MAIN_METRIC

ROLES: tuple[Role, ...] = ("user", "assistant")


@dataclass(frozen=True)
class Card:
    """An entry as the page shows it. flac and png: base64, "" if there is none. left, right: the ends of the picture's
    time axis as shares of its width."""

    entry: Entry
    turns: list[TurnView]
    flac: str = ""
    png: str = ""
    left: float = 0.0
    right: float = 1.0


def lowest_mos(sample: Sample) -> float | None:
    values = [score.value for turn in sample.turns for score in turn.scores if score.name == "mos_ovr"]
    return min(values, default=None)


def repliers(sample: Sample) -> str:
    return " + ".join(sorted({turn.author for turn in sample.turns if turn.role == "assistant"}))


def about(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    """What the text was made of, as far as something is known, and its marks."""
    for name in ("instruction", "topic", "persona", "scenario", "system"):
        if value := getattr(dialogue, name):
            yield name, value
    if dialogue.scores:
        yield "review", ", ".join(f"{score.name} {score.value:g}" for score in dialogue.scores)


def breaks(score: Score, language: Language, judge: JudgeConfig) -> bool:
    """Whether a gate of the configuration refuses a turn for this score, whatever the mode."""
    limit = judge.limits.get(language, {}).get(score.name)
    floor = judge.floors.get(language, {}).get(score.name)
    lowest = judge.min_mos if score.name == "mos_ovr" else None
    return (limit is not None and score.value > limit) or any(
        bound is not None and score.value < bound for bound in (floor, lowest)
    )


def stereo(encoded: Encoded) -> bytes:
    """Both tracks as one FLAC at the higher of their rates: the user left, the agent right."""
    rate = max(encoded.sample.user_rate, encoded.sample.assistant_rate)
    sides = [audio.resample(decoded(encoded, role), rate).audio for role in ROLES]
    length = min(map(len, sides))
    return audio.encode_flac(audio.to_pcm(np.stack([side[:length] for side in sides], axis=1)), rate)


def make_card(entry: Entry, out: Path, pictures: bool) -> Card:
    """Everything the page needs of an entry; the picture is also written to `out` as KEY.png."""
    turns = views(entry)
    if entry.encoded is None:
        return Card(entry, turns)
    flac = base64.b64encode(stereo(entry.encoded)).decode()
    if not pictures:
        return Card(entry, turns, flac)
    png, left, right = draw(entry.encoded, entry.verdict, entry.reject is None)
    publish(out / f"{entry.encoded.sample.key}.png", png, replace=True)
    return Card(entry, turns, flac, base64.b64encode(png).decode(), left, right)


def render_page(
    folder: RunFolder, config: Config, stats: Stats, entries: list[Entry], out: Path, pictures: bool
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(about=about, breaks=breaks, lowest_mos=lowest_mos, repliers=repliers)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    cards = (make_card(entry, out, pictures) for entry in entries)
    template = environment.get_template("inspect.html.j2")
    return template.render(
        name=folder.root.resolve().name,
        stats=stats,
        judge=config.judge,
        known=SCORES,
        metrics=MAIN_METRIC,
        rungs=RUNGS,
        shown=len(entries),
        cards=cards,
    )
