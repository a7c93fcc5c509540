"""What a pilot run says of a larger one: its totals, its log of costs, the journals of its LLM, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.config import Config
from pipeline.engine.estimate_work import KEPT
from pipeline.engine.run import differences, load_frozen
from pipeline.errors import RunFolderError
from pipeline.plan import plan_units
from pipeline.shards.remote import StorePath
from pipeline.shards.stats import Stats, run_stats, stage_costs
from pipeline.shards.store import RunFolder
from pipeline.stages.replies import account

SPOKEN = ("speak", "listen", "judge")
"""Stages that refuse a dialogue after it was spoken; all others refuse its text."""
_NO_MATTER = ("dialogues", "unit_size", "seed", "regated_from", "judge.keep")
_NAMED = 6  # differing keys that are named


class Measured(NamedTuple):
    """A rate by its key, and the figures that it was divided out of."""

    key: str
    value: float
    source: str


def measure(pilot: Path, config: Config) -> tuple[list[Measured], tuple[str, ...]]:
    """What a run says, and what the user should know of it. A later rate of a key is the better one.

    Raises RunFolderError for a folder that is no run or has nothing accepted, ConfigError and DataError for damage.
    """
    folder = RunFolder(pilot)
    its, _ = load_frozen(folder)
    stats = run_stats(folder, its)
    if not stats.accepted:
        raise RunFolderError(f"--pilot {pilot}: no dialogue of it is accepted yet, so it says nothing; finish it first")
    refused = sum(count for reason, count in stats.rejected.items() if reason.partition(":")[0] in SPOKEN)
    found = [
        *_yields(stats, stats.accepted + refused),
        *_costs(folder, config),
        *_texts(folder, its),
        *_sound(folder, stats, refused, KEPT[its.judge.keep]),
    ]
    notes = []
    if all(item.key != "speak_cpu" for item in found):
        notes.append(f"{pilot} has no log of costs on this machine: CPU and GPU seconds are not from it")
    keys = dict.fromkeys(line.partition(" ")[0] for line in differences(its.content(), config.content()))
    differing = [key for key in keys if key not in _NO_MATTER and not key.startswith("splits")]
    if differing:
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        notes.append(f"{pilot} is of another configuration: {', '.join(differing[:_NAMED])}{more} differ")
    return found, tuple(notes)


def _yields(stats: Stats, spoken: int) -> Iterator[Measured]:
    seconds = stats.hours * 3600
    speech = (stats.user_hours + stats.assistant_hours) * 3600
    turns, first = (sum(getattr(item, name) for item in stats.lengths) for name in ("turns", "first"))
    again = sum(item.takes for item in stats.repairs)
    yield Measured("seconds_per_dialogue", seconds / stats.accepted, f"{seconds:.0f} s in {stats.accepted} accepted")
    yield Measured("speech_share", speech / seconds, f"{speech:.0f} s of speech in {seconds:.0f} s")
    yield Measured("text_yield", spoken / stats.planned, f"{spoken} of {stats.planned} dialogues were spoken")
    yield Measured("speech_yield", stats.accepted / spoken, f"{stats.accepted} of {spoken} spoken dialogues")
    yield Measured("first_take_failure", 1 - first / turns, f"{turns - first} of {turns} turns")
    if first < turns:
        yield Measured("repairs", again / (turns - first), f"{again} takes for {turns - first} turns")


def _costs(folder: RunFolder, config: Config) -> Iterator[Measured]:
    """From the log; nothing where another machine has it."""
    costs = stage_costs(folder)
    for stage in ("speak", "listen", "pack"):
        cost = costs.get(stage, {})
        audio = cost.get("audio")
        if not audio:
            continue
        yield Measured(f"{stage}_cpu", cost["cpu"] / audio, f"{cost['cpu']:.1f} CPU s for {audio:.0f} s of audio")
        if config.engine.studio_gpus and stage != "pack":
            # A GPU is held for as long as the stage is at work, busy or not.
            held = cost.get("held", cost["wall"])
            how = f"{held:.1f} s × engine.studio_gpus for {audio:.0f} s of audio"
            yield Measured(f"{stage}_gpu", held * config.engine.studio_gpus / audio, how)


def _texts(folder: RunFolder, its: Config) -> Iterator[Measured]:
    written = its.unit_size * sum(1 for _ in (folder.root / "dialogues").glob("*/unit-*.jsonl"))
    paid = account(folder, plan_units(its)).total
    if paid.requests:
        counts = {
            "requests": paid.requests,
            "prompt_tokens": paid.prompt_tokens,
            "reply_tokens": paid.completion_tokens,
        }
        for key, count in counts.items():
            yield Measured(key, count / written, f"{count} for {written} dialogues")
        yield Measured("attempts", 1.0, "its requests hold those that were asked again")
    size = sum(size for path, size in _files(folder.root) if path.suffix != ".tar")
    yield Measured("record_bytes_per_dialogue", size / written, f"{size} bytes without sound, {written} dialogues")


def _sound(folder: RunFolder, stats: Stats, refused: int, kept: float) -> Iterator[Measured]:
    """refused: dialogues that were spoken and not accepted. kept: share of them whose clips are there."""
    sizes = {"shards": 0, "rejects": 0}
    for path, size in _files(folder.root):
        place = path.relative_to(folder.root).parts[0]
        if path.suffix == ".tar" and place in sizes:
            sizes[place] += size
    seconds = stats.hours * 3600
    source = f"{sizes['shards']} bytes of shards for {seconds:.0f} s"
    yield Measured("shard_bytes_per_second", sizes["shards"] / seconds, source)
    if refused and kept and sizes["rejects"]:  # of a few rejects a sample may be none
        each, rejected = sizes["shards"] / stats.accepted, sizes["rejects"] / refused / kept
        yield Measured("reject_clips", rejected / each, f"{rejected:.0f} bytes a reject, {each:.0f} a dialogue kept")


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    """All, with their sizes, but the views, which are counted apart."""
    if isinstance(root, StorePath):
        found = root.walk_files()
    else:
        found = ((path, path.stat().st_size) for path in root.rglob("*") if path.is_file())
    return ((path, size) for path, size in found if path.relative_to(root).parts[0] != "views")
