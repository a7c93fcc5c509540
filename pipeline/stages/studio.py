"""The studio: speak, listen, judge, repair and pack on one worker, where the recogniser sits beside the synthesizer.

Audio crosses no process boundary until it is accepted and encoded. Every dialogue is worked on by itself (its takes
never depend on a neighbour), so the order and the grouping of work change nothing in the output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.backends.asr.base import Recognizer
from pipeline.backends.quality.base import QualityModel
from pipeline.config import Config
from pipeline.dialogue import Clip, Dialogue, Reject, Stage, Take, TextLine
from pipeline.errors import BackendError
from pipeline.plan import Unit
from pipeline.shards.format import Encoded
from pipeline.shards.store import Manifest, RunFolder, storage_errors
from pipeline.shards.writer import UnitWriter
from pipeline.stages.cast import Cast, Casting
from pipeline.stages.judge import judge_turns, keeps_clips, verdict
from pipeline.stages.listen import Hearing, listen
from pipeline.stages.pack import KeptTake, Origin, SpokenTurn, pack
from pipeline.stages.speak import Speaking, request
from pipeline.stages.verdicts import read_verdicts
from pipeline.stages.write import read_text
from pipeline.text.checks import unspeakable
from pipeline.text.rates import MAIN_METRIC
from pipeline.voice import SpeechRequest, Unsaid


@dataclass
class Cost:
    """Seconds spent by a stage (wall and CPU of this process), and seconds of audio that went through it."""

    wall: float = 0.0
    cpu: float = 0.0
    audio: float = 0.0


@dataclass
class Progress:
    """Where a studio stands in a unit; read by the driver while the work goes on."""

    unit: int = -1
    dialogues: int = 0
    done: int = 0
    accepted: int = 0
    seconds: float = 0.0
    costs: dict[str, Cost] = field(default_factory=dict)


@dataclass
class _Voiced:
    """A turn in the making: the take to keep so far (the one that passed, or the best heard), and the record of all."""

    kept: KeptTake | None = None
    takes: tuple[Take, ...] = ()
    passed: bool = False
    unsaid: Unsaid | None = None


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
        recognizer: Recognizer,
        quality: QualityModel | None,
        origin: Origin,
    ):
        self.config = config
        self.folder = folder
        self.casting = casting
        self.speaking = speaking
        self.recognizer = recognizer
        self.quality = quality
        self.origin = origin
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
        unit, folder = self._unit, self._studio.folder
        journal = folder.crash_journal(unit.number)
        published = folder.load_manifest(unit.number, unit.split)
        if published is not None:
            # An earlier worker died between publishing and telling: what is published never changes.
            journal.unlink(missing_ok=True)
            return published
        with storage_errors(journal):
            journal.parent.mkdir(parents=True, exist_ok=True)
            journal.write_text("")  # suspects of an earlier session are none of this one
        refused = read_verdicts(folder, unit.number) if self._config.dedup.barrier else {}
        for key, detail in poisoned.items():
            refused[key] = _reject(key, unit, "speak", "crash", detail)
        with UnitWriter(folder, unit) as writer:
            for line in read_text(folder, unit):
                if self._studio.cancelled:
                    raise Cancelled(f"unit {unit.number} was dropped")
                encoded: Encoded | None = None
                reject = line.reject or refused.get(line.plan.id) or _edited(line, unit)
                if reject is None and line.dialogue is not None:
                    with storage_errors(journal):
                        journal.write_text(line.plan.id + "\n")
                    encoded, reject = self._produce(line.dialogue)
                    with storage_errors(journal):
                        journal.write_text("")
                self._deliver(writer, encoded, reject)
            with self._cost("pack"):
                manifest = writer.commit(self._studio.origin.digests)
        journal.unlink(missing_ok=True)
        return manifest

    def _deliver(self, writer: UnitWriter, encoded: Encoded | None, reject: Reject | None) -> None:
        with self._cost("pack"):
            if reject is not None:
                writer.reject(reject, encoded if keeps_clips(reject.id, self._config.judge) else None)
            elif encoded is not None:
                writer.accept(encoded)
                self.progress.accepted += 1
                self.progress.seconds += encoded.sample.duration
        self.progress.done += 1

    def _produce(self, dialogue: Dialogue) -> tuple[Encoded | None, Reject | None]:
        """The encoded dialogue, and the reject if it is refused (the clips then are evidence)."""
        plan = dialogue.plan
        cast = self._studio.casting.cast(plan, dialogue.persona)
        try:
            turns = self._record(dialogue, cast)
        except BackendError as error:
            # Of the recogniser, as what an engine refuses is a value.
            return None, _reject(plan.id, self._unit, "listen", "backend", " ".join(str(error).split()))
        for number, turn in enumerate(turns):
            if turn.kept is None and turn.unsaid is not None:
                detail = (
                    f"turn {number}: {turn.unsaid.detail}; {len(turn.takes)} takes of {dialogue.turns[number].spoken!r}"
                )
                return None, _reject(plan.id, self._unit, "speak", turn.unsaid.reason, detail)
        spoken = [SpokenTurn(turn.kept, turn.takes) for turn in turns if turn.kept is not None]
        with self._cost("pack") as cost:
            encoded = pack(dialogue, cast, spoken, self._studio.origin, self._config)
            cost.audio += encoded.sample.duration
        return encoded, judge_turns(plan.id, plan.language, encoded.sample.turns, self._config.judge)

    def _record(self, dialogue: Dialogue, cast: Cast) -> list[_Voiced]:
        """Take after take of the turns that do not pass yet; a turn that passed is never spoken again."""
        turns = [_Voiced() for _ in dialogue.turns]
        for take in range(len(self._config.tts.speeds)):
            open_turns = [number for number, turn in enumerate(turns) if not turn.passed]
            if not open_turns:
                break
            self._take(dialogue, cast, turns, open_turns, take)
        return turns

    def _take(self, dialogue: Dialogue, cast: Cast, turns: list[_Voiced], numbers: Sequence[int], take: int) -> None:
        plan, config = dialogue.plan, self._config
        requests = [
            request(turn, number, voice, plan.language, plan.seed, take, self._studio.speaking.speed(voice, take))
            for number in numbers
            for turn in (dialogue.turns[number],)
            for voice in (cast.voice(turn.role),)
        ]
        with self._cost("speak") as cost:
            said = self._studio.speaking.speak(requests, [dialogue.turns[number].role for number in numbers])
            cost.audio += sum(clip.seconds for clip in said if isinstance(clip, Clip))
        heard: list[tuple[int, Clip, SpeechRequest]] = []
        for number, clip, asked in zip(numbers, said, requests, strict=True):
            if isinstance(clip, Unsaid):
                turns[number].unsaid = clip
                turns[number].takes += (_taken(asked, "", 1.0, clip.reason),)
            else:
                heard.append((number, clip, asked))
        if not heard:
            return
        with self._cost("listen") as cost:
            texts = [
                (turn.spoken, turn.fluent) if turn.disfluencies else (turn.spoken,)
                for number, _, _ in heard
                for turn in (dialogue.turns[number],)
            ]
            clips = [clip for _, clip, _ in heard]
            languages = [plan.language] * len(clips)
            hearings = listen(clips, texts, languages, self._studio.recognizer, self._studio.quality)
            cost.audio += sum(clip.seconds for clip in clips)
        metric = MAIN_METRIC[plan.language]
        for (number, clip, asked), hearing in zip(heard, hearings, strict=True):
            reason = verdict(_by_name(hearing), plan.language, config.judge)
            turn = turns[number]
            turn.takes += (_taken(asked, hearing.transcript.text, hearing.score(metric), reason),)
            if turn.kept is None or not reason or hearing.score(metric) < turn.kept.hearing.score(metric):
                turn.kept = KeptTake(clip, hearing, take)
            turn.passed = not reason

    @contextmanager
    def _cost(self, stage: str) -> Iterator[Cost]:
        cost = self.progress.costs.setdefault(stage, Cost())
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield cost
        finally:
            cost.wall += time.perf_counter() - wall
            # Models work in threads of their own, so only the process knows; units at work beside this one share it.
            cost.cpu += (time.process_time() - cpu) / max(1, len(self._studio.progress))


def _taken(asked: SpeechRequest, transcript: str, error_rate: float, reason: str) -> Take:
    return Take(
        take=asked.take,
        engine=asked.voice.engine,
        voice=asked.voice.id,
        speed=asked.speed,
        seed=asked.seed,
        transcript=transcript,
        error_rate=error_rate,
        reason=reason,
    )


def _by_name(hearing: Hearing) -> dict[str, float]:
    return {score.name: score.value for score in hearing.scores}


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
