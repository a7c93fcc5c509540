"""Files of prompts: how they are named and tried, and which of them a configuration asks with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prompts
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError
from tests.test_prompts import LANGUAGES, STEPS

GOOD = 'version: 1\nsystem: Be brief.\nexamples: [{user: a, note: b, assistant: c}]\nuser: "{{ line }}|{{ note }}"\n'
OWN = "version: 1\nsystem: Ask it.\nuser: '{{ instruction | json }}'\n"


def test_the_digest_follows_the_content() -> None:
    first = prompts.parse(GOOD, "reply", "en")
    assert first.digest == prompts.parse(GOOD, "reply", "en").digest
    assert first.digest != prompts.parse(GOOD.replace("brief", "short"), "reply", "en").digest
    assert len(first.digest) == 16
    assert len({prompts.load(name, language).digest for name in prompts.names() for language in LANGUAGES}) == 12


def test_every_step_has_a_prompt_in_both_languages() -> None:
    assert set(prompts.names()) == {"reply", "rephrase", *STEPS}
    for name in prompts.names():
        for language in LANGUAGES:
            prompt = prompts.load(name, language)
            assert (prompt.version, prompt.step, prompt.language) == (1, name, language)
            texts = [
                prompt.system,
                *[example.assistant for example in prompt.examples if name in ("reply", "rephrase")],
            ]
            for text in texts:
                assert any("一" <= char <= "龥" for char in text) == (language == "zh"), text


def test_an_unknown_prompt_names_the_key_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^text\.converse\.prompt: .*'replay'.*did you mean 'reply'"):
        prompts.load("replay", "en", "reply")
    with pytest.raises(ConfigError, match=r"^text\.style\.prompt: .*'mine'.*\./mine for mine\.zh\.yaml"):
        prompts.load("mine", "zh", "style")


def test_ones_own_prompt_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.en.yaml").write_text(OWN, "utf-8")
    prompt = prompts.load(f"{tmp_path}/mine", "en", "rewrite")
    assert prompt.digest == prompts.parse(OWN, "other", "en", "rewrite").digest, "the path is not part of it"
    assert [message["content"] for message in prompt.render(instruction="a\nb", answer="")] == ["Ask it.", '"a b"']


@pytest.mark.parametrize("step", ["reply", *STEPS])
def test_a_missing_file_is_named_with_its_key(tmp_path: Path, step: prompts.Step) -> None:
    key = {"reply": "converse"}.get(step, step)
    with pytest.raises(
        ConfigError, match=rf"^text\.{key}\.prompt: no file .*mine\.zh\.yaml; .*mine\.en\.yaml"
    ) as caught:
        prompts.load(f"{tmp_path}/mine", "zh", step)
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.zh.yaml").write_bytes("system: 你好".encode("gbk"))
    with pytest.raises(ConfigError, match=r"^text\.review\.prompt: .*mine\.zh\.yaml is not readable"):
        prompts.load(f"{tmp_path}/mine", "zh", "review")


@pytest.mark.parametrize("name", ["./mine\0", "mi\nne", "replay\x1b[0m"])
def test_a_name_that_no_file_has_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^text\.rewrite\.prompt: .*can be no prompt's name") as caught:
        prompts.load(name, "en", "rewrite")
    assert str(caught.value).isprintable()


def test_a_prompt_of_another_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^prompts/style\.en\.yaml: system: unknown variable `code_switch`"):
        prompts.load("style", "en", "rewrite")


@pytest.mark.parametrize(
    ("step", "field", "source", "says"),
    [
        (
            "rewrite",
            "user",
            "{{ instructoin }}",
            r"`instructoin`; did you mean `instruction`\? known .*: instruction, answer",
        ),
        ("rewrite", "system", "{{ turns }}", "unknown variable `turns`.*known in a prompt for rewrite"),
        ("converse", "user", "{{ turns }} {% for x in linse %}{{ x.text }}{% endfor %}", "did you mean `lines`"),
        ("converse", "user", "{{ turns }} {% if not topic %}{{ mood }}{% endif %}", "unknown variable `mood`"),
        ("style", "user", "{% for turn in turns %}{{ turn.txet }}{% endfor %}", "no attribute 'txet'"),
        ("converse", "system", "{{ max_user + topic }}", "system: unsupported operand"),
        ("review", "user", "{{ turns.__class__ }}", "user: .*unsafe"),
        ("review", "user", "{{ turns | jsn }}", "user: .*jsn"),
        ("review", "user", "judge it", "`turns` is not used"),
        ("reply", "user", "{{ line }} {% if %}", "user: no jinja2 template"),
    ],
)
def test_a_bad_template_is_told_when_it_is_loaded(
    tmp_path: Path, step: prompts.Step, field: str, source: str, says: str
) -> None:
    needed = next(iter(prompts.VARIABLES[step]))
    fields = {"system": "Do it.", "user": f"{{{{ {needed} }}}}"} | {field: source}
    file = tmp_path / "mine.en.yaml"
    file.write_text(json.dumps({"version": 1, **fields}), "utf-8")
    with pytest.raises(ConfigError, match=rf"^\S*mine\.en\.yaml: {field}: ") as caught:
        prompts.load(f"{tmp_path}/mine", "en", step)
    assert "\n" not in str(caught.value)
    caught.match(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: [1", "not valid YAML"),
        ("[" * 5000, "not valid YAML: it is nested too deep"),
        ("", "file: "),
        (GOOD.replace("system", "sytem"), "sytem"),
        (GOOD.replace("version: 1", "version: x"), "version"),
        (GOOD.replace("assistant: c", "assist: c"), r"examples\.0\.assistant"),
        (GOOD.replace("note: b", "nota: b"), r"examples\.0: unknown variable `nota`; did you mean `note`"),
        (GOOD.replace("note: b", "note: [b]"), r"examples\.0\.note: it is a str"),
        (GOOD.replace("{{ note }}", "{{ hint }}"), "user: .*hint"),
        (GOOD.replace("{{ line }}", "{% if %}"), "user: "),
    ],
)
def test_a_bad_file_is_named_with_its_field(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^prompts/mine\.zh\.yaml: .*{says}") as caught:
        prompts.parse(text, "mine", "zh")
    assert "\n" not in str(caught.value)


def test_a_number_that_an_example_leaves_out_is_missed() -> None:
    text = 'version: 1\nsystem: s\nexamples: [{topic: a, assistant: b}]\nuser: "{{ turns }} {{ topic }}"\n'
    with pytest.raises(ConfigError, match=r"mine\.en\.yaml: examples\.0: 'turns' is undefined"):
        prompts.parse(text, "mine", "en", "converse")


# ---- the preset ----


def test_the_preset_asks_with_every_prompt() -> None:
    config = load_config("ke-speechchat", ["writer.base_url=http://127.0.0.1:1/v1", "writer.model=x"])
    assert config.llm_steps == STEPS
    assert not config.embedded
    assert config.dedup.barrier
    assert [source.kind for source in config.sources.values()] == ["topics"]
    for name in config.llm_steps:
        assert all(prompts.load(name, language).step == name for language in config.active_languages)


@pytest.mark.parametrize("more", [(), ("text.converse.prompt=./mine",)])
def test_who_takes_the_lines_as_they_are_asks_nobody_for_a_dialogue(more: tuple[str, ...]) -> None:
    assert load_config("quickstart", ["text.converse.mode=none", *more]).llm_steps == ()
    assert load_config("quickstart", ["text.converse.mode=whole", *more]).llm_steps == (
        more[0].partition("=")[2] if more else "converse",
    )


def test_numbers_of_turns_need_a_weight() -> None:
    with pytest.raises(ConfigError, match=r"^quickstart: text\.converse: turns needs at least one weight above 0"):
        load_config("quickstart", ["text.converse.turns={2: 0, 4: 0}"])
    assert Config(text={"converse": {"turns": {2: 0, 4: 1}}}).text.converse.turns[4] == 1
