"""The smaller commands, what they print for machines, and that all of them are explained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import typer.main

from pipeline import __version__, cli
from pipeline.model_registry import MODELS
from speakers import load_library
from tests.command_line import ROOT, CommandLine, refused
from tests.synthetic import make_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return make_run(tmp_path_factory.mktemp("cli") / "run").root


def test_stats_and_verify_speak_json(speechchat: CommandLine, run_folder: Path) -> None:
    stats = json.loads(speechchat("stats", run_folder, "--json").out)
    assert stats["planned"] == 4 == stats["accepted"] + sum(stats["rejected"].values())
    more = {name: stats.pop(name) for name in ("by_voice", "stage_seconds", "efficiency", "worst_words")}
    assert sum(voice["turns"] for voice in more["by_voice"]) == sum(item["turns"] for item in stats["by_language"])
    assert {voice["name"] for voice in more["by_voice"]} >= set(stats["voices"])
    assert stats == json.loads((run_folder / "stats.json").read_text())
    assert (more["stage_seconds"], more["efficiency"]["per_cpu_hour"], more["efficiency"]["units"]) == ({}, None, 0)
    assert more["worst_words"]["units"] == stats["units_finished"]
    verified = json.loads(speechchat("verify", run_folder, "--json", "--decode").out)
    assert verified["ok"] and verified["problems"] == [] and verified["samples"] == stats["accepted"]
    assert verified["seconds"] / 3600 == pytest.approx(stats["hours"], abs=1e-6)
    table = speechchat("stats", run_folder)
    assert table.status == 0 and re.search(rf"accepted +{stats['accepted']} of 4", table.out)
    assert "all is well" in speechchat("verify", run_folder).out


def test_models_lists_every_model_with_its_licence_and_source(
    speechchat: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHCHAT_CACHE", str(tmp_path))
    rows = json.loads(speechchat("models", "--json").out)
    assert [row["name"] for row in rows] == list(MODELS)
    assert all(row["license"] and row["source"] and row["size"] > 0 for row in rows)
    assert {row["name"]: row["state"] for row in rows}["kokoro"] == "missing"
    table = speechchat("models")
    assert table.status == 0 and all(name in table.out for name in MODELS)


def test_voices_lists_the_library(speechchat: CommandLine) -> None:
    library = load_library()
    rows = json.loads(speechchat("voices", "--json").out)
    assert [row["id"] for row in rows] == [voice.id for voice in library.voices]
    rows = json.loads(speechchat("voices", "--json", "--language", "zh").out)
    assert [row["id"] for row in rows] == [voice.id for voice in library.select("zh")]
    table = speechchat("voices", "--language", "zh").out
    assert "zm_yunxi" in table and "af_sky" not in table and f"{len(rows)} voices" in table
    refused(speechchat("voices", "--language", "fr"), 2, "--language 'fr'")


def test_presets_lists_and_prints(speechchat: CommandLine, tmp_path: Path) -> None:
    assert "quickstart" in speechchat("presets").out.split()
    (tmp_path / "mine.yaml").write_text(speechchat("presets", "quickstart").out)
    done = speechchat("run", tmp_path / "mine.yaml", "--out", tmp_path / "run", "--set", "dialogues=9")
    refused(done, 2, "dialogues=9 is no multiple of unit_size=8")
    refused(speechchat("presets", "nope"), 2, "presets: ", "quickstart")


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("voice", "text", "name"), [("af_heart", "Good morning.", "a.flac"), ("zf_xiaoxiao", "早上好。", "b.wav")]
)
def test_voices_say(speechchat: CommandLine, tmp_path: Path, voice: str, text: str, name: str) -> None:
    path = tmp_path / "new" / name
    done = speechchat("voices", "say", voice, text, "--out", path)
    assert done.status == 0, done.err
    samples, rate = soundfile.read(path)
    assert rate == 24000 and 0.4 < len(samples) / rate < 2.5
    assert done.out == f"{path}: {len(samples) / rate:.2f} s\n"
    assert (samples**2).mean() ** 0.5 > 0.02  # it is not silence


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("af_hart", "Hello."), ("there is no voice 'af_hart'", "did you mean 'af_heart'?")),
        (("af_heart", "你好"), ("'af_heart' speaks en", "script")),
        (("af_heart", "{}"), ("cannot say '{}'",)),
        (("af_heart", "Hello.", "--out", "hello.txt"), ("hello.txt", ".flac, .wav, .mp3, .ogg")),
        (("af_heart", "Hello.", "--out", "hello"), ("hello: ", ".flac, .wav, .mp3, .ogg")),
    ],
)
def test_voices_say_with_bad_input(speechchat: CommandLine, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(speechchat("voices", "say", *words), 2, *parts)


def test_the_version(speechchat: CommandLine) -> None:
    assert speechchat("--version").out == f"speechchat {__version__}\n"


def test_a_reader_that_has_gone_is_no_bug() -> None:
    """`speechchat presets quickstart | true`"""
    words = [sys.executable, "-m", "pipeline.cli", "presets", "quickstart"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()


# ---- help -----------------------------------------------------------------------------------------------------------


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the app, groups too, with the words that call it."""
    command = command or typer.main.get_command(cli.app)
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_every_option_is_explained(speechchat: CommandLine, path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help and len(command.help) > 20
    shown = speechchat(*path, "--help")
    assert shown.status == 0 and command.help.split()[0] in shown.out
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{path} {parameter.name} has no help"
            assert all(option in shown.out for option in parameter.opts if option.startswith("-"))


@pytest.mark.parametrize("path", [path for path in COMMANDS if path], ids=" ".join)
def test_the_readme_names_every_command(path: tuple[str, ...]) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"\bspeechchat {' '.join(path)}\b", readme), f"README.md does not tell of `{' '.join(path)}`"
