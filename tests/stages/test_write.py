from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pytest

from pipeline.backends.llm.base import Prompt, Reply
from pipeline.config import Config
from pipeline.dialogue import derive_seed
from pipeline.errors import BackendError, EndpointError
from pipeline.stages.compose import check_reply
from pipeline.stages.draw import Draw, read_rows
from pipeline.stages.write import TextStage, text_digest_parts
from prompts import load
from tests.fakes import EN_LINES, write_corpus
from tests.stages.desk import GOOD, HUMAN, Desk, Script, always, opening

# ---- who writes a turn ----------------------------------------------------------------------------------------------


def test_a_reply_that_passes_is_the_models(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(f"  {GOOD}\n"))
    lines = desk.run()
    assert [line.plan for line in lines] == list(desk.unit.dialogues)
    for line, row in zip(lines, read_rows(desk.folder, desk.unit.number), strict=True):
        assert row is not None
        assert line.dialogue is not None and line.reject is None and line.failed == ()
        user, assistant = line.dialogue.turns
        assert (user.role, user.author) == ("user", "source") and user.written in EN_LINES
        assert (assistant.role, assistant.author, assistant.written) == ("assistant", "llm", GOOD)
        assert line.dialogue.source == row.source
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
            "sources": {
                "corpus": {"kind": "chatterbot", "data": str(tmp_path / "corpus"), "topics": {"en": ["conversations"]}}
            },
        }
    )
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
    """The openings have four to six words, the human's reply has eight, and this one twelve."""
    reply = "Very well, and I would say the same thing myself, my friend."
    for name, limit, author in (("fits", 18, "llm"), ("full", 15, "source")):
        text = {"max_dialogue_units": {"en": limit}, "grounding": 0}
        lines = Desk(tmp_path / name, always(reply), text=text, writer={"attempts": 1}).run()
        assert {line.dialogue.turns[1].author for line in lines if line.dialogue} == {author}
        assert {attempt.reason for line in lines for attempt in line.failed} == (
            {"too long"} if author == "source" else set()
        )


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_backend_error_rejects_that_dialogue_alone(tmp_path: Path) -> None:
    def answer(prompt: Prompt, before: int) -> str:
        if opening(prompt) == EN_LINES[2]:
            raise BackendError("the request was refused (400):\n too hot")
        return GOOD

    lines = Desk(tmp_path, answer).run()
    rejects = [line.reject for line in lines if line.reject]
    assert [(reject.stage, reject.reason, reject.detail) for reject in rejects] == [
        ("converse", "backend", "the request was refused (400): too hot")
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


def test_a_prompt_that_always_fails_is_told_from_a_server_that_does(tmp_path: Path) -> None:
    """With one request at a time nobody else is served meanwhile, so a word is asked for that anybody could answer."""

    def poisoned(prompt: Prompt, before: int) -> str:
        if EN_LINES[2] in prompt.messages[-1]["content"]:
            raise BackendError("failed (500)", retryable=True)
        return GOOD

    desk = Desk(tmp_path / "poisoned", poisoned, writer={"concurrency": 1})
    lines = desk.run()
    assert [line.reject.reason for line in lines if line.reject] == ["backend"]
    assert sum(prompt.step == "test" for prompt in desk.writer.asked) == 1

    def outage(prompt: Prompt, before: int) -> str:
        if len(desk.writer.asked) > 2:
            raise BackendError("overloaded (503)", retryable=True)
        return GOOD

    desk = Desk(tmp_path / "outage", outage, writer={"concurrency": 1})
    with pytest.raises(EndpointError, match="nobody is served"):
        desk.run()
    assert not desk.folder.text(0).exists()
    lines = desk.run(always(GOOD))
    assert all(line.dialogue for line in lines) and len(desk.writer.asked) == 2


def test_an_endpoint_that_dies_ends_it_and_keeps_what_was_paid(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD), writer={"concurrency": 1})

    def twice(prompt: Prompt, before: int) -> str:
        if len(desk.writer.asked) > 2:
            raise EndpointError("the endpoint is down")
        return GOOD

    with pytest.raises(EndpointError, match="the endpoint is down"):
        desk.run(twice)
    assert not desk.folder.text(0).exists()
    assert len(desk.journal.read_text().splitlines()) == 2
    lines = desk.run(always("I see what you mean, thank you."))
    assert len(desk.writer.asked) == 2
    words = [line.dialogue.turns[1].written for line in lines if line.dialogue]
    assert words.count(GOOD) == 2 and len(words) == 4


