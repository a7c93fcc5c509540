"""A dialogue in the making, and how it ends before it is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.dialogue import PlannedDialogue, Reject, Score, SourceRow, Stage, TextAttempt, TextLine, Turn

Ask = Callable[[Prompt], Awaitable[Reply]]


class Dropped(Exception):
    """A step gave the dialogue up. reason: a word or two to count by."""

    def __init__(self, stage: Stage, reason: str, detail: str):
        super().__init__(detail)
        self.stage: Stage = stage
        self.reason = reason


@dataclass
class Draft:
    """A dialogue in the making. failed: what was refused on the way."""

    plan: PlannedDialogue
    row: SourceRow
    ask: Ask
    code_switch: bool = False
    instruction: str = ""
    turns: list[Turn] = field(default_factory=list)
    scores: tuple[Score, ...] = ()
    checked: bool = False  # whether the rules of speech have passed the turns as they are
    failed: list[TextAttempt] = field(default_factory=list)


def rejected(
    planned: PlannedDialogue, stage: Stage, reason: str, detail: str, failed: Sequence[TextAttempt] = ()
) -> TextLine:
    detail = " ".join(detail.split())  # one line, also where a backend's message has several
    reject = Reject(id=planned.id, language=planned.language, stage=stage, reason=reason, detail=detail)
    return TextLine(plan=planned, dialogue=None, reject=reject, failed=tuple(failed))


def given_up(draft: Draft) -> Dropped:
    """After the last attempt: for the reason of that one."""
    last = draft.failed[-1]
    return Dropped(last.step, last.reason, last.text)
