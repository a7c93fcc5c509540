"""regate: judge the stored scores again with other limits, without speaking or listening.

Clips are copied as they are, from the shards and from the kept rejects. A dialogue that the new limits refuse is
rejected (nothing is tried again: for another take of it, run anew); one that they accept comes back, if its clips were
kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Config, assign_settings, digest, validate_config
from pipeline.dialogue import Reject, SampleTurn
from pipeline.engine.base import Done, Job, Observer
from pipeline.engine.run import Frozen, freeze, load_frozen, require_place, write_totals
from pipeline.errors import ConfigError, DataError, RunFolderError
from pipeline.plan import Unit, plan_units
from pipeline.shards.disk import storage_errors
from pipeline.shards.format import Encoded
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_rejects, read_takes, read_unit
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder, publish
from pipeline.shards.unit_check import check_file
from pipeline.shards.writer import UnitWriter
from pipeline.stages import judge
from pipeline.stages.judge import judge_turns, keeps_clips, verdict
from pipeline.stages.pack import Origin
from pipeline.stages.studio import Progress


def regate(source: Path, out: Path, settings: Iterable[str], observer: Observer) -> Stats:
    """A new run in `out` from the run in `source`, with `judge.` settings changed. Resumable like any run.

    Raises ConfigError for a setting outside `judge.`, RunFolderError, RunMismatchError, DataError.
    """
    old = RunFolder(source).require()
    config, frozen = load_frozen(old)
    if out.resolve() == source.resolve():
        raise RunFolderError(f"--out {out}: a regated run needs a folder of its own")
    require_place(out)
    new_config = _judged_by(config, frozen, settings)
    digests = {**frozen.digests, "judge": digest(judge.VERSION, new_config.content()["judge"])}
    job = Job(new_config, out.resolve(), Origin("", digests, frozen.models))
    folder = job.folder
    with storage_errors(out), folder.driver_lock():
        folder.sweep()
        freeze(job)
        done = Done()
        for manifest in folder.manifests(new_config):
            done.add(manifest)
        observer.planned(new_config, done)
        for unit in plan_units(new_config):
            if folder.load_manifest(unit.number, unit.split) is None:
                manifest = old.load_manifest(unit.number, unit.split)  # type: ignore[assignment]
                if manifest is None:
                    raise DataError(
                        f"{source}: unit {unit.number} is not finished; finish the run before it is regated"
                    )
                observer.finished(_regate_unit(old, folder, unit, manifest, job), Progress(unit.number))
            else:
                _copy_inputs(old, folder, unit)  # what was damaged and taken out
        return write_totals(folder, new_config)


def _judged_by(config: Config, frozen: Frozen, settings: Iterable[str]) -> Config:
    data = config.model_dump(mode="json")
    for setting in settings:
        if not setting.startswith("judge."):
            raise ConfigError(f"--set {setting!r}: regate changes only judge.* (anything else needs a new run)")
    assign_settings(data, list(settings))
    data["regated_from"] = digest(frozen.digests)
    return validate_config(data, "regate")


def _copy_inputs(old: RunFolder, new: RunFolder, unit: Unit) -> None:
    for place in (RunFolder.rows, RunFolder.text, RunFolder.verdicts):
        if place(old, unit.number).exists() and not place(new, unit.number).exists():
            publish(place(new, unit.number), place(old, unit.number).read_bytes())


def _regate_unit(old: RunFolder, new: RunFolder, unit: Unit, manifest: Manifest, job: Job) -> Manifest:
    for fact in manifest.files:
        problem = check_file(old.root / fact.path, fact.bytes, fact.sha256)
        if problem:
            raise DataError(f"{problem}; a damaged run is not regated: see `speechchat verify {old.root}`")
    _copy_inputs(old, new, unit)
    clips: dict[str, Encoded] = {item.sample.key: item for item in read_unit(old, manifest)}
    rejects: dict[str, Reject] = {}
    for reject, encoded in read_rejects(old, manifest):
        if encoded is None:
            rejects[reject.id] = reject
        else:
            clips[reject.id] = encoded
    takes = read_takes(old, manifest)
    with UnitWriter(new, unit) as writer:
        for planned in unit.dialogues:
            kept = keeps_clips(planned.id, job.config.judge)
            others = takes.get(planned.id, ()) if kept else ()
            if planned.id in rejects:
                writer.reject(rejects[planned.id], takes=others)
                continue
            encoded = _rejudged(clips[planned.id], job)
            refused = judge_turns(planned.id, planned.language, encoded.sample.turns, job.config.judge)
            if refused is None:
                writer.accept(encoded)
            else:
                writer.reject(refused, encoded if kept else None, others)
        return writer.commit(job.origin.digests)


def _rejudged(encoded: Encoded, job: Job) -> Encoded:
    """The same clips; the record says what the kept take of each turn is worth now, and by which limits."""
    sample = encoded.sample

    def turn_again(turn: SampleTurn) -> SampleTurn:
        scores = {score.name: score.value for score in turn.scores}
        reason = verdict(scores, sample.language, job.config.judge)
        takes = tuple(
            take.model_copy(update={"reason": reason}) if take.take == turn.take else take for take in turn.takes
        )
        return turn.model_copy(update={"takes": takes})

    provenance = sample.provenance.model_copy(update={"judge_digest": job.origin.digests["judge"]})
    update = {"turns": tuple(turn_again(turn) for turn in sample.turns), "provenance": provenance}
    return Encoded(sample.model_copy(update=update), encoded.user, encoded.assistant)
