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
    ("en", "I cannot stay.", "I can't stay"),
    ("en", "We're gonna be late, give me a minute.", "We are going to be late, gimme a minute"),
    ("en", "Let me see them.", "Lemme see 'em."),
    ("en", "You'd better hurry.", "You had better hurry."),
    ("en", "She's going out, all right?", "She is goin' out, alright?"),
    ("en", "Send me an email over the wifi.", "Send me an e-mail over the Wi-Fi."),
    ("en", "Um, I think, uh, it's, er, fine.", "I think it's fine."),
    ("en", "Hmm... the grey theatre's programme", "the gray theater's program"),
    ("en", "Um.", "Uhm"),
    ("en", "Uh- I, Mm- think so", "I think so"),
    ("en", "Mm-hmm.", "mhm"),
    ("en", "Mmhmm, I do.", "Uh-huh, I do."),
    ("en", "MM-HMM", "mm hmm"),
    ("en", "Uh-uh.", "nuh-uh"),
    ("en", "Uh, uh-huh", "mm-hm"),
    ("en", "Oh! Three people came.", "oh, 3 people came"),
    ("en", "I see. Oh three people came.", "I see. Oh, 3 people came."),
    ("en", "Oh, hello", "oh hello"),
    ("en", "oh oh seven", "007"),
    ("en", "two point oh", "2.0"),
    ("en", "room three oh two", "room 302"),
    ("en", "a thousand and one nights", "1001 nights"),
    ("zh", "他看著我", "他看着我"),
    ("zh", "別著急，你等著", "别着急，你等着"),
    ("zh", "所以著急", "所以着急"),
    ("zh", "背著書包寫著作業", "背着书包写着作业"),
    ("zh", "牠祇是貓", "它只是猫"),
    ("zh", "唔，我想想", "我想想"),
    ("zh", "嗯，我觉得，呃，可以。", "我觉得可以"),
    ("zh", "额，我想想", "我想想"),
    ("zh", "嗯。", "呃……"),
    ("zh", "这朵花儿真好看，我想买一点儿。", "这朵花真好看，我想买一点"),
    ("zh", "你去哪儿玩儿？", "你去哪玩"),
    ("en", "It begins with 'begin'.", "it begins with begin"),
    ("zh", "你要什么？", "你要甚麼"),
    ("zh", "她把它给了他", "他把他給了她"),
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
    ("en", "She works in the ER", "She works in the"),
    ("en", "um", ""),
    ("en", "Mm-hmm.", ""),
    ("en", "Mm-hmm, I do.", "I do."),
    ("en", "Mm-hmm, I do.", "Uh-uh, I do."),
    ("en", "Uh-huh.", "Uh-uh."),
    ("en", "Mm-hmm.", "Mm."),
    ("en", "Oh! Three people came.", "Zero three people came."),
    ("en", "Oh no", "Zero no"),
    ("en", "um", "yes"),
    ("zh", "嗯", ""),
    ("zh", "嗯", "好"),
    ("zh", "儿子", "子"),
    ("zh", "女儿", "女"),
    ("zh", "幼儿园", "幼园"),
    ("zh", "儿", ""),
    ("zh", "金额", "金"),
    ("zh", "感恩", "感"),
    ("zh", "十四", "四十"),
    ("zh", "盐", "言"),
    ("zh", "唔该", "该"),
    ("zh", "神祇", "神只"),
]
# 著 that is no particle, and 儿 that is a child.
KEPT_ZH = [
    "名著",
    "很著名",
    "他的著作",
    "效果显著",
    "土著",
    "原著",
    "编著",
    "专著",
    "巨著",
    "论著",
    "作品的著者",
    "他著书立说",
]
KEPT_ZH += ["患儿", "养儿防老", "生儿育女", "侄儿", "孙儿", "我儿"]


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_same(language, one, other) -> None:
    assert normalize(one, language) == normalize(other, language) != ""


@pytest.mark.parametrize(("language", "one", "other"), DIFFERENT)
def test_different(language, one, other) -> None:
    assert normalize(one, language) != normalize(other, language)


@pytest.mark.parametrize("text", KEPT_ZH)
def test_kept_in_mandarin(text) -> None:
    assert normalize(text, "zh") == text


SOUNDS = [
    "um",
    "Uh-",
    "mm",
    "-",
    "hmm",
    "Mm-hmm",
    "uh-uh",
    "er",
    "ER",
    "oh",
    "o",
    "(",
    ")",
    ",",
    "嗯",
    "额",
    "唔",
    "儿",
    ":D",
]


@UNTIMED
@given(st.one_of(st.text(max_size=20), st.lists(st.sampled_from(SOUNDS)).map("".join)), st.sampled_from(["en", "zh"]))
def test_no_text_with_a_letter_is_nothing(text, language) -> None:
    assert normalize(text, language) or not any(map(str.isalpha, text))


@pytest.mark.parametrize(("text", "language"), [(":D", "en"), ("um-mm", "en"), ("\ufe70", "en"), ("\u037a", "zh")])
def test_rare_letters_are_something(text, language) -> None:
    assert normalize(text, language) != ""


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
@given(st.text(alphabet=st.sampled_from("你好嗎，。！ 0123456789年個两%.:-Pythonのé鹽嗯額花儿子"), max_size=30))
def test_mandarin_is_idempotent_and_bare(text) -> None:
    once = normalize(text, "zh")
    assert normalize(once, "zh") == once
    assert all(char.isalnum() for char in once)


@UNTIMED
@given(st.text(max_size=60), st.sampled_from(["en", "zh"]))
def test_any_transcript_can_be_normalised(text, language) -> None:
    assert isinstance(normalize(text, language), str)
