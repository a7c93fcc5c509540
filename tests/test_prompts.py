"""The prompt templates and their loader."""

from __future__ import annotations

import pytest

import prompts
from pipeline.dialogue import Language
from pipeline.errors import ConfigError

LANGUAGES: tuple[Language, ...] = ("en", "zh")
GOOD = 'version: 1\nsystem: Be brief.\nexamples: [{user: a, note: b, assistant: c}]\nuser: "{{ line }}|{{ note }}"\n'


@pytest.mark.parametrize("language", LANGUAGES)
def test_messages_are_instructions_examples_and_the_talk(language: Language) -> None:
    prompt = prompts.load("reply", language)
    messages = prompt.messages([("user", "one"), ("assistant", "two"), ("user", "three")], "the note")
    roles = [message["role"] for message in messages]
    assert roles == ["system"] + ["user", "assistant"] * (len(prompt.examples) + 1) + ["user"]
    assert [message["content"] for message in messages[-3:-1]] == ["one", "two"]
    assert messages[-1]["content"].startswith("three")
    assert "the note" in messages[-1]["content"]
    for number, example in enumerate(prompt.examples):
        asked, answered = messages[1 + 2 * number : 3 + 2 * number]
        assert example.user in asked["content"]
        assert example.note in asked["content"]
        assert answered["content"] == example.assistant


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_instructions_are_in_the_language(language: Language) -> None:
    prompt = prompts.load("reply", language)
    texts = [prompt.system, *[text for example in prompt.examples for text in (example.user, example.assistant)]]
    for text in texts:
        assert any("一" <= c <= "龥" for c in text) == (language == "zh"), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_note_only_the_line_is_shown(language: Language) -> None:
    assert prompts.load("reply", language).messages([("user", "three")], "")[-1]["content"] == "three"


def test_a_line_is_text_not_a_template() -> None:
    line = '{{ note }} {% if x %} <b> & "quoted"'
    assert line in prompts.load("reply", "en").messages([("user", line)], "n")[-1]["content"]


def test_the_dialogues_own_instructions_follow_the_prompts() -> None:
    prompt = prompts.load("reply", "en")
    system = prompt.messages([("user", "hi")], "", "You are a pirate.")[0]["content"]
    assert system == f"{prompt.system}\n\nYou are a pirate."


def test_the_digest_follows_the_content() -> None:
    first = prompts.parse(GOOD, "reply", "en")
    assert first.digest == prompts.parse(GOOD, "reply", "en").digest
    assert first.digest != prompts.parse(GOOD.replace("brief", "short"), "reply", "en").digest
    assert len(first.digest) == 16
    assert prompts.load("reply", "en").digest != prompts.load("reply", "zh").digest


@pytest.mark.parametrize("history", [[], [("user", "a"), ("assistant", "b")]])
def test_the_last_turn_must_be_the_users(history: list) -> None:
    with pytest.raises(ValueError, match="the user's"):
        prompts.load("reply", "en").messages(history, "n")


def test_an_unknown_prompt_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"writer\.prompt.*'replay'.*did you mean 'reply'"):
        prompts.load("replay", "en")


def test_every_prompt_has_both_languages() -> None:
    assert "reply" in prompts.names()
    for name in prompts.names():
        for language in LANGUAGES:
            assert prompts.load(name, language).version >= 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: [1", "not valid YAML"),
        ("", "file: "),
        (GOOD.replace("system", "sytem"), "sytem"),
        (GOOD.replace("version: 1", "version: x"), "version"),
        (GOOD.replace("note: b, ", ""), r"examples\.0\.note"),
        (GOOD.replace("{{ note }}", "{{ hint }}"), "user: .*hint"),
        (GOOD.replace("{{ line }}", "{% if %}"), "user: "),
    ],
)
def test_a_bad_file_is_named_with_its_field(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^prompts/mine\.zh\.yaml: .*{says}") as caught:
        prompts.parse(text, "mine", "zh")
    assert "\n" not in str(caught.value)
