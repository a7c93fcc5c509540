"""The first rows of the sources, and what the rules say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.sources import preview
from tests.sources.data import alpaca, config, write
from tests.sources.test_rows import LONG, everything, source


def test_the_preview_shows_rows_as_the_selection_sees_them(tmp_path: Path) -> None:
    rows = [alpaca(1)[0], {"task": "x"}, "{", {"instruction": LONG, "output": "Yes."}, *alpaca(1, 1), *alpaca(9)]
    path = write(tmp_path / "rows.jsonl", rows)
    shown = list(preview(config(path), 5))
    assert [row.fault and row.fault.split(":")[0].split(";")[0] for row in shown] == [
        None,
        "no field 'instruction'",
        "not JSON",
        "too long",
        "other language",
    ]
    assert [row.language for row in shown] == ["en", None, None, "en", "zh"]
    assert shown[0].row == source(path, max_broken=1).next("en") and shown[0].source == "web"
    assert shown[1].row is None and shown[1].raw == '{"task": "x"}' and shown[2].raw == "{"
    assert all(len(row.raw) <= 300 and "\n" not in row.raw for row in shown)


@pytest.mark.parametrize(("kind", "mode"), [("dialogues", "whole"), ("conversations", "none")])
def test_the_preview_says_what_the_last_rules_will_say_of_what_is_spoken_as_it_is(
    tmp_path: Path, kind: str, mode: str
) -> None:
    talks = [
        ["How do I reach you?", "Write to jane dot doe at example dot com."],
        ["Where do we meet tomorrow?", "Sure."],
        ["I like the green tea very much.", "I will kill you tonight."],
        ["Was möchten Sie heute zum Frühstück essen?", "Nothing."],
    ]
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant"), talk, strict=True)]}
        for talk in talks
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    assert [row.fault for row in preview(config(path, kind=kind, mode=mode, language="en"), 9)] == [
        "filter: personal",
        None,
        "filter: unsafe",
        "filter: language",
    ]
    # What the LLM writes anew is not judged by what it was before.
    for more in ({"mode": "whole"}, {"mode": "none", "rewrite": True}):
        shown = preview(config(path, kind="conversations", language="en", **more), 9)
        assert not [row.fault for row in shown if row.fault and row.fault.startswith("filter")]


def test_what_is_no_utf_8_is_broken_and_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'instruction,output\nDo you like the caf\xe9?,Yes.\nDo you like bread?,"Yes, I like it."\n')
    web = source(path, max_broken=0.5)
    assert len(everything(web)) == 1
    assert web.counts().first_broken == ("rows.csv#1: 'instruction' is not valid Unicode",)
    [broken, whole] = preview(config(path), 9)
    assert "caf?" in broken.raw and broken.fault and whole.fault is None
    write(path.with_suffix(".jsonl"), ['{"caf\\udce9": 1}', *alpaca(3)])
    web = source(path.with_suffix(".jsonl"), max_broken=0.5)
    assert web.next("en") is not None
    assert web.counts().model_dump_json() and "it has: caf?" in web.counts().first_broken[0]


def test_the_preview_of_the_corpus_and_of_topics() -> None:
    mixed = Config(
        sources={"talks": {"kind": "chatterbot", "topics": {"en": ["ai"], "zh": ["ai"]}}, "plan": {"kind": "topics"}},
        text={"converse": {"mode": "whole"}},
    )
    shown = list(preview(mixed, 3))
    assert [(row.source, row.language) for row in shown] == [
        (name, language) for name in ("plan", "talks") for language in ("en", "zh") for _ in range(3)
    ]
    assert all(row.row and row.raw for row in shown)
    assert {(row.source, row.language) for row in shown if row.fault is None} == {
        (name, language) for name in ("plan", "talks") for language in ("en", "zh")
    }
