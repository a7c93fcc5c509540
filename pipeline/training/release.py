"""release: what is published on a hub. The shards of a run joined to large ones, with all that a reader needs.

Shard by shard: tar, index, manifest; then the totals, the card, the licences and the checksums, and last release.json:
what has none is not finished. The same run gives the same bytes, so that what a killed try left is made again or kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.config import Config
from pipeline.dialogue import ModelUse
from pipeline.errors import DataError, RunFolderError, UsageError
from pipeline.shards.disk import TEMPORARY, make_folder, open_lock, storage_errors, try_lock
from pipeline.shards.release_list import RELEASE_LIST, RELEASE_VERSION, Release, ReleaseShard, is_release, read_release
from pipeline.shards.remote import is_remote
from pipeline.shards.stats import Stats, run_stats
from pipeline.shards.store import RunFolder, publish
from pipeline.training.release_card import CARD, LICENCES, STATS, SUMS, card, licences
from pipeline.training.release_join import join, shard_bytes
from pipeline.training.release_plan import ReleasePlan, ShardPlan, plan_release

__all__ = ["SIZE", "Frozen", "Watcher", "release"]

SIZE = 10**9
"""Bytes of a shard, about: hubs and readers over a network like files of that size."""
_BEGUN, _LOCK = ".release", ".release.lock"
_LOCAL = re.compile(r"[/\\~]|[A-Za-z]:[/\\]|file:")


class Frozen(Protocol):
    """What the run's config.yaml says of how it was made."""

    @property
    def digests(self) -> Mapping[str, str]: ...
    @property
    def models(self) -> Sequence[ModelUse]: ...


class Watcher(Protocol):
    """Told by `release`; each call returns at once."""

    def began(self, size: int) -> None:
        """So many bytes of shards are to be released."""
        ...

    def copied(self, size: int) -> None:
        """So many more are."""
        ...


def release(
    run: RunFolder,
    config: Config,
    frozen: Frozen,
    out: Path,
    size: int = SIZE,
    *,
    partial: bool = False,
    paths: bool = False,
    watcher: Watcher | None = None,
) -> Release:
    """Make or finish the release of a run, or of a view of one, in the folder `out`; a finished one is left as it is.

    size: bytes that a shard has at most, unless one unit alone has more. partial: also of a run that is not finished.
    paths: also of a run whose samples name a model by a path. Raises UsageError for what cannot be released or a
    folder that holds something else, RunFolderError while another one works there, DataError for a run that is
    damaged, StorageError.
    """
    if is_remote(out):
        raise UsageError(
            f"{out}: a release is made in a folder of this machine; copy it to a store when it is finished"
        )
    if not paths:
        _refuse_paths(run, frozen.models)
    plan = plan_release(run, config, frozen.digests, size, partial)
    with storage_errors(out):
        _require_place(run, out, plan)
        done = _finished(out)
        if done is None:
            with _alone(out):
                _require_place(run, out, plan)  # somebody may have been faster
                stats = run_stats(run, config)
                if (stats.accepted, stats.units_finished) != (plan.samples, plan.units):
                    raise DataError(f"{run.root}: a unit was finished at this moment; give the command again")
                publish(out / _BEGUN, (plan.release + "\n").encode(), replace=True)
                if watcher:
                    watcher.began(plan.bytes)
                done = _make(run, config, frozen, out, plan, stats, watcher)
                (out / _BEGUN).unlink()
    return done


