from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.backends.llm.base import Prompt
from pipeline.config import Config
from pipeline.dialogue import TextLine, derive_seed
from pipeline.errors import BackendError, EndpointError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.sources import ChatterbotSource
from pipeline.stages.write import TextStage, check_reply, read_text, text_digest_parts
from prompts import load
from tests.fakes import EN_LINES, write_corpus
from tests.fakes import tree as files

HUMAN = "Yes, that is a good idea, my friend."  # what write_corpus answers
GOOD = "Very well, I understand what you mean."


class Script:
    """A Writer that answers with `answer(prompt, how often this dialogue's turn was asked before)`."""

    name = "script"
    deterministic = True

    def __init__(self, answer: Callable[[Prompt, int], str]):
        self._answer = answer
        self.asked: list[Prompt] = []

    async def reply(self, prompts: Sequence[Prompt]) -> list[str]:
        replies = []
        for prompt in prompts:
            before = sum(item.messages == prompt.messages for item in self.asked)
            self.asked.append(prompt)
            await asyncio.sleep(0)
            replies.append(self._answer(prompt, before))
        return replies

    async def close(self) -> None: ...


def always(reply: str) -> Callable[[Prompt, int], str]:
    return lambda prompt, before: reply


class Desk:
    """A text stage in a folder of its own, over a small English corpus."""

    def __init__(
        self,
        root: Path,
        answer: Callable[[Prompt, int], str],
        lines: Sequence[str] = EN_LINES,
        **config: object,
    ):
        self.config = Config.model_validate(
            {
                "dialogues": 4,
                "unit_size": 4,
                "languages": {"en": 1},
                "source": {"path": write_corpus(root / "corpus", lines)},
                "text": {"grounding": 0},
                **config,
            }
        )
        self.folder = RunFolder(root / "run")
        self.source = ChatterbotSource(self.config)
        self.writer = Script(answer)
        [self.unit] = plan_units(self.config)

    def run(self, answer: Callable[[Prompt, int], str] | None = None) -> list[TextLine]:
        """Write the unit, by another writer if one is given. A new stage each time, as after a crash."""
        if answer:
            self.writer = Script(answer)
        stage = TextStage(self.config, self.writer, self.source, self.folder)
        asyncio.run(stage.run(self.unit))
        return read_text(self.folder, self.unit)

    @property
    def journal(self) -> Path:
        return self.folder.text_journal(self.unit.number)


def opening(prompt: Prompt) -> str:
    return next(line for line in EN_LINES if line in prompt.messages[-1]["content"])


# ---- who writes a turn ----------------------------------------------------------------------------------------------


def test_a_reply_that_passes_is_the_models(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(f"  {GOOD}\n"))
    lines = desk.run()
    assert [line.plan for line in lines] == list(desk.unit.dialogues)
    for line in lines:
        assert line.dialogue is not None and line.reject is None and line.failed == ()
        user, assistant = line.dialogue.turns
        assert (user.role, user.author) == ("user", "source") and user.written in EN_LINES
        assert (assistant.role, assistant.author, assistant.written) == ("assistant", "llm", GOOD)
        assert line.dialogue.source == desk.source.row(line.plan).source
    assert len(desk.writer.asked) == 4


def test_what_is_spoken_is_in_words(tmp_path: Path) -> None:
    lines = Desk(tmp_path, always("There are 2 of them over there.")).run()
    turns = [line.dialogue.turns[1] for line in lines if line.dialogue]
    assert len(turns) == 4
    assert {turn.written for turn in turns} == {"There are 2 of them over there."}
    assert {turn.spoken for turn in turns} == {"There are two of them over there."}


def test_a_reply_that_fails_is_asked_again_with_another_seed(tmp_path: Path) -> None:
    answers = ["User: I am a user.", "See http://example.org for more.", GOOD]
    desk = Desk(tmp_path, lambda prompt, before: answers[before], writer={"attempts": 3})
    for line in desk.run():
        assert line.dialogue is not None
        assert line.dialogue.turns[1].author == "llm" and line.dialogue.turns[1].written == GOOD
        assert [attempt.text for attempt in line.failed] == answers[:2]
        assert [(attempt.turn, attempt.author) for attempt in line.failed] == [(1, "llm"), (1, "llm")]
        assert all(attempt.reason for attempt in line.failed)
    seeds = [prompt.seed for prompt in desk.writer.asked]
    assert len(seeds) == 12 == len(set(seeds))
    expected = {
        derive_seed(planned.seed, "reply", 1, attempt) for planned in desk.unit.dialogues for attempt in range(3)
    }
    assert set(seeds) == expected


