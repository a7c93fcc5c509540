"""The voice library as data: what ships, and what a bad file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError
from speakers import load_library

GOOD = """
defaults: {engine: kokoro, license: Apache-2.0, languages: [en], accent: us}
voices:
  - {id: anna, gender: female, recipe: {af_heart: 1}}
  - {id: ben, gender: male, recipe: {am_puck: 0.25, am_adam: 0.75}}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return path


def test_shipped_library_is_large_and_balanced() -> None:
    library = load_library()
    assert len(library.voices) >= 35
    assert len(library.select("en", "female")) >= 10
    assert len(library.select("en", "male")) >= 10
    assert len(library.select("zh", "female")) >= 4
    assert len(library.select("zh", "male")) >= 5
    assert not {"zf_xiaoni"} & {style for voice in library.voices for style, _ in voice.recipe}


def test_shipped_library_has_the_default_agents_in_their_language() -> None:
    library = load_library()
    for language, ids in load_config("quickstart").cast.agents.items():
        voices = [library.voice(id) for id in ids]
        assert all(language in voice.languages for voice in voices)
        assert {voice.gender for voice in voices} == {"female", "male"}


def test_select_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    library = load_library(write(tmp_path, GOOD))
    assert [voice.id for voice in library.select("en")] == ["anna", "ben"]
    assert [voice.id for voice in library.select("en", "male")] == ["ben"]
    assert library.select("zh") == ()


def test_recipe_is_sorted_so_that_its_sum_has_one_order(tmp_path: Path) -> None:
    assert load_library(write(tmp_path, GOOD)).voice("ben").recipe == (("am_adam", 0.75), ("am_puck", 0.25))


def test_digest_follows_the_voices_and_not_the_layout(tmp_path: Path) -> None:
    first = load_library(write(tmp_path, GOOD)).digest
    swapped = GOOD.replace("{am_puck: 0.25, am_adam: 0.75}", "{am_adam: 0.75, am_puck: 0.25}")
    assert load_library(write(tmp_path, "# a comment\n" + swapped)).digest == first
    assert load_library(write(tmp_path, GOOD.replace("0.25", "0.5").replace("0.75", "0.5"))).digest != first
    assert load_library(write(tmp_path, GOOD.replace("gender: male", "gender: female"))).digest != first
    assert len(first) == 16


def test_unknown_voice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'af_hart'.*did you mean 'af_heart'"):
        load_library().voice("af_hart")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("gender: female", "gender: woman", r"voices\.0\.gender \(anna\): .*'female' or 'male'.*'woman'"),
        (
            "{af_heart: 1}",
            "{af_heart: 0.6}",
            r"voices\.0\.recipe \(anna\): the weights of a recipe sum to 1, these to 0\.6",
        ),
        ("{af_heart: 1}", "{af_heart: loud}", r"voices\.0\.recipe\.0\.1 \(anna\): .*'loud'"),
        ("{af_heart: 1}", "{af_heart: 1.5, af_sky: -0.5}", r"voices\.0\.recipe\.0\.1 \(anna\)"),
        (
            "recipe: {af_heart: 1}",
            "recipes: {af_heart: 1}",
            r"voices\.0\.recipe \(anna\): Field required.*voices\.0\.recipes",
        ),
        ("id: ben", "id: anna", r"voices: the id 'anna' is there more than once"),
        ("id: ben", "id: Ben Smith", r"voices\.1\.id"),
        ("languages: [en]", "languages: [jp]", r"voices\.0\.languages\.0 \(anna\): .*'jp'"),
        ("voices:", "speakers:", r"unknown key 'speakers'"),
        ("defaults: {", "defaults: {{", r"line \d+.*not valid YAML"),
    ],
)
def test_bad_file_is_told_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=told) as caught:
        load_library(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "voices: []", "voices: {anna: 1}", "- a", "defaults: 3\nvoices: []"])
def test_file_without_voices_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: .*(voices|defaults|map)"):
        load_library(write(tmp_path, text))


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: .*cannot be read"):
        load_library(tmp_path / "none.yaml")
    (tmp_path / "noise.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"noise\.yaml: .*not UTF-8"):
        load_library(tmp_path / "noise.yaml")