def _make(
    run: RunFolder,
    config: Config,
    frozen: Frozen,
    out: Path,
    plan: ReleasePlan,
    stats: Stats,
    watcher: Watcher | None,
) -> Release:
    """stats: of the units that are planned: the run may go on meanwhile."""
    copied = watcher.copied if watcher else lambda size: None
    shards = []
    for item in plan.shards:
        shard = _kept(out, item, plan.release)
        if shard is None:
            shard = join(run, item, out, plan.release, copied)
        else:
            copied(shard.tar.bytes)
        shards.append(shard)
    made = Release(
        version=RELEASE_VERSION,
        release=plan.release,
        synthetic=True,
        view=next(iter(config.views), ""),
        digests=dict(frozen.digests),
        units_planned=plan.units_planned,
        units=plan.units,
        samples=sum(shard.samples for shard in shards),
        seconds=round(sum(shard.seconds for shard in shards), 6),
        user_rate=config.audio.user_rate,
        assistant_rate=config.audio.assistant_rate,
        size=plan.size,
        shards=tuple(shards),
    )
    listing = (made.model_dump_json(indent=1) + "\n").encode()
    files = {
        STATS: (stats.model_dump_json(indent=1) + "\n").encode(),
        LICENCES: licences(shards, frozen.models).encode(),
        CARD: card(made, stats, config).encode(),
    }
    files[SUMS] = _sums(shards, {**files, RELEASE_LIST: listing})
    for name, data in {**files, RELEASE_LIST: listing}.items():
        publish(out / name, data, replace=True)
    return made


def _sums(shards: Sequence[ReleaseShard], files: Mapping[str, bytes]) -> bytes:
    """What `sha256sum -c` reads."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for shard in shards:
        sums |= {fact.path: fact.sha256 for fact in (shard.tar, shard.index)}
        sums[shard.tar.path.removesuffix("tar") + "json"] = hashlib.sha256(shard_bytes(shard)).hexdigest()
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())).encode()


def _kept(out: Path, plan: ShardPlan, release: str) -> ReleaseShard | None:
    """The shard, if it is there whole."""
    with contextlib.suppress(OSError, ValueError):
        shard = ReleaseShard.model_validate_json((out / plan.path("json")).read_bytes())
        if shard.release == release and shard.tar.path == plan.path("tar") and _has(out, shard):
            return shard
    return None


def _has(out: Path, shard: ReleaseShard) -> bool:
    return all((out / fact.path).stat().st_size == fact.bytes for fact in (shard.tar, shard.index))


def _finished(out: Path) -> Release | None:
    """The release, if each of its files is there, by its size."""
    if not is_release(out) or (out / _BEGUN).exists():
        return None
    made = read_release(out)
    beside = [out / name for name in (CARD, LICENCES, STATS, SUMS)]
    beside += [(out / shard.tar.path).with_suffix(".json") for shard in made.shards]
    with contextlib.suppress(FileNotFoundError):
        if all(path.is_file() for path in beside) and all(_has(out, shard) for shard in made.shards):
            return made
    return None


def _refuse_paths(run: RunFolder, models: Sequence[ModelUse]) -> None:
    """A server may call its model by where it lies there; every sample names it so."""
    for use in models:
        if _LOCAL.match(use.name):
            raise UsageError(
                f"{run.config}: provenance.models: the {use.role} model is called {use.name!r}, a path of a machine, "
                "and so it is in every sample; --paths releases it nevertheless"
            )


def _require_place(run: RunFolder, out: Path, plan: ReleasePlan) -> None:
    """Raises UsageError unless `out` holds this release, whole or begun, or nothing."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder")
    if not is_remote(run.root) and out.resolve().is_relative_to(run.root.resolve()):
        raise UsageError(f"{out}: lies in the run itself, where no stranger may be; choose another folder")
    begun, found = out / _BEGUN, ""
    if is_release(out):
        found = read_release(out).release
    elif begun.is_file():
        found = begun.read_text("utf-8", "replace").strip()
    elif out.is_dir() and any(item.name not in (begun.name + TEMPORARY, _LOCK) for item in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no release; choose another folder")
    if found not in ("", plan.release):
        raise UsageError(
            f"{out} holds another release: of another run, of this one when it was shorter, or with another --size; "
            "choose another folder, or remove that one"
        )


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Be the only one who writes there. The lock's file goes with the lock: nothing but the release stays."""
    make_folder(out)
    path = out / _LOCK
    with open_lock(path) as lock:
        alone = try_lock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):  # whoever had it has just removed it
            if alone and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                try:
                    yield
                finally:
                    path.unlink()
                return
    raise RunFolderError(f"{out}: another speechchat release is writing to this folder; wait for it or stop it")
