"""Replies that an earlier run paid for, and rows that are drawn as if nobody had stopped."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.engine.base import make_job
from pipeline.engine.run import run
from pipeline.engine.text_report import TextReport, text_report
from pipeline.shards.store import RunFolder
from pipeline.stages.compose import templates
from tests.command_line import CommandLine, refused
from tests.engine.campaign import STEPS, Teller, configure, part
from tests.fakes import Silent, config_file, tree, write_corpus
from tests.faulty_llm import faulty_llm
from tests.sources.data import alpaca, write

# ---- replies of an earlier run --------------------------------------------------------------------------------------


def test_a_second_run_takes_the_replies_of_the_first(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", alpaca(16))
    web = {"kind": "instructions", "data": str(data), "license": "MIT"}
    with faulty_llm(Teller()) as server:

        def start(name: str, *settings: str) -> tuple[Path, TextReport]:
            config = configure(
                tmp_path / "run.yaml", server.url, "local", *settings, dialogues=16, sources={"web": web}, text=STEPS
            )
            run(config, tmp_path / name, Silent(), until="write")
            return tmp_path / name, text_report(RunFolder(tmp_path / name), config)

        first, report = start("first")
        paid = len(server.seen)
        assert paid > 48 and report.kept > 10
        reuse = f"writer.reuse={first}"
        _, stricter = start("stricter", reuse, "text.review.limits={naturalness: 5}", "tts.speeds=[0.9]")
        assert len(server.seen) == paid and stricter.account.total.requests == 0
        assert 0 < stricter.kept < report.kept
        second, _ = start("second", reuse, "tts.speeds=[0.9]")
        assert len(server.seen) == paid
        assert part(tree(second), "dialogues") == part(tree(first), "dialogues")
        start("other", reuse, "writer.temperature=0.9")
        assert len(server.seen) > paid


def test_workers_find_the_earlier_run_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    config = configure(
        tmp_path / "run.yaml",
        "http://127.0.0.1:9/v1",
        "ray",
        sources={"corpus": {"data": str(corpus)}},
        writer__reuse="earlier/run",
    )
    assert make_job(config, tmp_path / "run").config.writer.reuse == tmp_path / "earlier" / "run"


def test_workers_find_prompts_of_ones_own_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = resources.files("prompts").joinpath("rewrite.en.yaml").read_text("utf-8")
    (tmp_path / "mine.en.yaml").write_text(shipped.replace("version: 1", "version: 2"), "utf-8")
    corpus = write_corpus(tmp_path / "corpus")
    text = {"rewrite": {"enabled": True, "prompt": "./mine"}}
    path = config_file(tmp_path / "run.yaml", "http://127.0.0.1:1/v1", corpus, text=text)
    monkeypatch.chdir(tmp_path)
    job = make_job(load_config(str(path)), tmp_path / "run")
    monkeypatch.chdir("/")
    assert templates(job.config)["rewrite", "en"].version == 2


def test_an_earlier_run_that_is_none(tmp_path: Path, speechchat: CommandLine) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    path = config_file(tmp_path / "run.yaml", "http://127.0.0.1:9/v1", corpus, writer__reuse=str(tmp_path / "nowhere"))
    for name in ("nowhere", "corpus"):
        done = speechchat(
            "run", path, "--out", tmp_path / "run", "--engine", "local", "--set", f"writer.reuse={tmp_path / name}"
        )
        refused(done, 2, "writer.reuse", str(tmp_path / name))


# ---- sources --------------------------------------------------------------------------------------------------------


class Stopped(Silent):
    """Ctrl-C after so many units of text."""

    def __init__(self, units: int):
        super().__init__()
        self._left = units

    def wrote(self, unit: int, seconds: float) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def test_rows_are_drawn_as_if_nobody_had_stopped(tmp_path: Path) -> None:
    """Two hundred rows, some broken, some unspeakable, and more dialogues than rows."""
    told = [{"messages": [row["instruction"], row["output"]]} for row in alpaca(144)]
    told += [{"messages": [row["instruction"].replace("my friend", "my dear"), row["output"]]} for row in alpaca(44)]
    data: list[Any] = list(told)
    for place in range(0, 160, 20):
        data.insert(place, '{"messages": ["Do you' if place % 40 else {"messages": []})
    data[100:100] = [{"messages": ["See http://example.org now.", "I will."]}] * 4
    assert len(data) == 200
    path = write(tmp_path / "rows.jsonl", data)
    talk = {"kind": "dialogues", "data": str(path), "license": "MIT", "max_broken": 0.05}

    def config(dialogues: int) -> Config:
        changes: dict[str, Any] = {"dialogues": dialogues, "unit_size": 20, "sources": {"talk": talk}}
        return configure(
            tmp_path / "run.yaml", "http://127.0.0.1:9/v1", "local", **changes, text__converse={"mode": "none"}
        )

    run(config(200), tmp_path / "at once", Silent(), until="write")
    report = text_report(RunFolder(tmp_path / "at once"), config(200))
    counts = report.sources["talk"]
    assert (counts.read, counts.selected, counts.used, counts.broken) == (200, 188, 188, 8)
    assert counts.dropped == {"url": 4} and len(counts.first_broken) == 5
    assert report.kept == 188 and report.steps[0].dropped == {"exhausted": 12}
    with pytest.raises(KeyboardInterrupt):
        run(config(100), tmp_path / "stopped", Stopped(2), until="write")
    assert len(part(tree(tmp_path / "stopped"), "dialogues")) == 2
    for dialogues in (100, 200):
        run(config(dialogues), tmp_path / "stopped", Silent(), until="write")
    names = ("dialogues", "sources")
    assert part(tree(tmp_path / "stopped"), *names) == part(tree(tmp_path / "at once"), *names)
    drawn = [json.loads(line) for line in (tmp_path / "stopped/sources/000/unit-000009.jsonl").read_text().splitlines()]
    assert drawn[0]["rows"] == 20 and drawn[-1] is None
