from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from pipeline.config import Config
from pipeline.dialogue import Language, PlannedDialogue
from pipeline.errors import ConfigError
from pipeline.stages.cast import Cast, Casting
from speakers import VoiceLibrary, load_library

LIBRARY = load_library()
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def planned(language: Language, ordinal: int, unit: int = 0) -> PlannedDialogue:
    return PlannedDialogue(
        id=f"{language}-{unit:06d}-{ordinal:02d}",
        unit=unit,
        index=ordinal,
        ordinal=ordinal,
        split="train",
        language=language,
        seed=ordinal,
    )


def casts(count: int, language: Language = "en", library: VoiceLibrary = LIBRARY, **config: object) -> list[Cast]:
    casting = Casting(Config(**config), library)
    return [casting.cast(planned(language, ordinal)) for ordinal in range(count)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_user_and_agent_are_two_people_who_speak_the_language(language: Language) -> None:
    agents = Config().cast.agents[language]
    for cast in casts(100, language):
        assert cast.user != cast.assistant
        assert language in cast.user.languages and language in cast.assistant.languages
        assert cast.assistant.id in agents and cast.user.id not in agents
        assert cast.voice("user") == cast.user and cast.voice("assistant") == cast.assistant


@pytest.mark.parametrize("language", LANGUAGES)
def test_genders_are_balanced_over_any_prefix(language: Language) -> None:
    difference = {"user": 0, "assistant": 0}
    for cast in casts(200, language):
        for role, voice in (("user", cast.user), ("assistant", cast.assistant)):
            difference[role] += 1 if voice.gender == "female" else -1
        assert abs(difference["user"]) <= 1 and abs(difference["assistant"]) <= 2


def test_all_four_pairs_of_genders_are_equally_frequent() -> None:
    pairs = Counter((cast.user.gender, cast.assistant.gender) for cast in casts(200))
    assert set(pairs.values()) == {50} and len(pairs) == 4


def gaps(voices: list[str], pool: int) -> None:
    """Each lap of `pool` draws holds each voice once, and no lap is like the one before it."""
    laps = [voices[start : start + pool] for start in range(0, len(voices) - pool + 1, pool)]
    assert len(laps) >= 3
    assert all(len(set(lap)) == pool and set(lap) == set(laps[0]) for lap in laps)
    assert any(one != other for one, other in pairwise(laps))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("gender", ["female", "male"])
def test_every_user_voice_is_heard_once_before_any_twice(language: Language, gender: str) -> None:
    agents = Config().cast.agents[language]
    pool = [v.id for v in LIBRARY.voices if language in v.languages and v.gender == gender and v.id not in agents]
    heard = [cast.user.id for cast in casts(8 * len(pool), language) if cast.user.gender == gender]
    assert set(heard) == set(pool)
    gaps(heard, len(pool))


def test_so_it_is_with_voices_of_one_gender() -> None:
    users = ("af_bella", "af_nova", "af_sky", "bf_emma")
    heard = [cast.user.id for cast in casts(40, cast={"users": {"en": users, "zh": ["zm_yunyang"]}})]
    assert set(heard) == set(users)
    gaps(heard, len(users))


def test_a_voice_may_be_on_both_lists_but_not_in_one_dialogue() -> None:
    both = {
        "agents": {"en": ["af_heart", "am_michael"]},
        "users": {"en": ["af_heart", "am_michael"], "zh": ["zm_yunyang"]},
    }
    drawn = casts(40, cast=both)
    assert all(cast.user != cast.assistant for cast in drawn)
    assert {cast.user.id for cast in drawn} == {cast.assistant.id for cast in drawn} == {"af_heart", "am_michael"}


def test_a_cast_depends_on_no_other_dialogue() -> None:
    config = Config()
    plans = [planned(language, ordinal) for language in LANGUAGES for ordinal in range(60)]
    in_order = {plan.id: Casting(config, LIBRARY).cast(plan) for plan in plans}
    random.Random(0).shuffle(plans)
    shuffled = Casting(config, LIBRARY)
    assert {plan.id: shuffled.cast(plan) for plan in plans} == in_order
    # Nor on the unit that it lies in, or on a language that is not spoken.
    alone = Casting(Config(languages={"en": 1}), LIBRARY)
    for ordinal in range(60):
        assert alone.cast(planned("en", ordinal, unit=9)) == in_order[f"en-000000-{ordinal:02d}"]


def test_another_seed_is_another_cast() -> None:
    drawn = [[cast.user.id for cast in casts(100, seed=seed)] for seed in (0, 1)]
    assert drawn[0] != drawn[1] and set(drawn[0]) == set(drawn[1])


@pytest.mark.parametrize(
    ("cast", "parts"),
    [
        ({"agents": {"en": ["af_hart"]}}, ["there is no voice 'af_hart'", "did you mean 'af_heart'"]),
        ({"users": {"en": ["nobody"], "zh": ["zm_yunxi"]}}, ["there is no voice 'nobody'"]),
        ({"agents": {"en": ["zf_xiaoxiao"]}}, ["cast.agents.en", "'zf_xiaoxiao' speaks zh, not en"]),
        ({"users": {"zh": ["af_sky"], "en": ["af_sky"]}}, ["cast.users.zh", "'af_sky' speaks en, not zh"]),
        ({"agents": {"en": []}}, ["cast.agents.en", "name at least one voice", "--language en"]),
        ({"users": {"en": ["af_sky"]}}, ["cast.users.zh", "name at least one voice"]),
        (
            {"agents": {"en": [v.id for v in LIBRARY.select("en")]}},
            ["cast.users.en", "no voice is left for the user"],
        ),
        (
            {"agents": {"en": ["af_sky"]}, "users": {"en": ["af_sky"], "zh": ["zm_yunyang"]}},
            ["'af_sky'", "share the only"],
        ),
    ],
)
def test_a_cast_that_cannot_be_names_the_key(cast: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Casting(Config(cast=cast), LIBRARY)
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value)


def test_the_voices_of_a_language_that_is_not_spoken_do_not_matter() -> None:
    assert casts(1, languages={"en": 1}, cast={"agents": {"zh": ["af_sky"]}})
