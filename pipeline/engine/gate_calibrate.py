"""`gate calibrate` from end to end: a run's turns are made and heard (dear, kept), then reckoned with (cheap)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config, assign_settings, load_config, validate_config
from pipeline.dialogue import Language
from pipeline.engine.gate_figures import figures
from pipeline.engine.gate_measure import Case
from pipeline.engine.gate_page import write_page
from pipeline.engine.gate_plan import KINDS, Item, plan
from pipeline.engine.gate_rules import Table
from pipeline.engine.gate_sides import once
from pipeline.engine.gate_store import HEARD, Tell, hear, latest, recall
from pipeline.engine.run import load_frozen
from pipeline.errors import ConfigError, ModelError, UsageError
from pipeline.plan import plan_units
from pipeline.shards.disk import storage_errors
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.write import read_text
from speakers import load_library

RUN_KEYS = ("dialogues", "unit_size", "seed", "languages", "splits")
"""What the text of a run hangs on, whoever speaks it."""


@dataclass(frozen=True)
class Request:
    """What is asked for. good: clips of each kind and language. workers: processes, one a CPU for None. config: a
    preset or file that speaks and listens instead of the run's own; settings: key=value. kinds: of `gate_plan.KINDS`,
    all where none is named."""

    run: Path
    out: Path
    good: int = 300
    seed: int = 0
    workers: int | None = None
    config: str | None = None
    settings: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


def settle(request: Request) -> Config:
    """The configuration to speak, listen and judge with, on the CPUs of this machine unless engine.kind=ray is set.

    Raises RunFolderError, ConfigError.
    """
    run, _ = load_frozen(RunFolder(request.run))
    workers = [f"engine.studios={request.workers}"] if request.workers else []
    changes = ["engine.kind=local", *workers, *request.settings]
    if request.config is None:
        data = run.model_dump(mode="json")
        assign_settings(data, changes)
        config = validate_config(data, str(request.run))
        for key in RUN_KEYS:
            if getattr(config, key) != getattr(run, key):
                raise ConfigError(
                    f"--set {key}: the text of {request.run} hangs on it; name a run that has what you want"
                )
        return config
    other = load_config(request.config, changes)
    cast = run.cast.model_copy(update={"library": other.cast.library})
    return other.model_copy(update={"cast": cast, **{key: getattr(run, key) for key in RUN_KEYS}})


def planned(request: Request, config: Config) -> list[Item]:
    """Raises as `gate_plan.plan`, and UsageError for a kind that there is not."""
    for kind in request.kinds:
        if kind not in KINDS:
            raise UsageError(f"--kinds {kind!r}: known are {', '.join(KINDS)}")
    library = load_library(config.cast.library)
    return plan(config, RunFolder(request.run), library, request.good, request.seed, request.kinds or tuple(KINDS))


def heard(request: Request, config: Config, tell: Tell) -> list[Case]:
    """Raises as `gate_plan.plan` and `gate_store.hear`."""
    return hear(planned(request, config), request.out, config, tell)


def heard_before(request: Request, config: Config, say: Callable[[str], None]) -> list[Case]:
    """What was heard of the plan, without hearing more; where nothing of it is there, as another version or other
    models would have heard it, all that was heard last. say: told what is missing.

    Raises as `planned`, and DataError where nothing was heard.
    """
    path = request.out / HEARD
    last = latest(path)
    try:
        cases, count = recall(planned(request, config), request.out, config)
    except ModelError as error:  # nothing is to be loaded, so that the figures need none
        say(f"{path}: {error}; what is planned cannot be told, reckoned is all that was heard last: {len(last)} clips")
        return last
    if not cases:
        say(
            f"{path}: of the {count} clips that are planned none was heard in this way (another version, model, seed "
            f"or --set); reckoned is all that was heard last: {len(last)} clips"
        )
        return last
    if len(cases) < count:
        say(f"{path}: {count - len(cases)} of {count} clips that are planned were not heard yet")
    return cases


def evaluate(request: Request, config: Config, cases: Sequence[Case]) -> dict[str, Any]:
    """The figures, as in figures.json, and the page. Raises ConfigError, StorageError."""
    found = figures(cases, config.judge, turn_counts(config, RunFolder(request.run)))
    tables = {
        language: Table(once([case for case in cases if case.language == language])) for language in found["languages"]
    }
    with storage_errors(request.out):
        publish(request.out / "figures.json", json.dumps(found, indent=1, ensure_ascii=False).encode(), replace=True)
        write_page(request.out, found, tables)
    return found


def turn_counts(config: Config, folder: RunFolder) -> dict[Language, Counter[int]]:
    """Of the run's texts by language: how many have so many turns."""
    counts: dict[Language, Counter[int]] = {}
    for unit in plan_units(config):
        for line in read_text(folder, unit) if folder.text(unit.number).exists() else ():
            if line.dialogue is not None:
                counts.setdefault(line.plan.language, Counter())[len(line.dialogue.turns)] += 1
    return counts


def write_rule(found: Mapping[str, Any], path: Path) -> None:
    """The proposed gates as a configuration of nothing else, to be put into one; each language by name, so that no
    default is left of one. Raises UsageError where nothing was fitted, StorageError."""
    rules = {language: item["proposed"] for language, item in found["languages"].items()}
    parts = ("limits", "floors", "appeal")
    if not any(rule["limits"] or rule["floors"] for rule in rules.values()):
        raise UsageError(
            f"--write {path}: no gate could be fitted to what was heard; give --good more, or more --kinds"
        )
    judge = {**{part: {language: rule[part] for language, rule in rules.items()} for part in parts}, "min_mos": None}
    head = "# Proposed by `speechchat gate calibrate`; figures.json says what it refuses and misses.\n"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, (head + yaml.safe_dump({"judge": judge}, sort_keys=False)).encode(), replace=True)
