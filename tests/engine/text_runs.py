"""Runs with text in which every number of the report is known beforehand."""

from __future__ import annotations

import io
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.config import Config
from pipeline.dialogue import (
    Dialogue,
    Disfluency,
    PlannedDialogue,
    Reject,
    Role,
    Score,
    Source,
    Stage,
    TextAttempt,
    TextLine,
    Turn,
)
from pipeline.engine.text_report import TextReport
from pipeline.engine.text_tables import show_text
from pipeline.plan import Unit, plan_units
from pipeline.shards.disk import sha256_file
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.replies import ReplyJournal
from pipeline.stages.verdicts import VerdictHead

STEPS: tuple[Stage, ...] = ("source", "rewrite", "converse", "style", "filter", "review", "dedup")
REASONS = ("too long", "script", "refusal")
ROLES: tuple[Role, ...] = ("user", "assistant")
PRICED, UNPRICED = "m", "free"


def all_steps(dialogues: int = 24, unit_size: int = 4, **more: Any) -> Config:
    """A configuration in which no step is off."""
    on = {"enabled": True}
    return Config.model_validate(
        {
            "dialogues": dialogues,
            "unit_size": unit_size,
            "text": {"rewrite": on, "style": {**on, "emotions": ["glad"], "styles": ["casual"]}, "review": on},
            "dedup": on,
            **more,
        }
    )


@dataclass
class Known:
    """What a report must say."""

    written: int = 0
    kept: int = 0
    compared: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    tokens: Counter[str] = field(default_factory=Counter)  # by step
    cost: float = 0.0
    kept_tokens: int = 0
    kept_cost: float = 0.0
    turns: int = 0
    unsettled: int = 0


def write_run(root: Path, config: Config, seed: int) -> tuple[RunFolder, Known]:
    """A run with rejects of every step, units without text and without verdicts, and bills, all drawn from `seed`."""
    folder, known, chance = RunFolder(root), Known(), random.Random(seed)
    for unit in plan_units(config):
        bills = _pay(folder, unit, known, chance)
        if chance.random() < 0.2:
            continue
        judged = chance.random() < 0.7
        lines, verdicts = [], []
        for plan in unit.dialogues:
            fate = chance.choice((*STEPS, None, None, None))
            reason = chance.choice(REASONS)
            known.written += 1
            if fate is None or fate == "dedup":
                lines.append(alive(plan, chance.choice((2, 4, 6)), chance))
                known.compared += judged
                if fate == "dedup" and judged:
                    verdicts.append(reject(plan, "dedup", reason))
            else:
                lines.append(dead(plan, fate, reason, known, chance))
            if fate is None or (fate == "dedup" and not judged):
                dialogue = lines[-1].dialogue
                known.kept += 1
                known.turns += len(dialogue.turns) if dialogue else 0
                known.kept_tokens += bills[plan.id][0]
                known.kept_cost += bills[plan.id][1]
            else:
                known.dropped[fate][reason] += 1
        publish_text(folder, unit, lines, verdicts if judged else None)
    return folder, known


def publish_text(
    folder: RunFolder, unit: Unit, lines: Sequence[TextLine], verdicts: Sequence[Reject] | None = None
) -> None:
    """verdicts: what the barrier dropped of it, None if it has not judged it."""
    path = folder.text(unit.number)
    publish(path, "".join(line.model_dump_json() + "\n" for line in lines).encode())
    if verdicts is not None:
        head = VerdictHead(text_sha256=sha256_file(path), dedup="", before="")
        records = [head.model_dump_json(), *(item.model_dump_json() for item in verdicts)]
        publish(folder.verdicts(unit.number), "".join(f"{record}\n" for record in records).encode())


