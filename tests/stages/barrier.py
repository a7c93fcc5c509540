"""Runs with text for the barrier to judge; a dialogue is known by its number in the run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config, DedupConfig
from pipeline.dialogue import Dialogue, Reject, Role, Source, TextLine, Turn
from pipeline.plan import Unit, plan_units
from pipeline.shards.manifest import MANIFEST_VERSION, Manifest
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.dedup import apply_barrier, read_verdicts

SIZE = 4
ROLES: tuple[Role, ...] = ("user", "assistant")


def make_config(units: int = 3, **dedup: Any) -> Config:
    return Config(
        dialogues=SIZE * units,
        unit_size=SIZE,
        languages={"en": 1},
        splits={"train": 1},
        dedup=DedupConfig(**{"enabled": True, **dedup}),
    )


def unlike(seed: object, words: int = 60) -> str:
    chance = random.Random(str(seed))
    return " ".join(f"w{chance.randrange(10**6)}" for _ in range(words))


def place(number: int) -> str:
    """Id of the dialogue with that number in the run."""
    return f"en-{number // SIZE:06d}-{number % SIZE:02d}"


def write_unit(folder: RunFolder, unit: Unit, texts: Mapping[str, str | None], run: str = "") -> None:
    """Texts by id: what the user says; the assistant's answer is one to all, a dialogue with None was rejected."""
    source = Source(name="test", license="CC0-1.0", row="1")
    lines = []
    for plan in unit.dialogues:
        text = texts.get(plan.id, unlike(run + plan.id))
        turns = () if text is None else zip(ROLES, (text, "I see."), strict=True)
        made = tuple(Turn(role=role, written=said, spoken=said, author="llm") for role, said in turns)
        dialogue = Dialogue(plan=plan, system="", source=source, turns=made) if made else None
        reject = None if made else Reject(id=plan.id, language="en", stage="filter", reason="url", detail="")
        lines.append(TextLine(plan=plan, dialogue=dialogue, reject=reject, failed=()).model_dump_json() + "\n")
    publish(folder.text(unit.number), "".join(lines).encode(), replace=True)


def write_run(root: Path, config: Config, texts: Mapping[int, str | None], run: str = "") -> RunFolder:
    """A run in which dialogue number n says texts[n], and all others what nobody else says in it."""
    folder = RunFolder(root)
    for unit in plan_units(config):
        write_unit(folder, unit, {place(number): text for number, text in texts.items()}, run)
    return folder


def finish(folder: RunFolder, unit: int) -> None:
    """As if the unit had been spoken."""
    manifest = Manifest.model_construct(
        version=MANIFEST_VERSION, unit=unit, split="train", planned=SIZE, accepted=SIZE, rejected={},
        languages={"en": SIZE},
        turns=8, llm_turns=8, retaken_turns=0, seconds=1.0, user_seconds=1.0, assistant_seconds=1.0, error_rates=(),
        rejected_languages={}, takes=0, repairs=(), lengths=(), refusals=(),
        text_digest="", speech_digest="", judge_digest="", files=(),
    )  # fmt: skip
    publish(folder.manifest(unit, "train"), manifest.model_dump_json().encode())


def apply(config: Config, folder: RunFolder) -> list[tuple[int, int]]:
    """Returns what progress was told: nothing if nothing was done."""
    told: list[tuple[int, int]] = []
    apply_barrier(config, folder, lambda: plan_units(config), lambda done, total: told.append((done, total)))
    return told


def dropped(folder: RunFolder) -> dict[str, tuple[str, str]]:
    """Reason and detail by id, over all verdicts."""
    files = sorted((folder.root / "dedup").rglob("*.jsonl"))
    found = [read_verdicts(folder, int(path.stem[-6:])) for path in files]
    return {reject.id: (reject.reason, reject.detail) for unit in found for reject in unit.values()}


def files(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder.root / "dedup").rglob("*") if path.is_file()}


def near(text: str) -> str:
    words = text.split()
    return " ".join([*words[:30], "otherwise", *words[31:]])


def write_exam(tmp_path: Path) -> tuple[Path, str, str]:
    """A file with one question, a text that holds it, and a near duplicate that does not."""
    exam, question, rest = tmp_path / "exam.txt", unlike("q", 8), unlike("rest", 100)
    exam.write_text(question + "\n")
    return exam, f"{question} {rest}", f"{question.rpartition(' ')[0]} {rest}"
