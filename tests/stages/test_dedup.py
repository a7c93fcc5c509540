"""The barrier: which dialogues of a run are dropped, what is published of it, and when nothing is done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.dialogue import Reject
from pipeline.errors import ConfigError, DataError
from pipeline.stages.dedup import read_verdicts
from tests.stages.barrier import apply, dropped, files, make_config, near, place, unlike, write_exam, write_run


def test_the_lowest_id_wins(tmp_path: Path) -> None:
    config, text = make_config(), unlike("a")
    folder = write_run(tmp_path, config, {1: text, 2: near(text), 6: text.upper() + "!", 11: near(text)})
    assert apply(config, folder) == [(1, 3), (2, 3), (3, 3)]
    found = dropped(folder)
    assert {key: reason for key, (reason, _) in found.items()} == {
        place(2): "near duplicate",
        place(6): "duplicate",
        place(11): "near duplicate",
    }
    assert found[place(6)][1] == f"like {place(1)}, similarity 1.00"
    assert found[place(2)][1].startswith(f"like {place(1)}, similarity 0.")


def test_a_file_of_verdicts_says_what_it_judged(tmp_path: Path) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {0: "How are you today?", 5: "How are you today?"})
    apply(config, folder)
    assert len(files(folder)) == 3
    head, *lines = folder.verdicts(1).read_text().splitlines()
    assert json.loads(head)["text_sha256"] == hashlib.sha256(folder.text(1).read_bytes()).hexdigest()
    assert [Reject.model_validate_json(line) for line in lines] == list(read_verdicts(folder, 1).values())
    assert Reject.model_validate_json(lines[0]).stage == "dedup"
    assert read_verdicts(folder, 0) == {}
    assert not (folder.logs / "dedup").exists()


def test_what_was_rejected_before_counts_for_nothing(tmp_path: Path) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {0: None, 1: None, 2: None, 3: None, 4: None, 7: unlike("a"), 8: unlike("a")})
    apply(config, folder)
    assert set(dropped(folder)) == {place(8)}


def test_it_can_be_off_for_one_of_the_two(tmp_path: Path) -> None:
    exam = tmp_path / "exam.txt"
    exam.write_text("How many legs do three horses and four hens have together?\n")
    asked = "Tell me, how many legs do three horses and four hens have"
    texts = {0: unlike("a"), 1: unlike("a"), 2: asked, 6: asked}
    only_exam = make_config(enabled=False, benchmarks=(exam,))
    folder = write_run(tmp_path / "exam", only_exam, texts)
    apply(only_exam, folder)
    assert {key: reason for key, (reason, _) in dropped(folder).items()} == dict.fromkeys(
        (place(2), place(6)), "contaminated"
    )
    both = make_config(benchmarks=(exam,))
    folder = write_run(tmp_path / "both", both, texts)
    apply(both, folder)
    found = dropped(folder)
    assert found.pop(place(1))[0] == "duplicate"
    assert {reason for reason, _ in found.values()} == {"contaminated"} and set(found) == {place(2), place(6)}
    assert found[place(2)][1] == "turn 0 shares 'how many legs do three horses and four' with exam.txt, row 1"


def test_what_is_contaminated_drops_nobody(tmp_path: Path) -> None:
    exam, asked, like = write_exam(tmp_path)
    config = make_config(benchmarks=(exam,))
    folder = write_run(tmp_path / "run", config, {1: asked, 6: like, 9: like})
    apply(config, folder)
    assert {key: reason for key, (reason, _) in dropped(folder).items()} == {
        place(1): "contaminated",
        place(9): "duplicate",
    }


def test_what_an_earlier_run_kept_counts_even_if_it_is_contaminated(tmp_path: Path) -> None:
    exam, asked, like = write_exam(tmp_path)
    old = write_run(tmp_path / "old", make_config(1), {1: asked})
    config = make_config(1, benchmarks=(exam,), against=(old.root,))
    folder = write_run(tmp_path / "new", config, {2: like}, "new")
    apply(config, folder)
    assert dropped(folder)[place(2)][1].startswith(f"like {place(1)} of old, ")


def test_earlier_runs_come_first(tmp_path: Path) -> None:
    old_config = make_config(2)
    old = write_run(tmp_path / "old", old_config, {3: unlike("a"), 4: near(unlike("a")), 5: unlike("c")})
    apply(old_config, old)
    config = make_config(against=(old.root,))
    texts = {0: unlike("n"), 2: unlike("a"), 7: near(unlike("c")), 9: unlike("n")}
    folder = write_run(tmp_path / "new", config, texts, "new")
    apply(config, folder)
    found = dropped(folder)
    assert found.pop(place(9)) == ("duplicate", f"like {place(0)}, similarity 1.00")
    assert found.pop(place(2)) == ("duplicate", f"like {place(3)} of old, similarity 1.00")
    assert found.pop(place(7))[1].startswith(f"like {place(5)} of old, similarity 0.")
    assert found == {}


def test_what_an_earlier_run_dropped_drops_nobody(tmp_path: Path) -> None:
    exam = tmp_path / "exam.txt"
    exam.write_text(unlike("a") + "\n")
    old_config = make_config(1, benchmarks=(exam,))
    old = write_run(tmp_path / "old", old_config, {0: unlike("a")})
    apply(old_config, old)
    assert set(dropped(old)) == {place(0)}
    config = make_config(1, against=(old.root,))
    folder = write_run(tmp_path / "new", config, {1: unlike("a"), 3: unlike(place(1))}, "new")
    apply(config, folder)
    assert dropped(folder) == {place(3): ("duplicate", f"like {place(1)} of old, similarity 1.00")}


def test_a_unit_without_text_is_passed_over(tmp_path: Path) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {0: unlike("a"), 8: unlike("a")})
    folder.text(1).unlink()
    apply(config, folder)
    assert set(files(folder)) == {"unit-000000.jsonl", "unit-000002.jsonl"} and set(dropped(folder)) == {place(8)}
    with pytest.raises(DataError, match=r"unit-000001\.jsonl: missing, .* run the same command again"):
        read_verdicts(folder, 1)


def test_the_order_of_lines_means_nothing(tmp_path: Path) -> None:
    """A text that was edited by hand may have its lines in another order."""
    config = make_config(1)
    folder = write_run(tmp_path, config, {1: unlike("a"), 3: unlike("a")})
    lines = folder.text(0).read_bytes().splitlines(keepends=True)
    folder.text(0).write_bytes(b"".join(reversed(lines)))
    apply(config, folder)
    assert set(dropped(folder)) == {place(3)}


def test_a_copy_beside_a_text_of_an_earlier_run_is_no_text(tmp_path: Path) -> None:
    """Who edits by hand may keep what was there before."""
    old = write_run(tmp_path / "old", make_config(1), {1: unlike("a")})
    folder = write_run(tmp_path / "new", config := make_config(1, against=(old.root,)), {2: unlike("a")}, "new")
    stray = old.text(0).with_name("unit-000000.bak.jsonl")
    stray.write_text("as it was before\n")
    apply(config, folder)
    assert set(dropped(folder)) == {place(2)}
    old.text(0).unlink()
    with pytest.raises(ConfigError, match=r"^dedup\.against: .*old holds no dialogues/"):
        apply(config, folder)


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    config = make_config(2)
    folder = write_run(tmp_path, config, {1: unlike("a"), 3: unlike("a"), 6: unlike("a")})
    for unit, edit in ((0, b"\xef\xbb\xbf%s\n"), (1, b"\xef\xbb\xbf\n  \r\n%s\n\n")):
        text = folder.text(unit).read_bytes()
        folder.text(unit).write_bytes(edit % text.replace(b"\n", b"\r\n\n"))
    apply(config, folder)
    assert set(dropped(folder)) == {place(3), place(6)}
    head = json.loads(folder.verdicts(1).read_text().splitlines()[0])
    assert head["text_sha256"] == hashlib.sha256(folder.text(1).read_bytes()).hexdigest()
