"""`speechchat text`: the report on a run, the preview of sources, and what they refuse."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import CommandLine, refused

TALKS = [
    {"messages": ["Good morning, did you sleep well?", "I did, the rain helped me a lot."]},
    {"messages": ["What do you like to read at night?", "Mostly novels about the sea."]},
    {"messages": ["Please call me on 212-736-5000 tonight.", "Of course, I will do that."]},
    {"messages": ["Where is the old bridge, please?", "Right behind the church, my friend."]},
    {"messages": ["Say [bold]it[/bold] for me.", "No."]},  # cannot be spoken: it is passed over
    {"messages": ["Where is the old bridge, please?", "Right behind the church, my friend."]},
]


def talk_file(path: Path, talks: list[Any]) -> Path:
    rows = []
    for talk in talks:
        if isinstance(talk, dict) and "messages" in talk:
            roles = ("user", "assistant")
            said = [{"role": roles[place % 2], "content": line} for place, line in enumerate(talk["messages"])]
            talk = {**talk, "messages": said}
        rows.append(talk if isinstance(talk, str) else json.dumps(talk))
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def config_file(path: Path, **source: Any) -> Path:
    """A configuration that asks no LLM and has no model."""
    talks = {"kind": "conversations", "license": "CC0-1.0", **source}
    data = {
        "dialogues": 6,
        "unit_size": 3,
        "languages": {"en": 1},
        "sources": {"talks": {key: str(value) if key == "data" else value for key, value in talks.items()}},
        "text": {"converse": {"mode": "none"}},
        "dedup": {"enabled": True},
        "tts": {"engines": {"kokoro": {"kind": "tests.fakes:build_tts"}}},
        "asr": {"engine": "tests.fakes:build_asr"},
        "quality": {"engine": "none"},
        "engine": {"kind": "local"},
    }
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def written(tmp_path: Path, speechchat: CommandLine) -> Path:
    """A run whose text is written: of six dialogues one is personal, one a duplicate, and one has no row."""
    config = config_file(tmp_path / "talks.yaml", data=talk_file(tmp_path / "talks.jsonl", TALKS))
    done = speechchat("run", config, "--out", tmp_path / "run", "--until", "write")
    assert done.status == 0, done.err
    assert f"speechchat text {tmp_path / 'run'}" in done.out
    return tmp_path / "run"


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_report(speechchat: CommandLine, written: Path) -> None:
    done = speechchat("text", written)
    assert done.status == 0 and done.err == ""
    for line in (
        r"6 of 6 planned dialogues are written",
        r"3 of them are kept \(50%\)",
        r"talks +6 +5 +5 +1 markup",
        r"source +6 +5 +83% +1 exhausted",
        r"filter +5 +4 +80% +1 personal",
        r"dedup +4 +3 +75% +1 duplicate",
        r"en user +3 +6\.7 +8 +60 +words",
        r"turns by author +6 source",
        r"en-000001-01 dedup: duplicate",
    ):
        assert re.search(line, done.out), line
    assert "paid" not in done.out  # nobody was
    picture = written / "logs" / "text.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and f"histograms: {picture}" in done.out
    assert speechchat("text", "report", written) == done


def test_the_report_for_machines(speechchat: CommandLine, written: Path) -> None:
    done = speechchat("text", written, "--json")
    report = json.loads(done.out)
    assert done.status == 0 and done.err == f"histograms: {written / 'logs' / 'text.png'}\n"
    assert (report["planned"], report["written"], report["kept"], report["compared"]) == (6, 6, 3, 4)
    steps = report["steps"]
    assert [step["step"] for step in steps] == ["source", "converse", "filter", "dedup"]
    for step, after in zip(steps, [*(step["entered"] for step in steps[1:]), report["kept"]], strict=True):
        assert step["entered"] - sum(step["dropped"].values()) == step["kept"] == after
    [english] = report["languages"].values()
    assert english["turns"] == {"2": 3} and sum(english["lengths"]["user"].values()) == 3
    assert report["account"]["total"]["requests"] == 0
    # All that is kept and all that is not, with reasons; for one there was no row, so nothing to read.
    assert {item["reason"] for item in report["rejects"]} == {"personal", "duplicate"}
    assert len(report["survivors"]) == 3 and all(item["turns"] for item in report["survivors"])


def test_fewer_excerpts_and_no_picture(
    speechchat: CommandLine, written: Path, without_matplotlib: None, tmp_path: Path
) -> None:
    done = speechchat("text", written, "--no-png", "--excerpts", 1)
    assert done.status == 0 and "1 random survivors" in done.out and "1 random rejects" in done.out
    assert "histograms" not in done.out and not (written / "logs" / "text.png").exists()
    assert "random" not in speechchat("text", written, "--no-png", "--excerpts", 0).out
    done = speechchat("text", written)
    assert done.status == 0 and "no histograms" in done.err and "speechchat[inspect]" in done.err
    refused(speechchat("text", written, "--png", tmp_path / "a.png"), 2, "matplotlib", "speechchat[inspect]")


def test_a_mistyped_command_is_no_run(speechchat: CommandLine) -> None:
    done = speechchat("text", "preveiw", "quickstart")
    assert done.status == 2 and "No such command 'preveiw'" in done.err and "preview" in done.err
    refused(speechchat("text", "runs/nowhere"), 2, "runs/nowhere is not a folder")


def test_the_picture_goes_where_it_is_told(speechchat: CommandLine, written: Path, tmp_path: Path) -> None:
    assert speechchat("text", written, "--png", tmp_path / "new" / "a.png").status == 0
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    refused(speechchat("text", written, "--png", tmp_path / "a.gif"), 2, "a.gif", ".png")
    refused(speechchat("text", written, "--png", written / "config.yaml" / "a.png"), 2, "config.yaml is a file")


def test_text_that_was_edited_by_hand_is_read(speechchat: CommandLine, written: Path) -> None:
    path = written / "dialogues" / "000" / "unit-000000.jsonl"
    text = path.read_text("utf-8")
    path.write_text(text.replace("Mostly novels about the sea.", "Mostly poems."), "utf-8")
    assert "assistant: Mostly poems." in speechchat("text", written, "--no-png").out
    path.write_text(text.replace('"turns":', '"turn":'), "utf-8")
    refused(speechchat("text", written, "--no-png"), 1, str(path), "line 1", "dialogue.turn")


def test_a_run_that_has_no_text_yet(speechchat: CommandLine, written: Path) -> None:
    for path in (written / "dialogues" / "000").glob("*.jsonl"):
        path.unlink()
    done = speechchat("text", written)
    assert done.status == 0 and "0 of 6 planned dialogues are written" in done.out and "histograms" not in done.out


# ---- what is refused -------------------------------------------------------------------------------------------------

Words = Callable[[Path], tuple[object, ...]]
REFUSED: dict[str, tuple[Words, int, tuple[str, ...]]] = {
    "no such run": (lambda root: ("text", root / "nowhere"), 2, ("nowhere",)),
    "no run": (lambda root: ("text", root), 2, ("is no run",)),
    "no run for machines": (lambda root: ("text", root, "--json"), 2, ("is no run",)),
    "a file": (lambda root: ("text", config_file(root / "a.yaml", data=root)), 2, ("a.yaml",)),
    "a preset that is none": (lambda root: ("text", "preview", "quikstart"), 2, ("did you mean 'quickstart'?",)),
    "a file that is none": (
        lambda root: ("text", "preview", config_file(root / "a.yaml", data=root / "gone.jsonl")),
        2,
        ("sources.talks.data", "gone.jsonl", "there is no such file"),
    ),
    "an unknown key": (
        lambda root: ("text", "preview", "quickstart", "--set", "text.max_unit=3"),
        2,
        ("did you mean 'text.max_units'?",),
    ),
    "an unknown stop": (
        lambda root: ("run", "quickstart", "--out", root / "out", "--until", "nonsense"),
        2,
        ("--until 'nonsense'", "`write`"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_one_line(speechchat: CommandLine, tmp_path: Path, name: str) -> None:
    words, status, parts = REFUSED[name]
    done = speechchat(*words(tmp_path))
    refused(done, status, *parts)
    assert done.out == "" and not (tmp_path / "out").exists()


def test_a_limit_below_one_is_refused(speechchat: CommandLine) -> None:
    done = speechchat("text", "preview", "quickstart", "--limit", 0)
    assert done.status == 2 and "--limit" in done.err and done.out == ""


# ---- the preview -----------------------------------------------------------------------------------------------------


def heads(out: str) -> list[str]:
    """The lines that are not indented: one a row, and the sums."""
    return [line for line in out.splitlines() if not line.startswith(" ")]


def test_the_preview_of_a_preset(speechchat: CommandLine) -> None:
    done = speechchat("text", "preview", "quickstart", "--limit", 3)
    assert done.status == 0 and done.err == ""
    *rows, sums = heads(done.out)
    assert [row.split()[1] for row in rows] == ["en"] * 3 + ["zh"] * 3
    assert [row.split()[2].partition("#")[2] for row in rows] == ["0:", "1:", "2:"] * 2
    assert sum(int(count) for count in re.findall(r"\d+", sums)) == 6
    assert "    user: Good morning, how are you?\n    assistant: I am doing well" in done.out


def test_the_preview_names_what_is_wrong_with_a_row(speechchat: CommandLine, tmp_path: Path) -> None:
    talks = [TALKS[0], '{"messages": [{"role": "user"', TALKS[4], '{"messages": "nobody"}']
    data = talk_file(tmp_path / "talks.jsonl", talks)
    done = speechchat("text", "preview", config_file(tmp_path / "a.yaml", data=data))
    assert done.status == 0
    first, broken, unfit, shapeless, sums = heads(done.out)
    assert first == "talks en talks.jsonl#1: selected" and unfit.endswith(": not selected: markup")
    assert broken.startswith("talks: broken: ") and shapeless.startswith("talks: broken: ")
    assert '    {"messages": [{"role": "user"\n' in done.out and "user: Say [bold]it[/bold] for me." in done.out
    assert sorted(sums.split(", ")) == ["1 markup", "1 selected", "2 broken"]


def test_the_preview_shows_how_fields_are_mapped(speechchat: CommandLine, tmp_path: Path) -> None:
    rows = [
        {"data": {"ask": "Where is the old bridge?"}, "key": "b-7"},
        {"data": {"ask": "Draw a chart, see data.csv"}},
    ]
    path = talk_file(tmp_path / "asked.jsonl", rows)
    fields = {"question": "data.ask", "id": "key"}
    config = config_file(tmp_path / "a.yaml", kind="questions", data=path, fields=fields)
    done = speechchat("text", "preview", config, "--set", "text.converse.mode=whole")
    mapped, unfit, sums = heads(done.out)
    assert mapped == "talks en asked.jsonl#b-7: selected" and "    user: Where is the old bridge?\n" in done.out
    assert unfit.endswith(": not selected: attachment") and sums == "1 selected, 1 attachment"
    refused(
        speechchat("text", "preview", config, "--set", "sources.talks.fields.questoin=x"), 2, "questoin", "'question'"
    )


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No command writes where it was called from."""
    empty = tmp_path / "cwd"
    empty.mkdir()
    monkeypatch.chdir(empty)
    yield
    assert list(empty.iterdir()) == []