def alive(plan: PlannedDialogue, count: int = 2, chance: random.Random | None = None, say: str = "") -> TextLine:
    """A dialogue that went through all steps."""
    chance = chance or random.Random(plan.seed)
    turns = []
    for place in range(count):
        words = chance.randrange(1, 60)
        spoken = say or ("um, " + "well " * words if plan.language == "en" else "好" * words)
        marks = (Disfluency(kind="filler", start=0, end=4),) if plan.language == "en" and place == 0 and not say else ()
        labels = {"emotion": "glad", "style": "casual"} if place % 2 else {}
        turn = Turn(role=ROLES[place % 2], written=spoken, spoken=spoken, author="llm", disfluencies=marks, **labels)
        turns.append(turn)
    dialogue = Dialogue(
        plan=plan,
        system="",
        source=Source(name="test", license="CC0-1.0", row="1"),
        turns=tuple(turns),
        code_switch=plan.language == "zh",
        scores=(Score(name="safety", value=4.0),),
    )
    return TextLine(plan=plan, dialogue=dialogue, reject=None, failed=())


def reject(plan: PlannedDialogue, step: Stage, reason: str, detail: str = "what was said") -> Reject:
    return Reject(id=plan.id, language=plan.language, stage=step, reason=reason, detail=detail)


def dead(plan: PlannedDialogue, step: Stage, reason: str, known: Known, chance: random.Random) -> TextLine:
    """A dialogue that a step dropped, after some replies that were refused. A line of the source is no reply."""
    failed = [TextAttempt(step="converse", turn=0, author="source", text="line", reason="script")]
    for _ in range(chance.randrange(3)):
        failed.append(TextAttempt(step=step, turn=-1, author="llm", text="{}", reason=reason))
        known.refused[step][reason] += 1
    failed.append(TextAttempt(step="converse", turn=1, author="llm", text="{}", reason="echo"))  # of one turn
    known.refused["converse"]["echo"] += 1
    return TextLine(plan=plan, dialogue=None, reject=reject(plan, step, reason), failed=tuple(failed))


def _pay(folder: RunFolder, unit: Unit, known: Known, chance: random.Random) -> dict[str, tuple[int, float]]:
    """Tokens and dollars of each dialogue, written into the journal of the unit."""
    bills: dict[str, tuple[int, float]] = {}
    with ReplyJournal(folder.replies(unit.number), NOBODY) as journal:
        for plan in unit.dialogues:
            tokens, cost = 0, 0.0
            for _ in range(chance.randrange(1, 5)):
                step, prompt, reply = chance.choice(STEPS[1:6]), chance.randrange(100), chance.randrange(100)
                model = chance.choice((PRICED, UNPRICED))
                dollars = (prompt + 2 * reply) / 1e6 if model == PRICED else 0.0
                bill(journal, plan.id, step, Reply("x", "stop", model, prompt, reply, dollars))
                known.tokens[step] += prompt + reply
                tokens, cost = tokens + prompt + reply, cost + dollars
            bills[plan.id] = tokens, cost
            known.cost += cost
        if chance.random() < 0.5:
            journal.append({"key": "k", "step": "style", "dialogue": plan.id, "unsettled": 0.25})
            known.unsettled += 1
    return bills


def bill(journal: ReplyJournal, dialogue: str, step: str, reply: Reply) -> None:
    names = ("text", "finish", "model", "endpoint", "prompt_tokens", "completion_tokens", "cost")
    journal.append({"key": "k", "step": step, "dialogue": dialogue, **{name: getattr(reply, name) for name in names}})


def shown(report: TextReport, width: int = 100, terminal: bool = False) -> str:
    """The report as people see it."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show_text(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def one_unit(root: Path, *say: str, **config: Any) -> tuple[RunFolder, Config]:
    """A run of one unit in which each dialogue says one thing; "" was rejected."""
    settings = Config.model_validate(
        {"dialogues": len(say), "unit_size": len(say), "languages": {"en": 1}, "dedup": {"enabled": False}, **config}
    )
    [unit] = plan_units(settings)
    lines = [
        alive(plan, say=text)
        if text
        else TextLine(plan=plan, dialogue=None, reject=reject(plan, "filter", "url"), failed=())
        for plan, text in zip(unit.dialogues, say, strict=True)
    ]
    folder = RunFolder(root)
    publish_text(folder, unit, lines)
    return folder, settings


class _Nobody:
    """A writer that is never asked."""

    name = "nobody"
    deterministic = True

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        raise AssertionError("nobody asks")

    def fingerprint(self, prompt: Prompt) -> str:
        return ""

    async def close(self) -> None: ...


NOBODY = _Nobody()
