"""The studio: speak, listen, judge, repair and pack on one worker, where the recogniser sits beside the synthesizer.

Audio crosses no process boundary until it is accepted and encoded. Every dialogue is worked on by itself; only how many
takes it may have beyond its own share depends on those before it in its unit. So neither workers nor the order of units
change anything in the output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.config import Config
from pipeline.dialogue import Dialogue, Reject, RejectedTurn, Stage, TextLine
from pipeline.plan import Unit
from pipeline.shards.disk import storage_errors
from pipeline.shards.format import Encoded, TakeClip
from pipeline.shards.manifest import Manifest
from pipeline.shards.store import RunFolder
from pipeline.shards.writer import UnitWriter
from pipeline.stages.cast import Casting
from pipeline.stages.judge import judge_turns, keeps_clips
from pipeline.stages.listen import Listener
from pipeline.stages.pack import Origin, encode_take, pack
from pipeline.stages.progress import Cost, Progress, Repaired
from pipeline.stages.recording import Budget, Recorded, Recording, Rephraser
from pipeline.stages.speak import Speaking
from pipeline.stages.verdicts import read_verdicts
from pipeline.stages.write import read_text
from pipeline.text.checks import unspeakable

__all__ = ["Cancelled", "Cost", "Progress", "Studio"]

POLL = 0.2
"""Seconds between two looks whether another worker has ended with the unit."""


class Cancelled(Exception):
    """The studio was told to stop."""


class Studio:
    """Produces units of speech. One per worker, models loaded once; several threads may each run a unit, so that an
    engine that likes batches is asked for several dialogues at once."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        casting: Casting,
        speaking: Speaking,
        listener: Listener,
        origin: Origin,
        rephraser: Rephraser | None = None,
    ):
        self.config = config
        self.folder = folder
        self.casting = casting
        self.speaking = speaking
        self.listener = listener
        self.origin = origin
        self.rephraser = rephraser
        self._running: dict[int, Progress] = {}
        self.cancelled = False

    @property
    def progress(self) -> list[Progress]:
        """Of the units under way."""
        return list(self._running.values())

    def cancel(self) -> None:
        """Make `run` raise Cancelled before its next dialogue; what it had of the unit is dropped."""
        self.cancelled = True

    def run(self, unit: Unit, poisoned: Mapping[str, str] | None = None) -> tuple[Manifest, Progress]:
        """Make and publish the unit; its text must lie in the run folder.

        poisoned: dialogues that are rejected unheard because they killed their workers, with what is known about it.
        """
        session = _Session(self, unit)
        self._running[unit.number] = session.progress
        try:
            return session.run(poisoned or {}), session.progress
        finally:
            del self._running[unit.number]


