import subprocess
import sys

import jiwer
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.listening_sections import SCORES
from pipeline.text.normalize import normalize
from pipeline.text.rates import MAIN_METRIC, alignment, error_rates, warm

UNTIMED = settings(deadline=None, max_examples=60)  # the first example loads tables

CASES = [
    ("en", "the cat sat", "The cat sat.", {"wer": 0, "cer": 0}),
    ("en", "the cat sat", "the cat", {"wer": 1 / 3, "cer": 3 / 9}),
    ("en", "the cat sat", "the big cat sat", {"wer": 1 / 3, "cer": 3 / 9}),
    ("en", "the cat sat", "the cut sat", {"wer": 1 / 3, "cer": 1 / 9}),
    ("en", "ice cream", "icecream", {"wer": 0, "cer": 0}),
    ("en", "The wavelength is long.", "The wave length is long.", {"wer": 0, "cer": 0}),
    ("en", "My battle bot won every day", "My battlebot won everyday", {"wer": 0, "cer": 0}),
    ("en", "see the web site", "sea the website", {"wer": 1 / 4, "cer": 1 / 13}),
    ("en", "look up the web site", "look up the web", {"wer": 1 / 5, "cer": 4 / 16}),
    ("en", "half a million", "one million", {"wer": 2 / 3}),
    ("en", "minus point one", "minus one", {"wer": 1}),
    ("zh", "五公斤", "5g", {"cer": 2 / 3}),
    ("en", "hello", "", {"wer": 1, "cer": 1}),
    ("en", "", "", {"wer": 0, "cer": 0}),
    ("en", "", "hi you", {"wer": 2, "cer": 5}),
    ("en", "no", "oh my dear me", {"wer": 4, "cer": 5}),
    ("en", "I was born in nineteen sixty-three", "I was born in 1963.", {"wer": 0, "cer": 0}),
    ("zh", "今天很好", "今天很好。", {"cer": 0, "per": 0}),
    ("zh", "盐", "言", {"cer": 1, "per": 0}),
    ("zh", "女", "驴", {"cer": 1, "per": 0.5}),
    ("zh", "今天很好", "今天好", {"cer": 0.25, "per": 0.25}),
    ("zh", "你好", "", {"cer": 1, "per": 1}),
    ("zh", "", "你好", {"cer": 2, "per": 4}),
    ("zh", "一九六三年", "1963年", {"cer": 0, "per": 0}),
    ("zh", "一千九百六十三年", "1963年", {"cer": 0, "per": 0}),
    ("zh", "我有一万零八十六块", "我有10086块", {"cer": 0, "per": 0}),
    ("zh", "请拨一零零八六", "请拨10086", {"cer": 0, "per": 0}),
    ("zh", "两百人，二百人", "200人200人", {"cer": 0, "per": 0}),
    ("zh", "十点半", "10:30", {"cer": 0, "per": 0}),
    ("zh", "十点三十", "10:30", {"cer": 0, "per": 0}),
    ("zh", "三个人", "13个人", {"cer": 1 / 3, "per": 2 / 6}),
    # Han characters and Latin words are one token each, and a Latin letter is a sound.
    ("zh", "我用Python写程序", "我用Pylon写程序", {"mer": 1 / 6, "ser": 1 / 6, "per": 2 / 16}),
    ("zh", "用machine learning", "用machine leaning", {"mer": 1 / 3, "per": 1 / 17}),
    ("zh", "打开Wi-Fi", "打开 wi fi", {"cer": 0, "mer": 0, "ser": 0, "per": 0}),
    ("zh", "看GPS", "看 G P S", {"cer": 0, "mer": 0}),
    ("zh", "machine learning", "MachineLearning", {"mer": 0}),
    # Homophones: with their tones, without.
    ("zh", "买东西", "卖东西", {"cer": 1 / 3, "ser": 0, "tser": 1 / 3, "per": 0}),
    ("zh", "盐的化学式", "烟的化学式", {"ser": 0, "tser": 1 / 5}),
    ("zh", "他在做作业", "它在作作业", {"ser": 0, "tser": 0}),
    ("zh", "是", "是是", {"ser": 1, "tser": 1, "per": 1}),
    # Sandhi of 不, 一 and the third tone, and the neutral tone.
    ("zh", "不对", "步对", {"cer": 0.5, "ser": 0, "tser": 0}),
    ("zh", "一个", "移个", {"tser": 0}),
    ("zh", "你好", "泥好", {"tser": 0}),
    ("zh", "你看", "泥看", {"tser": 0.5}),
    ("zh", "跑得快", "跑德快", {"tser": 0}),
    # Heteronyms: as the text has them; a character that is never read so is wrong.
    ("zh", "银行", "银航", {"ser": 0}),
    ("zh", "航", "行", {"ser": 0, "tser": 0, "per": 0}),
    ("zh", "型", "行", {"ser": 0, "tser": 0}),
    ("zh", "常", "长", {"ser": 0}),
    ("zh", "汤", "长", {"ser": 1}),
    ("zh", "长大", "常大", {"ser": 0.5}),
]


