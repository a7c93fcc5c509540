"""What was paid for is not paid again, and what was edited by hand is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.stages.write import read_text
from tests.fakes import tree as files
from tests.stages.desk import GOOD, Desk, always

# ---- what was paid for ----------------------------------------------------------------------------------------------


def test_what_is_published_is_not_asked_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))
    first = desk.run()
    before = files(tmp_path / "run")
    assert desk.run(always("Something else altogether, my dear.")) == first
    assert desk.writer.asked == [] and files(tmp_path / "run") == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.75, 0.99, 1.0])
def test_replies_that_were_cut_anywhere_are_taken_up(tmp_path: Path, share: float) -> None:
    desk = Desk(tmp_path, always(GOOD))
    desk.run()
    final, paid = desk.folder.text(0).read_bytes(), desk.journal.read_bytes()
    desk.folder.text(0).unlink()
    cut = paid[: int(len(paid) * share)]
    desk.journal.write_bytes(cut)
    desk.run(always(GOOD))
    assert len(desk.writer.asked) == 4 - cut.count(b"\n")
    assert desk.folder.text(0).read_bytes() == final
    assert sorted(json.loads(line)["key"] for line in desk.journal.read_text().splitlines()) == sorted(
        json.loads(line)["key"] for line in paid.splitlines()
    )


def test_another_run_takes_the_replies_of_an_earlier_one(tmp_path: Path) -> None:
    first = Desk(tmp_path / "first", always(GOOD))
    lines = first.run()
    again = Desk(tmp_path / "again", always("Never asked for."), writer={"reuse": tmp_path / "first" / "run"})
    assert [line.dialogue for line in again.run()] == [line.dialogue for line in lines]
    assert again.writer.asked == []
    other = Desk(tmp_path / "other", always(GOOD), seed=7, writer={"reuse": tmp_path / "first" / "run"})
    other.run()
    assert len(other.writer.asked) == 4


def test_the_order_in_which_replies_come_changes_no_byte(tmp_path: Path) -> None:
    outputs = []
    for number, concurrency in enumerate((1, 16)):
        desk = Desk(tmp_path / str(number), lambda prompt, before: GOOD, writer={"concurrency": concurrency})
        desk.run()
        outputs.append(desk.folder.text(0).read_bytes())
    assert outputs[0] == outputs[1]


# ---- texts that were edited by hand ---------------------------------------------------------------------------------


def test_an_edited_text_is_read_and_a_broken_one_is_named_by_line_and_field(tmp_path: Path) -> None:
    desk = Desk(tmp_path, always(GOOD))
    desk.run()
    path = desk.folder.text(0)
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    records[1]["dialogue"]["turns"][1] |= {"spoken": "By all means.", "written": "By all means.", "author": "human"}
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    dialogue = read_text(desk.folder, desk.unit)[1].dialogue
    assert dialogue is not None and dialogue.turns[1].spoken == "By all means."
    path.write_text("\ufeff" + "\n\n".join(json.dumps(record) for record in records) + "\n", "utf-8")
    assert len(read_text(desk.folder, desk.unit)) == 4
    plan = records[0]["plan"]
    path.write_text("".join(json.dumps(item) + "\n" for item in [{**records[0], "dialogue": None}, *records[1:]]))
    by_hand = read_text(desk.folder, desk.unit)[0].reject
    assert by_hand is not None and (by_hand.id, by_hand.stage, by_hand.reason) == (plan["id"], "filter", "by hand")
    turns = records[0]["dialogue"]["turns"]
    for bad, message in (
        ([turns[1], turns[0]], "must alternate"),
        (turns[:1], "must alternate"),
        ([], "must alternate"),
    ):
        broken = {**records[0], "dialogue": {**records[0]["dialogue"], "turns": bad}}
        path.write_text("".join(json.dumps(item) + "\n" for item in [broken, *records[1:]]))
        with pytest.raises(DataError, match=rf"line 1: dialogue: turns {message}"):
            read_text(desk.folder, desk.unit)
    del records[2]["dialogue"]["turns"][0]["spoken"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    with pytest.raises(DataError, match=r"unit-000000\.jsonl: line 3: dialogue\.turns\.0\.spoken: Field required"):
        read_text(desk.folder, desk.unit)
    path.write_text("".join(json.dumps(record) + "\n" for record in records[:2]), "utf-8")
    with pytest.raises(DataError, match="a line each, in the order of ids"):
        read_text(desk.folder, desk.unit)
