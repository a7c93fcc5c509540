"""What a rate does not tell: the worst stretch, content words lost or added, figures and names."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.dialogue import Language
from pipeline.text.rates import MAIN_METRIC, error_rates

EXAMPLES = settings(max_examples=60)
NAMES = ("gap", "dropped", "added", "figures")
LONG = "I would like to buy {} from the small shop that is near the old station in this town before it closes tonight"

CASES = [
    # gap, dropped, added, figures
    ("en", LONG.format("an apple"), LONG.format("an"), (5, 1, 0, 0)),
    ("en", LONG.format("an"), LONG.format("an apple"), (5, 0, 1, 0)),
    ("en", LONG.format("the"), LONG.format(""), (3, 0, 0, 0)),
    ("en", "the cat sat", "the cut sat", (1, 0, 0, 0)),
    ("en", "the cat sat", "the dog sat", (3, 1, 1, 0)),
    ("en", "I put the ice cream away", "I put the icecream away", (0, 0, 0, 0)),
    ("en", "the bigger picture", "the bigot picture", (3, 0, 0, 0)),
    ("en", "You should not open it", "You should open it", (3, 1, 0, 0)),
    ("en", "Well, um, I think so", "I think so", (4, 0, 0, 0)),
    ("en", "We close at seven", "We close at eleven", (2, 1, 1, 1)),
    ("en", "It costs three hundred and twelve dollars", "It costs $320", (2, 0, 0, 1)),
    ("en", "It costs three hundred and twelve dollars", "It costs $312.", (0, 0, 0, 0)),
    ("en", "one ticket to Rome", "a ticket to Rome", (3, 1, 0, 1)),
    ("en", "Dial five five five, one two three four", "Dial 555-1243", (2, 0, 0, 1)),
    ("en", "I met Emma and Sofia", "I met Anna and Sophia", (3, 1, 1, 1)),
    ("en", "She lives in Berlin now", "She lives in now", (6, 1, 0, 1)),
    ("en", "She lives in berlin now", "She lives in now", (6, 1, 0, 0)),
    ("en", "The show is Friday", "the show is friday", (0, 0, 0, 0)),
    ("zh", "我想买苹果和牛奶", "我想买和牛奶", (4, 2, 0, 0)),
    ("zh", "我想买和牛奶", "我想买苹果和牛奶", (4, 0, 2, 0)),
    ("zh", "这是我的书", "这是我书", (2, 0, 0, 0)),
    ("zh", "蛋糕很美味", "探高很美味", (1, 0, 0, 0)),
    ("zh", "盐很咸", "言很咸", (0, 0, 0, 0)),
    ("zh", "打开空调", "打开电视", (4, 2, 2, 0)),
    ("zh", "我用Python写", "我用写", (6, 1, 0, 0)),
    ("zh", "十四个人", "四十个人", (2, 1, 1, 1)),
    ("zh", "三个人", "13个人", (2, 0, 1, 1)),
    ("zh", "第三十七届", "第三时妻届", (0, 0, 0, 0)),
    ("zh", "三点五公斤", "三点六公斤", (2, 1, 1, 1)),
    ("zh", "一亿人", "一一人", (0, 0, 0, 1)),
    ("zh", "我们一起走", "我们一齐走", (0, 0, 0, 0)),
    ("zh", "我们一起走", "我们走", (4, 2, 0, 0)),
    ("zh", "一点五米", "五米", (4, 2, 0, 1)),
]


@pytest.mark.parametrize(("language", "said", "heard", "expected"), CASES)
def test_what_is_beside_the_rates(language, said, heard, expected) -> None:
    measured = error_rates(said, heard, language)
    assert tuple(measured[name] for name in NAMES) == expected


def test_a_word_lost_from_a_long_turn_shows_where_the_rate_does_not() -> None:
    measured = error_rates(LONG.format("an apple"), LONG.format("an"), "en")
    assert measured["wer"] < 0.05 and measured["cer"] < 0.06
    assert measured["gap"] == len("apple")


CONTENT = {
    "en": ["apple", "station", "coffee", "quickly", "garden", "window", "yellow", "remember", "between", "never"],
    "zh": list("苹果车站咖啡花园窗户颜色医生快买听懂"),
}
GRAMMAR = {"en": ["the", "a", "to", "is", "of", "and", "he"], "zh": list("的了吗吧")}
SPACE = {"en": " ", "zh": ""}


@st.composite
def sentences(draw: st.DrawFn) -> tuple[str, list[str], int]:
    """A language, the words of a sentence, and the place of a content word in it."""
    language = draw(st.sampled_from(["en", "zh"]))
    words = draw(st.lists(st.sampled_from(CONTENT[language] + GRAMMAR[language]), max_size=20))
    place = draw(st.integers(0, len(words)))
    return language, [*words[:place], draw(st.sampled_from(CONTENT[language])), *words[place:]], place


@EXAMPLES
@given(sentences())
def test_a_dropped_content_word_is_dropped_and_is_a_gap(sentence) -> None:
    language, words, place = sentence
    whole, rest = SPACE[language].join(words), SPACE[language].join(words[:place] + words[place + 1 :])
    lost, more = error_rates(whole, rest, language), error_rates(rest, whole, language)
    letters = len(words[place]) if language == "en" else 1
    assert lost["dropped"] == more["added"] == 1
    assert lost["added"] == more["dropped"] == lost["figures"] == 0
    assert lost["gap"] == more["gap"] >= letters


@EXAMPLES
@given(sentences(), st.text(max_size=20))
def test_scores_are_numbers_and_nought_for_the_same_text(sentence, noise) -> None:
    language, words, _ = sentence
    said = SPACE[language].join(words)
    for pair in ((said, noise), (noise, said), ("", noise), (noise, "")):
        scores = error_rates(*pair, language)
        assert all(math.isfinite(score) and score >= 0 and isinstance(score, float) for score in scores.values())
    assert set(error_rates(noise, noise, language).values()) == {0.0}
    assert set(error_rates(said, said, language).values()) == {0.0}


@EXAMPLES
@given(sentences(), sentences())
def test_edits_are_as_many_in_both_directions(one, other) -> None:
    language, words, _ = one
    assume(language == other[0])
    said, heard = SPACE[language].join(words), SPACE[language].join(other[1])
    there, back = error_rates(said, heard, language), error_rates(heard, said, language)
    main = MAIN_METRIC[language]
    assert there[main] * len(words) == pytest.approx(back[main] * len(other[1]))
    assert there["gap"] == 0 or back["gap"] > 0


@EXAMPLES
@given(sentences(), sentences())
def test_the_syllables_are_between_the_sounds_and_the_characters(one, other) -> None:
    assume(one[0] == other[0] == "zh")
    scores = error_rates("".join(one[1]), "".join(other[1]), "zh")
    assert scores["ser"] <= scores["tser"]
    assert scores["ser"] <= scores["mer"]
    assert (scores["per"] == 0) == (scores["ser"] == 0)


@pytest.mark.parametrize(
    ("said", "heard", "language", "more"),
    [
        ("I like green tea.", "I like like green tea.", "en", 1),
        ("I like green tea.", "I like clean tea.", "en", 0),
        ("I like green tea.", "I like tea.", "en", 0),
        ("我喜欢喝茶", "我喜欢喝喝茶", "zh", 1),
        ("我喜欢喝茶", "我喜欢喝叉", "zh", 0),
    ],
)
def test_longer_counts_what_was_said_beside_the_text(said: str, heard: str, language: Language, more: float) -> None:
    assert error_rates(said, heard, language)["longer"] == more