@pytest.mark.parametrize(("language", "reference", "hypothesis", "rates"), CASES)
def test_rates(language, reference, hypothesis, rates) -> None:
    measured = error_rates(reference, hypothesis, language)
    assert {name: measured[name] for name in rates} == pytest.approx(rates)


def test_a_rate_is_measured_for_each_name_of_the_language() -> None:
    beside = {"gap", "dropped", "added", "figures", "longer"}
    assert set(error_rates("one", "two", "en")) == {"wer", "cer"} | beside
    assert set(error_rates("一", "二", "zh")) == {"cer", "mer", "ser", "tser", "per"} | beside
    assert {"wer", "cer", "mer", "ser", "tser", "per"} | beside <= set(SCORES)


# What a recogniser writes is often not what the text had: other forms of the same speech.
WRITTEN_OTHERWISE = [
    ("en", "March fifth, twenty twenty-four", "March 5, 2024"),
    ("en", "March fifth, twenty twenty-four", "march 5th 2024"),
    ("en", "at three thirty P M", "at 3:30pm."),
    ("en", "at three thirty P M", "At 3.30 p.m."),
    ("en", "five kilometers per hour", "5 kilometres per hour"),
    ("en", "five kilometers per hour", "5 km/h"),
    ("en", "two and a half hours", "2.5 hours"),
    ("en", "Python three point eleven", "Python 3.11"),
    ("en", "Room three zero two", "Room 302"),
    ("en", "minus five degrees Celsius", "-5 degrees Celsius"),
    ("en", "five million dollars", "$5 million"),
    ("en", "one two three, four five six, seven eight nine zero", "123-456-7890"),
    ("en", "nineteen sixties", "1960s"),
    ("en", "twenty to thirty percent", "20 to 30%"),
    ("zh", "二零二四年三月五日", "2024年3月5日"),
    ("zh", "二零二四年三月五日", "2024-03-05"),
    ("zh", "百分之二十到三十", "20%-30%"),
    ("zh", "每小时十公里", "每小时10公里"),
    ("zh", "三比二", "3比2"),
    ("zh", "下午两点半", "下午2:30"),
    ("zh", "下午三点三十分", "下午3点30分"),
    ("zh", "幺三八零零一三八零零零", "13800138000"),
    ("zh", "十六GB内存", "16gb内存"),
    ("zh", "十的平方", "10²"),
    ("zh", "负五摄氏度", "-5℃"),
    ("zh", "三零二房间", "302房間"),
    ("zh", "一百零一国道", "101国道"),
    ("en", "a hundred people", "100 people"),
    ("en", "a hundred people", "A 100 people."),
    ("en", "a million dollars", "$1 million"),
    ("en", "it's fifty-fifty", "It's 50-50."),
    ("en", "twenty-twenty vision", "20-20 vision"),
    ("en", "Oh! Three people came.", "Oh three people came."),
    ("zh", "三万两千块", "32000块"),
    ("zh", "三万两千块", "3万2千块"),
    ("zh", "两千两百", "2200"),
    ("zh", "二千二百", "2200"),
    ("zh", "一万两千", "12000"),
    ("zh", "两万五", "25000"),
    ("zh", "三千五", "3500"),
    ("zh", "三千五百", "3500"),
    ("zh", "一百五十个", "150个"),
    ("zh", "五公斤", "5kg"),
    ("zh", "五千克", "5kg"),
    ("zh", "二十五度", "25℃"),
]
HEARD_OTHERWISE = [
    ("en", "ninety-nine people", "a hundred people"),
    ("en", "Oh! Three people came.", "Thirty people came."),
    ("zh", "两万五", "20500"),
    ("zh", "三千五", "3005"),
    ("zh", "十二万", "102000"),
]


@pytest.mark.parametrize(("language", "spoken", "heard"), WRITTEN_OTHERWISE)
def test_other_ways_to_write_what_was_said(language, spoken, heard) -> None:
    assert set(error_rates(spoken, heard, language).values()) == {0.0}


@pytest.mark.parametrize(("language", "spoken", "heard"), HEARD_OTHERWISE)
def test_other_numbers_are_other_numbers(language, spoken, heard) -> None:
    scores = error_rates(spoken, heard, language)
    assert scores[MAIN_METRIC[language]] > 0 and scores["figures"] > 0


