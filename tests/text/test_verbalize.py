import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.verbalize import verbalize

UNTIMED = settings(deadline=None, max_examples=60)  # the first example loads tables

ENGLISH = [
    ("I've lost about $200.00 so far today.", "I've lost about two hundred dollars so far today."),
    ("who was the 37th president?", "who was the thirty-seventh president?"),
    ("1963", "nineteen sixty-three"),
    ("Born in 1905, died in 2008.", "Born in nineteen oh five, died in two thousand eight."),
    ("about 1500 people", "about one thousand five hundred people"),
    ("1,234,567 stars", "one million two hundred thirty-four thousand five hundred sixty-seven stars"),
    ("the moon is about 250,000 miles away", "the moon is about two hundred fifty thousand miles away"),
    ("3.5% of it", "three point five percent of it"),
    ("20-30%", "twenty to thirty percent"),
    ("Call 555-1234!", "Call five five five one two three four!"),
    ("£3 million", "three million pounds"),
    ("$5.50 or $1", "five dollars and fifty cents or one dollar"),
    ("at 10:30, 10:05 or 9:00", "at ten thirty, ten oh five or nine o'clock"),
    ("the '90s and the 1960s", "the nineties and the nineteen sixties"),
    ("from 1990-1995", "from nineteen ninety to nineteen ninety-five"),
    ("H2O and 007", "H two O and zero zero seven"),
    ("It is -5 degrees, or 25℃", "It is minus five degrees, or twenty-five degrees Celsius"),
    ("Dr. Smith & Mr. Jones", "Doctor Smith and Mister Jones"),
    ("fruit, e.g. apples, etc.", "fruit, for example, apples, et cetera."),
    ("What is 2+2?", "What is two plus two?"),
    ("I live in the U.S.", "I live in the U S."),
    ("it’s “great”!!!", 'it\'s "great"!'),
    ("wait... what?!", "wait, what?"),
    ("and then…", "and then."),
    ("no — not me (yet) -- ok", "no, not me, yet, ok"),
    ("hello 😀 there 👍🏽 :)", "hello there"),
    ("a\tb\n  c", "a b c"),
]
MANDARIN = [
    ("谁是美国第37届总统?", "谁是美国第三十七届总统？"),
    ("肯尼迪1963年遇刺.", "肯尼迪一九六三年遇刺。"),
    ("1963", "一九六三"),
    ("20世纪有2000人", "二十世纪有两千人"),
    ("2个苹果，第2个，2年级，2月", "两个苹果，第二个，二年级，二月"),
    ("拨打10086", "拨打一零零八六"),
    ("我有10086块", "我有一万零八十六块"),
    ("电话是13800138000", "电话是一三八零零一三八零零零"),
    ("100000000人", "一亿人"),
    ("50%，20-30%", "百分之五十，百分之二十到三十"),
    ("3.5公里", "三点五公里"),
    ("2:05见, 9:00走", "两点零五分见，九点走"),
    ("1990-1995年", "一九九零到一九九五年"),
    ("¥3.5万和$5", "三点五万元和五美元"),
    ("今天25℃", "今天二十五摄氏度"),
    ("理查德·尼克松", "理查德尼克松"),
    ("嗯……好吧……", "嗯，好吧。"),
    ("真的吗???  😀", "真的吗？"),
    ("吃喝睡 还有旅行。 你喜欢旅行吗?", "吃喝睡还有旅行。你喜欢旅行吗？"),
    ("只有逻辑 - 没有情感", "只有逻辑，没有情感"),
]


@pytest.mark.parametrize(("written", "spoken"), ENGLISH)
def test_english(written: str, spoken: str) -> None:
    assert verbalize(written, "en") == spoken


@pytest.mark.parametrize(("written", "spoken"), MANDARIN)
def test_mandarin(written: str, spoken: str) -> None:
    assert verbalize(written, "zh") == spoken


@pytest.mark.parametrize("unknown", ["2024-05-01", "v3.5.1", "24/7", "½ cup", "192.168.0.1"])
def test_what_no_rule_knows_stays(unknown: str) -> None:
    assert verbalize(unknown, "en") == unknown


def test_a_square_is_not_read_as_more_digits() -> None:
    assert "two" not in verbalize("10² m", "en")


@UNTIMED
@given(st.integers(0, 10**6), st.sampled_from(["en", "zh"]))
def test_no_digit_is_left_of_a_number(number, language) -> None:
    for written in (f"{number}", f"{number:,}", f"{number}%", f"{number}.5"):
        spoken = verbalize(written, language)
        assert spoken
        assert not any(char.isdigit() for char in spoken), (written, spoken)


@UNTIMED
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_different_numbers_sound_different(one, other) -> None:
    for language in ("en", "zh"):
        same = verbalize(f"{one:,} of them", language) == verbalize(f"{other:,} of them", language)
        assert same == (one == other)


@UNTIMED
@given(st.text(max_size=60), st.sampled_from(["en", "zh"]))
def test_any_text_is_one_clean_line(text, language) -> None:
    spoken = verbalize(text, language)
    assert spoken == spoken.strip()
    assert "\n" not in spoken and "  " not in spoken
