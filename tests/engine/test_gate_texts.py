"""Texts that are wrong in one place, on real sentences."""

from __future__ import annotations

import pytest
from pypinyin import lazy_pinyin

from pipeline.dialogue import Language
from pipeline.engine.gate_texts import Slips, common_han, content
from pipeline.text.words import words_of

EN = [
    "I would like a cup of coffee, please.",
    "Well, I like playing soccer, painting, and writing.",
    "My screen is flickering.",
    "Thank you, that is not what I meant.",
]
ZH = ["海豚使用的一种感觉，类似于声纳。", "你最喜欢什么颜色？", "蛋糕很美味，谢谢你的关心。", "我的身体正在发育。"]


@pytest.mark.parametrize("text", EN)
def test_an_english_slip_is_one_word(text: str) -> None:
    slips = Slips(EN, "en", 0)
    words = words_of(text, "en")
    dropped, doubled, other = slips.dropped(text), slips.doubled(text), slips.substituted(text)
    assert dropped and doubled and other and slips.tone(text) is None
    missing = dropped.what.removeprefix("-").lower()
    assert sorted([*words_of(dropped.text, "en"), missing]) == sorted(words)
    repeated = doubled.what.removeprefix("+").lower()
    assert (
        sorted(words_of(doubled.text, "en")) == sorted([*words, repeated])
        and f"{repeated} {repeated}" in doubled.text.lower()
    )
    changed = [(old, new) for old, new in zip(words, words_of(other.text, "en"), strict=True) if old != new]
    assert len(changed) == 1 and abs(len(changed[0][0]) - len(changed[0][1])) <= 1
    assert not {missing, repeated, changed[0][0]} & {"i", "a", "of", "the", "and", "is", "my", "not"}
    assert ",," not in dropped.text and " ," not in dropped.text


@pytest.mark.parametrize("text", ZH)
def test_a_mandarin_slip_is_one_word_or_character(text: str) -> None:
    slips = Slips(ZH, "zh", 0)
    dropped, doubled = slips.dropped(text), slips.doubled(text)
    other, tone = slips.substituted(text), slips.tone(text)
    assert dropped and doubled and other
    assert len(dropped.text) <= len(text) - (len(dropped.what) - 1) and dropped.what[1:] in text
    assert doubled.what[1:] * 2 in doubled.text and len(doubled.text) == len(text) + len(doubled.what) - 1
    for wrong, same_sound in ((other, False), (tone, True)):
        if wrong is None:
            continue
        [(old, new)] = [(old, new) for old, new in zip(text, wrong.text, strict=True) if old != new]
        assert new in common_han() and (lazy_pinyin(old) == lazy_pinyin(new)) is same_sound


def test_slips_are_the_same_each_time_and_hang_on_the_seed() -> None:
    def made(seed: int) -> list[object]:
        slips = [(Slips(EN, "en", seed), EN), (Slips(ZH, "zh", seed), ZH)]
        return [(slip.dropped(text), slip.substituted(text)) for slip, texts in slips for text in texts]

    assert made(1) == made(1) != made(2)


@pytest.mark.parametrize(
    ("text", "language"), [("Hi!", "en"), ("I am.", "en"), ("Books", "en"), ("嗨", "zh"), ("颜色", "zh")]
)
def test_nothing_is_dropped_of_a_text_that_would_be_empty(text: str, language: Language) -> None:
    assert Slips([*EN, *ZH], language, 0).dropped(text) is None


def test_content_words() -> None:
    text = "The dog doesn't see a well-known cat on TV."
    assert [text[slice(*span)] for span in content(text, "en")] == ["dog", "see", "well-known", "cat"]
    assert ["你最喜欢什么颜色？"[slice(*span)] for span in content("你最喜欢什么颜色？", "zh")] == ["喜欢", "颜色"]
