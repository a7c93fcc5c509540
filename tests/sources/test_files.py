"""Readers: the same rows from every kind of file, from any place in the middle, and a broken row is one row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.sources.files import FileRecords, RawRow, Records
from pipeline.sources.hub import HubRecords
from tests.sources.data import alpaca, write

KINDS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".csv", ".csv.zst", ".parquet")


def open_(path: Path) -> FileRecords:
    return FileRecords(path, "sources.web.data")


def again(records: Records, stop: int) -> list[RawRow]:
    """The rows behind the first `stop`, by a reading that goes on where another stood."""
    reading = records.read()
    for _ in range(stop):
        next(reading)
    return list(records.read(json.loads(json.dumps(reading.position))))


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        list(open_(path).read())
    message = str(caught.value)
    assert message.startswith("sources.web.data: ") and "\n" not in message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows_from_any_place(tmp_path: Path, kind: str) -> None:
    rows = [
        {**row, "note": "a “quoted”, cell\nof two lines" if place % 3 else ""}
        for place, row in enumerate(alpaca(30, 3))
    ]
    records = open_(write(tmp_path / f"rows{kind}", rows))
    read = list(records.read())
    assert [row.value for row in read] == rows
    assert [row.number for row in read] == list(range(1, 31)) and {row.place for row in read} == {f"rows{kind}"}
    for stop in (0, 1, 7, 8, 29, 30):
        assert again(records, stop) == read[stop:]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.text(max_size=40) | st.integers() | st.none()), max_size=12
    ),
    kind=st.sampled_from([".jsonl", ".json"]),
    stop=st.integers(0, 12),
)
def test_any_text_survives(tmp_path: Path, rows: list[dict[str, Any]], kind: str, stop: int) -> None:
    rows = [
        row
        for row in rows
        if json.dumps(row, ensure_ascii=False).encode(errors="ignore").decode() == json.dumps(row, ensure_ascii=False)
    ]
    records = open_(write(tmp_path / f"rows{kind}", rows))
    read = list(records.read())
    assert [row.value for row in read] == rows
    assert again(records, min(stop, len(rows))) == read[stop:]


def test_a_long_array_is_read_over_many_chunks(tmp_path: Path) -> None:
    rows: list[Any] = [{"text": "长" * 90_000}, 12345, "x" * 200_000, {"text": '\\" ] } ,'}, [1, [2]]]
    records = open_(write(tmp_path / "rows.json", rows))
    assert [row.value for row in records.read()] == rows
    assert [row.value for row in again(records, 2)] == rows[2:]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    rows = alpaca(20)
    write(tmp_path / "set" / "b.csv", rows[12:])
    write(tmp_path / "set" / "a" / "2.parquet", rows[5:12])
    write(tmp_path / "set" / "a" / "1.jsonl.gz", rows[:5])
    (tmp_path / "set" / "README.md").write_text("not a row")
    (tmp_path / "set" / ".hidden.jsonl").write_text("{}")
    records = open_(tmp_path / "set")
    read = list(records.read())
    assert [row.value for row in read] == rows
    assert [(row.place, row.number) for row in read[4:6]] == [("a/1.jsonl.gz", 5), ("a/2.parquet", 1)]
    for stop in (4, 5, 6, 12, 20):
        assert again(records, stop) == read[stop:]


def test_a_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", alpaca(4))
    assert [row.value for row in open_(path.rename(tmp_path / "rows.json")).read()] == alpaca(4)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    for kind in (".jsonl", ".json", ".csv"):
        path = write(tmp_path / f"rows{kind}", alpaca(3))
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert [row.value for row in open_(path).read()] == alpaca(3)


def test_a_broken_line_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n{"a": "caf\xe9"}\n' + b"[" * 100_000 + b'\n{"a": 2}\n{"a"')
    rows = list(open_(path).read())
    assert [(row.number, row.value) for row in rows if not row.fault] == [(1, {"a": 1}), (6, {"a": 2})]
    assert [row.number for row in rows if row.fault] == [3, 4, 5, 7]
    assert rows[1].value == '{"a":' and rows[2].value == '{"a": "caf\ufffd"}' and len(rows[3].value) < 1000
    assert [row.fault.split(":")[0] for row in rows if row.fault] == [
        "not JSON",
        "not JSON",
        "JSON that is nested too deep",
        "not JSON",
    ]


def test_a_broken_line_of_csv_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'q,a\none,two\nonly\nthree,four,five\n"six, x",\n"' + b"y" * 200_000 + b"\nseven,eight\n")
    rows = list(open_(path).read())
    assert [row.value for row in rows if not row.fault] == [
        {"q": "one", "a": "two"},
        {"q": "six, x", "a": ""},
        {"q": "seven", "a": "eight"},
    ]
    assert [row.fault for row in rows if row.fault][:2] == ["1 fields under 2 names", "3 fields under 2 names"]
    assert rows[4].fault.startswith("not CSV: field larger than field limit") and rows[5].number == 6


@pytest.mark.parametrize("kind", [".jsonl.gz", ".jsonl.zst", ".parquet", ".json"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"rows{kind}", [{"text": f"{number * 7919 % 10007:x}"} for number in range(3000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path}: " in refused(path)


def test_what_is_not_what_its_ending_says_is_named(tmp_path: Path) -> None:
    for kind in (".parquet", ".jsonl.gz", ".jsonl.zst"):
        path = tmp_path / f"rows{kind}"
        path.write_bytes(b"this is plain text, whatever its name says")
        assert f"{path}: " in refused(path)
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, {"a": 2}, {"a": tree}, {"a": 3}]')
    assert f"{path}: damaged or not what its ending says: row 3 is no JSON" in refused(path)


def test_an_unknown_ending_names_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"x")
    assert "unknown ending '.xlsx': .jsonl, .json, .csv, .parquet" in refused(path)
    (tmp_path / "empty").mkdir()
    assert "holds no file that ends so: .jsonl" in refused(tmp_path / "empty")


def test_the_digest_is_of_names_sizes_and_ends(tmp_path: Path) -> None:
    rows = alpaca(2000)
    one = write(tmp_path / "one" / "rows.jsonl", rows)
    same = write(tmp_path / "other" / "rows.jsonl", rows)
    assert open_(one).digest == open_(same).digest == open_(one.parent).digest
    digests = {open_(one).digest, open_(write(tmp_path / "rows2.jsonl", rows)).digest}
    for changed in ([*rows[:-1], {**rows[-1], "output": "Yes, I like it a LOT."}], rows[:-1], rows[1:]):
        digests.add(open_(write(same, changed)).digest)
    assert len(digests) == 5
    assert gzip.decompress(write(tmp_path / "rows.jsonl.gz", rows).read_bytes()) == one.read_bytes()


def test_what_datasets_streams_is_resumed_exactly(tmp_path: Path) -> None:
    """A local folder stands in for the hub: `datasets` reads both through the same streams."""
    rows = alpaca(25)
    write(tmp_path / "set" / "train-1.parquet", rows[:15])
    write(tmp_path / "set" / "train-2.parquet", rows[15:])
    source = SourceConfig(kind="instructions", data=str(tmp_path / "set"), license="MIT")
    records = HubRecords(source, "sources.web.data")
    read = list(records.read())
    assert [row.value for row in read] == rows and [row.number for row in read] == list(range(1, 26))
    for stop in (3, 15, 25):
        assert again(records, stop) == read[stop:]


def test_a_row_that_cannot_be_streamed_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train-1.jsonl", alpaca(5))
    write(tmp_path / "set" / "train-2.jsonl", ["{"])
    reading = HubRecords(SourceConfig(kind="instructions", data=str(tmp_path / "set"), license="MIT"), "k").read()
    assert [next(reading).value for _ in range(5)] == alpaca(5)
    with pytest.raises(ConfigError, match=r"^k: .*: row 6 cannot be read: .*run the same command again, or download"):
        next(reading)


def test_the_digest_of_a_hub_data_set_is_of_what_names_it() -> None:
    base = {"kind": "instructions", "data": "somebody/questions", "license": "MIT"}
    changes: list[dict[str, str]] = [
        {},
        {"subset": "zh"},
        {"split": "test"},
        {"revision": "v2"},
        {"data": "somebody/else"},
    ]
    assert len({HubRecords(SourceConfig(**{**base, **change}), "k").digest for change in changes}) == 5


def test_a_split_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", alpaca(3))
    source = SourceConfig(kind="instructions", data=str(tmp_path / "set"), split="tset", license="MIT")
    with pytest.raises(ConfigError, match=r"^sources\.web\.data: .*tset.*correct the name, subset, split or revision"):
        HubRecords(source, "sources.web.data").read()
