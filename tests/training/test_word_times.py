"""The words of a text at the times of what was heard of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.dialogue import SampleTurn, Word
from pipeline.training.formats.word_times import split_words, time_words


def turn(spoken: str, *words: tuple[str, float, float], start: float = 10.0, end: float = 14.0) -> SampleTurn:
    heard = tuple(Word(text=text, start=since, end=until) for text, since, until in words)
    return SampleTurn.model_construct(spoken=spoken, start=start, end=end, words=heard)


def timed(spoken: SampleTurn, heard: bool = True) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in time_words(spoken, heard)]


def test_words_and_han_characters_keep_their_punctuation() -> None:
    assert split_words("Well, I — think so.") == ["Well,", "I —", "think", "so."]
    assert split_words("喝两杯 iPhone茶，“好”。") == ["喝", "两", "杯", "iPhone", "茶，“", "好”。"]


def test_a_misheard_word_has_the_time_between_its_neighbours() -> None:
    said = turn(
        "the river is wide", ("the", 10.0, 10.2), ("liver", 10.4, 10.9), ("is", 11.0, 11.1), ("wide", 11.5, 12.0)
    )
    (_, (text, start, end), after, _) = timed(said)
    assert (text, end) == ("river", 10.9)
    assert 10.2 <= start <= 10.5
    assert after == ("is", 11.0, 11.1)


def test_a_number_that_was_heard_as_digits_has_their_time() -> None:
    said = turn("喝两杯茶", ("喝", 10.0, 10.4), ("2", 10.4, 10.8), ("杯", 10.8, 11.2), ("茶", 11.2, 11.6))
    assert timed(said) == [("喝", 10.0, 10.4), ("两", 10.4, 10.8), ("杯", 10.8, 11.2), ("茶", 11.2, 11.6)]


def test_short_han_characters_are_joined_but_not_over_a_pause_or_punctuation() -> None:
    said = turn(
        "天气好，我去玩",
        *[(text, at, at + 0.1) for text, at in zip("天气好我去玩", (10, 10.1, 10.2, 10.3, 10.4, 11), strict=True)],
    )
    assert timed(said) == [("天气好，", 10.0, 10.3), ("我去", 10.3, 10.5), ("玩", 11.0, 11.1)]


def test_where_nothing_matches_the_words_share_what_was_heard() -> None:
    said = turn("five", ("5", 11.0, 12.0))
    assert timed(said) == [("five", 11.0, 12.0)]
    assert timed(said, heard=False) == [("five", 10.0, 14.0)]


@given(
    st.text("ab c今天，", max_size=12),
    st.lists(st.tuples(st.text("abc今天 2", max_size=3), st.floats(8, 16), st.floats(8, 16)), max_size=6),
)
def test_whatever_was_heard_every_letter_is_there_in_order_and_in_the_turn(
    spoken: str, words: list[tuple[str, float, float]]
) -> None:
    found = timed(turn(spoken, *words))
    letters = [character for character in spoken if character.isalnum()]
    assert [character for text, _, _ in found for character in text if character.isalnum()] == letters
    starts = [start for _, start, _ in found]
    assert starts == sorted(starts)
    for _, start, end in found:
        assert 10 <= start < end <= 14.01 + 1e-9


def test_a_turn_without_letters_has_no_words() -> None:
    assert timed(turn("… !")) == []
    assert timed(turn("")) == []
