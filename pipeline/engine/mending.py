"""repair: take out of a run what is damaged, so that the run's own command makes exactly that again.

A unit goes as a whole, for its shard, index and rejects are made together: its manifest first, so that whatever
interrupts leaves an unfinished unit and never a manifest without its shard. What it was made from stays if it is whole:
text that was paid for is not written again. Rows and verdicts are drawn and judged anew from what lies before them, and
nothing that is finished changes by that. A text is moved to RUN/logs/damaged, for somebody may have edited it; it is
written anew from the replies that the run keeps. A damaged text takes its unit along, and goes before the manifest:
often nothing else can tell that it is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import Config
from pipeline.engine.verifying import verify_run
from pipeline.errors import DataError, StorageError
from pipeline.plan import Unit, plan_units
from pipeline.shards.disk import storage_errors, sync_folder
from pipeline.shards.remote import place
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import Verification


@dataclass
class Repair:
    """What was found, and what was taken out (or would be). removed, moved, strangers: paths, strangers those that stay
    because nobody asked for them. again: the command that makes what is missing, "" if nothing is."""

    found: Verification
    units: list[int] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    again: str = ""


def repair(
    folder: RunFolder,
    config: Config,
    digests: Mapping[str, str],
    *,
    decode: bool = False,
    workers: int | None = None,
    foreign: bool = False,
    dry_run: bool = False,
    progress: Callable[[Verification], None] = lambda state: None,
) -> Repair:
    """Verify the run and remove what is damaged. foreign: files that no unit knows, too. dry_run: only say what would
    be done; nothing is written then, not even a lock.

    Raises RunFolderError if somebody writes to the run, DataError where it is rather the configuration that is damaged,
    StorageError, RunIncomplete.
    """
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(storage_errors(folder.root))
            stack.enter_context(folder.driver_lock())
            folder.sweep()
        state = Verification()
        for state in verify_run(folder, config, decode, digests, workers):
            progress(state)
        _doubt(folder, state)
        done = Repair(state, units=list(state.damaged), strangers=[] if foreign else state.strangers)
        texts = [path for path in state.inputs if place(path).is_relative_to(folder.root / "dialogues")]
        done.moved = [path for path in texts if _put_away(folder, place(path), dry_run)]
        loose = [path for path in state.inputs if path not in texts] + state.totals + state.leftovers
        wanted = set(state.damaged)
        for unit in (unit for unit in plan_units(config) if wanted and unit.number in wanted):
            done.removed += _remove_unit(folder, unit, dry_run)
        for path in (*loose, *(state.strangers if foreign else ())):
            if _remove(place(path), dry_run):
                done.removed.append(path)
        if done.units or texts or loose or state.missing:
            done.again = _command(folder, config)
        return done


def _doubt(folder: RunFolder, state: Verification) -> None:
    """Raises StorageError where the system refused a file, which may be whole, and DataError where no unit is whole and
    the files of some are those of their manifests: then it is rather the configuration that is damaged, or of another
    version."""
    if state.unreadable:
        raise StorageError(f"{state.unreadable[0]}; nothing was removed: make it readable and give the command again")
    if state.altered < len(state.damaged) and not state.whole:
        raise DataError(
            f"{folder.config}: none of the {len(state.damaged)} finished units fits it, so it may be this file that is "
            "damaged, and nothing was removed: put it back, or use the version of speechchat that made the run, or "
            f"remove the manifests by hand ({state.problems[0]})"
        )


def _remove_unit(folder: RunFolder, unit: Unit, dry_run: bool) -> Iterator[str]:
    """The paths that were there, in the order in which they go."""
    manifest = folder.manifest(unit.number, unit.split)
    if _remove(manifest, dry_run):
        yield str(manifest)
    if not dry_run:
        sync_folder(manifest.parent)  # a power cut must not bring it back when its files are gone
    yield from (str(path) for path in folder.unit_files(unit.number, unit.split) if _remove(path, dry_run))


def _remove(path: Path, dry_run: bool) -> bool:
    """Whether there is, or was, such a file."""
    there = path.is_symlink() or path.is_file()
    if there and not dry_run:
        path.unlink()
    return there


def _put_away(folder: RunFolder, path: Path, dry_run: bool) -> bool:
    """Whether there is, or was, such a file."""
    there = path.is_file()
    if there and not dry_run:
        damaged = folder.logs / "damaged"
        damaged.mkdir(parents=True, exist_ok=True)
        path.replace(damaged / path.name)
        sync_folder(path.parent)
    return there


def _command(folder: RunFolder, config: Config) -> str:
    root = folder.root.resolve()
    if root.parent.name == "views":
        return f"speechchat views {root.parent.parent} {root.name}"
    if config.regated_from:
        return f"speechchat regate SOURCE --out {folder.root} (with the run and the settings that it came from)"
    return f"speechchat run CONFIG --out {folder.root} (with the configuration that it was made with)"


def lines(done: Repair, dry_run: bool) -> Iterable[str]:
    """What was done, for people."""
    yield from done.found.problems
    word = "would be " if dry_run else ""
    for path in done.removed:
        yield f"{path}: {word}removed"
    for path in done.moved:
        yield f"{path}: {word}moved to logs/damaged; what somebody may have edited in it is not in the text made anew"
    if done.strangers:
        yield f"{len(done.strangers)} files that no manifest names were left where they are; --foreign removes them"
