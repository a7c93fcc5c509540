"""takes: what was tried of a turn and what came of it, for as long as its dialogue is in the studio."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.dialogue import Clip, Take, Turn
from pipeline.stages.listen import Hearing, Spoken
from pipeline.stages.repair import Attempt, Tried
from pipeline.voice import Unsaid, Voice


@dataclass(frozen=True)
class Taken:
    """A take. turn: with the text that it stands for. unsaid: why there is no clip."""

    number: int
    attempt: Attempt
    turn: Turn
    seed: int
    clip: Clip | None = None
    hearing: Hearing | None = None
    unsaid: Unsaid | None = None
    reason: str = ""
    error_rate: float = 1.0

    @property
    def tried(self) -> Tried:
        return Tried(self.attempt, self.reason)


@dataclass
class Line:
    """A turn in the making. turn: as it is to be said now. over: rungs of the turn that have nothing more to give."""

    turn: Turn
    takes: list[Taken] = field(default_factory=list)
    over: set[str] = field(default_factory=set)

    def kept(self, voice: Voice) -> Taken | None:
        """Of what this voice said: the take that passed, or the best that was heard."""
        heard = [take for take in self.takes if take.attempt.voice == voice and take.hearing is not None]
        return min(heard, key=lambda take: (take.reason != "", take.error_rate), default=None)

    def passed(self, voice: Voice) -> bool:
        kept = self.kept(voice)
        return kept is not None and not kept.reason


def spoken(turn: Turn, attempt: Attempt, clip: Clip) -> Spoken:
    """A clip as the listener wants it."""
    texts = (turn.spoken, turn.fluent) if turn.disfluencies else (turn.spoken,)
    rate = attempt.voice.rate * attempt.speed
    if rate and attempt.pieces:
        # The pauses at the seams are none of the voice's.
        length = len(attempt.text)
        rate = length / (length / rate + sum(piece.pause for piece in attempt.pieces) / attempt.speed)
    return Spoken(clip, texts, turn.role, rate, attempt.voice.id)


def record(taken: Taken, said: str) -> Take:
    """said: the text of the turn as it ended; the take says what it was asked for where that is another."""
    attempt, hearing = taken.attempt, taken.hearing
    return Take(
        take=taken.number,
        engine=attempt.voice.engine,
        voice=attempt.voice.id,
        speed=attempt.speed,
        seed=taken.seed,
        transcript=hearing.transcript.text if hearing else "",
        error_rate=taken.error_rate,
        reason=taken.reason,
        repair=attempt.rung,
        text="" if attempt.asked == said else attempt.asked,
        recognizer=hearing.transcript.recognizer if hearing else "",
        seconds=round(taken.clip.seconds, 6) if taken.clip else 0.0,
    )