def test_requests_that_fail_together_end_in_one_error_and_no_noise(tmp_path: Path) -> None:
    class Down(Script):
        async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
            self.asked += prompts
            await asyncio.sleep(0.05 * len(self.asked))  # the others end when nobody waits for them any more
            raise EndpointError("the endpoint is down")

    desk = Desk(tmp_path, always(GOOD))
    Draw(desk.config, desk.folder).ensure(desk.unit)
    noise: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        with pytest.raises(EndpointError, match="the endpoint is down"):
            await TextStage(desk.config, Down(always(GOOD)), desk.folder, None, 4).run(desk.unit)
        gc.collect()

    asyncio.run(run())
    assert noise == []


def test_a_bug_is_raised_as_itself(tmp_path: Path) -> None:
    def bug(prompt: Prompt, before: int) -> str:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        Desk(tmp_path, bug).run()


# ---- the digest -----------------------------------------------------------------------------------------------------


def test_the_digest_of_the_text_follows_what_the_text_depends_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))

    def parts(**change: object) -> list[object]:
        config = Config.model_validate({**desk.config.model_dump(), **change})
        return text_digest_parts(config)

    base = parts()
    assert parts(seed=1) != base and parts(writer={"temperature": 1.0}) != base
    assert parts(judge={"min_mos": 2}) == base and parts(dialogues=8) == base
    write_corpus(tmp_path / "corpus", [*EN_LINES, "And one more line."])
    assert parts() != base


def test_a_reply_under_way_is_written_down_when_the_run_stops(tmp_path: Path) -> None:
    class Slow(Script):
        async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
            self.asked += prompts
            await asyncio.sleep(0.3)
            return [Reply(GOOD)]

    desk = Desk(tmp_path, always(GOOD))
    desk.writer = Slow(always(GOOD))
    Draw(desk.config, desk.folder).ensure(desk.unit)

    async def stopped() -> None:
        work = asyncio.create_task(TextStage(desk.config, desk.writer, desk.folder, None, 4).run(desk.unit))
        while len(desk.writer.asked) < 4:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(stopped())
    assert len(desk.journal.read_text().splitlines()) == 4
    desk.run(always("Never asked for."))
    assert desk.writer.asked == []


def test_files_count_by_what_is_in_them_not_by_where_they_lie(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))

    def parts(exam: Path, prompt: Path) -> list[object]:
        changes = {"dedup": {"benchmarks": [exam]}, "text": {"converse": {"prompt": str(prompt)}}}
        return text_digest_parts(Config.model_validate({**desk.config.model_dump(), **changes}))

    places = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "exam.txt").write_text("What is the name of the longest river of all?\n")
        for language in ("en", "zh"):
            shipped = resources.files("prompts").joinpath(f"reply.{language}.yaml").read_text("utf-8")
            (folder / f"mine.{language}.yaml").write_text(shipped, "utf-8")
        places.append((folder / "exam.txt", folder / "mine"))
    assert parts(*places[0]) == parts(*places[1])
    for path in (tmp_path / "there" / "exam.txt", tmp_path / "there" / "mine.en.yaml"):
        before = parts(*places[1])
        path.write_text(path.read_text("utf-8") + "# more\n", "utf-8")
        load.cache_clear()
        assert parts(*places[1]) != before
