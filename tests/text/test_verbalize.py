"""What is said for what is written. The tables beside this file are the conventions, a row each: written, spoken, kind,
source.

Sources: "NeMo x" is NVIDIA/NeMo-text-processing, tests/nemo_text_processing/LANGUAGE/data_text_normalization/
test_cases_x.txt, and "WeText x" wenet-e2e/WeTextProcessing, tn/LANGUAGE/test/data/x.txt or tn/LANGUAGE/data/x (both
Apache-2.0). From these the figure and what is said for it are taken, at times within a few words of our own; the
spelling is ours: hyphens (twenty-one), "minus", 0 as "zero", no "and" in cardinals but before cents, A M and P M as
letters, 一 and not 幺 in telephone numbers. NIST SP 811 gives the names of units, GB/T 15835-2011 the written form,
"CMOS Q&A Numbers" (the Chicago Manual of Style Online) how days and decimals are said. "house" is a convention of ours.
"""

import csv
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.rates import error_rates
from pipeline.text.verbalize import verbalize

UNTIMED = settings(deadline=None, max_examples=60)  # the first example loads tables


def _rows(language: str) -> list[tuple[str, str, str, str, str]]:
    table = Path(__file__).with_name(f"verbalize.{language}.tsv")
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        assert next(rows) == ["written", "spoken", "kind", "source"]
        return [(language, *row) for row in rows]  # type: ignore[misc]


TABLE = [*_rows("en"), *_rows("zh")]
KINDS = {"cardinal", "ordinal", "decimal", "fraction", "percent", "money", "date", "year", "time", "range", "unit"} | {
    "score", "phone", "digits", "version", "roman", "math", "mixed", "unknown"}  # fmt: skip
# Signs, emoticons and pauses, which the tables of figures do not hold.
DECORATION = [
    ("en", "it’s “great”!!!", 'it\'s "great"!'),
    ("en", "wait... what?!", "wait, what?"),
    ("en", "and then…", "and then."),
    ("en", "no — not me (yet) -- ok", "no, not me, yet, ok"),
    ("en", "hello 😀 there 👍🏽 :)", "hello there"),
    ("en", "a\tb\n  c", "a b c"),
    ("en", "well, so,", "well, so"),
    ("en", "hi  there", "hi there"),
    ("zh", "真的吗???  😀", "真的吗？"),
    ("zh", "吃喝睡 还有旅行。 你喜欢旅行吗?", "吃喝睡还有旅行。你喜欢旅行吗？"),
    ("zh", "只有逻辑 - 没有情感", "只有逻辑，没有情感"),
    ("zh", "好，", "好"),
    ("zh", "你好,世界.", "你好，世界。"),
]
# What a line would have to be told apart from: it holds no figure, sign or short form, and stays as it is.
PLAIN = [
    ("en", "I am fine, and you?"),
    ("en", "Mix it. Stay in the car, may I? It's well-known; yes: no!"),
    ("en", "Do you like the part I like?"),
    ("zh", "你好，我是机器人。《红楼梦》很好看！"),
    ("zh", "一百二十三个人，二〇〇八年。"),
]


@pytest.mark.parametrize(("language", "written", "spoken", "kind", "source"), TABLE)
def test_the_table(language, written, spoken, kind, source) -> None:
    assert verbalize(written, language) == spoken


@pytest.mark.parametrize(("language", "written", "spoken", "kind", "source"), TABLE)
def test_a_recogniser_may_write_either_form(language, written, spoken, kind, source) -> None:
    assert set(error_rates(spoken, written, language).values()) == {0.0}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_is_wide(language) -> None:
    rows = [row for row in TABLE if row[0] == language]
    assert len(rows) >= 200
    assert {row[3] for row in rows} >= KINDS
    assert all(all(row) for row in rows)
    assert len({row[1] for row in rows}) == len(rows)
    known = [row for row in rows if row[3] != "unknown"]
    assert not [row for row in known if any(char.isdigit() for char in row[2])]


@pytest.mark.parametrize(("language", "written", "spoken"), DECORATION)
def test_decoration(language, written, spoken) -> None:
    assert verbalize(written, language) == spoken


@pytest.mark.parametrize(("language", "text"), PLAIN)
def test_plain_text_stays(language, text) -> None:
    assert verbalize(text, language) == text


@pytest.mark.parametrize(("language", "written", "spoken", "kind", "source"), TABLE)
def test_what_is_spoken_is_not_read_again(language, written, spoken, kind, source) -> None:
    assert verbalize(spoken, language) == spoken


def test_a_square_is_not_read_as_more_digits() -> None:
    assert verbalize("10² m", "en") == "ten squared m"
    assert verbalize("10²", "zh") == "十的平方"


@pytest.mark.parametrize("code", ["<b>bold</b>", "a == b", "x -> y", "`ls`", "me@example.org", "https://example.org"])
def test_markup_and_code_stay_to_be_found(code) -> None:
    assert verbalize(code, "en") == code


@pytest.mark.parametrize(
    ("one", "other"),
    [("3/5/2024", "25/5/2024"), ("5.3.2024", "3.5.2024"), ("10:30", "10-30"), ("May 5", "5 May"), ("$5", "£5")],
)
def test_forms_that_look_alike_are_told_apart(one, other) -> None:
    assert verbalize(one, "en") != verbalize(other, "en")


@UNTIMED
@given(st.integers(0, 10**6), st.sampled_from(["en", "zh"]))
def test_no_digit_is_left_of_a_number(number, language) -> None:
    for written in (
        f"{number}",
        f"{number:,}",
        f"{number}%",
        f"{number}.5",
        f"${number}",
        f"{number} km",
        f"{number} °C",
    ):
        spoken = verbalize(written, language)
        assert spoken
        assert not any(char.isdigit() for char in spoken), (written, spoken)


@UNTIMED
@given(st.dates(date(1000, 1, 1), date(2999, 12, 31)), st.times(), st.sampled_from(["en", "zh"]))
def test_any_date_and_time_is_read_and_understood(day, time, language) -> None:
    written = f"{day:%Y-%m-%d}, {time:%H:%M}"
    spoken = verbalize(written, language)
    assert not any(char.isdigit() for char in spoken), (written, spoken)
    assert set(error_rates(spoken, written, language).values()) == {0.0}


@UNTIMED
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_different_numbers_sound_different(one, other) -> None:
    for language in ("en", "zh"):
        same = verbalize(f"{one:,} of them", language) == verbalize(f"{other:,} of them", language)
        assert same == (one == other)


NOISE = st.text(
    alphabet=st.sampled_from("0123456789 .,:/-–~%$¥€°²³½+×÷=<>≥√()第年月日点章个IVXkmhapM'\"#&"), max_size=24
)


@UNTIMED
@given(st.one_of(st.text(max_size=60), NOISE), st.sampled_from(["en", "zh"]))
def test_any_text_is_one_clean_line(text, language) -> None:
    spoken = verbalize(text, language)
    assert spoken == spoken.strip()
    assert "\n" not in spoken and "  " not in spoken