class _Session:
    """A unit in a studio."""

    def __init__(self, studio: Studio, unit: Unit):
        self._studio = studio
        self._unit = unit
        self._config = studio.config
        self.progress = Progress(unit=unit.number, dialogues=len(unit.dialogues))

    def run(self, poisoned: Mapping[str, str]) -> Manifest:
        while (lock := self._studio.folder.unit_lock(self._unit.number)) is None:
            self._check_cancelled()
            time.sleep(POLL)
        with lock:
            return self._make(poisoned)

    def _check_cancelled(self) -> None:
        if self._studio.cancelled:
            raise Cancelled(f"unit {self._unit.number} was dropped")

    def _make(self, poisoned: Mapping[str, str]) -> Manifest:
        unit, folder = self._unit, self._studio.folder
        journal = folder.crash_journal(unit.number)
        published = folder.load_manifest(unit.number, unit.split)
        if published is not None:
            # Another worker was faster, or died between publishing and telling: what is published never changes.
            journal.unlink(missing_ok=True)
            return published
        with storage_errors(journal):
            journal.write_text("")  # suspects of an earlier session are none of this one
        refused = read_verdicts(folder, unit.number) if self._config.dedup.barrier else {}
        for key, detail in poisoned.items():
            refused[key] = _reject(key, unit, "speak", "crash", detail)
        lines = [
            (line, line.reject or refused.get(line.plan.id) or _edited(line, unit)) for line in read_text(folder, unit)
        ]
        self._budget = Budget(self._config.repair.share)
        with UnitWriter(folder, unit) as writer:
            for line, reject in lines:
                self._check_cancelled()
                if reject is not None or line.dialogue is None:
                    writer.reject(reject or _reject(line.plan.id, unit, "filter", "by hand", ""))
                    self.progress.done += 1
                    continue
                with storage_errors(journal):
                    journal.write_text(line.plan.id + "\n")
                try:
                    self._produce(line.dialogue, writer)
                finally:  # what it raises is told; only a death leaves a suspect
                    with storage_errors(journal):
                        journal.write_text("")
                self.progress.done += 1
            with self._cost("pack"):
                manifest = writer.commit(self._studio.origin.digests)
        journal.unlink(missing_ok=True)
        return manifest

    def _produce(self, dialogue: Dialogue, writer: UnitWriter) -> None:
        """Speak the dialogue, and hand what came of it to the writer."""
        plan, studio = dialogue.plan, self._studio
        recording = Recording(
            dialogue,
            self._config,
            studio.casting,
            studio.speaking,
            studio.listener,
            studio.rephraser,
            self._budget,
            self._cost,
        )
        recorded = recording.run()
        self.progress.held = max(self.progress.held, recorded.bytes)
        with self._cost("pack") as cost:
            encoded, reject = self._packed(recorded)
            cost.audio += encoded.sample.duration if encoded else 0.0
            if reject is not None:
                kept = keeps_clips(plan.id, self._config.judge)
                writer.reject(reject, encoded if kept else None, self._spare(recorded) if kept else ())
            elif encoded is not None:
                writer.accept(encoded)
                self.progress.accepted += 1
                self.progress.seconds += encoded.sample.duration
        self._count(recorded, reject is None)

    def _packed(self, recorded: Recorded) -> tuple[Encoded | None, Reject | None]:
        """The encoded dialogue, and the reject if it is refused (the clips then are evidence)."""
        dialogue, plan = recorded.dialogue, recorded.dialogue.plan
        if recorded.deaf:
            return None, self._refused(recorded, "listen", "backend", recorded.deaf)
        if recorded.unsaid is not None:
            number, unsaid = recorded.unsaid
            said = dialogue.turns[number].spoken
            detail = f"turn {number}: {unsaid.detail}; {len(recorded.takes[number])} takes of {said!r}"
            return None, self._refused(recorded, "speak", unsaid.reason, detail)
        spoken = [turn for turn in recorded.turns if turn is not None]
        encoded = pack(dialogue, recorded.cast, spoken, self._studio.origin, self._config)
        return encoded, judge_turns(plan.id, plan.language, encoded.sample.turns, self._config.judge)

    def _refused(self, recorded: Recorded, stage: Stage, reason: str, detail: str) -> Reject:
        """The reject of a dialogue of which there is no sample."""
        turns = tuple(
            RejectedTurn(
                turn=place,
                spoken=turn.spoken,
                transcript=kept.kept.hearing.transcript.text if kept else "",
                scores=kept.kept.hearing.scores if kept else (),
                takes=takes,
                disfluencies=turn.disfluencies,
            )
            for place, (turn, kept, takes) in enumerate(
                zip(recorded.dialogue.turns, recorded.turns, recorded.takes, strict=True)
            )
        )
        reject = _reject(recorded.dialogue.plan.id, self._unit, stage, reason, detail)
        return reject.model_copy(update={"turns": turns})

    @staticmethod
    def _spare(recorded: Recorded) -> list[TakeClip]:
        plan = recorded.dialogue.plan
        return [
            encode_take(plan, turn, take, clip)
            for (turn, take), clip in sorted(recorded.spare.items(), key=lambda item: item[0])
        ]

    def _count(self, recorded: Recorded, accepted: bool) -> None:
        repairs = self.progress.repairs
        for turn, takes in zip(recorded.turns, recorded.takes, strict=True):
            for take in takes[1:]:
                count = repairs.setdefault(take.repair, Repaired())
                count.takes += 1
                count.audio += take.seconds
            if accepted and turn is not None and takes[0].reason:
                repairs[takes[turn.kept.take].repair].saved += 1

    @contextmanager
    def _cost(self, stage: str) -> Iterator[Cost]:
        cost = self.progress.costs.setdefault(stage, Cost())
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield cost
        finally:
            spent, beside = time.perf_counter() - wall, max(1, len(self._studio.progress))
            cost.wall += spent
            cost.held += spent / beside
            # Models work in threads of their own, so only the process knows; units at work beside this one share it.
            cost.cpu += (time.process_time() - cpu) / beside


def _edited(line: TextLine, unit: Unit) -> Reject | None:
    """What the rules passed is passed; a text that was edited by hand may hold what cannot be said."""
    for place, turn in enumerate(line.dialogue.turns if line.dialogue else ()):
        reason = unspeakable(turn.spoken, line.plan.language, line.dialogue is not None and line.dialogue.code_switch)
        if reason:
            return _reject(line.plan.id, unit, "filter", reason, f"turn {place}: {turn.spoken}")
    return None


def _reject(key: str, unit: Unit, stage: Stage, reason: str, detail: str) -> Reject:
    language = next(planned.language for planned in unit.dialogues if planned.id == key)
    return Reject(id=key, language=language, stage=stage, reason=reason, detail=detail)
