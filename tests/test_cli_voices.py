"""`speechchat voices`: listing, choosing among, and building libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speakers import load_library
from speakers.build import build
from speakers.table import read_embeddings, read_table, write_table
from tests.command_line import CommandLine, refused

SHIPPED = load_library(hard=True)
COUNT = len(SHIPPED.voices) + 100

OWN = """
defaults: {engine: served, license: CC0-1.0, languages: [en], gender: female}
voices:
  - {id: anna, consent: signed, recipe: {name: Anna}}
  - {id: ben, gender: male, split: test, recipe: {name: "[bold]Ben[/bold]", shift: -1}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(OWN, "utf-8")
    return path


def ids(text: str) -> list[str]:
    return [row["id"] for row in json.loads(text)]


def test_listing_chooses_among_the_voices(speechchat: CommandLine) -> None:
    done = speechchat("voices", "--language", "en", "--gender", "male", "--split", "test", "--json")
    assert ids(done.out) == [voice.id for voice in SHIPPED.select("en", "male", "test")] != []
    listed = speechchat("voices", "--language", "zh", "--limit", 2)
    assert "zf_xiaobei" in listed.out and "zm_yunxi" not in listed.out and "af_sky" not in listed.out
    assert f"{len(load_library().select('zh'))} voices, the first 2 of them are listed" in listed.out


def test_listing_a_library_of_ones_own(speechchat: CommandLine, own: Path) -> None:
    assert ids(speechchat("voices", "--library", own, "--json").out) == ["anna", "ben"]
    listed = speechchat("voices", "--library", own)
    assert "2 voices" in listed.out and "served" in listed.out and "CC0-1.0" in listed.out
    assert "[bold]Ben[/bold], -1 st" in listed.out


def test_a_recipe_is_one_readable_column(speechchat: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "voices.parquet"
    speechchat("voices", "build", "--out", out, "--count", COUNT)
    voice = next(v for v in read_table(out).voices if len(v.recipe.timbre) == 2 and v.recipe.prosody and v.recipe.shift)
    lines = speechchat("voices", "--library", out).out.splitlines()
    [line] = [line for line in lines if line.startswith(f"{voice.id} ")]
    assert f"{voice.recipe.timbre[0][1]:g} {voice.recipe.timbre[0][0]} + " in line
    assert ", spoken like " in line and f"{voice.recipe.shift:+g} st" in line


def test_build_says_what_it_made(speechchat: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "new" / "voices.parquet"
    done = speechchat("voices", "build", "--out", out, "--count", COUNT, "--seed", 3)
    assert done.status == 0
    assert f"{COUNT} voices in " in done.out
    assert f"{len(SHIPPED.voices)} are of the base library, 100 are recipes drawn around them" in done.out
    assert read_table(out).voices == build(SHIPPED, COUNT, seed=3).voices
    women = len(read_table(out).select("en", "female"))
    assert any(line.split()[1:3] == ["en", "│"] and f" {women} " in line for line in done.out.splitlines())


def test_build_with_shares_and_another_base(speechchat: CommandLine, tmp_path: Path) -> None:
    base, out = tmp_path / "base.parquet", tmp_path / "voices.parquet"
    first = SHIPPED.voices[0]
    write_table(SHIPPED, base, {first.id: np.ones(4, np.float32)})
    words = ("--library", base, "--languages", "en=1", "--splits", "train=3,validation=0,test=1", "--near", 1)
    assert speechchat("voices", "build", "--out", out, "--count", 400, *words).status == 0
    built = read_table(out)
    drawn = built.voices[len(SHIPPED.select("en")) :]
    assert {voice.languages for voice in built.voices} == {("en",)} and len(built.voices) == 400
    assert {voice.split for voice in drawn} == {"train", "test"}
    # Those of validation that the base has are there; the others fall behind their shares by as much.
    behind = [share - len(built.select(split=split)) for split, share in (("train", 300), ("test", 100))]
    assert abs(behind[0] - behind[1]) <= 2
    assert {len(voice.recipe.parents) for voice in drawn} == {1}  # no two speak exactly as fast as each other
    assert read_embeddings(out)[first.id].tolist() == [1, 1, 1, 1]


def test_build_adds_voices_as_they_are(speechchat: CommandLine, tmp_path: Path, own: Path) -> None:
    out = tmp_path / "voices.parquet"
    done = speechchat("voices", "build", "--out", out, "--count", COUNT, "--add", own)
    assert "2 were added" in done.out and f"{COUNT + 2} voices" in done.out
    assert read_table(out).voices[-2:] == load_library(own).voices
    twice = speechchat("voices", "build", "--out", out, "--count", COUNT, "--add", own, "--add", own, "--force")
    refused(twice, 2, "own.yaml: the id 'anna' is that of another voice already")


@pytest.mark.embedded
def test_a_voice_of_another_engine_can_be_heard(speechchat: CommandLine, tmp_path: Path) -> None:
    own, engines, out = tmp_path / "own.yaml", tmp_path / "engines.yaml", tmp_path / "hello.wav"
    same = "gender: female, languages: [en], license: Apache-2.0"
    own.write_text(f"voices:\n  - {{id: lark, engine: bird, {same}, recipe: {{name: heart}}}}\n")
    engines.write_text("tts: {engines: {bird: {kind: hibari}}}\n")
    words = ("voices", "say", "lark", "Good morning.", "--library", own, "--out", out)
    refused(speechchat(*words), 2, "'lark' is of the engine 'bird'", "--config")
    assert speechchat(*words, "--config", engines).status == 0
    assert 0.4 < soundfile.info(out).duration < 3


def test_build_without_an_audits_rejects(speechchat: CommandLine, tmp_path: Path) -> None:
    """Others are drawn in their place, and nobody else becomes somebody else."""
    plain = build(SHIPPED, COUNT + 2).voices
    gone = {SHIPPED.voices[3].id, plain[-5].id}
    rejected, out = tmp_path / "rejected.txt", tmp_path / "voices.parquet"
    first, second = sorted(gone)
    rejected.write_text(f"{first}\twer 0.2; mos 2.1\n")
    (tmp_path / "again.txt").write_text(f"{second}\n")
    words = ("--without", rejected, "--without", tmp_path / "again.txt")
    assert speechchat("voices", "build", "--out", out, "--count", COUNT, *words).status == 0
    assert read_table(out).voices == tuple(voice for voice in plain if voice.id not in gone)
    missing = speechchat("voices", "build", "--out", tmp_path / "x.parquet", "--without", tmp_path / "none.txt")
    refused(missing, 2, "--without", "none.txt", "rejected.txt of an audit")


def test_build_replaces_nothing_unasked(speechchat: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "voices.parquet"
    assert speechchat("voices", "build", "--out", out, "--count", COUNT).status == 0
    before = out.read_bytes()
    refused(
        speechchat("voices", "build", "--out", out, "--count", COUNT, "--seed", 1), 2, "is there already", "--force"
    )
    assert out.read_bytes() == before
    assert speechchat("voices", "build", "--out", out, "--count", COUNT, "--seed", 1, "--force").status == 0
    assert out.read_bytes() != before
    assert speechchat("voices", "build", "--out", out, "--count", COUNT, "--force").status == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--language", "fr"), ("--language 'fr'", "en, zh")),
        (("--gender", "woman"), ("--gender 'woman'", "female, male")),
        (("--split", "dev"), ("--split 'dev'", "train, validation, test")),
        (("--library", "none.yaml"), ("none.yaml", "cannot be read")),
        (("say", "nobody", "hello", "--library", "OWN"), ("there is no voice 'nobody'",)),
        (("say", "anna", "hello", "--library", "OWN"), ("'anna'", "'served'", "tts.engines")),
        (("build", "--out", "voices.csv"), ("voices.csv", ".parquet")),
        (("build", "--out", "x.parquet", "--count", 3), ("--count 3", "the base library alone has")),
        (("build", "--out", "x.parquet", "--languages", "en=1,fr=1"), ("--languages 'en=1,fr=1'", "en=1,zh=1")),
        (("build", "--out", "x.parquet", "--splits", "train=much"), ("--splits 'train=much'", "numbers")),
        (("build", "--out", "x.parquet", "--languages", "en=0"), ("--languages 'en=0'", "above 0")),
        (("build", "--out", "x.parquet", "--languages", "en=-1"), ("--languages 'en=-1'",)),
        (("build", "--out", "x.parquet", "--count", 50, "--library", "OWN"), ("en women of train", "add base voices")),
    ],
)
def test_bad_input_is_one_line(
    speechchat: CommandLine, own: Path, words: tuple[object, ...], parts: tuple[str, ...]
) -> None:
    given = [own if word == "OWN" else own.parent / word if str(word).endswith(".parquet") else word for word in words]
    refused(speechchat("voices", *given), 2, *parts)
    assert [path.name for path in own.parent.iterdir()] == ["own.yaml"]
