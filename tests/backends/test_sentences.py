"""Long texts are cut where a speaker would stop, and the pieces joined with pauses of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backends.tts.sentences import Uncuttable, join, split

RATE = 24000


def cut(text: str, comfortable: int = 1, limit: int = 1000) -> list[str]:
    return [piece.text for piece in split(text, len, comfortable, limit)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Come in. Sit down! Why? Because.", ["Come in.", "Sit down!", "Why?", "Because."]),
        ("Dr. Smith met J. K. Rowling. She left.", ["Dr. Smith met J. K. Rowling.", "She left."]),
        ('"Really?" she asked. "Yes." He left.', ['"Really?" she asked.', '"Yes."', "He left."]),
        ("Pi is 3.14 or so. Nobody minds.", ["Pi is 3.14 or so.", "Nobody minds."]),
        ("我们走了。他很累！你呢？好。", ["我们走了。", "他很累！", "你呢？", "好。"]),
        ("他说：“走吧。”然后走了！？好。", ["他说：“走吧。”", "然后走了！？", "好。"]),
        ("Well, one, two; three", ["Well, one, two; three"]),
        ("……好。", ["……好。"]),
    ],
)
def test_a_long_text_is_cut_at_its_sentences(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


def test_a_text_is_cut_no_more_than_it_must_be_and_near_the_middle() -> None:
    text = "One is here. Two is here. Three is here. Four is here."
    assert cut(text, comfortable=len(text)) == [text]
    assert cut(text, comfortable=30) == ["One is here. Two is here.", "Three is here. Four is here."]


@pytest.mark.parametrize(
    ("text", "limit", "pieces"),
    [
        ("Pi is 3.14 or so, they say it is enough", 30, ["Pi is 3.14 or so,", "they say it is enough"]),
        ("我们走了很久，又累又饿", 10, ["我们走了很久，", "又累又饿"]),
        ("one two three four", 10, ["one two", "three four"]),
        ("天地玄黄", 2, ["天地", "玄黄"]),
    ],
)
def test_inside_a_sentence_it_is_cut_only_over_the_limit(text: str, limit: int, pieces: list[str]) -> None:
    assert cut(text, limit=limit) == pieces
    assert cut(text, limit=len(text)) == [text]


def test_pauses_are_longer_after_a_sentence_than_after_a_clause_than_between_words() -> None:
    pieces = split("Come in, sit down. Good morning", len, 1, 8)
    assert [piece.text for piece in pieces] == ["Come in,", "sit", "down.", "Good", "morning"]
    clause, words, sentence, _, last = (piece.pause for piece in pieces)
    assert 0 < words < clause < sentence <= 0.4
    assert last == 0


def test_what_has_no_place_to_be_cut_is_told() -> None:
    with pytest.raises(Uncuttable, match="aaaaaaaaaa"):
        split("It is aaaaaaaaaaaaaaaaaaaa!", len, 5, 10)


@given(
    st.lists(st.sampled_from(["hello", "you", "see", "，", ". ", "! ", ", ", " ", "好", "天。", "…", "”"]), max_size=40)
)
def test_nothing_is_lost_and_every_piece_fits(words: list[str]) -> None:
    text = "".join(words).strip()
    try:
        pieces = cut(text, comfortable=6, limit=12)
    except Uncuttable:
        return
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= 12 for piece in pieces)
    assert len(pieces) == 1 or all(any(map(str.isalnum, piece)) for piece in pieces)


def tone(seconds: float, before: float, after: float) -> np.ndarray:
    """A tone between two silences (with a hiss at -66 dBFS), float32."""
    hiss = np.random.default_rng(3).uniform(-0.0005, 0.0005, round((before + seconds + after) * RATE))
    hiss[round(before * RATE) : round((before + seconds) * RATE)] += 0.5
    return hiss.astype(np.float32)


def silences(audio: np.ndarray) -> list[float]:
    """Lengths in seconds of what is silent between the tones."""
    loud = np.flatnonzero(np.abs(audio) > 0.1)
    steps = np.diff(loud)
    return [round(float(step - 1) / RATE, 3) for step in steps[steps > 1]]


def test_a_pause_takes_the_place_of_the_silence_that_the_pieces_bring() -> None:
    pieces = [tone(0.5, 0.3, 0.6), tone(0.4, 0.25, 0.5), tone(0.3, 0.1, 0.2)]
    audio = join(pieces, [0.4, 0.2, 0.0], RATE)
    assert audio.dtype == np.float32
    assert silences(audio) == [0.4, 0.2]
    # Before the first and after the last sound nothing was taken away.
    assert len(audio) / RATE == pytest.approx(0.3 + 0.5 + 0.4 + 0.4 + 0.2 + 0.3 + 0.2, abs=0.001)
    assert np.array_equal(audio[: round(0.8 * RATE)], pieces[0][: round(0.8 * RATE)])


def test_a_piece_without_silence_keeps_every_sample_and_the_pause_its_length() -> None:
    pieces = [tone(0.5, 0, 0), tone(0.4, 0, 0)]
    audio = join(pieces, [0.3, 0.0], RATE)
    assert silences(audio) == [0.3]
    assert len(audio) == len(pieces[0]) + len(pieces[1]) + round(0.3 * RATE)


def test_one_piece_is_left_as_it_is_and_none_is_nothing() -> None:
    piece = tone(0.2, 0.1, 0.1)
    assert np.array_equal(join([piece], [0.0], RATE), piece)
    assert join([], [], RATE).shape == (0,)


def test_a_silent_piece_is_no_sound_and_no_error() -> None:
    audio = join([tone(0.2, 0, 0), np.zeros(RATE, np.float32), tone(0.2, 0, 0)], [0.2, 0.2, 0.0], RATE)
    assert silences(audio) == [0.4]
