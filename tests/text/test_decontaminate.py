"""Benchmark questions are found in turns, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dialogue import Language
from pipeline.errors import ConfigError
from pipeline.text import decontaminate
from pipeline.text.decontaminate import SHORTEST, Benchmarks, Overlap
from pipeline.text.ngrams import UnitHasher, has_han, split_units

WIDTH: dict[Language, int] = {"en": 8, "zh": 13}
EN = "A train leaves the old station at noon and arrives in the city three hours later."
ZH = "小明有十二个苹果，他给了小红五个，还剩下几个苹果？"


def find(benchmarks: Benchmarks, *dialogues: Sequence[str]) -> dict[int, Overlap]:
    turns = UnitHasher().hash([split_units(turn) for turns in dialogues for turn in turns])
    return benchmarks.find(turns, [len(turns) for turns in dialogues])


def questions(folder: Path, *lines: str, name: str = "exam.txt") -> Path:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("turn", "shared"),
    [
        ("Well, THE OLD STATION at noon -- and arrives, in: no", "the old station at noon and arrives in"),
        (EN, "a train leaves the old station at noon"),
        ("他说：小明有十二个苹果，他给了小红一些。", "小明有十二个苹果他给了小红"),
        ("今天 the old station at noon and arrives in 下雨", "the old station at noon and arrives in"),
        ("What is your name", "what is your name"),
        ("什么是爱情？", "什么是爱情"),
    ],
)
def test_contaminated_turns_are_found(tmp_path: Path, turn: str, shared: str) -> None:
    benchmarks = Benchmarks([questions(tmp_path, EN, ZH, "What is your name?", "什么是爱情")], WIDTH)
    found = find(benchmarks, ("Hello there my friend.", turn))
    assert list(found) == [0] and found[0].turn == 1
    units = split_units(turn)[found[0].start : found[0].end]
    assert units == split_units(shared)


@pytest.mark.parametrize(
    "turns",
    [
        ("the old station at noon and arrives",),  # seven words
        ("the old station at noon", "and arrives in the city"),  # over two turns
        ("他说小明有十二个苹果他给了小",),  # twelve characters
        ("So what is your name?",),  # a short question, but not the whole turn
        ("What is your",),
        ("Go on.",),  # too short a question to be looked for
        ("好吗？",),
        ("The internationalization of it",),
        ("",),
    ],
)
def test_other_turns_are_not(tmp_path: Path, turns: tuple[str, ...]) -> None:
    lines = (EN, ZH, "What is your name?", "Go on.", "好吗", "什么是 internationalization 呢")
    assert find(Benchmarks([questions(tmp_path, *lines)], WIDTH), turns) == {}


def test_the_overlap_of_the_configuration_counts(tmp_path: Path) -> None:
    path = questions(tmp_path, EN)
    turn = "it arrives in the city today"
    assert find(Benchmarks([path], {"en": 5, "zh": 13}), (turn,)) == {}
    assert find(Benchmarks([path], {"en": 4, "zh": 13}), (turn,))[0].start == 1


def test_every_dialogue_of_a_batch_is_told_apart(tmp_path: Path) -> None:
    one = questions(tmp_path, "nothing of note is asked here", EN, name="one.txt")
    two = questions(tmp_path, ZH, name="two.txt")
    clean = ("Do you like tea?", "Yes, I do.")
    found = find(Benchmarks([one, two], WIDTH), clean, (*clean, f"So: {EN}"), clean, (ZH, EN), clean)
    assert found == {
        1: Overlap(turn=2, start=1, end=9, file=one, row=2),
        3: Overlap(turn=0, start=0, end=13, file=two, row=1),
    }


def test_rows_are_counted_over_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decontaminate, "_CHUNK", 3)
    files = [
        questions(tmp_path, *(f"question number {file} {row}" for row in range(5)), name=f"{file}.txt")
        for file in range(3)
    ]
    benchmarks = Benchmarks(files, WIDTH)
    for file in range(3):
        for row in range(5):
            overlap = find(benchmarks, (f"Question number {file} {row}?",))[0]
            assert (overlap.file, overlap.row) == (files[file], row + 1)


@pytest.mark.parametrize("field", decontaminate.FIELDS)
def test_tables_of_questions_are_read(tmp_path: Path, field: str) -> None:
    rows = [{"id": 1, field: "Nothing of note is asked here"}, {"id": 2, field: ZH}]
    data = tmp_path / "exam.jsonl"
    data.write_text("\n\n".join(json.dumps(row) for row in rows), "utf-8")
    assert find(Benchmarks([data], WIDTH), (ZH,))[0].row == 3  # of the lines of the file
    table = tmp_path / "exam.CSV"
    table.write_text(f'\ufeffid,{field}\n1,"Nothing of\nnote, is asked here"\n2,{ZH}\n', "utf-8")
    assert find(Benchmarks([table], WIDTH), (ZH,))[0].row == 2
    assert find(Benchmarks([table], WIDTH), ("nothing of note is asked here",))[0].row == 1


@pytest.mark.parametrize(
    ("name", "data", "say"),
    [
        ("gone.txt", None, "no such file"),
        ("empty.txt", b"", "holds no question"),
        ("blank.txt", b"\n \n", "holds no question"),
        ("short.txt", b"Why?\n", "holds no question of at least 4 words"),
        ("empty.csv", b"question\n", "holds no question"),
        ("other.csv", b"id,answer\n1,A\n", "row 1 has no text in any of the fields question"),
        ("other.jsonl", b'{"question": "What is the capital of France?"}\n{"answer": "A"}\n', "row 2 has no text"),
        ("list.jsonl", b'["What is the capital of France?"]\n', "row 1 has no text"),
        ("null.jsonl", b'{"question": null}\n', "row 1 has no text"),
        ("broken.jsonl", b'{"question": \n', "line 1 is not JSON"),
        ("deep.jsonl", b'{"question": ' + b"[" * 100_000, "not readable: maximum recursion depth"),
        ("list.jsonl", b'{"question": [["What is it?"]]}\n', "row 1 has no text in any of the fields"),
        ("latin.txt", "Où est la gare de Lyon ?\n".encode("latin-1"), "not readable"),
        ("exam.pdf", b"%PDF", "must end in .txt"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes | None, say: str) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        Benchmarks([questions(tmp_path, EN, name="good.txt"), path], WIDTH)
    line = str(error.value)
    assert line.startswith("dedup.benchmarks: ") and str(path) in line and say in line and "\n" not in line


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ConfigError, match=r"dedup\.benchmarks: .*folder\.txt: not readable"):
        Benchmarks([tmp_path / "folder.txt"], WIDTH)


def test_state_is_bounded(tmp_path: Path) -> None:
    """Bytes for each n-gram, whatever the words are."""
    lines = [" ".join(f"antidisestablishmentarianism{row}x{place}" for place in range(40)) for row in range(200)]
    benchmarks = Benchmarks([questions(tmp_path, *lines)], WIDTH)
    assert 12 * 33 * 200 <= benchmarks.nbytes <= 44 * 33 * 200


_TEXT = st.lists(st.sampled_from(["tea", "milk", "rain", "茶", "水", "你"]), max_size=9).map(" ".join)


def naive(asked: Sequence[str], turn: str, width: dict[Language, int]) -> bool:
    """Whether a turn is contaminated, by comparing it with every question."""
    said = split_units(turn)
    for question in asked:
        language: Language = "zh" if has_han(question) else "en"
        units = split_units(question)
        if len(units) < SHORTEST[language]:
            continue
        size = width[language]
        if len(units) < size:
            if said == units:
                return True
            continue
        grams = [units[start : start + size] for start in range(len(units) - size + 1)]
        if any(said[start : start + size] in grams for start in range(len(said) - size + 1)):
            return True
    return False


@given(st.lists(_TEXT, min_size=1, max_size=4), st.lists(_TEXT, min_size=1, max_size=5), st.integers(4, 7))
@settings(max_examples=100, deadline=None)
def test_it_finds_what_comparing_all_with_all_finds(
    tmp_path_factory: pytest.TempPathFactory, asked: list[str], turns: list[str], size: int
) -> None:
    width: dict[Language, int] = {"en": size, "zh": size + 1}
    path = questions(tmp_path_factory.mktemp("q"), "never asked in any of these", *asked)
    found = find(Benchmarks([path], width), *[(turn,) for turn in turns])
    assert set(found) == {place for place, turn in enumerate(turns) if naive(asked, turn, width)}
