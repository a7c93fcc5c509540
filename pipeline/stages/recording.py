"""recording: one dialogue in the studio, take after take, until every turn passes or nothing is left to try.

In each round every turn that does not pass yet has one attempt (repair.py says which), all of them are spoken
together and then heard together. A turn that passed is spoken again only where its speaker gets another voice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from pipeline.config import Config
from pipeline.dialogue import Clip, Dialogue, Role, Take, Turn
from pipeline.errors import BackendError
from pipeline.stages.cast import Cast, Casting
from pipeline.stages.judge import verdict
from pipeline.stages.listen import Hearing, Listener
from pipeline.stages.pack import KeptTake, SpokenTurn
from pipeline.stages.progress import Cost
from pipeline.stages.repair import Attempt, Ladder, Shared
from pipeline.stages.speak import Speaking, request
from pipeline.stages.takes import Line, Taken, record, spoken
from pipeline.text.rates import MAIN_METRIC
from pipeline.voice import Unsaid, Voice

ROLES: tuple[Role, Role] = ("user", "assistant")


class Rephraser(Protocol):
    """Says a turn in other words; nothing here knows how."""

    def rephrase(self, dialogue: Dialogue, number: int) -> Turn | None:
        """Turn `number` with another text that may be spoken, None if there is none. May be called by several threads.
        Raises EndpointError, BudgetError."""
        ...


@dataclass
class Budget:
    """Takes beyond the first. Each dialogue has its own, `share` for each of its turns, and what those before it in the
    unit did not need: none lives at the cost of a later one."""

    share: float
    over: int = 0

    def open(self, turns: int) -> int:
        """What a dialogue of so many turns may spend."""
        return math.ceil(self.share * turns) + self.over

    def close(self, left: int) -> None:
        """What it did not spend is for the next."""
        self.over = left


@dataclass(frozen=True)
class Recorded:
    """What came of a dialogue. dialogue, cast: the texts and voices of the kept takes. turns: None for a turn of which
    nothing was heard. spare: clips that were heard and stand in no sample, by turn and take. unsaid: why nothing was
    heard. deaf: why the recogniser could not listen, "" if it could; what came before is here."""

    dialogue: Dialogue
    cast: Cast
    turns: tuple[SpokenTurn | None, ...]
    takes: tuple[tuple[Take, ...], ...]
    spare: Mapping[tuple[int, int], Clip]
    unsaid: tuple[int, Unsaid] | None
    deaf: str = ""

    @property
    def bytes(self) -> int:
        """Of the clips of all takes."""
        clips = [*(turn.kept.clip for turn in self.turns if turn is not None), *self.spare.values()]
        return sum(clip.audio.nbytes for clip in clips)


class Recording:
    """budget: of the unit; it shrinks. cost: measures what a stage takes while it is open."""

    def __init__(
        self,
        dialogue: Dialogue,
        config: Config,
        casting: Casting,
        speaking: Speaking,
        listener: Listener,
        rephraser: Rephraser | None,
        budget: Budget,
        cost: Callable[[str], AbstractContextManager[Cost]],
    ):
        self._dialogue = dialogue
        self._plan = dialogue.plan
        self._config = config
        self._casting = casting
        self._speaking = speaking
        self._listener = listener
        self._rephraser = rephraser
        self._budget = budget
        self._left = budget.open(len(dialogue.turns))
        self._cost = cost
        self._ladder = Ladder(config.repair, config.tts.speeds, speaking.chance)
        self._cast = casting.cast(dialogue.plan, dialogue.persona)
        self._lines = [Line(turn) for turn in dialogue.turns]
        self._voices: dict[Role, list[Voice]] = {role: [self._cast.voice(role)] for role in ROLES}
        self._over: dict[Role, set[str]] = {role: set() for role in ROLES}

    def run(self) -> Recorded:
        """Raises EndpointError, and what the rephraser raises."""
        attempts = {
            number: self._ladder.plain(line.turn.spoken, self._cast.voice(line.turn.role))
            for number, line in enumerate(self._lines)
        }
        deaf = ""
        while attempts and not deaf:
            try:
                self._take(attempts)
            except BackendError as error:
                # Of the recogniser, as what an engine refuses is a value.
                deaf = " ".join(str(error).split())
            attempts = self._next() if not deaf else {}
        self._budget.close(self._left)
        return replace(self._recorded(deaf != ""), deaf=deaf)

    # ---- what is tried --------------------------------------------------------------------------------------------

    def _next(self) -> dict[int, Attempt]:
        """The next attempt of every turn that does not pass; none if all do, or if one of them cannot be saved: then
        the dialogue is lost, and nothing more is spent on it."""
        voices = {role: self._voice(role) for role in ROLES}
        failing = [line for line in self._lines if not line.passed(voices[line.turn.role])]
        # Before any of them costs something: an LLM is not asked for words that nobody will say.
        if len(failing) > self._left or any(self._wanted(line, voices[line.turn.role]) is None for line in failing):
            return {}
        attempts: dict[int, Attempt] = {}
        for role in ROLES:
            found = self._next_of(role)
            if found is None:
                return {}
            attempts |= found
        if len(attempts) > self._left:
            return {}
        self._left -= len(attempts)
        return dict(sorted(attempts.items()))

    def _next_of(self, role: Role) -> dict[int, Attempt] | None:
        """Of the turns of a speaker; None if one of them cannot be saved."""
        while True:
            voice = self._voice(role)
            wanted = {n: self._wanted(line, voice) for n, line in self._of(role).items() if not line.passed(voice)}
            attempts = {number: item for number, item in wanted.items() if isinstance(item, Attempt)}
            if len(attempts) == len(wanted):
                return attempts
            if None in wanted.values():
                return None
            rungs = set(wanted.values())
            for rung in ("voice", "engine"):
                # The voice that cannot say one of them is of no use for the others either.
                if rung in rungs and (recast := self._recast(role, rung)):
                    return recast
            for number, item in wanted.items():
                if item == "rephrase" and not rungs & {"voice", "engine"}:
                    self._rephrase(number)

    def _wanted(self, line: Line, voice: Voice) -> Attempt | Shared | None:
        tried = [take.tried for take in line.takes]
        over = self._over[line.turn.role] | line.over
        return self._ladder.next(line.turn.spoken, self._plan.language, voice, tried, over)

    def _recast(self, role: Role, rung: Literal["voice", "engine"]) -> dict[int, Attempt] | None:
        """All turns of the speaker by another voice; None where there is none, or no take left for one of the turns."""
        self._over[role].add(rung)
        lines = self._of(role)
        if any(len(line.takes) >= self._config.repair.takes for line in lines.values()):
            return None
        others = self._voices["assistant" if role == "user" else "user"]
        voice = self._casting.another(self._plan, self._current(), role, self._voices[role], rung == "engine", others)
        if voice is None:
            return None
        self._voices[role].append(voice)
        return {number: self._ladder.plain(line.turn.spoken, voice, rung) for number, line in lines.items()}

    def _rephrase(self, number: int) -> None:
        """Give the turn other words, if there are any."""
        line = self._lines[number]
        line.over.add("rephrase")
        if self._rephraser is not None:
            line.turn = self._rephraser.rephrase(self._said(), number) or line.turn

    # ---- where it stands ------------------------------------------------------------------------------------------

    def _of(self, role: Role) -> dict[int, Line]:
        return {number: line for number, line in enumerate(self._lines) if line.turn.role == role}

    def _voice(self, role: Role) -> Voice:
        """The voice with which the speaker's turns stand best; of two the later one, which has more left to try."""
        lines = self._of(role).values()
        voices = self._voices[role]

        def standing(place: int) -> tuple[int, int, int]:
            voice = voices[place]
            unheard = sum(line.kept(voice) is None for line in lines)
            return unheard, sum(not line.passed(voice) for line in lines), -place

        return voices[min(range(len(voices)), key=standing)]

    def _current(self) -> Cast:
        return Cast(user=self._voice("user"), assistant=self._voice("assistant"))

    def _said(self) -> Dialogue:
        """The dialogue with the texts that are to be said now."""
        return self._dialogue.model_copy(update={"turns": tuple(line.turn for line in self._lines)})

    # ---- a round --------------------------------------------------------------------------------------------------

    def _take(self, attempts: Mapping[int, Attempt]) -> None:
        plan = self._plan
        requests = [
            request(it.text, number, it.voice, plan.language, plan.seed, len(self._lines[number].takes), it.speed)
            for number, it in attempts.items()
        ]
        with self._cost("speak") as cost:
            roles = [self._lines[number].turn.role for number in attempts]
            said = self._speaking.speak(requests, roles, [attempt.pieces for attempt in attempts.values()])
            cost.audio += sum(clip.seconds for clip in said if isinstance(clip, Clip))
        clips = {number: clip for number, clip in zip(attempts, said, strict=True) if isinstance(clip, Clip)}
        hearings = self._hear(attempts, clips)
        for (number, attempt), result, asked in zip(attempts.items(), said, requests, strict=True):
            line = self._lines[number]
            taken = Taken(asked.take, attempt, line.turn, asked.seed)
            if isinstance(result, Unsaid):
                taken = replace(taken, unsaid=result, reason=result.reason)
            else:
                taken = replace(taken, clip=result, hearing=hearings[number])
            line.takes.append(self._judged(taken))

    def _judged(self, taken: Taken) -> Taken:
        if taken.hearing is None:
            return taken
        scores = {score.name: score.value for score in taken.hearing.scores}
        reason = verdict(scores, self._plan.language, self._config.judge)
        return replace(taken, reason=reason, error_rate=scores[MAIN_METRIC[self._plan.language]])

    def _hear(self, attempts: Mapping[int, Attempt], clips: Mapping[int, Clip]) -> dict[int, Hearing]:
        """What is heard of the clips, each by the number of its turn, beside the other turns as they stand."""
        if not clips:
            return {}
        voices = {role: self._voice(role) for role in ROLES}
        voices |= {self._lines[number].turn.role: attempt.voice for number, attempt in attempts.items()}
        company = [
            spoken(kept.turn, kept.attempt, kept.clip)
            for number, line in enumerate(self._lines)
            if number not in clips and (kept := line.kept(voices[line.turn.role])) is not None and kept.clip is not None
        ]
        clips_heard = [spoken(self._lines[number].turn, attempts[number], clip) for number, clip in clips.items()]
        with self._cost("listen") as cost:
            heard = self._listener.listen(clips_heard, self._plan.language, company)
            cost.audio += sum(clip.seconds for clip in clips.values())
        return dict(zip(clips, heard, strict=True))

    def _recorded(self, lost: bool) -> Recorded:
        """lost: no sample will be made of it."""
        cast = self._current()
        kept = [line.kept(cast.voice(line.turn.role)) for line in self._lines]
        texts = [take.turn if take else turn for take, turn in zip(kept, self._dialogue.turns, strict=True)]
        takes = tuple(
            tuple(record(take, turn.spoken) for take in line.takes)
            for line, turn in zip(self._lines, texts, strict=True)
        )
        turns = tuple(
            SpokenTurn(KeptTake(take.clip, take.hearing, take.number), record)
            if take and take.clip is not None and take.hearing is not None
            else None
            for take, record in zip(kept, takes, strict=True)
        )
        lost = lost or None in turns
        spare = {
            (number, take.number): take.clip
            for number, line in enumerate(self._lines)
            for take in line.takes
            if take.clip is not None and (lost or take is not kept[number])
        }
        dialogue = self._dialogue.model_copy(update={"turns": tuple(texts)})
        return Recorded(dialogue, cast, turns, takes, spare, self._unsaid(turns))

    def _unsaid(self, turns: Sequence[SpokenTurn | None]) -> tuple[int, Unsaid] | None:
        for number, (turn, line) in enumerate(zip(turns, self._lines, strict=True)):
            reasons = [take.unsaid for take in line.takes if take.unsaid is not None]
            if turn is None and reasons:
                return number, reasons[-1]
        return None
