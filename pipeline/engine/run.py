"""The driver: everything about a run that is not the work itself.

Freeze or match the configuration, take the lock, sweep, skip what is finished, let an engine do the rest, and write the
totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from pipeline.config import Config, parse_yaml, validate_config
from pipeline.dialogue import ModelUse, Record, Split
from pipeline.engine.base import Engine, Job, Observer, make_job
from pipeline.engine.failures import quarantined
from pipeline.engine.heartbeat import Recorder
from pipeline.engine.totals import Totals
from pipeline.errors import ConfigError, RunFolderError, RunIncomplete, RunMismatchError
from pipeline.plan import Unit, plan_units, unit_count
from pipeline.shards.card import card
from pipeline.shards.disk import TEMPORARY, storage_errors
from pipeline.shards.remote import is_remote, remove_tree, require_store
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.dedup import apply_barrier, check_barrier
from pipeline.stages.draw import Draw
from pipeline.stages.replies import rebuild_ledger


class Frozen(Record):
    """What RUN/config.yaml says beside the configuration: the stages' digests and the models that were used.

    voices: digest of the voice library, "" where none spoke, or an older program froze it.
    """

    digests: dict[str, str]
    models: tuple[ModelUse, ...]
    voices: str = ""


def run(config: Config, out: Path, observer: Observer, until: Literal["write"] | None = None) -> Stats:
    """Make or finish the run in `out`; a finished run is left as it is. until: stop when all text is written.

    Raises RunMismatchError for a folder that holds another configuration, RunFolderError, ConfigError, ModelError,
    EndpointError, BudgetError, StorageError, and RunIncomplete at the end if units were lost (everything else is then
    done).
    """
    require_place(out)
    if is_remote(out) and config.writer.budget:
        raise ConfigError(
            f"writer.budget: {out} is on a store, where workers cannot share a purse; limit the key at the endpoint, "
            "or write to a folder"
        )
    job = make_job(config, out.resolve())
    with storage_errors(out), job.folder.driver_lock():
        job.folder.sweep()
        freeze(job)
        with Recorder(job, observer) as recorder:
            totals = Totals(job.folder, config)
            recorder.planned(config, totals.begin())
            if len(totals.finished) < unit_count(config):
                _make(job, totals.finished, recorder, until)
                job.folder.sweep()
            else:
                _mend(job, recorder)
            lost = settle_quarantine(job.folder, (n for n in range(unit_count(config)) if n not in totals.finished))
            stats = write_totals(job.folder, config, totals)
    if lost:
        raise RunIncomplete(
            f"{len(lost)} of {stats.units_planned} units are quarantined (see {out / 'quarantine'}); "
            "run the same command again to try them once more"
        )
    return stats


def _make(job: Job, finished: set[int], observer: Observer, until: Literal["write"] | None) -> None:
    """The campaigns: text and speech unit by unit, or all the text first where something needs it."""
    config, folder = job.config, job.folder
    if config.writer.budget or (folder.ledger.exists() and not is_remote(folder.root)):  # one may be copied to a store
        rebuild_ledger(folder, config)
    if config.writer.reuse and not RunFolder(config.writer.reuse).config.is_file():
        raise ConfigError(f"writer.reuse: {config.writer.reuse} is no run (it holds no config.yaml); mend the path")
    check_barrier(config, folder)
    drawing = Draw(config, folder)
    drawing.mend()

    def units(unwritten: bool = False) -> Iterator[Unit]:
        for unit in plan_units(config):
            if unit.number not in finished and not (unwritten and folder.text(unit.number).exists()):
                if not folder.text(unit.number).exists():
                    drawing.ensure(unit)
                yield unit

    def missing_texts() -> Iterator[int]:
        return folder.missing(folder.text, range(unit_count(config)))

    with engine(config) as workers:
        if until == "write" or config.dedup.barrier:
            observer.writing(sum(1 for _ in missing_texts()) * config.unit_size)
            workers.run(job, units(unwritten=True), observer, text_only=True)
        if config.dedup.barrier:
            # A verdict hangs on all dialogues before it: nothing is spoken while the text of a unit is missing.
            if any(True for _ in missing_texts()):
                return
            apply_barrier(config, folder, lambda: plan_units(config), observer.compared)
        if until is None:
            workers.run(job, units(), observer)


def _mend(job: Job, observer: Observer) -> None:
    """Of a finished run: what its units were made from, where it was damaged and taken out (engine/mending.py)."""
    config, folder = job.config, job.folder
    Draw(config, folder).mend()
    if config.dedup.barrier and any(True for _ in folder.missing(folder.verdicts, range(unit_count(config)))):
        apply_barrier(config, folder, lambda: plan_units(config), observer.compared)


def require_place(out: Path) -> None:
    """Raises RunFolderError unless `out` is a run, empty, or not there yet: what else lies there is not ours."""
    folder = RunFolder(out)
    if is_remote(out):
        require_store(out)
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; --out must name a folder")
    # What a driver leaves that was killed before it had frozen its configuration.
    begun = {folder.logs.name, folder.config.name + TEMPORARY}
    if out.is_dir() and not folder.config.exists() and any(item.name not in begun for item in out.iterdir()):
        raise RunFolderError(f"{out} is not empty and holds no run; choose another --out")


def engine(config: Config) -> Engine:
    if config.engine.kind == "ray":
        from pipeline.engine.ray import RayEngine

        return RayEngine()
    from pipeline.engine.local import LocalEngine

    return LocalEngine()


def freeze(job: Job) -> None:
    """Write RUN/config.yaml, or check that the run there is this one (more dialogues are welcome)."""
    folder, config = job.folder, job.config
    frozen = Frozen(digests=job.origin.digests, models=job.origin.models, voices=job.voices)
    if folder.config.exists() and _begun(folder):
        old_config, old = load_frozen(folder)
        _match(folder, old_config, old, config, frozen)
        if old_config.dialogues == config.dialogues:
            return
    else:
        # Rows that were drawn for another configuration, of which nothing came; also those that no listing knows.
        remove_tree(folder.root / "sources")
        for rows in takewhile(lambda path: path.exists(), map(folder.rows, count())):
            rows.unlink()
    text = "# Frozen: what the shards in this folder were made with. `dialogues` may grow.\n" + yaml.safe_dump(
        {**config.content(), "provenance": frozen.model_dump(mode="json")}, sort_keys=False, allow_unicode=True
    )
    publish(folder.config, text.encode(), replace=True)


def _begun(folder: RunFolder) -> bool:
    """Whether anything was made in the run yet; until then its configuration may still be changed."""
    made = any(path.is_file() for name in ("dialogues", "shards") for path in (folder.root / name).rglob("*"))
    made = made or folder.text(0).exists()  # whatever a listing of a store says
    # A journal may hold nothing but requests that nobody answered.
    replies = (folder.logs / "replies").rglob("0*" if is_remote(folder.root) else "*.jsonl")
    return made or any(b'"text"' in path.read_bytes() for path in replies)


def load_frozen(folder: RunFolder) -> tuple[Config, Frozen]:
    """The configuration that a run was made with. Raises RunFolderError, ConfigError."""
    folder.require()
    try:
        data = parse_yaml(folder.config.read_text("utf-8"), str(folder.config))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder.config}: not readable: {error}") from None
    provenance: Any = data.pop("provenance", None)
    try:
        frozen = Frozen.model_validate(provenance)
    except ValueError:
        raise ConfigError(
            f"{folder.config}: provenance is missing or damaged, so this folder cannot be trusted"
        ) from None
    return validate_config(_placed(data), str(folder.config)), frozen


def _placed(data: dict[str, Any]) -> dict[str, Any]:
    """Where a source or an endpoint is, is not frozen, and no configuration is valid without."""
    writer = data.get("writer")
    endpoints = writer.get("endpoints") if isinstance(writer, dict) else None
    for items, key in ((data.get("sources"), "data"), (endpoints, "base_url")):
        for item in items.values() if isinstance(items, dict) else ():
            if isinstance(item, dict):
                item.setdefault(key, "")
    return data


def _match(folder: RunFolder, old_config: Config, old: Frozen, config: Config, new: Frozen) -> None:
    differing = sorted(differences(old_config.content(), config.content()))
    if old_config.dialogues > config.dialogues:
        raise RunMismatchError(
            f"{folder.root}: this run has {old_config.dialogues} dialogues and a run never shrinks; "
            f"ask for at least as many, or choose another --out"
        )
    others = [line for line in differing if not line.startswith("dialogues ")]
    if others:
        raise RunMismatchError(
            f"{folder.root} holds a run of another configuration: {'; '.join(others)}. "
            f"Choose another --out{_regate_hint(folder, others)}"
        )
    if old_config.regated_from and old_config.dialogues != config.dialogues:
        raise RunMismatchError(
            f"{folder.root}: a regated run does not grow; grow the run that it came from and regate that one"
        )
    stages = [name for name in old.digests if old.digests[name] != new.digests.get(name)]
    if stages:
        raise RunMismatchError(
            f"{folder.root}: the keys are the same, but {', '.join(stages)} would come out differently: "
            f"{_changes(old, new, config)}. Choose another --out"
        )


def _regate_hint(folder: RunFolder, differing: list[str]) -> str:
    if all(line.startswith("judge.") for line in differing):
        return f", or judge the stored scores again: speechchat regate {folder.root} --out OTHER --set …"
    return ""


def _changes(old: Frozen, new: Frozen, config: Config) -> str:
    """What may have changed the digests though the configuration is the same."""
    before = {item.role: item for item in old.models}
    changed = [
        f"the {item.role} model was {before[item.role].name} {before[item.role].sha256[:12]} "
        f"and is {item.name} {item.sha256[:12]}"
        for item in new.models
        if item.role in before and before[item.role] != item
    ]
    if old.voices and old.voices != new.voices:
        place = config.cast.library or "the shipped ones"
        changed.append(
            f"cast.library: {place}: the library of voices was {old.voices} and is {new.voices}: put the old one back"
        )
    known = "" if old.voices else "voices, "
    return "; ".join(changed) or f"prompts, {known}corpus or the program itself changed"


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield f"{prefix} is {old!r} there and {new!r} here"


def settle_quarantine(folder: RunFolder, unfinished: Iterable[int]) -> list[int]:
    """Units still lost; a unit that was made after all leaves the quarantine. unfinished: where the listing of a store
    may not know yet what was put a moment ago."""
    lost, units = [], set(quarantined(folder))
    if is_remote(folder.root):
        units |= {
            unit for unit, there in folder.each(lambda unit: folder.quarantine(unit).exists(), unfinished) if there
        }
    for unit in sorted(units):
        if any(folder.has(unit, split) for split in get_args(Split)):
            folder.quarantine(unit).unlink()
        else:
            lost.append(unit)
    return lost


def write_totals(folder: RunFolder, config: Config, totals: Totals | None = None) -> Stats:
    """stats.json and the dataset card, from the manifests; the same units always give the same bytes. totals: where
    they were looked at before."""
    stats = (totals or Totals(folder, config)).stats()
    for path, text in (
        (folder.stats, stats.model_dump_json(indent=1) + "\n"),
        (folder.card, card(stats, config, folder)),
    ):
        if not path.exists() or path.read_text("utf-8") != text:
            publish(path, text.encode(), replace=True)
    return stats
