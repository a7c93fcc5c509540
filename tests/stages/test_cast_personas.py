"""Casting by what a dialogue says of its user."""

from __future__ import annotations

import pytest

from pipeline.config import Config
from pipeline.dialogue import Language
from pipeline.stages.cast import Casting
from pipeline.voice import Voice
from speakers import VoiceLibrary
from tests.stages.test_cast import LANGUAGES, LARGE, gaps, planned

PERSONAS: dict[Language, dict[str, tuple[str, str]]] = {
    "en": {
        "a grandmother of two": ("female", "old"),
        "an eight-year-old girl": ("female", "child"),
        "a man in his forties": ("male", "adult"),
        "a young woman with a dog": ("female", "adult"),
    },
    "zh": {
        "带着孙子的奶奶": ("female", "old"),
        "八岁的小女孩": ("female", "child"),
        "四十多岁的先生": ("male", "adult"),
    },
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_user_is_who_the_persona_says(language: Language) -> None:
    casting = Casting(Config(), LARGE)
    for persona, (gender, age) in PERSONAS[language].items():
        users = [casting.cast(planned(language, ordinal), persona).user for ordinal in range(24)]
        assert {(user.gender, user.age) for user in users} == {(gender, age)}
        assert len({user.id for user in users}) > 5
        off = Casting(Config(cast={"persona": False}), LARGE)
        genders = [off.cast(planned(language, ordinal), persona).user.gender for ordinal in range(24)]
        assert genders.count("female") == 12


def test_a_persona_without_gender_is_grown_up_and_alternates() -> None:
    casting = Casting(Config(), LARGE)
    users = [casting.cast(planned("en", ordinal), "a tired cook").user for ordinal in range(200)]
    assert [user.gender for user in users] == ["female", "male"] * 100
    assert {user.age for user in users} == {"adult"}
    silent = [casting.cast(planned("en", ordinal)).user for ordinal in range(200)]
    assert {user.age for user in silent} == {"child", "adult", "old"}


def test_a_persona_takes_what_there_is() -> None:
    """No old man, no man at all: the gender goes before the age, and somebody speaks in any case."""
    old = [cast_of("a widower in his seventies", LARGE, ordinal) for ordinal in range(8)]
    assert {(user.gender, user.age) for user in old} == {("male", "adult")}
    women = VoiceLibrary(LARGE.select("en", "female"))
    agents = {"agents": {"en": ["af_heart"]}}
    assert {cast_of("an old man", women, ordinal, agents).age for ordinal in range(8)} == {"old"}


def cast_of(persona: str, library: VoiceLibrary, ordinal: int, cast: dict[str, object] | None = None) -> Voice:
    return Casting(Config(languages={"en": 1}, cast=cast or {}), library).cast(planned("en", ordinal), persona).user


def test_personas_disturb_nobody_elses_voice() -> None:
    plain, mixed = Casting(Config(), LARGE), Casting(Config(), LARGE)
    for ordinal in range(100):
        plan = planned("en", ordinal)
        if ordinal % 3:
            assert mixed.cast(plan) == plain.cast(plan)
        else:
            assert mixed.cast(plan, "a grandmother").user.age == "old"


def test_a_persona_is_heard_by_each_voice_before_one_comes_again() -> None:
    casting = Casting(Config(), LARGE)
    pool = [v.id for v in LARGE.select("en", "female", "train") if v.age == "old"]
    gaps([casting.cast(planned("en", ordinal), "a grandmother").user.id for ordinal in range(4 * len(pool))], len(pool))