def test_after_the_last_attempt_the_humans_line_stands_in(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always("x = [1, 2];"), writer={"attempts": 2})
    for line in desk.run():
        assert line.dialogue is not None
        assert (line.dialogue.turns[1].author, line.dialogue.turns[1].written) == ("source", HUMAN)
        assert len(line.failed) == 2
    assert len(desk.writer.asked) == 8


def test_a_copy_is_the_humans(tmp_path: Path) -> None:
    """A model that gives the reference back wrote nothing; asking again would be a waste."""
    desk = Desk(tmp_path, always(HUMAN.rstrip(".") + "!"), writer={"attempts": 3})
    for line in desk.run():
        assert line.dialogue is not None
        assert (line.dialogue.turns[1].author, line.dialogue.turns[1].written) == ("source", HUMAN)
        assert [attempt.reason for attempt in line.failed] == ["copy"]
    assert len(desk.writer.asked) == 4


def test_the_model_hears_what_was_said_before(tmp_path: Path) -> None:
    talk = [
        "Good morning to you.",
        "Good morning, my friend.",
        "Is it cold outside?",
        "It is very cold today.",
    ]
    desk = Desk(tmp_path, always(GOOD), dialogues=1, unit_size=1)
    path = tmp_path / "corpus" / "english" / "conversations.yml"
    path.write_text("conversations:\n- " + "\n  ".join(f'- "{line}"' for line in talk) + "\n")
    desk.config = Config.model_validate(
        {
            **desk.config.model_dump(),
            "source": {"path": tmp_path / "corpus", "topics": {"en": ["conversations"]}},
        }
    )
    desk.source = ChatterbotSource(desk.config)
    answers = {talk[0]: GOOD, talk[2]: "Yes, take your coat with you."}
    [line] = desk.run(
        lambda prompt, before: next(reply for said, reply in answers.items() if said in prompt.messages[-1]["content"])
    )
    assert line.dialogue is not None
    assert [turn.role for turn in line.dialogue.turns] == ["user", "assistant"] * 2
    assert [turn.author for turn in line.dialogue.turns] == ["source", "llm"] * 2
    # The second reply is asked for with the first one as it was spoken, not with the human's.
    heard = [message["content"] for message in desk.writer.asked[1].messages]
    assert GOOD in heard and talk[1] not in " ".join(heard)
    assert talk[3] in heard[-1]


@pytest.mark.parametrize(
    ("reply", "left", "reason"),
    [
        (GOOD, 20, None),
        (GOOD, 6, "too long"),
        (HUMAN, 20, "copy"),
        ("yes, that is a good idea, my friend.", 20, None),
        ("See www.example.org now.", 20, "url"),
        ("", 20, "empty"),
    ],
)
def test_check_reply(reply: str, left: int, reason: str | None) -> None:
    assert check_reply(reply, [], HUMAN, left, "en", 0.0) == reason


def test_a_reply_may_not_push_the_dialogue_over_its_length(tmp_path: Path) -> None:
    """GOOD has seven words, the openings four or five."""
    fits, full = (
        {"max_dialogue_units": {"en": 13}, "grounding": 0},
        {"max_dialogue_units": {"en": 10}, "grounding": 0},
    )
    assert {
        line.dialogue.turns[1].author for line in Desk(tmp_path / "a", always(GOOD), text=fits).run() if line.dialogue
    } == {"llm"}
    lines = Desk(tmp_path / "b", always(GOOD), text=full, writer={"attempts": 1}).run()
    assert {line.dialogue.turns[1].author for line in lines if line.dialogue} == {"source"}
    assert {attempt.reason for line in lines for attempt in line.failed} == {"too long"}


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_backend_error_rejects_that_dialogue_alone(tmp_path: Path) -> None:
    def answer(prompt: Prompt, before: int) -> str:
        if opening(prompt) == EN_LINES[2]:
            raise BackendError("the request was refused (400):\n too hot")
        return GOOD

    lines = Desk(tmp_path, answer).run()
    rejects = [line.reject for line in lines if line.reject]
    assert [(reject.stage, reject.reason, reject.detail) for reject in rejects] == [
        ("text", "backend", "the request was refused (400): too hot")
    ]
    assert sum(line.dialogue is not None for line in lines) == 3


