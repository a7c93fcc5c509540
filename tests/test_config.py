from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, all_keys, digest, explain, load_config, parse_yaml, preset_names
from pipeline.engine.run import load_frozen
from pipeline.errors import ConfigError
from tests.synthetic import make_run


def load(tmp_path: Path, text: str, *settings: str) -> Config:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return load_config(str(path), settings)


def refused(tmp_path: Path, text: str, *settings: str) -> str:
    """The message for this file, which must be one line that names the file or the setting."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *settings)
    message = str(caught.value)
    assert "\n" not in message and message.startswith((f"{tmp_path / 'mine.yaml'}:", "--set "))
    assert caught.value.exit_code == 2
    return message


# ---- keys that do not exist ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("dialoges", "dialogues"),
        ("judge.limit", "judge.limits"),
        ("judge.min_moss", "judge.min_mos"),
        ("judg.keep", "judge"),
        ("writer.base-url", "writer.base_url"),
        ("audio.userrate", "audio.user_rate"),
        ("loudness", "audio.loudness"),  # a key of that very name, elsewhere
        ("sources.mine.licence", "sources.mine.license"),
        ("writer.endpoints.mine.wieght", "writer.endpoints.mine.weight"),
        ("tts.concurrency", "writer.concurrency"),
    ],
)
def test_an_unknown_key_names_its_neighbour_in_a_file_and_in_a_setting(tmp_path: Path, key: str, nearest: str) -> None:
    tree: dict[str, Any] = {}
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        node[parent] = node = {}
    node[last] = 3
    for message in (refused(tmp_path, yaml.safe_dump(tree)), refused(tmp_path, "", f"{key}=3")):
        assert message.endswith(f"; did you mean {nearest!r}?")
        assert f"unknown key {key if nearest != 'judge' else 'judg'!r}" in message


def test_an_unknown_key_with_no_neighbour_names_all_that_are_there(tmp_path: Path) -> None:
    message = refused(tmp_path, "", "zzzz=1")
    assert "unknown key 'zzzz'; known here: dialogues, unit_size, " in message and message.endswith(", views, engine")


def test_every_wrong_key_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "seeed: 1\nwriter: {modell: x}\ndialogues: -5\n")
    assert all(part in message for part in ("'seed'", "'writer.model'", "dialogues: Input should be greater"))


def test_every_key_of_the_tree_can_be_set(tmp_path: Path) -> None:
    """`all_keys`, from which neighbours are named, and the tree itself agree."""
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    config = Config.model_validate(
        {
            "writer": {"endpoints": {"mine": endpoint}},
            "tts": {"engines": {"mine": {}}},
            "views": {"mine": {"steps": ["gain"]}},
            "asr": {"by_language": {"en": {}}},
        }
    )
    dumped = config.model_dump(mode="json")
    for key in (
        key.replace("sources.*", "sources.chatterbot").replace("language.*", "language.en").replace("*", "mine")
        for key in all_keys()
    ):
        node = dumped
        for part in key.split("."):
            node = node[part]
        setting = f"{key}={yaml.safe_dump(node, default_flow_style=True)}"
        assert load(tmp_path, json.dumps(dumped), setting) == config


# ---- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("dialogues=0", ["dialogues", "greater than or equal to 1", "(it is 0)"]),
        ("dialogues=many", ["dialogues", "valid integer", "(it is 'many')"]),
        ("dialogues=10", ["dialogues=10 is no multiple of unit_size=64", "use dialogues=64"]),
        ("unit_size=1001", ["unit_size", "1000"]),
        ("languages={fr: 1}", ["languages.fr", "'en' or 'zh'"]),
        ("languages={en: 0}", ["languages needs at least one weight above 0"]),
        ("languages={en: -1}", ["languages.en", "greater than or equal to 0"]),
        ("splits.train=.inf", ["splits.train", "finite"]),
        ("splits.train=.nan", ["splits.train"]),
        ("writer.temperature=9", ["writer.temperature", "less than or equal to 2"]),
        ("writer.timeout=.inf", ["writer.timeout", "finite"]),
        ("text.grounding=1.5", ["text.grounding", "less than or equal to 1"]),
        ("text.max_units.en=0", ["text.max_units.en"]),
        ("text.max_units=5", ["text.max_units", "dictionary"]),
        ("audio.user_rate=22051", ["user_rate=22051", "multiple of 25"]),
        ("audio.pause.low=3", ["audio.pause", "low=3 is above high"]),
        ("tts.speeds=[]", ["tts.speeds", "at least 1 item"]),
        ("tts.speeds=[1, 9]", ["tts.speeds.1", "less than or equal to 2"]),
        ("judge.limits.en.per=0.1", ["limits.en.per", "not measured for en", "measured are wer, cer, gap"]),
        ("judge.limits.en.mos_ovr=3", ["limits.en.mos_ovr", "the higher the better; use floors"]),
        ("judge.floors.en.cer=0.1", ["floors.en.cer", "the lower the better; use limits"]),
        ("judge.appeal.zh.added=0", ["appeal.zh", "doubt or surprise"]),
        ("judge.limits.en.gap=-1", ["limits.en.gap", "-1 refuses everything"]),
        ("judge.limits.zh.wer=0.1", ["limits.zh.wer", "measured are cer, mer"]),
        ("judge.keep=some", ["judge.keep", "'none', 'sample' or 'all'"]),
        ("engine.kind=slurm", ["engine.kind", "'ray' or 'local'"]),
        ("judge=3", ["judge", "(it is 3)"]),
    ],
)
def test_a_value_out_of_range_names_key_range_and_value(tmp_path: Path, setting: str, parts: list[str]) -> None:
    message = refused(tmp_path, "", setting)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("setting", ["dialogues", "=3", "judge", ""])
def test_a_setting_is_key_and_value(tmp_path: Path, setting: str) -> None:
    message = refused(tmp_path, "", setting)
    assert message.startswith(f"--set {setting!r}: write it as key=value")


def test_a_setting_below_a_value(tmp_path: Path) -> None:
    assert "'dialogues' is a value, it has no keys below it" in refused(tmp_path, "dialogues: 64", "dialogues.x=1")


def test_a_setting_that_is_no_yaml(tmp_path: Path) -> None:
    assert refused(tmp_path, "", "tts.speeds=[1,") == "--set 'tts.speeds=[1,': the value is not valid YAML"


def test_a_gate_on_what_a_recogniser_never_tells_is_refused(tmp_path: Path) -> None:
    second = "asr: {by_language: {zh: {engine: sherpa}}}\n"
    message = refused(tmp_path, second, "judge.floors.zh={language: 0.5}")
    assert "judge.floors.zh.language" in message and "sherpa does not tell it" in message
    assert "judge.limits.en.doubt" in refused(tmp_path, "asr: {engine: http}\n", "judge.limits.en={doubt: 5}")
    # Who does tell it may have the gate, and an appeal that cannot be heard forgives nothing.
    assert load(tmp_path, second, "judge.limits.en={doubt: 5}", "judge.appeal.zh={doubt: 5}").judge.limits["en"]


def test_settings_win_over_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    config = load(tmp_path, "seed: 1\njudge: {min_mos: 2}\n", "seed=2", "judge.min_mos=null", "seed=3")
    assert config.seed == 3 and config.judge.min_mos is None
    assert load(tmp_path, "", "writer.extra_body={top_k: 5}").writer.extra_body == {"top_k": 5}


def test_a_setting_may_hold_equal_signs(tmp_path: Path) -> None:
    config = load(tmp_path, "", "writer.base_url=http://127.0.0.1/v1?a=b")
    assert config.writer.base_url == "http://127.0.0.1/v1?a=b"


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("seed: 1\njudge: keep: all\n", "line 2, column 12"),
        ("seed: 1\nwriter:\n\tmodel: x\n", "line 3, column 1"),
        ("seed: [1\n", "line 2, column 1"),
        ("seed: 1\0\n", "special characters are not allowed"),
    ],
)
def test_malformed_yaml_names_the_line(tmp_path: Path, text: str, where: str) -> None:
    message = refused(tmp_path, text)
    assert where in message and "not valid YAML" in message


@pytest.mark.parametrize("text", ["- seed\n- 1\n", "seed", "3"])
def test_a_file_that_is_no_map(tmp_path: Path, text: str) -> None:
    assert "a configuration is a map of keys to values" in refused(tmp_path, text)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "", "dialogues=64") == Config(dialogues=64)


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("# caf\xe9\nseed: 1\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: not readable: 'utf-8' codec"):
        load_config(str(path))


def test_a_folder_or_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is neither a preset nor a file; presets: .*quickstart"):
        load_config(str(tmp_path))
    with pytest.raises(ConfigError, match=r"^'quickstrat' .* did you mean 'quickstart'\?"):
        load_config("quickstrat")


def test_parse_yaml_makes_no_objects() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("seed: !!python/object/apply:os.getcwd []", "evil.yaml")


# ---- what a configuration means -----------------------------------------------------------------------------------


def test_a_map_by_language_keeps_what_the_other_language_has_by_default(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "text: {max_units: {en: 9}}\njudge: {limits: {zh: {per: 0.3}}}\ncast: {agents: {en: [bf_emma]}}\n",
        "text.max_dialogue_units.zh=99",
    )
    assert config.text.max_units == {"en": 9, "zh": Config().text.max_units["zh"]}
    assert config.text.max_dialogue_units == {"en": Config().text.max_dialogue_units["en"], "zh": 99}
    assert config.judge.limits == {"en": {"wer": 0.1}, "zh": {"per": 0.3}}
    assert config.cast.agents == {"en": ("bf_emma",), "zh": Config().cast.agents["zh"]}


def test_only_languages_with_weight_are_active() -> None:
    assert Config(languages={"zh": 1, "en": 0.5}).active_languages == ("en", "zh")
    assert Config(languages={"zh": 1, "en": 0}).active_languages == ("zh",)


EXECUTION = [
    "engine.kind=local",
    "engine.window=3",
    "engine.studios=7",
    "tts.engines.kokoro.threads=4",
    "asr.threads=4",
    "writer.concurrency=2",
    "writer.timeout=9",
    "writer.retries=0",
    "sources.chatterbot-corpus.data=/elsewhere",
    "tts.engines.kokoro.model_path=/elsewhere",
    "asr.model_path=/elsewhere",
    "writer.model_path=/elsewhere",
]


def test_where_and_how_fast_reaches_no_output() -> None:
    before = load_config("quickstart")
    after = load_config("quickstart", EXECUTION)
    assert after != before
    assert after.content() == before.content()


@pytest.mark.parametrize(
    "setting", ["seed=1", "writer.model=x", "audio.pause.low=0.2", "judge.min_mos=2", "dialogues=32"]
)
def test_what_reaches_the_output_is_content(setting: str) -> None:
    assert load_config("quickstart", [setting]).content() != load_config("quickstart").content()


def test_grounding_is_for_the_model_that_drifts() -> None:
    assert load_config("quickstart").grounding == 0.8
    assert load_config("quickstart", ["writer.base_url=http://127.0.0.1:1/v1"]).grounding == 0.0
    both = ["writer.base_url=http://127.0.0.1:1/v1", "text.grounding=0.5"]
    assert load_config("quickstart", both).grounding == 0.5
    assert load_config("quickstart", ["text.grounding=0"]).grounding == 0.0


def test_the_grounding_that_was_meant_is_frozen() -> None:
    """The address is not content, so what follows from it must be."""
    contents = [
        load_config("quickstart", settings).content() for settings in ([], ["writer.base_url=http://127.0.0.1/v1"])
    ]
    assert [content["text"]["grounding"] for content in contents] == [0.8, 0.0]
    assert all("base_url" not in content["writer"] for content in contents)


def test_a_digest_is_of_the_content_and_not_of_its_order() -> None:
    assert digest({"a": 1, "b": ["你好", 0.1]}, 2) == digest({"b": ["你好", 0.1], "a": 1}, 2)
    assert len({digest(1), digest("1"), digest([1]), digest({"1": 1}), digest(1, 1)}) == 5
    # Written down once: folders that were made with it must still match.
    assert digest({"a": 1, "b": ["你好", 0.1]}, 2) == "00f69daa206205f2"


def test_content_is_plain_data_and_gives_the_same_configuration_again() -> None:
    for name in preset_names():
        config = load_config(name)
        content = config.content()
        assert yaml.safe_load(yaml.safe_dump(content)) == content
        assert Config.model_validate(content).content() == content


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_resolves_to_a_file_that_is_the_same(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), "utf-8")
    assert load_config(str(path)) == config


def test_the_frozen_configuration_of_a_run_is_one_like_any_other(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=2)
    config, _ = load_frozen(folder)
    assert load_config(str(folder.config)).content() == config.content()
    grown = load_config(str(folder.config), ["dialogues=4"])
    assert grown.dialogues == 4


@pytest.mark.parametrize("name", preset_names())
def test_an_explained_configuration_loads_as_itself(tmp_path: Path, name: str) -> None:
    path = tmp_path / "explained.yaml"
    path.write_text(explain(load_config(name)), "utf-8")
    assert load_config(str(path)) == load_config(name)
    assert "# seconds for one request" in path.read_text("utf-8")
