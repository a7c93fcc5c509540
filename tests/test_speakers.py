"""The voice library as data: what ships, what a file of one's own may hold, and what a bad one is told."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.voice import Recipe
from speakers import load_library
from speakers.library import FOLLOWED, merge
from speakers.recipes import apparent_age, canonical, describe

GOOD = """
defaults: {engine: kokoro, license: Apache-2.0, languages: [en], accent: us}
voices:
  - {id: anna, gender: female, recipe: {timbre: {af_heart: 1}}}
  - {id: ben, gender: male, split: test, recipe: {timbre: {am_puck: 0.25, am_adam: 0.75}}, evidence: {wer: 0.0}}
"""


def write(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_shipped_library_is_large_and_balanced() -> None:
    library = load_library()
    assert len(library.voices) >= 35
    assert len(library.select("en", "female")) >= 10
    assert len(library.select("en", "male")) >= 10
    assert len(library.select("zh", "female")) >= 3
    assert len(library.select("zh", "male")) >= 4
    assert all(library.select("zh", gender, split) for gender in ("female", "male") for split in ("train", "test"))


def test_voices_that_are_hard_to_follow_in_short_turns_are_not_cast_but_can_be_asked_for() -> None:
    easy, all_of_them = load_library(), load_library(hard=True)
    listed = yaml.safe_load(resources.files("speakers").joinpath("distinct.yaml").read_text("utf-8"))["voices"]
    measured = {row["id"]: row["evidence"]["short"] for row in listed if "short" in row["evidence"]}
    hard = {voice.id for voice in all_of_them.voices} - {voice.id for voice in easy.voices}
    assert hard == {id for id, share in measured.items() if share < FOLLOWED} and len(hard) >= 10
    assert [voice for voice in all_of_them.voices if voice.id not in hard] == [*easy.voices]
    stock = {voice.recipe for voice in easy.voices if voice.recipe.parents == (voice.id,)}
    mandarin = [voice for voice in easy.voices if "zh" in voice.languages and voice.recipe not in stock]
    assert mandarin and {voice.id for voice in mandarin} <= measured.keys()


def test_no_parent_of_a_shipped_voice_is_in_two_splits_or_genders() -> None:
    owners: dict[str, set[tuple[str, str]]] = {}
    for voice in load_library().voices:
        for parent in voice.recipe.parents:
            owners.setdefault(parent, set()).add((voice.split, voice.gender))
    assert {parent: sorted(groups) for parent, groups in owners.items() if len(groups) > 1} == {}
    assert {split for [(split, _)] in owners.values()} == {"train", "validation", "test"}


def test_shipped_library_holds_each_sound_once() -> None:
    voices = load_library().voices
    sounds = [(voice.languages, voice.accent, canonical(voice.recipe)) for voice in voices]
    assert len(set(sounds)) == len(voices)


def test_the_rates_of_the_stock_voices_were_measured() -> None:
    """English has three to five letters where Mandarin has one character."""
    stock = [voice for voice in load_library().voices if voice.recipe.parents == (voice.id,)]
    assert len(stock) == 35
    for voice in stock:
        low, high = {"en": (12, 25), "zh": (3.5, 7)}[voice.languages[0]]
        assert low < voice.rate < high


def test_shipped_library_has_the_default_agents_in_their_language() -> None:
    library = load_library()
    for language, ids in load_config("quickstart").cast.agents.items():
        voices = [library.voice(id) for id in ids]
        assert all(language in voice.languages for voice in voices)
        assert {voice.gender for voice in voices} == {"female", "male"}
        assert {voice.split for voice in voices} == {"train"}


def test_select_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    library = load_library(write(tmp_path, GOOD))
    assert [voice.id for voice in library.select("en")] == ["anna", "ben"]
    assert [voice.id for voice in library.select("en", "male")] == ["ben"]
    assert [voice.id for voice in library.select(split="train")] == ["anna"]
    assert library.select("zh") == () == library.select("en", "male", "train")


def test_recipe_is_sorted_so_that_its_sum_has_one_order(tmp_path: Path) -> None:
    voice = load_library(write(tmp_path, GOOD)).voice("ben")
    assert voice.recipe.timbre == (("am_adam", 0.75), ("am_puck", 0.25))


def test_digest_follows_the_voices_and_not_the_layout(tmp_path: Path) -> None:
    first = load_library(write(tmp_path, GOOD)).digest
    swapped = GOOD.replace("{am_puck: 0.25, am_adam: 0.75}", "{am_adam: 0.75, am_puck: 0.25}")
    assert load_library(write(tmp_path, "# a comment\n" + swapped)).digest == first
    assert load_library(write(tmp_path, GOOD.replace("{wer: 0.0}", "{wer: 0.5}"))).digest == first
    assert load_library(write(tmp_path, GOOD.replace("0.25", "0.5").replace("0.75", "0.5"))).digest != first
    assert load_library(write(tmp_path, GOOD.replace("gender: male", "gender: female"))).digest != first
    assert len(first) == 16


def test_a_library_of_ones_own_may_name_voices_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "eva.wav").write_bytes(b"some sound")
    head = "voices:\n  - {gender: female, languages: [en, zh], license: CC0-1.0, engine: xtts, id: "
    text = (
        head + "eva, consent: signed, recipe: {clip: clips/eva.wav, clip_text: hello}}\n"
        "  - {id: zoe, gender: female, languages: [en], license: MIT, engine: served, recipe: {name: Zoe, shift: 4}}\n"
        "  - {id: kim, gender: male, age: old, languages: [zh], license: MIT, engine: yours, "
        "recipe: {embedding: [0, 1]}}\n"
    )
    eva, zoe, kim = load_library(write(tmp_path, text)).voices
    assert Path(eva.recipe.clip) == tmp_path / "clips" / "eva.wav" and eva.consent == "signed"
    assert eva.recipe.clip_sha256 == hashlib.sha256(b"some sound").hexdigest()
    assert [voice.recipe.kind for voice in (eva, zoe, kim)] == ["clip", "name", "embedding"]
    assert zoe.age == "adult" and kim.age == "old" and kim.recipe.embedding == (0.0, 1.0)
    # The digest is that of the voices, wherever they lie.
    moved = tmp_path / "elsewhere"
    (moved / "clips").mkdir(parents=True)
    (moved / "clips" / "eva.wav").write_bytes(b"some sound")
    assert load_library(write(moved, text)).digest == load_library(tmp_path / "mine.yaml").digest
    (moved / "clips" / "eva.wav").write_bytes(b"another sound")
    assert load_library(moved / "mine.yaml").digest != load_library(tmp_path / "mine.yaml").digest


def test_a_voice_of_styles_may_be_said_in_short(tmp_path: Path) -> None:
    fields = "gender: female, language: en, timbre: {af_sky: 1}, prosody: {af_heart: 1}, shift: 1, speed: 0.9, mos: 3.2"
    [voice] = load_library(
        write(tmp_path, f"voices: [{{id: a, engine: e, license: MIT, strict: true, {fields}}}]")
    ).voices
    assert voice.recipe == Recipe(timbre=(("af_sky", 1),), prosody=(("af_heart", 1),), shift=1, speed=0.9)
    assert voice.languages == ("en",)
    twice = GOOD.replace("recipe: {timbre: {af_heart: 1}}", "recipe: {timbre: {af_heart: 1}}, shift: 1")
    with pytest.raises(ConfigError, match=r"voices\.0\.shift \(anna\): unknown key"):
        load_library(write(tmp_path, twice))


def test_a_clip_that_is_missing_or_another_is_named(tmp_path: Path) -> None:
    voice = "voices: [{id: eva, gender: female, languages: [en], license: MIT, engine: e, recipe: {clip: eva.wav%s}}]"
    with pytest.raises(ConfigError, match=r"mine\.yaml: recipe\.clip \(eva\): .*eva\.wav cannot be read"):
        load_library(write(tmp_path, voice % ""))
    (tmp_path / "eva.wav").write_bytes(b"some sound")
    with pytest.raises(ConfigError, match=r"\(eva\): .*eva\.wav is not the clip whose clip_sha256 is given"):
        load_library(write(tmp_path, voice % ", clip_sha256: abcd"))


@pytest.mark.parametrize(
    ("gender", "shift", "speed", "age"),
    [
        ("female", 3, 1, "child"),
        ("female", 2.75, 1, "adult"),
        ("male", 3, 1, "adult"),
        ("female", -2, 0.9, "old"),
        ("female", -2, 0.92, "adult"),
        ("male", -2, 0.9, "adult"),
    ],
)
def test_age_follows_from_how_a_voice_is_made(
    tmp_path: Path, gender: str, shift: float, speed: float, age: str
) -> None:
    recipe = f"{{timbre: {{af_heart: 1}}, shift: {shift}, speed: {speed}}}"
    text = GOOD.replace("gender: female, recipe: {timbre: {af_heart: 1}}", f"gender: {gender}, recipe: {recipe}")
    voice = load_library(write(tmp_path, text)).voice("anna")
    assert voice.age == age == apparent_age(voice.gender, voice.recipe)
    said = load_library(write(tmp_path, text.replace(f"gender: {gender}", f"age: old, gender: {gender}", 1)))
    assert said.voice("anna").age == "old"


def test_a_recipe_reads_as_it_was_written() -> None:
    recipe = Recipe(timbre={"b": 0.4, "a": 0.6}, prosody={"c": 1}, shift=1.5, speed=0.94)  # type: ignore[arg-type]
    assert describe(recipe) == "0.6 a + 0.4 b, spoken like c, +1.5 st, x0.94"
    assert canonical(recipe) == '{"prosody":{"c":1.0},"shift":1.5,"speed":0.94,"timbre":{"a":0.6,"b":0.4}}'
    assert Recipe.model_validate_json(canonical(recipe)) == recipe
    assert describe(Recipe(name="Zoe")) == "Zoe" and "2 numbers" in describe(Recipe(embedding=(0.0, 1.0)))


def test_merging_keeps_order_and_refuses_an_id_that_is_taken(tmp_path: Path) -> None:
    mine = load_library(write(tmp_path, GOOD))
    other = load_library(write(tmp_path, GOOD.replace("id: anna", "id: carl").replace("id: ben", "id: dora")))
    assert [voice.id for voice in merge(mine, other, "x.yaml").voices] == ["anna", "ben", "carl", "dora"]
    with pytest.raises(ConfigError, match=r"x\.yaml: the id 'anna'"):
        merge(mine, mine, "x.yaml")


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
            r"voices\.0\.recipe\.timbre \(anna\): the weights sum to 1, these to 0\.6",
        ),
        ("{af_heart: 1}", "{af_heart: loud}", r"voices\.0\.recipe\.timbre\.0\.1 \(anna\): .*'loud'"),
        ("{af_heart: 1}", "{af_heart: 4, af_sky: -3}", r"voices\.0\.recipe\.timbre\.0\.1 \(anna\)"),
        ("recipe: {timbre: {af_heart: 1}}", "recipe: {}", r"voices\.0\.recipe \(anna\): .*one of timbre, name, clip"),
        ("timbre: {af_heart: 1}", "timbre: {af_heart: 1}, pitch: 2", r"unknown key; known: timbre, prosody.*shift"),
        ("recipe: {timbre: {af_heart", "recipes: {timbre: {af_heart", r"recipes \(anna\): unknown key.*'recipe'"),
        ("id: ben", "id: anna", r"voices: the id 'anna' is there more than once"),
        ("id: ben", "id: Ben Smith", r"voices\.1\.id"),
        ("languages: [en]", "languages: [jp]", r"voices\.0\.languages\.0 \(anna\): .*'jp'"),
        ("split: test", "split: dev", r"voices\.1\.split \(ben\): .*'dev'"),
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
