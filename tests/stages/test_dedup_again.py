"""The barrier met again: after a crash, an edit, more dialogues or damage, and when nothing is done."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import ConfigError, DataError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.dedup import check_barrier, read_verdicts
from tests.stages.barrier import (
    apply,
    dropped,
    files,
    finish,
    make_config,
    near,
    place,
    unlike,
    write_exam,
    write_run,
    write_unit,
)


def test_a_finished_barrier_is_left_alone(tmp_path: Path) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {0: unlike("a"), 5: unlike("a")})
    apply(config, folder)
    before = {path: path.stat().st_ino for path in (tmp_path / "dedup").rglob("*.jsonl")}
    assert apply(config, folder) == []
    assert {path: path.stat().st_ino for path in (tmp_path / "dedup").rglob("*.jsonl")} == before


def test_more_dialogues_change_no_earlier_verdict(tmp_path: Path) -> None:
    texts = {1: unlike("a"), 6: unlike("a"), 9: unlike("b"), 14: near(unlike("b")), 17: unlike("a")}
    short, long = make_config(2), make_config(5)
    folder = write_run(tmp_path / "grown", short, texts)
    apply(short, folder)
    before = files(folder)
    write_run(tmp_path / "grown", long, texts)
    apply(long, folder)
    once = write_run(tmp_path / "once", long, texts)
    apply(long, once)
    after = files(folder)
    assert after == files(once) and before.items() <= after.items() and len(after) == 5
    assert set(dropped(folder)) == {place(6), place(14), place(17)}


def _crowd(seed: int, count: int) -> dict[int, str]:
    """Texts by number: copies of copies of one text, with or without a change."""
    chance = random.Random(seed)
    texts = [unlike(seed)]
    while len(texts) < count:
        words = chance.choice(texts).split()
        for _ in range(chance.choice([0, 0, 1, 1])):
            words[chance.randrange(60)] = f"w{chance.randrange(400)}"
        texts.append(" ".join(words))
    return dict(enumerate(texts))


@pytest.mark.parametrize("seed", [0, 1, 12])  # crowds in which what was dropped matters to later ones
def test_a_run_that_grows_while_it_is_spoken_says_what_one_of_its_full_length_does(tmp_path: Path, seed: int) -> None:
    texts, exam = _crowd(seed, 4 * 50), tmp_path / "exam.txt"
    exam.write_text(" ".join(texts[7].split()[20:28]) + "\n")  # a part of the crowd is contaminated
    long = make_config(50, benchmarks=(exam,))
    once = write_run(tmp_path / "once", long, texts)
    apply(long, once)
    for units, spoken in ((25, range(25)), (36, range(25, 31)), (50, ())):
        config = make_config(units, benchmarks=(exam,))
        folder = write_run(tmp_path / "grown", config, texts)
        apply(config, folder)
        for unit in spoken:
            finish(folder, unit)
    assert files(folder) == files(once)
    assert {reason for reason, _ in dropped(folder).values()} == {"contaminated", "duplicate", "near duplicate"}


def test_an_earlier_run_that_moved_is_the_same_and_one_that_changed_is_not(tmp_path: Path) -> None:
    old = write_run(tmp_path / "here" / "old", make_config(1), {1: unlike("a")})
    config = make_config(1, against=(old.root,))
    folder = write_run(tmp_path / "new", config, {2: unlike("a")}, "new")
    apply(config, folder)
    assert set(dropped(folder)) == {place(2)}
    moved = RunFolder((tmp_path / "here").rename(tmp_path / "there") / "old")
    config = make_config(1, against=(moved.root,))
    assert apply(config, folder) == []
    write_unit(moved, next(plan_units(make_config(1))), {})
    assert apply(config, folder) == [(1, 1)] and dropped(folder) == {}
    assert apply(make_config(1), folder) == [(1, 1)], "without it, it is another judgement"


def test_an_edited_text_is_judged_again(tmp_path: Path) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {0: unlike("a"), 5: unlike("a")})
    apply(config, folder)
    units = list(plan_units(config))
    write_unit(folder, units[0], {place(0): unlike("edited")})
    with pytest.raises(DataError, match=r"unit-000000\.jsonl: belongs to another text .* run the same command again"):
        read_verdicts(folder, 0)
    apply(config, folder)
    assert dropped(folder) == {} and len(files(folder)) == 3
    write_unit(folder, units[2], {place(8): unlike("edited")})
    apply(config, folder)
    assert set(dropped(folder)) == {place(8)}


def test_a_verdict_made_from_a_text_since_changed_is_found(tmp_path: Path) -> None:
    """As a crash leaves it: unit 1 was judged after unit 0 had been edited, then unit 0 was put back."""
    config = make_config()
    folder = write_run(tmp_path, config, {0: unlike("a"), 5: unlike("a")})
    apply(config, folder)
    right = files(folder)
    write_unit(folder, next(plan_units(config)), {place(0): unlike("edited")})
    apply(config, folder)
    write_run(tmp_path, config, {0: unlike("a"), 5: unlike("a")})
    folder.verdicts(0).write_bytes(right["unit-000000.jsonl"])
    assert read_verdicts(folder, 1) == {}
    apply(config, folder)
    assert files(folder) == right


def test_what_is_spoken_keeps_its_verdict_and_counts(tmp_path: Path) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {1: unlike("a"), 5: unlike("a"), 6: unlike("b")})
    apply(config, folder)
    finish(folder, 1)
    verdict = folder.verdicts(1).read_bytes()
    # Unit 0 no longer says what 5 was dropped for, and says what 6 says; unit 2 says both.
    units = list(plan_units(config))
    write_unit(folder, units[0], {place(2): unlike("b")})
    write_unit(folder, units[2], {place(8): unlike("a"), place(9): unlike("b")})
    apply(config, folder)
    assert folder.verdicts(1).read_bytes() == verdict
    assert set(dropped(folder)) == {place(5), place(9)}
    assert apply(config, folder) == []


def test_a_run_that_is_all_spoken_needs_nothing(tmp_path: Path) -> None:
    exam = tmp_path / "exam.txt"
    exam.write_text(unlike("q") + "\n")
    config = make_config(benchmarks=(exam,))
    folder = write_run(tmp_path / "run", config, {})
    apply(config, folder)
    for unit in range(3):
        finish(folder, unit)
    exam.unlink()
    assert apply(config, folder) == []


def test_other_questions_and_limits_judge_again(tmp_path: Path) -> None:
    exam, asked, _ = write_exam(tmp_path)
    config = make_config(benchmarks=(exam,))
    folder = write_run(tmp_path / "run", config, {1: asked, 2: unlike("a"), 3: near(unlike("a"))})
    apply(config, folder)
    assert set(dropped(folder)) == {place(1), place(3)}
    exam.write_text("What is the capital of France?\n")
    apply(config, folder)
    assert set(dropped(folder)) == {place(3)}
    apply(make_config(benchmarks=(exam,), similarity=0.99), folder)
    assert dropped(folder) == {}


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edited(line: bytes) -> bytes:
        row = json.loads(line)
        change(row)
        return json.dumps(row).encode()

    return edited


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:40],
        lambda line: b"[]",
        lambda line: b"\xff\xfe" + line,
        _edit(lambda row: row.pop("plan")),
        _edit(lambda row: row["plan"].update(language="fr")),
        _edit(lambda row: row["plan"].update(id="en-" + "0" * 40)),
        _edit(lambda row: row["dialogue"]["turns"][1].update(spoken=None)),
    ],
)
def test_a_damaged_text_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    config = make_config()
    folder = write_run(tmp_path, config, {})
    lines = folder.text(1).read_bytes().splitlines()
    lines[2] = damage(lines[2])
    folder.text(1).write_bytes(b"\n".join(lines))
    with pytest.raises(DataError) as error:
        apply(config, folder)
    assert str(error.value).startswith(f"{folder.text(1)}: line 3 is not the text of a dialogue")
    assert "run the same command again" in str(error.value) and "\n" not in str(error.value)
    assert not (folder.logs / "dedup").exists() and files(folder) == {}


@pytest.mark.parametrize("data", [b"", b"{}\n", b'{"text_sha256":"0","dedup":"0","before":""}\n{"id"'])
def test_a_damaged_verdict_is_named(tmp_path: Path, data: bytes) -> None:
    config = make_config(1)
    folder = write_run(tmp_path, config, {})
    publish(folder.verdicts(0), data)
    with pytest.raises(DataError, match=r"dedup/000/unit-000000\.jsonl: not a file of verdicts; remove it"):
        read_verdicts(folder, 0)
    apply(config, folder)
    assert read_verdicts(folder, 0) == {}


def _refused(tmp_path: Path) -> Sequence[tuple[Config, str]]:
    (tmp_path / "empty").mkdir()
    return (
        (make_config(1, against=(tmp_path / "run",)), "is this very run"),
        (make_config(1, against=(tmp_path / "empty",)), "holds no dialogues/"),
        (make_config(1, against=(tmp_path / "gone",)), "holds no dialogues/"),
        (make_config(1, benchmarks=(tmp_path / "gone.txt",)), "no such file"),
    )


def test_a_bad_configuration_is_refused_before_and_at_the_barrier(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", make_config(1), {})
    for config, say in _refused(tmp_path):
        for call in (lambda config=config: check_barrier(config, folder), lambda config=config: apply(config, folder)):
            with pytest.raises(ConfigError, match=rf"^dedup\.(against|benchmarks): .*{say}"):
                call()
    check_barrier(make_config(1), folder)
    assert files(folder) == {}


def test_what_a_killed_driver_left_is_removed(tmp_path: Path) -> None:
    config = make_config(1)
    folder = write_run(tmp_path, config, {0: unlike("a"), 1: unlike("a")})
    left = folder.logs / "dedup"
    left.mkdir(parents=True)
    for name in ("signatures", "exact", "ids", "contaminated"):
        (left / name).write_bytes(b"left behind")
    apply(config, folder)
    assert set(dropped(folder)) == {place(1)} and not left.exists()
