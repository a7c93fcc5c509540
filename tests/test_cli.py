"""The command line as people use it: a run, and every kind of bad input in one line with the right status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.model_registry import MODELS
from pipeline.shards.store import RunFolder
from tests.command_line import ROOT, CommandLine, python, refused
from tests.fakes import FakeLLM, config_file, llm_server, tree
from tests.synthetic import make_run


@pytest.fixture(autouse=True)
def _silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint lives in this process: what it says of clients that hang up is not the command's."""
    monkeypatch.setattr(FakeLLM, "handle_error", lambda *_: None)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that damage it make one of their own."""
    return make_run(tmp_path_factory.mktemp("cli") / "run").root


@pytest.fixture
def talk(tmp_path: Path, llm: FakeLLM, corpus: Path) -> Path:
    """A configuration on fakes, small, in this process."""
    return config_file(tmp_path / "talk.yaml", llm.base_url, corpus, engine__kind="local", dialogues=4)


# ---- run ------------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_its_table_and_a_second_one_changes_nothing(
    speechchat: CommandLine, tmp_path: Path, talk: Path, llm: FakeLLM
) -> None:
    out = tmp_path / "run"
    first = speechchat("run", talk, "--out", out)
    assert first.status == 0
    assert re.search(r"accepted +4 of 4 dialogues \(100%\)", first.out)
    assert "RTF speak" in first.out and "WER en" in first.out and f"{out} is finished" in first.out
    assert "accepted" not in first.err and "\x1b" not in first.err + first.out
    before, asked = tree(out), len(llm.requests)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if "logs" not in path.parts}
    again = speechchat("run", talk, "--out", out)
    assert again.status == 0 and "2 of 2 units are finished already" in again.err
    assert "accepted" in again.out
    assert tree(out) == before and len(llm.requests) == asked
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_run_of_its_own_process_prints_the_table_on_stdout_and_progress_on_stderr(tmp_path: Path, talk: Path) -> None:
    done = python("-m", "pipeline.cli", "run", talk, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "4 of 4 dialogues" in done.out and "hours" in done.out
    assert "dialogues (" not in done.err and "\x1b" not in done.out + done.err


def test_live_progress_names_what_people_wait_for(
    speechchat: CommandLine, tmp_path: Path, talk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.console.QUIET_INTERVAL", 0.0)
    done = speechchat("run", talk, "--out", tmp_path / "run")
    last = done.err.splitlines()[-1]
    assert "units 2/2" in last and "4/4 dialogues" in last and "yield 100%" in last
    assert re.search(r"audio \d+ s", last) and re.search(r"\d+:\d\d elapsed, 0:00 left", last)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_drops_the_unit_and_says_how_to_go_on(
    speechchat: CommandLine, tmp_path: Path, llm: FakeLLM, corpus: Path, number: signal.Signals
) -> None:
    slow = config_file(tmp_path / "slow.yaml", llm.base_url, corpus, engine__kind="local")
    setting = "tts.engines.kokoro.kind=tests.fakes:build_slow_tts"
    out = tmp_path / "run"
    words = [sys.executable, "-m", "pipeline.cli", "run", str(slow), "--out", str(out), "--set", setting]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not RunFolder(out).text(0).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted: ") and str(out) in err and "Traceback" not in err
    assert not list(out.rglob("*.tmp")) and not RunFolder(out).manifest(3, "train").exists()
    for folder in (out, tmp_path / "undisturbed"):
        assert speechchat("run", slow, "--out", folder, "--set", setting).status == 0
    assert tree(out) == tree(tmp_path / "undisturbed")


# ---- bad input: configuration ---------------------------------------------------------------------------------------


def test_an_unknown_preset(speechchat: CommandLine, tmp_path: Path) -> None:
    done = speechchat("run", "quickstrat", "--out", tmp_path / "run")
    refused(done, 2, "speechchat: 'quickstrat' is neither a preset nor a file", "did you mean 'quickstart'?")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "settings", "parts"),
    [
        ("seed: [1\n", [], ["bad.yaml: line 2", "not valid YAML"]),
        ("dialoges: 8\n", [], ["bad.yaml: unknown key 'dialoges'; did you mean 'dialogues'?"]),
        ("", ["writer.modle=x"], ["unknown key 'writer.modle'; did you mean 'writer.model'?"]),
        ("", ["dialogues=-1"], ["dialogues", "greater than or equal to 1", "-1"]),
        ("", ["judge.limits.en.wer"], ["--set 'judge.limits.en.wer': write it as key=value"]),
        ("", ["engine.kind=slurm"], ["engine.kind", "'ray' or 'local'"]),
        (
            "",
            ["tts.engines.kokoro.kind=kokro"],
            ["tts.engines.kokoro.kind: unknown engine 'kokro'", "did you mean 'kokoro'?"],
        ),
        ("", ["cast.agents.en=[af_hart]"], ["there is no voice 'af_hart'", "af_heart"]),
        ("", ["sources.chatterbot-corpus.topics.en=[fodo]"], ["no topic 'fodo'", "food"]),
        ("", ["text.converse.prompt=repl"], ["repl", "reply"]),
    ],
)
def test_a_bad_configuration(
    speechchat: CommandLine, tmp_path: Path, text: str, settings: list[str], parts: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    words = [word for setting in settings for word in ("--set", setting)]
    refused(speechchat("run", path, "--out", tmp_path / "run", *words), 2, "speechchat: ", *parts)
    assert not (tmp_path / "run").exists()


def test_bad_input_ends_a_process_too(tmp_path: Path) -> None:
    """What the tests above see within this process is what a shell sees."""
    done = python("-m", "pipeline.cli", "run", "quickstart", "--out", tmp_path / "run", "--set", "judge.keep=some")
    refused(
        done,
        2,
        "speechchat: quickstart: judge.keep: Input should be 'none', 'sample' or 'all' (it is 'some')",
    )
    assert done.out == ""


# ---- bad input: models ----------------------------------------------------------------------------------------------


def test_a_missing_model_names_the_command_that_fetches_it(
    speechchat: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHCHAT_CACHE", str(tmp_path / "cache"))
    done = speechchat("run", "quickstart", "--out", tmp_path / "run")
    refused(done, 3, "is missing", "run `speechchat models pull gemma-3-270m`", "writer.model_path")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("grow", "part"), [(0, "is not the file it should be"), (-1, "bytes, expected")])
def test_a_corrupt_model_is_named_with_its_file(
    speechchat: CommandLine,
    tmp_path: Path,
    llm: FakeLLM,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    grow: int,
    part: str,
) -> None:
    monkeypatch.setenv("SPEECHCHAT_CACHE", str(tmp_path / "cache"))
    file = MODELS["kokoro"].files[0]
    path = tmp_path / "cache" / "models" / "kokoro" / file.name
    path.parent.mkdir(parents=True)
    with path.open("wb") as stream:
        stream.truncate(file.size + grow)  # a file of nothing but zeros, or one byte short
    config = config_file(tmp_path / "talk.yaml", llm.base_url, corpus, tts__engines__kokoro__kind="kokoro")
    refused(
        speechchat("run", config, "--out", tmp_path / "run"),
        3,
        str(path),
        part,
        "speechchat models pull kokoro",
    )
    refused(speechchat("models", "check", "kokoro"), 3, str(path), part)
    rows = {row["name"]: row for row in json.loads(speechchat("models", "--json").out)}
    assert rows["kokoro"]["state"] != "present" and part in rows["kokoro"]["detail"]


@pytest.mark.parametrize("command", ["check", "pull"])
def test_an_unknown_model(speechchat: CommandLine, command: str) -> None:
    refused(speechchat("models", command, "kokro"), 3, "'kokro'", "did you mean 'kokoro'?")


# ---- bad input: the endpoint ----------------------------------------------------------------------------------------


def test_an_endpoint_that_is_down(speechchat: CommandLine, tmp_path: Path, corpus: Path) -> None:
    with llm_server() as server:
        url = server.base_url  # and nobody is there any more
    config = config_file(tmp_path / "talk.yaml", url, corpus, engine__kind="local")
    refused(speechchat("run", config, "--out", tmp_path / "run"), 3, f"writer.base_url={url} does not answer")


def test_a_key_that_is_refused_is_not_shown(
    speechchat: CommandLine, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with llm_server(key="secret") as server:
        config = config_file(tmp_path / "talk.yaml", server.base_url, corpus, engine__kind="local")
        done = speechchat("run", config, "--out", tmp_path / "run")
        refused(done, 3, "(401)", "set OPENAI_API_KEY (it is not set)")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-one")
        done = speechchat("run", config, "--out", tmp_path / "run")
        refused(done, 3, "(401)", "the key in it was refused")
        assert "sk-wrong-one" not in done.err + done.out
        assert all(b"sk-wrong-one" not in data for data in tree(tmp_path).values())


def test_a_model_that_is_not_there(speechchat: CommandLine, tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    config = config_file(tmp_path / "talk.yaml", llm.base_url, corpus, engine__kind="local", writer__model="fale")
    done = speechchat("run", config, "--out", tmp_path / "run")
    refused(done, 3, "writer.model='fale' is not at", "it offers: fake")
    # Nothing was made yet, so the mistake can be put right in the same folder.
    done = speechchat("run", config, "--out", tmp_path / "run", "--set", "writer.model=fake")
    assert done.status == 0, done.err


# ---- bad input: folders ---------------------------------------------------------------------------------------------


def test_a_folder_with_another_configuration_names_the_keys(
    speechchat: CommandLine, tmp_path: Path, talk: Path
) -> None:
    out = tmp_path / "run"
    assert speechchat("run", talk, "--out", out).status == 0
    before = tree(out)
    changes = ("--set", "audio.loudness=-20", "--set", "tts.speeds=[1.0]")
    done = speechchat("run", talk, "--out", out, *changes)
    refused(
        done,
        2,
        "audio.loudness is -23.0 there and -20.0 here",
        "tts.speeds is [1.0, 0.88] there",
        "another --out",
    )
    refused(speechchat("run", talk, "--out", out, "--set", "dialogues=2"), 2, "never shrinks")
    assert tree(out) == before


@pytest.mark.parametrize("command", ["verify", "stats", "regate"])
def test_a_folder_that_is_no_run(speechchat: CommandLine, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    more = ("--out", tmp_path / "new") if command == "regate" else ()
    refused(
        speechchat(command, tmp_path / "empty", *more),
        2,
        "holds no config.yaml",
        "speechchat run PRESET --out",
    )
    refused(speechchat(command, tmp_path / "none", *more), 2, f"{tmp_path / 'none'} is not a folder")
    refused(speechchat(command, tmp_path / "file", *more), 2, f"{tmp_path / 'file'} is not a folder")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["stream_training.py", "inspect_samples.py"])
def test_a_folder_that_is_no_run_for_the_scripts(tmp_path: Path, name: str) -> None:
    refused(python(Path("scripts") / name, tmp_path), 2, f"{tmp_path} holds no config.yaml")


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_out_is_a_file(speechchat: CommandLine, tmp_path: Path, run_folder: Path, talk: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("dear")
    refused(speechchat("run", talk, "--out", file / below), 2, f"{file} is a file; --out must name a folder")
    refused(
        speechchat("regate", run_folder, "--out", file / below),
        2,
        f"{file} is a file; --out must name a folder",
    )
    assert file.read_text() == "dear"


def test_regate_changes_only_the_judgement(speechchat: CommandLine, tmp_path: Path, run_folder: Path) -> None:
    done = speechchat("regate", run_folder, "--out", tmp_path / "new", "--set", "audio.loudness=-20")
    refused(done, 2, "regate changes only judge.*")
    done = speechchat("regate", run_folder, "--out", run_folder, "--set", "judge.limits.en.wer=0.5")
    refused(done, 2, "a folder of its own")
    done = speechchat("regate", run_folder, "--out", tmp_path / "new", "--set", "judge.limits.en.wer=9")
    assert done.status == 0 and re.search(r"accepted +4 of 4", done.out), done


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    """A run whose only shard of unit 0 lost its end; returns the shard."""
    folder = make_run(tmp_path / "cut")
    shard = folder.shard(0, "train")
    os.truncate(shard, shard.stat().st_size // 2)
    return shard


def test_a_truncated_shard(speechchat: CommandLine, tmp_path: Path, truncated: Path) -> None:
    run = tmp_path / "cut"
    done = speechchat("verify", run)
    assert done.status == 1 and done.err == ""
    problem, summary = done.out.splitlines()
    assert problem.startswith(f"{truncated}: ") and "cut short" in problem
    assert "1 problems, 0 units missing" in summary
    state = json.loads(speechchat("verify", run, "--json").out)
    assert state["problems"] == [problem] and not state["ok"]
    done = speechchat("regate", run, "--out", tmp_path / "new", "--set", "judge.limits.en.wer=0.5")
    refused(done, 1, str(truncated))
    refused(python("scripts/stream_training.py", run), 1, str(truncated), "speechchat verify")


def test_a_damaged_manifest(speechchat: CommandLine, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.manifest(1, "train").write_text('{"version": 1, "uni')
    refused(speechchat("stats", folder.root), 1, str(folder.manifest(1, "train")), "not a manifest")
    done = speechchat("verify", folder.root)
    assert done.status == 1 and str(folder.manifest(1, "train")) in done.out


def test_a_damaged_frozen_configuration(speechchat: CommandLine, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    text = folder.config.read_text()
    folder.config.write_text(text.replace("provenance:", "provenence:"))
    refused(speechchat("verify", folder.root), 2, str(folder.config), "provenance")
    folder.config.write_text(text + "\tseed: 1\n")
    refused(speechchat("stats", folder.root), 2, str(folder.config), "not valid YAML")
