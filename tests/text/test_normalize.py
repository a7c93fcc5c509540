from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.text.normalize import normalize
from pipeline.text.verbalize import verbalize

UNTIMED = settings(deadline=None, max_examples=60)  # the first example loads tables

# Two ways to write what was said; normalised they are one.
SAME = [
    ("en", "Nineteen sixty-three.", "1963"),
    ("en", "two hundred dollars", "$200"),
    ("en", "five dollars and fifty cents", "$5.50"),
    ("en", "ten oh five", "10:05"),
    ("en", "nine o'clock", "9:00"),
    ("en", "in surgery, et cetera", "in surgery, etc."),
    ("en", "Good morning, Miz Lee", "Good morning, Ms. Lee"),
    ("en", "zero zero seven", "007"),
    ("en", "five five five one two three four", "555-1234"),
    ("en", "minus five", "-5"),
    ("en", "ten to fifteen", "10-15"),
    ("en", "I don't know, it's my colour", "i do not know it is my color"),
    ("en", "A I is O K", "A.I. is okay"),
    ("en", "Doctor Smith (yes)", "Dr. Smith, yes"),
    ("zh", "盐的化学式是什么？", "鹽的化學式 是什麼"),
    ("zh", "一九六三年", "１９６３年"),
    ("zh", "两个", "2個"),
    ("zh", "百分之三点五", "3.5%"),
    ("zh", "二零零八", "二〇〇八"),
    ("zh", "你好，PYTHON！", "妳好python"),
]
DIFFERENT = [
    ("en", "fifteen", "fifty"),
    ("en", "I can", "I can't"),
    ("zh", "十四", "四十"),
    ("zh", "盐", "言"),
]


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_same(language, one, other) -> None:
    assert normalize(one, language) == normalize(other, language) != ""


@pytest.mark.parametrize(("language", "one", "other"), DIFFERENT)
def test_different(language, one, other) -> None:
    assert normalize(one, language) != normalize(other, language)


@UNTIMED
@given(st.integers(0, 10**6))
def test_a_number_said_is_the_number_in_figures(number) -> None:
    for language in ("en", "zh"):
        written = f"{number:,}"
        assert normalize(verbalize(written, language), language) == normalize(written, language)


WORDS = [
    "I",
    "you",
    "don't",
    "it's",
    "the",
    "Colour",
    "Dr.",
    "one",
    "twenty-one",
    "hundred",
    "and",
    "third",
    "AI",
    "yes!",
]


@UNTIMED
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_english_is_idempotent_on_words(words) -> None:
    # Said twice in a row ("hundred and and one") a word is no number, until the first pass has put it together.
    assume(all(word != after for word, after in pairwise(words)))
    once = normalize(" ".join(words), "en")
    assert normalize(once, "en") == once


@UNTIMED
@given(st.text(alphabet=st.sampled_from("你好嗎，。！ 0123456789年個两%.:-Pythonのé鹽"), max_size=30))
def test_mandarin_is_idempotent_and_bare(text) -> None:
    once = normalize(text, "zh")
    assert normalize(once, "zh") == once
    assert all(char.isalnum() for char in once)


@UNTIMED
@given(st.text(max_size=60), st.sampled_from(["en", "zh"]))
def test_any_transcript_can_be_normalised(text, language) -> None:
    assert isinstance(normalize(text, language), str)
