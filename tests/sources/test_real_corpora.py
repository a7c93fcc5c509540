"""What people wrote, through select, filter and dedup without an LLM: sums add up, and what is kept can be said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config
from pipeline.dialogue import Dialogue, Language, TextLine
from pipeline.engine.run import run
from pipeline.engine.text_report import TextReport, text_report
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.verdicts import read_verdicts
from pipeline.stages.write import read_text
from tests.fakes import Silent
from tests.sources.data import write

DIALOGUES, UNIT = 384, 64
TALKS = 700  # of chitchat, the first ones; nearly half of all are a greeting that nobody answered
TOPICS: dict[Language, list[str]] = {
    "en": ["conversations", "greetings", "coding", "emotion", "psychology", "movies"],
    "zh": ["conversations", "greetings", "emotion", "psychology", "movies", "food", "ai"],
}
ROLES = ("user", "assistant")

# The words that README and docstrings name.
SELECTION = {
    "attachment", "code", "echo", "empty", "language", "markup", "no reply", "repetition", "script", "structured",
    "symbols", "table", "task", "too few turns", "too long", "tool use", "turn order", "url",
}  # fmt: skip
STEPS = {
    "source": {"exhausted"},
    "converse": set[str](),
    "filter": {"language", "personal", "repetition", "too long", "unsafe"},
    "dedup": {"duplicate", "near duplicate"},
}


@cache
def chitchat() -> list[list[str]]:
    """The first conversations: what a person sends in a row is one turn."""
    talks = list(import_module("chitchat_dataset").Dataset().values())[:TALKS]
    return [[" ".join(part["text"] for part in message) for message in talk["messages"]] for talk in talks]


@cache
def corpus_lines(language: Language) -> frozenset[str]:
    """Every line of the topics, read by no code of the pipeline."""
    base = Path(str(import_module("chatterbot_corpus").__file__)).parent / "data"
    files = [base / {"en": "english", "zh": "chinese"}[language] / f"{topic}.yml" for topic in TOPICS[language]]
    talks = [yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) for path in files]
    return frozenset(" ".join(str(line).split()) for data in talks for talk in data["conversations"] for line in talk)


@dataclass(frozen=True)
class Made:
    """A run, its report and its texts; dropped: by the barrier, by id."""

    language: Language
    config: Config
    report: TextReport
    texts: Mapping[str, TextLine]
    dropped: Mapping[str, tuple[str, str]]

    @property
    def kept(self) -> Mapping[str, Dialogue]:
        alive = {key: text.dialogue for key, text in self.texts.items() if key not in self.dropped}
        return {key: dialogue for key, dialogue in alive.items() if dialogue is not None}


def make(root: Path, language: Language, source: Mapping[str, Any]) -> Made:
    config = Config.model_validate(
        {
            "dialogues": DIALOGUES,
            "unit_size": UNIT,
            "languages": {language: 1},
            "sources": {"people": source},
            "text": {"converse": {"mode": "none"}},
            # Lower than by default: people seldom say nearly the same.
            "dedup": {"enabled": True, "similarity": 0.6},
            "tts": {"engines": {"kokoro": {"kind": "tests.fakes:build_tts"}}},
            "asr": {"engine": "tests.fakes:build_asr"},
            "quality": {"engine": "none"},
            "engine": {"kind": "local"},
        }
    )
    told = Silent()
    run(config, root, told, until="write")
    assert told.troubles == []
    folder = RunFolder(root)
    texts = {line.plan.id: line for unit in plan_units(config) for line in read_text(folder, unit)}
    rejects = {key: item for unit in plan_units(config) for key, item in read_verdicts(folder, unit.number).items()}
    dropped = {key: (item.reason, item.detail) for key, item in rejects.items()}
    return Made(language, config, text_report(folder, config), texts, dropped)


@pytest.fixture(scope="module", params=["chatterbot en", "chatterbot zh", "chitchat en"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    name, language = request.param.split()
    root = tmp_path_factory.mktemp(name)
    source: dict[str, Any] = {"kind": "chatterbot", "topics": {language: TOPICS[language]}, "laps": 3}
    if name == "chitchat":
        talks = [
            {"messages": [{"role": ROLES[place % 2], "content": line} for place, line in enumerate(talk)]}
            for talk in chitchat()
        ]
        path = write(root / "talks.jsonl", talks)
        source = {"kind": "conversations", "data": str(path), "license": "MIT", "max_turns": 6}
    return make(root / "run", language, source)


def test_the_yield_adds_up(made: Made) -> None:
    report = made.report
    assert report.planned == report.written == DIALOGUES
    assert report.kept == len(made.kept) == report.planned - sum(sum(step.dropped.values()) for step in report.steps)
    assert [step.step for step in report.steps] == list(STEPS)
    for step, left in zip(report.steps, [*(step.entered for step in report.steps[1:]), report.kept], strict=True):
        assert step.entered - sum(step.dropped.values()) == step.kept == left
    [source] = report.sources.values()
    assert source.read == source.selected + sum(source.dropped.values()) + source.broken
    assert source.broken == 0 and source.used == report.steps[0].kept
    assert report.kept > 100 and report.account.total.requests == 0 and set(report.labels.authors) == {"source"}


def test_reasons_are_of_the_known_words(made: Made) -> None:
    [source] = made.report.sources.values()
    assert source.dropped and set(source.dropped) <= SELECTION
    for step in made.report.steps:
        assert set(step.dropped) <= STEPS[step.step], step
        assert step.refused == {}


def test_what_is_kept_can_be_said(made: Made) -> None:
    letters = {"en": re.compile(r"[a-zA-Z]"), "zh": re.compile(r"[\u4e00-\u9fff]")}[made.language]
    # No figure, address or markup, and in Mandarin no Latin letter.
    banned = re.compile(
        r"[\d@#$%^*_+=<>{}\[\]|\\/~`]|https?|www\.|\.com\b" + ("|[a-zA-Z]" if made.language == "zh" else "")
    )
    limit = made.config.text.max_units[made.language]
    for dialogue in made.kept.values():
        assert len(dialogue.turns) >= 2 and len(dialogue.turns) % 2 == 0
        assert [turn.role for turn in dialogue.turns] == [ROLES[place % 2] for place in range(len(dialogue.turns))]
        for turn in dialogue.turns:
            assert letters.search(turn.spoken) and not banned.search(turn.spoken), turn.spoken
            size = len(turn.spoken.split()) if made.language == "en" else len(letters.findall(turn.spoken))
            assert size <= limit


def test_what_is_kept_is_what_people_wrote(made: Made) -> None:
    known = corpus_lines(made.language)
    if made.config.sources["people"].kind == "conversations":
        known = frozenset(" ".join(line.split()) for talk in chitchat() for line in talk)
    for dialogue in made.kept.values():
        assert {turn.written for turn in dialogue.turns} <= known
        assert dialogue.source.license in ("BSD-3-Clause", "MIT")


def words(dialogue: Dialogue) -> list[str]:
    return re.findall(r"[a-z']+|[\u4e00-\u9fff]", " ".join(turn.spoken for turn in dialogue.turns).casefold())


def shingles(dialogue: Dialogue, size: int) -> set[tuple[str, ...]]:
    found = words(dialogue)
    return {tuple(found[place : place + size]) for place in range(max(1, len(found) - size + 1))}


def test_each_duplicate_is_like_one_that_is_kept(made: Made) -> None:
    assert made.dropped
    for key, (reason, detail) in made.dropped.items():
        match = re.fullmatch(r"like (\S+), similarity (\d\.\d\d)", detail)
        assert match is not None, detail
        other = match[1]
        assert other in made.kept and other < key
        one, two = made.texts[key].dialogue, made.texts[other].dialogue
        assert one is not None and two is not None
        if reason == "duplicate":
            assert words(one) == words(two)
        else:
            size = made.config.dedup.ngram[made.language]
            left, right = shingles(one, size), shingles(two, size)
            assert words(one) != words(two) and len(left & right) / len(left | right) > 0.45
    texts = [tuple(words(dialogue)) for dialogue in made.kept.values()]
    assert len(set(texts)) == len(texts)  # and nobody else is left


def test_what_the_corpora_are_known_to_hold(made: Made) -> None:
    [source] = made.report.sources.values()
    if made.config.sources["people"].kind == "conversations":
        # A talk of one message has nobody who replies.
        alone = sum(len(talk) == 1 and bool(talk[0].strip()) for talk in chitchat()[: source.read])
        assert source.dropped["no reply"] == alone > 100
        assert any(len(dialogue.turns) == 6 for dialogue in made.kept.values())
    elif made.language == "en":
        # The topic `coding` answers in Python.
        assert source.dropped["code"] > 100
        assert not any("def" in turn.written.split() for dialogue in made.kept.values() for turn in dialogue.turns)
    else:
        # Names in Latin letters, which the Mandarin voices cannot read.
        assert source.dropped["script"] > 5
        assert any("near" in reason for reason, _ in made.dropped.values())
