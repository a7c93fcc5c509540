"""The steps from a row to a dialogue, by a script in place of the LLM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.backends.llm.base import Finish, Prompt, Reply
from pipeline.config import Config
from pipeline.dialogue import Dialogue, Language, Source, SourceRow, TextLine, fluent
from pipeline.plan import plan_units
from pipeline.stages.compose import Composer

SOURCE = Source(name="test", license="CC0-1.0", row="file#1")
TALK = {
    "en": [
        "I would like to cook something warm tonight.",
        "How about a lentil soup with a little lemon?",
        "That sounds lovely, how long does it take?",
        "About half an hour, and most of that is waiting.",
    ],
    "zh": ["今天晚上我想做点热乎的吃。", "要不要煮一锅番茄鸡蛋面？", "听起来不错，要多久呢？", "大概二十分钟就好了。"],
}
GOOD = {"coherence": 5, "naturalness": 4, "consistency": 5, "safety": 5, "self_contained": 5, "reason": "fine"}
LONG = " ".join(
    f"{a}{b}"
    for a in ("ba", "do", "fi", "gu", "le", "mo", "pa", "ru")
    for b in ("ning", "lter", "st", "ck", "nd", "sh", "rp", "x")
)
Answer = dict[str, Any] | str | tuple[str, Finish]


class Llm:
    """Answers each step from a list; the last answer stays."""

    def __init__(self, **answers: list[Answer]):
        self._answers = answers
        self.asked: list[Prompt] = []

    async def __call__(self, prompt: Prompt) -> Reply:
        before = sum(item.step == prompt.step for item in self.asked)
        self.asked.append(prompt)
        answers = self._answers[prompt.step]
        answer = answers[min(before, len(answers) - 1)]
        if isinstance(answer, tuple):
            return Reply(*answer)
        return Reply(answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False))

    @property
    def steps(self) -> list[str]:
        return [prompt.step for prompt in self.asked]


def configuration(language: Language = "en", mode: str = "whole", **text: Any) -> Config:
    text.setdefault("converse", {"mode": mode, "turns": {4: 1}})
    return Config.model_validate(
        {
            "dialogues": 1,
            "unit_size": 1,
            "languages": {language: 1},
            "writer": {"base_url": "http://127.0.0.1:1/v1", "model": "m", "attempts": 2},
            "text": text,
        }
    )


def compose(config: Config, llm: Llm, *lines: str, **row: Any) -> TextLine:
    [unit] = plan_units(config)
    source_row = SourceRow(source=SOURCE, lines=lines, **row)
    return asyncio.run(Composer(config).compose(unit.dialogues[0], source_row, llm))


def composed(config: Config, llm: Llm, *lines: str, **row: Any) -> Dialogue:
    line = compose(config, llm, *lines, **row)
    assert line.dialogue is not None, line.reject
    return line.dialogue


def talk(language: Language = "en") -> dict[str, Any]:
    return {"turns": [{"role": ("user", "assistant")[n % 2], "text": text} for n, text in enumerate(TALK[language])]}


def styled(texts: list[str], emotion: str = "", style: str = "") -> dict[str, Any]:
    return {"turns": [{"text": text, "emotion": emotion, "style": style} for text in texts]}


# ---- converse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_one_request_writes_a_whole_dialogue(language: Language) -> None:
    llm = Llm(converse=[talk(language)])
    row = {"topic": "soup for two", "persona": "a tired nurse", "scenario": "in the kitchen"}
    dialogue = composed(configuration(language), llm, **row)
    assert [turn.spoken for turn in dialogue.turns] == TALK[language]
    assert [turn.role for turn in dialogue.turns] == ["user", "assistant"] * 2
    assert {turn.author for turn in dialogue.turns} == {"llm"}
    assert (dialogue.topic, dialogue.persona, dialogue.scenario) == tuple(row.values())
    [prompt] = llm.asked
    said = prompt.messages[-1]["content"]
    assert all(text in said for text in row.values())
    assert prompt.schema is not None and prompt.max_tokens is not None and prompt.max_tokens > 4 * 80
    assert prompt.dialogue == dialogue.plan.id


def test_a_bare_question_gets_somebody_who_asks_it() -> None:
    dialogue = composed(configuration(), llm := Llm(converse=[talk()]), "What goes into a good soup?")
    said = llm.asked[0].messages[-1]["content"]
    assert dialogue.persona and dialogue.scenario and dialogue.persona in said and dialogue.scenario in said
    alone = configuration(converse={"mode": "whole", "turns": {4: 1}, "personas": False})
    assert composed(alone, Llm(converse=[talk()]), "What goes into a good soup?").persona == ""
    assert composed(configuration(), Llm(converse=[talk()]), *TALK["en"]).persona == ""  # a talk has its own


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"turns": talk()["turns"][:2]}, "turns"),
        ({"turns": talk()["turns"][::-1]}, "turns"),
        ('{"turns": [{"role": "user", "text": "I wo', "truncated"),
        ("I am sorry, but I cannot.", "no json"),
        ({"dialogue": []}, "schema"),
        (("", "refusal"), "refusal"),
        (("", "content filter"), "content filter"),
        (('{"turns": [', "length"), "length"),
        (("", "empty"), "empty"),
        ({"turns": [{**talk()["turns"][0], "text": LONG}, *talk()["turns"][1:]]}, "too long"),
        ({"turns": [*talk()["turns"][:3], {"role": "assistant", "text": "See http://example.org now."}]}, "url"),
    ],
)
def test_what_is_not_what_was_asked_for_is_asked_for_again_then_rejected(bad: Answer, reason: str) -> None:
    line = compose(configuration(), once := Llm(converse=[bad, talk()]), topic="soup")
    assert line.dialogue is not None and len(once.asked) == 2
    assert once.asked[0].seed != once.asked[1].seed
    assert [f"{attempt.step}: {attempt.reason}" for attempt in line.failed] == [f"converse: {reason}"]
    line = compose(configuration(), twice := Llm(converse=[bad]), topic="soup")
    assert line.reject is not None and (line.reject.stage, line.reject.reason) == ("converse", reason)
    assert len(twice.asked) == 2 == len(line.failed)


def test_the_number_of_turns_follows_the_weights() -> None:
    config = configuration(converse={"mode": "whole", "turns": {2: 0, 6: 1}})
    llm = Llm(converse=["{}"])
    compose(config, llm, topic="soup")
    assert llm.asked[0].schema is not None
    shape = llm.asked[0].schema["properties"]["turns"]
    assert (shape["minItems"], shape["maxItems"]) == (6, 6)


def test_the_llm_answers_the_users_lines_turn_by_turn() -> None:
    config = configuration(mode="reply")
    answers: list[Answer] = ["A warm soup is always good.", "Half an hour, I would say."]
    lines = (TALK["en"][0], "Whatever the source said.", TALK["en"][2])
    dialogue = composed(config, llm := Llm(converse=answers), *lines, system="You are a cook.")
    assert [turn.spoken for turn in dialogue.turns] == [lines[0], answers[0], lines[2], answers[1]]
    assert [turn.author for turn in dialogue.turns] == ["source", "llm"] * 2
    assert dialogue.system == "You are a cook." and "You are a cook." in llm.asked[0].messages[0]["content"]
    said = " ".join(message["content"] for prompt in llm.asked for message in prompt.messages)
    assert lines[1] not in said and str(answers[0]) in said
    line = compose(config, Llm(converse=["x = [1, 2];"]), *lines)
    assert line.reject is not None and line.reject.stage == "converse"


def test_a_ready_dialogue_is_spoken_as_it_is() -> None:
    config = configuration(rewrite={"enabled": True}, style={"enabled": True})
    dialogue = composed(config, llm := Llm(), *TALK["en"], ready=True)
    assert [turn.written for turn in dialogue.turns] == TALK["en"] and llm.asked == []
    assert {turn.author for turn in dialogue.turns} == {"source"}
    line = compose(config, Llm(), "How are you?", "See http://example.org now.", ready=True)
    assert line.reject is not None and (line.reject.stage, line.reject.reason) == ("filter", "url")


def test_a_dialogue_without_a_row_says_so() -> None:
    config = configuration()
    [unit] = plan_units(config)
    line = asyncio.run(Composer(config).compose(unit.dialogues[0], None, Llm()))
    assert line.reject is not None and (line.reject.stage, line.reject.reason) == ("source", "exhausted")


def test_code_switching_is_asked_for_and_checked() -> None:
    config = configuration("zh", converse={"mode": "whole", "turns": {2: 1}, "code_switch": 1})
    mixed = {
        "turns": [
            {"role": "user", "text": "我的 presentation 明天就要交了。"},
            {"role": "assistant", "text": "别着急，我们先把 outline 写好。"},
        ]
    }
    plain = {"turns": talk("zh")["turns"][:2]}
    line = compose(config, Llm(converse=[plain, mixed]), topic="工作")
    assert line.dialogue is not None and line.dialogue.code_switch
    assert [f"{attempt.step}: {attempt.reason}" for attempt in line.failed] == ["converse: no code-switching"]
    assert "presentation" in line.dialogue.turns[0].spoken
    line = compose(
        configuration("zh", converse={"mode": "whole", "turns": {2: 1}}), Llm(converse=[mixed]), topic="工作"
    )
    assert line.reject is not None and line.reject.reason == "script"


# ---- rewrite --------------------------------------------------------------------------------------------------------


def test_an_instruction_becomes_a_question() -> None:
    config = configuration(rewrite={"enabled": True})
    question = "What are the pros and cons of remote work?"
    llm = Llm(rewrite=[{"speakable": True, "question": question}], converse=[talk()])
    dialogue = composed(config, llm, "Write a blog on remote work.")
    assert llm.steps == ["rewrite", "converse"]
    assert dialogue.instruction == "Write a blog on remote work."
    assert question in llm.asked[1].messages[-1]["content"]
    config = configuration(mode="reply", rewrite={"enabled": True})
    llm = Llm(rewrite=[{"speakable": True, "question": question}], converse=["It saves time and costs company."])
    turns = composed(config, llm, "Write a blog on remote work.").turns
    assert (turns[0].spoken, turns[0].author) == (question, "llm")


def test_what_cannot_be_asked_aloud_is_dropped() -> None:
    config = configuration(rewrite={"enabled": True})
    llm = Llm(rewrite=[{"speakable": False, "question": ""}])
    line = compose(config, llm, "Draw a house in ASCII art.")
    assert line.reject is not None and (line.reject.stage, line.reject.reason) == ("rewrite", "not speakable")
    assert llm.steps == ["rewrite"]


def test_a_longer_conversation_is_not_rewritten() -> None:
    config = configuration(mode="reply", rewrite={"enabled": True})
    llm = Llm(converse=["A warm soup is always good.", "Half an hour, I would say."])
    assert composed(config, llm, *TALK["en"]).instruction == ""
    assert set(llm.steps) == {"converse"}


# ---- spoken style ---------------------------------------------------------------------------------------------------


def test_the_style_step_is_told_whether_english_is_meant_to_stay() -> None:
    mixed = {"turns": [{**turn, "text": f"{turn['text']}，OK？"} for turn in talk("zh")["turns"]]}
    said = [turn["text"] for turn in mixed["turns"]]
    told = []
    for share, written, texts in ((1, mixed, said), (0, talk("zh"), TALK["zh"])):
        options = {"mode": "whole", "turns": {4: 1}, "code_switch": share}
        llm = Llm(converse=[written], style=[styled(texts)])
        compose(configuration("zh", converse=options, style={"enabled": True}), llm, topic="汤")
        told.append(next(prompt.messages[0]["content"] for prompt in llm.asked if prompt.step == "style"))
    assert ["夹用英语" in system for system in told] == [True, False]


def test_the_written_and_the_spoken_form_are_kept_with_labels() -> None:
    config = configuration(style={"enabled": True, "emotions": ["happy", "calm"], "styles": ["chatty"]})
    said = [f"Well, {text[0].lower()}{text[1:]}" for text in TALK["en"]]
    written = {"turns": [{**turn, "text": f"**{turn['text']}**"} for turn in talk()["turns"]]}
    dialogue = composed(config, llm := Llm(converse=[written], style=[styled(said, "happy")]), topic="soup")
    assert [turn.spoken for turn in dialogue.turns] == said
    assert [turn.written for turn in dialogue.turns] == [f"**{text}**" for text in TALK["en"]]
    assert {(turn.emotion, turn.style) for turn in dialogue.turns} == {("happy", "")}
    shape = llm.asked[1].schema
    assert shape is not None
    assert shape["properties"]["turns"]["items"]["properties"]["emotion"]["enum"] == ["", "happy", "calm"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (styled(TALK["en"][:3]), "turns"),
        (styled(TALK["en"], emotion="furious"), "label"),
        (styled([*TALK["en"][:3], "- one\n- two"]), "markup"),
    ],
)
def test_a_bad_style_is_asked_for_again(bad: Answer, reason: str) -> None:
    config = configuration(style={"enabled": True, "emotions": ["happy"]})
    line = compose(config, llm := Llm(converse=[talk()], style=[bad, styled(TALK["en"], "happy")]), topic="soup")
    assert line.dialogue is not None and llm.steps == ["converse", "style", "style"]
    assert [f"{attempt.step}: {attempt.reason}" for attempt in line.failed] == [f"style: {reason}"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_user_turns_stumble_at_the_set_rate_and_say_where(language: Language) -> None:
    config = configuration(language, disfluency={"rate": 1})
    dialogue = composed(config, Llm(converse=[talk(language)]), topic="soup")
    assert [turn.fluent for turn in dialogue.turns] == TALK[language]
    for turn in dialogue.turns:
        assert bool(turn.disfluencies) == (turn.role == "user") == (turn.spoken != turn.fluent)
        assert fluent(turn.spoken, turn.disfluencies) == turn.fluent
    none = composed(configuration(language), Llm(converse=[talk(language)]), topic="soup")
    assert all(turn.spoken == turn.fluent and not turn.disfluencies for turn in none.turns)


# ---- filter and review ----------------------------------------------------------------------------------------------


def test_personal_data_is_refused_by_rule_before_the_review_is_paid() -> None:
    written = talk()
    written["turns"][2]["text"] = "Please call me at one three nine two two five six one eight seven four."
    config = configuration(review={"enabled": True})
    line = compose(config, llm := Llm(converse=[written], review=[GOOD]), topic="soup")
    assert line.reject is not None and (line.reject.stage, line.reject.reason) == ("filter", "personal")
    assert llm.steps == ["converse"]
    config = configuration(filter={"personal": "keep"})
    assert compose(config, Llm(converse=[written]), topic="soup").dialogue is not None


def test_a_review_keeps_its_scores_and_rejects_below_a_limit() -> None:
    config = configuration(review={"enabled": True, "limits": {"naturalness": 3}})
    dialogue = composed(config, Llm(converse=[talk()], review=[GOOD]), topic="soup")
    assert {score.name: score.value for score in dialogue.scores} == {
        name: float(mark) for name, mark in GOOD.items() if isinstance(mark, int)
    }
    poor = {**GOOD, "naturalness": 2, "coherence": 1, "reason": "stiff"}
    line = compose(config, Llm(converse=[talk()], review=[poor]), topic="soup")
    assert line.reject is not None and (line.reject.stage, line.reject.reason) == ("review", "naturalness")
    assert "stiff" in line.reject.detail and TALK["en"][0] in line.reject.detail


def test_a_review_that_makes_no_sense_is_asked_for_again() -> None:
    config = configuration(review={"enabled": True})
    answers: list[Answer] = [{**GOOD, "safety": 9}, GOOD]
    line = compose(config, Llm(converse=[talk()], review=answers), topic="soup")
    assert line.dialogue is not None
    assert [f"{attempt.step}: {attempt.reason}" for attempt in line.failed] == ["review: schema"]


def test_each_step_has_seeds_of_its_own() -> None:
    config = configuration(rewrite={"enabled": True}, style={"enabled": True}, review={"enabled": True})
    llm = Llm(
        rewrite=[{"speakable": True, "question": TALK["en"][0]}],
        converse=[talk()],
        style=[styled(TALK["en"])],
        review=[GOOD],
    )
    composed(config, llm, "Write about soup.")
    assert llm.steps == ["rewrite", "converse", "style", "review"]
    assert len({prompt.seed for prompt in llm.asked}) == 4


def test_prompts_are_found_before_anything_is_paid() -> None:
    from pipeline.errors import ConfigError

    make: Callable[[], Composer] = lambda: Composer(configuration(style={"enabled": True, "prompt": "stile"}))  # noqa: E731
    with pytest.raises(ConfigError, match=r"text\.style\.prompt.*did you mean 'style'"):
        make()