def test_a_yes_in_sounds_is_no_no_however_long_the_turn() -> None:
    rest = "I would like to see the house by the sea before we all go back to town on Sunday."
    scores = error_rates(f"Mm-hmm, {rest}", f"Uh-uh, {rest}", "en")
    assert (scores["dropped"], scores["added"]) == (1, 1)
    assert error_rates("Mm-hmm.", "", "en")["wer"] == 1


COMPOUNDS = st.sampled_from(["sun light", "web site", "every day", "never the less", "tea", "is", "old", "5"])


@UNTIMED
@given(st.lists(st.tuples(COMPOUNDS, st.booleans(), st.booleans()), max_size=8, unique_by=lambda word: word[0]))
def test_the_bounds_of_words_cost_nothing(words) -> None:
    one, other = (" ".join(word[0].replace(" ", "") if word[side] else word[0] for word in words) for side in (1, 2))
    assert set(error_rates(one, other, "en").values()) == {0.0}
    assert "".join(part for op, part, _ in alignment(one, other, "en") if op != "equal") == ""


def test_the_main_metric_is_among_the_rates() -> None:
    for language in ("en", "zh"):
        assert MAIN_METRIC[language] in error_rates("a", "b", language)


def test_alignment_marks_words() -> None:
    assert alignment("The cat sat down.", "the cut sat right down", "en") == [
        ("equal", "the", "the"),
        ("substitute", "cat", "cut"),
        ("equal", "sat", "sat"),
        ("insert", "", "right"),
        ("equal", "down", "down"),
    ]


def test_alignment_marks_characters_in_the_reading_that_counts() -> None:
    assert alignment("一九六三年很好", "1963年好", "zh") == [
        ("equal", "一九六三年", "一九六三年"),
        ("delete", "很", ""),
        ("equal", "好", "好"),
    ]


def test_alignment_of_nothing() -> None:
    assert alignment("", "", "en") == []
    assert alignment("!", "hi you", "en") == [("insert", "", "hi you")]
    assert alignment("你好", "", "zh") == [("delete", "你好", "")]


TEXT = {
    "en": st.lists(
        st.sampled_from(["the", "cat", "1963", "ten", "$5", "don't", "(no)", "AI", "hello", "10:30", "."]), max_size=8
    ).map(" ".join),
    "zh": st.text(alphabet="今天很好盐言12年3点两%，。A", max_size=12),
}
PAIRS = st.sampled_from(["en", "zh"]).flatmap(lambda name: st.tuples(st.just(name), TEXT[name], TEXT[name]))


@UNTIMED
@given(PAIRS)
def test_rates_are_a_distance_from_the_reference(pair) -> None:
    language, one, other = pair
    assert set(error_rates(one, one, language).values()) == {0.0}
    assert all(rate >= 0 for rate in error_rates(one, other, language).values())


@UNTIMED
@given(PAIRS)
def test_rates_are_what_jiwer_counts(pair) -> None:
    language, one, other = pair
    said, heard = normalize(one, language), alignment(one, other, language)
    assume(said)
    heard = (" " if language == "en" else "").join(part for _, _, part in heard if part)
    measured = error_rates(one, other, language)
    count = jiwer.wer if language == "en" else jiwer.cer
    assert measured[MAIN_METRIC[language]] == pytest.approx(count(said, heard))


@UNTIMED
@given(PAIRS)
def test_alignment_rebuilds_both_sides_and_counts_the_edits(pair) -> None:
    language, one, other = pair
    space = " " if language == "en" else ""
    runs = alignment(one, other, language)
    said = [part for run in runs for part in (run[1].split() if space else run[1])]
    heard = [part for run in runs for part in (run[2].split() if space else run[2])]
    edits = sum(max(len(left.split() if space else left), len(right.split() if space else right))
                for op, left, right in runs if op != "equal")  # fmt: skip
    assert alignment(space.join(said), space.join(heard), language) == runs
    assert edits / max(1, len(said)) == pytest.approx(error_rates(one, other, language)[MAIN_METRIC[language]])


def test_importing_loads_no_table_and_warming_loads_it() -> None:
    code = (
        "import sys; from pipeline.text import checks, rates, verbalize\n"
        "heavy = {'inflect', 'cn2an', 'opencc', 'pypinyin', 'rapidfuzz', 'jiwer', 'whisper_normalizer', 'jieba'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "rates.warm('zh'); rates.warm('en')\n"
        "assert {'opencc', 'pypinyin', 'rapidfuzz', 'whisper_normalizer', 'cn2an'} <= set(sys.modules)\n"
        "assert 'jieba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_warming_twice_is_allowed() -> None:
    warm("zh")
    warm("zh")
    assert error_rates("一", "1", "zh")["cer"] == 0