@pytest.mark.parametrize(
    ("retryable", "message"), [(True, "give the same command again"), (False, "no dialogue is blamed")]
)
def test_an_endpoint_that_serves_nobody_costs_no_dialogue(tmp_path: Path, retryable: bool, message: str) -> None:
    def answer(prompt: Prompt, before: int) -> str:
        raise BackendError("no (503 or 400)", retryable=retryable)

    with pytest.raises(EndpointError, match=message):
        Desk(tmp_path, answer).run()
    lines = Desk(tmp_path, always(GOOD)).run()
    assert all(line.dialogue is not None for line in lines)


def test_one_prompt_that_always_fails_rejects_itself(tmp_path: Path) -> None:
    def answer(prompt: Prompt, before: int) -> str:
        if opening(prompt) == EN_LINES[2]:
            raise BackendError("failed (500)", retryable=True)
        return GOOD

    lines = Desk(tmp_path, answer, writer={"concurrency": 2}).run()
    assert [line.reject.reason for line in lines if line.reject] == ["backend"]


def test_an_endpoint_that_dies_ends_it_and_keeps_what_was_paid(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD), writer={"concurrency": 1})

    def twice(prompt: Prompt, before: int) -> str:
        if len(desk.writer.asked) > 2:
            raise EndpointError("the endpoint is down")
        return GOOD

    with pytest.raises(EndpointError, match="the endpoint is down"):
        desk.run(twice)
    assert not desk.folder.text(0).exists()
    kept = [TextLine.model_validate_json(line) for line in desk.journal.read_text().splitlines()]
    assert len(kept) == 2
    lines = desk.run(always("I see what you mean, thank you."))
    assert len(desk.writer.asked) == 2
    words = {line.plan.id: line.dialogue.turns[1].written for line in lines if line.dialogue}
    assert {words[line.plan.id] for line in kept} == {GOOD}
    assert sorted(words.values()).count(GOOD) == 2 and len(words) == 4


def test_a_bug_is_raised_as_itself(tmp_path: Path) -> None:
    def bug(prompt: Prompt, before: int) -> str:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        Desk(tmp_path, bug).run()


# ---- the journal ----------------------------------------------------------------------------------------------------


def test_what_is_published_is_not_asked_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))
    first = desk.run()
    assert not desk.journal.exists()
    before = files(tmp_path / "run")
    assert desk.run(always("Something else altogether, my dear.")) == first
    assert desk.writer.asked == [] and files(tmp_path / "run") == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.75, 0.99, 1.0])
def test_a_journal_that_was_cut_anywhere_is_taken_up(tmp_path: Path, share: float) -> None:
    desk = Desk(tmp_path, always(GOOD))
    desk.run()
    final = desk.folder.text(0).read_bytes()
    desk.folder.text(0).unlink()
    cut = final[: int(len(final) * share)]
    desk.journal.write_bytes(cut)
    whole = cut.count(b"\n")
    desk.run()
    asked = desk.writer.asked[4:]
    assert len(asked) == 4 - whole
    assert desk.folder.text(0).read_bytes() == final and not desk.journal.exists()


def test_a_journal_of_another_plan_is_not_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))
    desk.run()
    other = Desk(tmp_path / "other", always(GOOD), seed=7)
    other.journal.parent.mkdir(parents=True)
    other.journal.write_bytes(desk.folder.text(0).read_bytes())
    lines = other.run()
    assert len(other.writer.asked) == 4 and [line.plan for line in lines] == list(other.unit.dialogues)


def test_the_order_in_which_replies_come_changes_no_byte(tmp_path: Path) -> None:
    outputs = []
    for number, concurrency in enumerate((1, 16)):
        desk = Desk(tmp_path / str(number), lambda prompt, before: GOOD, writer={"concurrency": concurrency})
        desk.run()
        outputs.append(desk.folder.text(0).read_bytes())
    assert outputs[0] == outputs[1]


# ---- the digest -----------------------------------------------------------------------------------------------------


def test_the_digest_of_the_text_follows_what_the_text_depends_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))

    def parts(**change: object) -> list[object]:
        config = Config.model_validate({**desk.config.model_dump(), **change})
        return text_digest_parts(config, [load("reply", "en")], ChatterbotSource(config))

    base = parts()
    assert parts(seed=1) != base and parts(writer={"temperature": 1.0}) != base
    assert parts(judge={"min_mos": 2}) == base and parts(dialogues=8) == base
    write_corpus(tmp_path / "corpus", [*EN_LINES, "And one more line."])
    assert parts() != base
