"""A turn in other words: asked for once, written down before it is spoken, and held to the rules of the text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.config import Config
from pipeline.engine.base import make_job
from pipeline.engine.run import run as engine_run
from pipeline.errors import BackendError, EndpointError
from pipeline.shards.reader import read_tar
from pipeline.shards.store import RunFolder
from pipeline.stages.rephrase import LlmRephraser
from pipeline.stages.replies import Ledger, account, repair_journal
from tests.fakes import FakeLLM, Silent, make_config, tree, write_corpus
from tests.stages.desk import Script, always
from tests.stages.parrot import Booth
from tests.stages.test_studio import GOOD, REPLY, rungs, samples

OTHER = "It is sunny this morning, and we stroll by the water."


class Desk:
    """An LLM that is opened when it is needed, and what became of it."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self.opened = self.closed = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Writer, Ledger | None]]:
        self.opened += 1
        yield self.writer, None
        self.closed += 1


def booth(root: Path, desk: Desk, ladder: tuple[str, ...] = ("rephrase",), **config: Any) -> Booth:
    config = {"text": {"grounding": 0}, "repair": {"ladder": ladder}, **config}
    made = Booth(root, [GOOD, REPLY], mishears=lambda request: request.text == GOOD, **config)
    made.studio.rephraser = LlmRephraser(made.config, made.folder, desk.open)
    return made


def run(made: Booth) -> int:
    assert isinstance(made.studio.rephraser, LlmRephraser)
    with closing(made.studio.rephraser):
        return made.run()[0].accepted


def test_other_words_are_spoken_and_said_to_be_the_llms(tmp_path: Path) -> None:
    desk = Desk(script := Script(always(OTHER)))
    made = booth(tmp_path, desk)
    assert run(made) == 1 and (desk.opened, desk.closed) == (1, 1)
    [sample] = samples(made)
    assert (sample.turns[0].spoken, sample.turns[0].author) == (OTHER, "llm")
    assert rungs(sample.turns[0].takes) == ["", "rephrase"]
    [prompt] = script.asked
    assert (prompt.step, prompt.dialogue) == ("rephrase", sample.key)
    assert prompt.messages[-1]["content"].endswith(f"Note: {GOOD}")
    # The bill is the run's.
    bill = account(made.folder, [made.unit])
    assert bill.by_step["rephrase"].requests == bill.total.requests == 1


def test_nobody_is_asked_where_nothing_fails(tmp_path: Path) -> None:
    desk = Desk(Script(always(OTHER)))
    made = booth(tmp_path, desk)
    made.ear.mishears = lambda request: False
    assert run(made) == 1 and desk.opened == 0


def test_a_killed_run_asks_nothing_twice_and_makes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = booth(tmp_path / "straight", Desk(Script(always(OTHER))))
    run(straight)
    killed = booth(tmp_path / "killed", Desk(Script(always(OTHER))))
    speak = killed.studio.speaking.speak

    def dies(*args: Any) -> Any:
        if args[0][0].text == OTHER:
            raise KeyboardInterrupt  # after the reply came, before it was spoken
        return speak(*args)

    monkeypatch.setattr(killed.studio.speaking, "speak", dies)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert OTHER in repair_journal(killed.folder, 0).read_text()
    later = Desk(other := Script(always("It is quite another thing that is said now.")))
    again = booth(tmp_path / "killed", later)
    run(again)
    assert other.asked == []
    assert tree(tmp_path / "killed") == tree(tmp_path / "straight")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (GOOD, "the same"),
        ("See www.weather.com for it.", "no words"),
        (" ".join(["sunny", "warm", "dry"] * 30) + ".", "too long"),
        ("User: it is sunny this morning, and we stroll.", "a name before it"),
        ("It is sunny and", "unfinished"),
        (REPLY, "what the other says next"),
        ("Call me at 415-682-9931, will you?", "personal"),
    ],
)
def test_a_text_that_breaks_the_rules_is_asked_for_again_and_not_spoken(tmp_path: Path, reply: str, why: str) -> None:
    desk = Desk(script := Script(always(reply)))
    made = booth(tmp_path, desk)
    assert run(made) == 0, why
    assert len(script.asked) == made.config.writer.attempts == len({prompt.seed for prompt in script.asked})
    assert {request.text for request in made.asked} == {GOOD, REPLY}
    second = Desk(Script(lambda prompt, before: OTHER if before else reply))
    assert run(booth(tmp_path / "second", second)) == 1


