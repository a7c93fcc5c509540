"""From accepted and rejected dialogues to the published files of one unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.dialogue import Language, Reject, Sample
from pipeline.errors import StorageError
from pipeline.plan import Unit
from pipeline.shards.disk import PendingFile, sha256_file
from pipeline.shards.format import Encoded, TakeClip, TarWriter
from pipeline.shards.index import index_bytes, index_row
from pipeline.shards.manifest import MANIFEST_VERSION, FileFact, Manifest, RateSum
from pipeline.shards.objects import PendingObject
from pipeline.shards.store import RunFolder, open_pending, publish
from pipeline.shards.tally import tally

RATES = ("wer", "cer", "mer", "ser", "tser", "per")


class UnitWriter:
    """Takes the dialogues of a unit in the order of the plan and publishes them all at once.

    Use as a context manager: an exception inside leaves nothing but temporaries, and removes those.
    """

    def __init__(self, folder: RunFolder, unit: Unit):
        self._claim = folder.discard(unit.number, unit.split)
        self._folder = folder
        self._unit = unit
        self._tars: dict[Path, tuple[PendingFile | PendingObject, TarWriter]] = {}
        self._accepted: list[Sample] = []
        self._index: list[dict[str, Any]] = []
        self._rejects: list[Reject] = []
        self._takes = 0

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for pending, _ in self._tars.values():
            pending.abort()

    def accept(self, encoded: Encoded) -> None:
        members = self._tar(self._folder.shard(self._unit.number, self._unit.split)).add(encoded)
        self._accepted.append(encoded.sample)
        self._index.append(index_row(encoded, members))

    def reject(self, reject: Reject, encoded: Encoded | None = None, takes: Sequence[TakeClip] = ()) -> None:
        """encoded: the clips to keep beside the reason. takes: clips of other takes, each told of in `reject.turns`."""
        recorded = recorded_takes(reject)
        ordered = sorted(takes, key=lambda clip: (clip.turn, clip.take))
        names = [(clip.turn, clip.take) for clip in ordered]
        if len(set(names)) < len(names) or not recorded.issuperset(names):
            raise ValueError(f"{reject.id}: clips of takes {names}, once each out of those recorded: {recorded}")
        if encoded is not None:
            self._tar(self._folder.reject_clips(self._unit.number)).add(encoded)
        for clip in ordered:
            self._tar(self._folder.reject_takes(self._unit.number)).add_file(clip.name(reject.id), clip.flac)
        self._takes += len(ordered)
        self._rejects.append(reject.model_copy(update={"clips": encoded is not None}))

    def commit(self, digests: Mapping[str, str]) -> Manifest:
        """Publish everything, the manifest last. digests: text, speech, judge."""
        number, split = self._unit.number, self._unit.split
        done = len(self._accepted) + len(self._rejects)
        if done != len(self._unit.dialogues):
            raise RuntimeError(f"unit {number}: {len(self._unit.dialogues)} planned, {done} accounted for")
        files = [self._existing(self._folder.text(number))]
        for path, (pending, tar) in self._tars.items():
            tar.close()
            files.append(self._fact(path, pending.commit()))
        if self._accepted:
            path = self._folder.index(number, split)
            files.append(self._fact(path, publish(path, index_bytes(self._index))))
        if self._rejects:
            path = self._folder.rejects(number)
            lines = "".join(reject.model_dump_json() + "\n" for reject in self._rejects)
            files.append(self._fact(path, publish(path, lines.encode())))
        manifest = summarize(self._unit, self._accepted, self._rejects, self._takes, digests, files)
        line = (manifest.model_dump_json() + "\n").encode()
        publish(self._folder.manifest(number, split), line, claim=self._claim)
        return manifest

    def _tar(self, path: Path) -> TarWriter:
        if path not in self._tars:
            pending = open_pending(path)
            self._tars[path] = (pending, TarWriter(pending))
        return self._tars[path][1]

    def _fact(self, path: Path, fact: tuple[int, str]) -> FileFact:
        return FileFact(path=self._folder.relative(path), bytes=fact[0], sha256=fact[1])

    def _existing(self, path: Path) -> FileFact:
        if not path.is_file():
            raise StorageError(f"{path}: the text of unit {self._unit.number} is gone; run the same command again")
        return self._fact(path, (path.stat().st_size, sha256_file(path)))


def recorded_takes(reject: Reject) -> set[tuple[int, int]]:
    """(turn, take) of every take that is told of a rejected dialogue."""
    return {(turn.turn, take.take) for turn in reject.turns for take in turn.takes}


def summarize(
    unit: Unit,
    accepted: Sequence[Sample],
    rejects: Sequence[Reject],
    takes: int,
    digests: Mapping[str, str],
    files: Sequence[FileFact],
) -> Manifest:
    """The manifest of a unit, from what is in it and nothing else (no clock, no machine). takes: clips of takes."""
    sums_of_takes = tally([*accepted, *rejects])
    turns = [(sample.language, turn) for sample in accepted for turn in sample.turns]
    sums: dict[tuple[Language, str], list[float]] = {}
    for language, turn in turns:
        for score in turn.scores:
            if score.name in RATES:
                sums.setdefault((language, score.name), []).append(score.value)
    return Manifest(
        version=MANIFEST_VERSION,
        unit=unit.number,
        split=unit.split,
        planned=len(unit.dialogues),
        accepted=len(accepted),
        rejected=dict(sorted(Counter(f"{reject.stage}: {reject.reason}" for reject in rejects).items())),
        languages=dict(sorted(Counter(sample.language for sample in accepted).items())),
        rejected_languages=dict(sorted(Counter(reject.language for reject in rejects).items())),
        takes=takes,
        turns=len(turns),
        llm_turns=sum(turn.author == "llm" for _, turn in turns),
        retaken_turns=sum(len(turn.takes) > 1 for _, turn in turns),
        seconds=round(sum(sample.duration for sample in accepted), 6),
        user_seconds=round(sum(turn.end - turn.start for _, turn in turns if turn.role == "user"), 6),
        assistant_seconds=round(sum(turn.end - turn.start for _, turn in turns if turn.role == "assistant"), 6),
        error_rates=tuple(
            RateSum(language=language, metric=metric, total=round(sum(rates), 9), turns=len(rates))
            for (language, metric), rates in sorted(sums.items())
        ),
        repairs=sums_of_takes.repairs,
        lengths=sums_of_takes.lengths,
        refusals=sums_of_takes.refusals,
        text_digest=digests["text"],
        speech_digest=digests["speech"],
        judge_digest=digests["judge"],
        files=tuple(sorted(files, key=lambda fact: fact.path)),
    )
