"""Building a library: what is promised of each recipe that is drawn, and of all of them together."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.voice import Recipe, Voice
from speakers import VoiceLibrary, load_library
from speakers.build import LIMITS, build
from speakers.pool import PITCH, Limits
from speakers.recipes import canonical

SHIPPED = load_library(hard=True)
OWN = len(SHIPPED.voices)
COUNT = OWN + 1200
BUILT = build(SHIPPED, COUNT)
DRAWN = BUILT.voices[OWN:]
BASES = {voice.id: voice for voice in SHIPPED.voices if voice.recipe.parents == (voice.id,)}


def multiple(value: float, step: float) -> bool:
    return math.isclose(value / step, round(value / step), abs_tol=1e-6)


def base(name: str, gender: str = "female", language: str = "en", **fields: object) -> Voice:
    return Voice.model_validate(
        {
            "id": name,
            "gender": gender,
            "languages": [language],
            "accent": "us" if language == "en" else "cn",
            "engine": "kokoro",
            "license": "MIT",
            "rate": 20,
            "recipe": {"timbre": {name: 1}},
            **fields,
        }
    )


def test_the_base_library_comes_first_and_as_it_is() -> None:
    assert BUILT.voices[:OWN] == SHIPPED.voices
    assert len(BUILT.voices) == COUNT


def test_recipes_lie_on_the_grid_within_the_limits() -> None:
    for voice in DRAWN:
        recipe, limits = voice.recipe, LIMITS[voice.languages[0]]
        for mix in (recipe.timbre, recipe.prosody):
            assert all(multiple(weight, 0.05) and 0.1 <= weight <= 1 for _, weight in mix)
            assert not mix or math.isclose(math.fsum(weight for _, weight in mix), 1)
        assert 1 <= len(recipe.timbre) <= 3 and len(recipe.prosody) <= 2
        assert multiple(recipe.shift, 0.25) and limits.shift[0] <= recipe.shift <= limits.shift[1]
        assert multiple(recipe.speed, 0.02) and limits.speed[0] <= recipe.speed <= limits.speed[1]


def test_the_whole_range_is_drawn_from() -> None:
    for language, limits in LIMITS.items():
        recipes = [voice.recipe for voice in DRAWN if language in voice.languages]
        assert {recipe.shift for recipe in recipes} >= {*limits.shift, 0}
        assert {recipe.speed for recipe in recipes} >= {*limits.speed, 1}
        assert {len(recipe.timbre) for recipe in recipes} == {1, 2, 3}
        assert {len(recipe.prosody) for recipe in recipes} == {0, 1, 2}


def test_no_recipe_is_there_twice() -> None:
    assert len({canonical(voice.recipe) for voice in BUILT.voices}) == COUNT
    assert len({voice.id for voice in BUILT.voices}) == COUNT


def test_parents_are_of_one_split_gender_and_near_rate() -> None:
    for voice in DRAWN:
        parents = [BASES[name] for name in voice.recipe.parents]
        assert {(parent.gender, parent.split) for parent in parents} == {(voice.gender, voice.split)}
        for language in ("en", "zh"):
            rates = [parent.rate for parent in parents if language in parent.languages]
            assert not rates or max(rates) <= 1.15 * min(rates)


def test_a_voice_speaks_like_somebody_of_its_language() -> None:
    lent = 0
    for voice in DRAWN:
        manner = [name for name, _ in voice.recipe.prosody or voice.recipe.timbre]
        assert all(set(voice.languages) <= set(BASES[name].languages) for name in manner)
        assert voice.accent in {BASES[name].accent for name in manner}
        rates = [BASES[name].rate for name in manner]
        assert min(rates) - 0.01 <= voice.rate / voice.recipe.speed <= max(rates) + 0.01
        lent += any(set(voice.languages).isdisjoint(BASES[name].languages) for name, _ in voice.recipe.timbre)
    assert lent > 100


def test_pitch_is_foretold_and_stays_what_it_is_called() -> None:
    for voice in DRAWN:
        manner = voice.recipe.prosody or voice.recipe.timbre
        pitch = sum(weight * BASES[name].pitch for name, weight in manner) * 2 ** (voice.recipe.shift / 12)
        assert voice.pitch == pytest.approx(pitch, abs=0.06)
        low, high = PITCH["child" if voice.age == "child" else voice.gender]
        assert low <= voice.pitch <= high
    women = [voice.recipe for voice in DRAWN if voice.gender == "female"]
    assert {recipe.shift >= 3 for recipe in women} == {True, False}


def test_who_would_not_sound_like_one_is_not_drawn() -> None:
    """Unknown pitch forbids nothing. A low woman is not lowered, nor raised so far that she would be called a child."""
    styles = (base("af_low", pitch=131), base("af_any"), *(base(f"am_{n}", "male") for n in range(3)))
    built = build(VoiceLibrary(styles), 2000, languages={"en": 1}, splits={"train": 1}, near=1)
    low = [voice.recipe.shift for voice in built.voices if voice.recipe.parents == ("af_low",)]
    other = [voice.recipe.shift for voice in built.voices if voice.recipe.parents == ("af_any",)]
    assert (min(low), max(low)) == (0, 2.75) and (min(other), max(other)) == (-4, 4)


def test_halves_and_shares_are_as_asked() -> None:
    built = build(SHIPPED, 3000, languages={"en": 2, "zh": 1}, splits={"train": 0.8, "validation": 0.1, "test": 0.1})
    genders = Counter(voice.gender for voice in built.voices)
    languages = Counter(voice.languages[0] for voice in built.voices)
    splits = Counter(voice.split for voice in built.voices)
    assert abs(genders["female"] - 1500) <= 1 and abs(languages["en"] - 2000) <= 1
    assert all(
        abs(splits[name] - share) <= 2 for name, share in {"train": 2400, "validation": 300, "test": 300}.items()
    )
    cells = Counter((voice.languages[0], voice.gender, voice.split) for voice in built.voices)
    assert cells["zh", "female", "test"] == 50 and cells["en", "male", "train"] == 800


@settings(max_examples=5)
@given(shorter=st.integers(OWN, COUNT))
def test_a_longer_library_begins_with_the_shorter_one(shorter: int) -> None:
    assert build(SHIPPED, shorter).voices == BUILT.voices[:shorter]


def test_another_seed_draws_others_under_the_same_ids() -> None:
    other = build(SHIPPED, COUNT, seed=1)
    assert [voice.id for voice in other.voices] == [voice.id for voice in BUILT.voices]
    again = {canonical(voice.recipe) for voice in other.voices[OWN:]} & {canonical(v.recipe) for v in DRAWN}
    assert len(again) < 300  # cells with few parents have few recipes
    assert DRAWN[0].id[:5] in ("en_f_", "en_m_", "zh_f_", "zh_m_") and len(DRAWN[0].id) == len("en_f_000001")


def test_one_language_alone() -> None:
    built = build(SHIPPED, 100, languages={"zh": 1, "en": 0})
    assert {voice.languages for voice in built.voices} == {("zh",)}
    assert any(name.startswith(("a", "b")) for voice in built.voices for name in voice.recipe.parents)


def test_a_mix_is_under_the_licences_of_all_its_parents() -> None:
    styles = [base("af_a"), base("af_b", license="CC-BY-4.0", consent="signed"), base("am_a", "male")]
    built = build(VoiceLibrary(tuple(styles)), 60, languages={"en": 1}, splits={"train": 1})
    mixed = [voice for voice in built.voices if voice.recipe.parents == ("af_a", "af_b")]
    assert mixed and all(voice.license == "CC-BY-4.0 AND MIT" for voice in mixed)
    assert all(voice.consent == "signed; synthetic" for voice in mixed)


def test_whoever_speaks_much_faster_or_on_another_engine_is_no_partner() -> None:
    styles = [base("af_a"), base("af_slow", rate=12), base("af_other", engine="other"), base("am_a", "male")]
    built = build(VoiceLibrary(tuple(styles)), 600, languages={"en": 1}, splits={"train": 1})
    assert {voice.recipe.parents for voice in built.voices if voice.gender == "female"} == {
        ("af_a",),
        ("af_slow",),
        ("af_other",),
    }
    assert {voice.engine for voice in built.voices if voice.recipe.parents == ("af_other",)} == {"other"}
    far = build(VoiceLibrary(tuple(styles)), 600, languages={"en": 1}, splits={"train": 1}, near=2)
    assert ("af_a", "af_slow") in {voice.recipe.parents for voice in far.voices}


NARROW = {"en": Limits(shift=(0, 0.5), speed=(1, 1.02))}  # 3 x 2 recipes of a parent, one of them is the parent itself


def test_all_that_is_possible_can_be_had_and_no_more() -> None:
    library = VoiceLibrary((base("af_a"), base("am_a", "male")))
    made = build(library, 12, languages={"en": 1}, splits={"train": 1}, limits=NARROW)
    assert len({canonical(voice.recipe) for voice in made.voices}) == 12
    with pytest.raises(ConfigError, match="en women of train: 6 are asked for, 5 different recipes are possible"):
        build(library, 13, languages={"en": 1}, splits={"train": 1}, limits=NARROW)


def test_a_split_without_parents_is_named() -> None:
    library = VoiceLibrary((base("af_a"), base("am_a", "male")))
    with pytest.raises(ConfigError, match=r"en men of test: \d+ are asked for, 0 different.*add base voices") as caught:
        build(library, 300, languages={"en": 1})
    assert "en women of validation" in str(caught.value) and "\n" not in str(caught.value)


def test_fewer_than_the_base_library_are_refused() -> None:
    with pytest.raises(ConfigError, match=rf"--count 3: .* {OWN} voices of en, zh"):
        build(SHIPPED, 3)


def test_voices_that_are_no_plain_style_are_kept_but_are_no_parents() -> None:
    named = base("eva", recipe={"name": "Eva"})
    shifted = base("deep", recipe={"timbre": {"af_b": 1}, "shift": -1})
    built = build(
        VoiceLibrary((base("af_a"), base("am_a", "male"), named, shifted)),
        200,
        splits={"train": 1},
        languages={"en": 1},
    )
    assert built.voice("eva") == named and built.voice("deep") == shifted
    assert {name for voice in built.voices[4:] for name in voice.recipe.parents} == {"af_a", "am_a"}
    assert Recipe(timbre=(("af_a", 1.0),)) not in [voice.recipe for voice in built.voices[4:]]


def test_a_built_library_can_be_built_upon() -> None:
    larger = build(BUILT, COUNT + 40, seed=7)
    assert larger.voices[:COUNT] == BUILT.voices
    assert len({canonical(voice.recipe) for voice in larger.voices}) == COUNT + 40


def test_many_base_voices_are_no_harder_than_few() -> None:
    """Of 60 there are sixty million sets of parents; only some of them are looked at."""
    styles = [base(f"af_{number}", rate=20 + number / 100) for number in range(60)]
    built = build(VoiceLibrary((*styles, base("am_a", "male"))), 500, languages={"en": 1}, splits={"train": 1})
    used = {name for voice in built.voices for name in voice.recipe.parents}
    assert len(used) == 61 and len({canonical(voice.recipe) for voice in built.voices}) == 500
    assert {len(voice.recipe.timbre) for voice in built.voices} == {1, 2, 3}