class Down(Script):
    def __init__(self, error: Exception):
        super().__init__(always(""))
        self._error = error

    async def reply(self, prompts: Any) -> list[Reply]:
        self.asked += prompts
        raise self._error


@pytest.mark.parametrize(
    "error", [EndpointError("writer.base_url: does not answer"), BackendError("took too long", retryable=True)]
)
def test_an_llm_that_is_down_ends_the_run(tmp_path: Path, error: Exception) -> None:
    """Passed over, the rung would make other bytes the next time."""
    made = booth(tmp_path, Desk(Down(error)))
    with pytest.raises(EndpointError, match=str(error)) as caught:
        run(made)
    assert caught.value.exit_code == 3
    assert run(booth(tmp_path, Desk(Script(always(OTHER))))) == 1


def test_a_request_that_is_refused_is_a_rung_that_does_not_help(tmp_path: Path) -> None:
    desk = Desk(Down(BackendError("content policy")))
    assert run(booth(tmp_path, desk, ("rephrase", "again"), tts={"speeds": [1.0, 0.9]})) == 0
    assert len(desk.writer.asked) == 1  # type: ignore[attr-defined]


def test_replies_of_an_earlier_run_are_taken(tmp_path: Path) -> None:
    run(booth(tmp_path / "old", Desk(Script(always(OTHER)))))
    answer: Callable[[Prompt, int], str] = always("It is quite another thing that is said now.")
    desk = Desk(script := Script(answer))
    made = booth(tmp_path / "new", desk, writer={"reuse": str(tmp_path / "old")})
    assert run(made) == 1 and script.asked == []
    assert samples(made)[0].turns[0].spoken == OTHER


def rephrasing(tmp_path: Path, llm: FakeLLM, **changes: Any) -> Config:
    """No step of the text asks the LLM; the studio does."""
    corpus = write_corpus(tmp_path / "corpus", ["This is a hopeless case."])
    text = {"grounding": 0, "converse": {"mode": "none"}}
    changes = {"text": text, "repair__ladder": ["rephrase"], "engine__kind": "local", "dialogues": 1, **changes}
    return make_config(tmp_path / "config.yaml", llm.base_url, corpus, unit_size=1, **changes)


def test_the_studio_of_a_run_opens_the_llm_by_itself(tmp_path: Path, llm: FakeLLM) -> None:
    config = rephrasing(tmp_path, llm)
    assert engine_run(config, tmp_path / "run", Silent()).accepted == 1
    assert len(llm.requests) == 1 and "hopeless" in llm.requests[0]["messages"][-1]["content"]
    [sample] = [item.sample for item in read_tar(RunFolder(tmp_path / "run").shard(0, "train"))]
    assert sample.turns[0].spoken == "Very well, I understand what you mean."
    assert [use.name for use in sample.provenance.models if use.role == "writer"] == ["fake"]


def test_only_where_it_may_be_asked_does_speech_depend_on_the_llm(tmp_path: Path, llm: FakeLLM) -> None:
    def digests(**changes: Any) -> tuple[str, str]:
        found = make_job(rephrasing(tmp_path, llm, **changes), tmp_path / "run").origin.digests
        return found["text"], found["speech"]

    other: dict[str, Any] = {"writer__temperature": 0.9}
    assert digests()[1] != digests(**other)[1]
    without: dict[str, Any] = {"repair__ladder": ["again"]}
    assert digests(**without)[1] == digests(**without, **other)[1] != digests()[1]
    assert digests(**without)[0] == digests()[0]  # the text is the same text
