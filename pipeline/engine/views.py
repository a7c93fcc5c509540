"""views: acoustic variants of a run's finished units, each in a folder RUN/views/NAME that is laid out like a run."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import yaml

from pipeline.channel.chain import check_view
from pipeline.channel.recordings import list_recordings
from pipeline.config import Config, EngineConfig, assign_settings, digest, load_config, validate_config
from pipeline.dialogue import ModelUse
from pipeline.engine.failures import quarantine
from pipeline.engine.pool import each
from pipeline.engine.run import Frozen, differences, load_frozen, settle_quarantine, write_totals
from pipeline.errors import ConfigError, DataError, RunIncomplete, RunMismatchError, SpeechchatError
from pipeline.licences import check_licences
from pipeline.plan import Unit, plan_units, unit_count
from pipeline.shards.disk import storage_errors
from pipeline.shards.manifest import Manifest
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.view import VERSION, ViewJob, make_unit
from pipeline.view_sections import SHIPPED, ViewConfig

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class ViewObserver(Protocol):
    """Told by the driver; each call returns at once."""

    def began(self, name: str, units: int, finished: int) -> None:
        """A view of so many units, of which some are there already."""
        ...

    def finished(self, manifest: Manifest) -> None: ...
    def trouble(self, message: str) -> None: ...


def choose_views(
    run: Path, names: Iterable[str], config: str | None, settings: Iterable[str]
) -> tuple[dict[str, ViewConfig], EngineConfig]:
    """The views that are asked for, and how to make them.

    Known by name are the shipped views, those that the run has, and the `views` of `config` (a preset or a file), each
    over those before it; settings (`views.` and `engine.` keys) change them. Without names: those of `config`, or those
    that the run has, and those that a setting names. Raises RunFolderError, ConfigError.
    """
    settings, names = list(settings), list(names)
    for setting in settings:
        if not setting.startswith(("views.", "engine.")):
            raise ConfigError(f"--set {setting!r}: views changes only views.* and engine.*")
    made = _made(RunFolder(run).require())
    base = load_config(config) if config is not None else load_frozen(RunFolder(run))[0]
    wanted = base.views if config is not None else made
    data = base.model_copy(update={"views": SHIPPED | made | base.views}).model_dump(mode="json")
    assign_settings(data, settings)
    known = validate_config(data, config or "views")
    set_here = [setting.split(".")[1].partition("=")[0] for setting in settings if setting.startswith("views.")]
    names = list(dict.fromkeys(names or [*wanted, *set_here]))
    if not names:
        raise ConfigError(
            f"name the views to make: {', '.join(SHIPPED)} need no configuration; or give --config FILE with `views`"
        )
    for name in names:
        if name not in known.views:
            near = difflib.get_close_matches(name, known.views, n=1, cutoff=0.4)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"no view is called {name!r}; {meant}known: {', '.join(known.views)}")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"views.{name}: a view is a folder; name it with a-z, 0-9, - and _")
    return {name: known.views[name] for name in names}, known.engine


def _made(run: RunFolder) -> dict[str, ViewConfig]:
    """The views that the run has, as they were frozen: without the places of their recordings."""
    paths = sorted((run.root / "views").glob("*/config.yaml"))
    return {path.parent.name: load_frozen(RunFolder(path.parent))[0].views[path.parent.name] for path in paths}


def make_views(run: Path, views: Mapping[str, ViewConfig], engine: EngineConfig, observer: ViewObserver) -> list[Stats]:
    """Make or finish views of the run's finished units; what is there stays. The totals of each view.

    Raises RunFolderError, RunMismatchError for a view that is there with another configuration, ConfigError,
    StorageError, and RunIncomplete at the end if units of the run are not finished, or were lost here.
    """
    source = RunFolder(run.resolve()).require()
    config, frozen = load_frozen(source)
    stats: list[Stats] = []
    unfinished: dict[int, None] = {}
    lost: list[str] = []
    for job in [_job(source, config, frozen, name, view) for name, view in views.items()]:
        folder = job.folder
        with storage_errors(job.root), folder.driver_lock():
            folder.sweep()
            _freeze(job, frozen)
            observer.began(job.name, unit_count(config), sum(1 for _ in folder.manifests(config)))
            _make(job, _todo(source, folder, config, unfinished), engine, observer)
            folder.sweep()
            lost += [f"{job.name} {number}" for number in settle_quarantine(folder, range(unit_count(config)))]
            stats.append(write_totals(folder, config))
    if lost:
        raise RunIncomplete(
            f"{len(lost)} units of views are quarantined ({_some(lost)}; see {source.root / 'views' / 'NAME'}"
            "/quarantine); run the same command again to try them once more"
        )
    if unfinished:
        raise RunIncomplete(
            f"{run}: {len(unfinished)} units of the run are not finished ({_some(map(str, unfinished))}), the others "
            "have their views; finish the run, then give this command again"
        )
    return stats


def _make(job: ViewJob, todo: Iterator[Unit], engine: EngineConfig, observer: ViewObserver) -> None:
    first = next(todo, None)
    if first is None:
        return
    check_view(job.name, job.view, job.config.audio.user_rate)
    with closing(each(partial(make_unit, job), chain([first], todo), engine)) as outcomes:
        for unit, made in outcomes:
            if isinstance(made, Manifest):
                observer.finished(made)
            elif isinstance(made, SpeechchatError) and not isinstance(made, DataError | RunIncomplete):
                raise made
            else:  # a bug, or a damaged file, costs its unit and no other
                observer.trouble(f"view {job.name}: {quarantine(job.folder, unit, made, 1)}")


def _todo(source: RunFolder, folder: RunFolder, config: Config, unfinished: dict[int, None]) -> Iterator[Unit]:
    """Units that the run has and the view has not; those that the run has not are put into `unfinished`."""
    for unit in plan_units(config):
        if not source.has(unit.number, unit.split):
            unfinished[unit.number] = None
        elif not folder.has(unit.number, unit.split):
            yield unit


def _some(items: Iterable[str]) -> str:
    first = list(islice(items, 11))
    return ", ".join([*first[:10], *(["…"] if len(first) > 10 else [])])


def _job(source: RunFolder, config: Config, frozen: Frozen, name: str, view: ViewConfig) -> ViewJob:
    """With the recordings looked through. Raises ConfigError for a folder, a file in it, or a licence."""
    models = []
    for step, section in view.folders.items():
        if section.folder is not None:
            folder = section.folder.absolute()  # a worker may stand in another one
            files = list_recordings(folder, f"views.{name}.{step}.folder")
            section = section.model_copy(update={"folder": folder, "files": files})
            view = view.model_copy(update={step: section})
        if section.files:
            listing = json.dumps(sorted(section.files.items()), ensure_ascii=False).encode()
            label = f"{len(section.files)} recordings"
            sha256 = hashlib.sha256(listing).hexdigest()
            models.append(ModelUse(role=step, name=label, sha256=sha256, license=section.license))
    check_licences(config, (), models)
    digests = {**frozen.digests, "speech": digest(VERSION, frozen.digests["speech"], name, view.content())}
    return ViewJob(config, source.root, source.root / "views" / name, name, view, digests, tuple(models))


def _freeze(job: ViewJob, frozen: Frozen) -> None:
    """Write the view's config.yaml, or check that the view there is this one (the run may have grown)."""
    folder, content = job.folder, _content(job.config, {job.name: job.view})
    if folder.config.exists():
        old_config, old = load_frozen(folder)
        there = _content(old_config, old_config.views)
        differing = [line for line in differences(there, content) if not line.startswith("dialogues ")]
        if not differing and old.digests != job.digests:
            differing = ["the run, or the program, is another"]
        if differing:
            raise RunMismatchError(
                f"{job.root} holds another view: {'; '.join(differing[:5])}"
                f"{'; …' if len(differing) > 5 else ''}. Give yours another name, or remove that folder"
            )
        if there == content:
            return
    provenance = Frozen(digests=job.digests, models=(*frozen.models, *job.models)).model_dump(mode="json")
    head = "# Frozen: what the shards in this folder were made with, from those of the run that it lies in.\n"
    text = yaml.safe_dump({**content, "provenance": provenance}, sort_keys=False, allow_unicode=True)
    publish(folder.config, (head + text).encode(), replace=True)


def _content(config: Config, views: Mapping[str, ViewConfig]) -> dict[str, Any]:
    return {**config.content(), "views": {name: view.content() for name, view in views.items()}}
