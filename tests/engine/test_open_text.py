"""A writer's worker holds no more than its run needs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.llm.base import Prompt
from pipeline.config import Config
from pipeline.dialogue import TextLine
from pipeline.engine.base import Job, open_text, open_writer
from pipeline.plan import plan_units
from pipeline.stages.draw import Draw
from pipeline.stages.pack import Origin
from tests.fakes import EN_LINES

TURNS = [{"role": "user", "content": EN_LINES[0]}, {"role": "assistant", "content": EN_LINES[1]}]
CLIENT = "pipeline.backends.llm.openai"


def job(root: Path, **text: Any) -> Job:
    rows = root / "rows.jsonl"
    rows.write_text(json.dumps({"messages": TURNS}) + "\n")
    source = {"kind": "dialogues", "data": str(rows), "license": "CC0-1.0", "laps": 9}
    config = Config(dialogues=2, unit_size=2, languages={"en": 1}, sources={"rows": source}, text=text)
    return Job(config, root / "run", Origin("test", dict.fromkeys(("text", "speech", "judge"), "0"), ()))


async def write(job: Job) -> list[TextLine]:
    [unit] = plan_units(job.config)
    Draw(job.config, job.folder).ensure(unit)
    async with open_text(job) as stage:
        await stage.run(unit)
    return [TextLine.model_validate_json(line) for line in job.folder.text(0).read_bytes().splitlines()]


def test_where_no_llm_is_asked_its_client_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, CLIENT, None)
    lines = asyncio.run(write(job(tmp_path, converse={"mode": "none"})))
    assert [[turn.written for turn in line.dialogue.turns] for line in lines if line.dialogue] == [
        list(EN_LINES[:2])
    ] * 2
    (tmp_path / "other").mkdir()
    with pytest.raises(ImportError):
        asyncio.run(write(job(tmp_path / "other", converse={"mode": "reply"})))


def test_to_ask_nobody_is_a_bug(tmp_path: Path) -> None:
    async def ask() -> None:
        async with open_writer(job(tmp_path, converse={"mode": "none"}), False) as (writer, _):
            await writer.reply([Prompt(messages=(), language="en", seed=0, step="review")])

    with pytest.raises(RuntimeError, match="asked for review, and no step of this run has one"):
        asyncio.run(ask())
