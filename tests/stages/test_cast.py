from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from pipeline.config import Config
from pipeline.dialogue import Language, PlannedDialogue, Split
from pipeline.errors import ConfigError
from pipeline.stages.cast import Cast, Casting
from pipeline.voice import Voice
from speakers import VoiceLibrary, load_library
from speakers.build import build

LIBRARY = load_library()
LARGE = build(LIBRARY, 2000)
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def planned(language: Language, ordinal: int, unit: int = 0, split: Split = "train") -> PlannedDialogue:
    return PlannedDialogue(
        id=f"{language}-{unit:06d}-{ordinal:02d}",
        unit=unit,
        index=ordinal,
        ordinal=ordinal,
        split=split,
        language=language,
        seed=ordinal,
    )


def casts(count: int, language: Language = "en", library: VoiceLibrary = LARGE, **config: object) -> list[Cast]:
    casting = Casting(Config(**{"splits": {"train": 1}, **config}), library)
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
    pool = [v.id for v in LARGE.select(language, gender, "train") if v.id not in agents]  # type: ignore[arg-type]
    heard = [cast.user.id for cast in casts(8 * len(pool), language) if cast.user.gender == gender]
    assert set(heard) == set(pool)
    gaps(heard, len(pool))


def test_so_it_is_with_voices_of_one_gender() -> None:
    users = ("af_bella", "af_nova", "af_sky", "bf_emma")
    heard = [cast.user.id for cast in casts(40, cast={"users": {"en": users, "zh": ["zm_yunyang"]}, "disjoint": False})]
    assert set(heard) == set(users)
    gaps(heard, len(users))


def test_a_voice_may_be_on_both_lists_but_not_in_one_dialogue() -> None:
    both = {
        "agents": {"en": ["af_heart", "am_michael"]},
        "users": {"en": ["af_heart", "am_michael"], "zh": ["zm_yunjian"]},
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
    drawn = [[cast.user.id for cast in casts(100, library=LIBRARY, seed=seed)] for seed in (0, 1)]
    assert drawn[0] != drawn[1] and set(drawn[0]) == set(drawn[1])


@pytest.mark.parametrize(
    ("cast", "parts"),
    [
        (
            {"agents": {"en": ["af_hart"]}},
            ["cast.agents.en: there is no voice 'af_hart'", "did you mean 'af_heart'", "(cast.library: not set"],
        ),
        (
            {"users": {"en": ["nobody"], "zh": ["zm_yunxi"]}, "library": "mine.yaml"},
            ["cast.users.en: there is no voice 'nobody'", "(cast.library: mine.yaml)"],
        ),
        ({"agents": {"en": ["zf_xiaoxiao"]}}, ["cast.agents.en", "'zf_xiaoxiao' speaks zh, not en"]),
        ({"users": {"zh": ["af_sarah"], "en": ["af_sarah"]}}, ["cast.users.zh", "'af_sarah' speaks en, not zh"]),
        ({"agents": {"en": []}}, ["cast.agents.en", "name at least one voice", "--language en"]),
        ({"users": {"en": ["af_sarah"]}}, ["cast.users.zh", "name at least one voice"]),
        (
            {"agents": {"en": [v.id for v in LIBRARY.select("en")]}},
            ["cast.users.en", "no voice is left for the user"],
        ),
        (
            {"users": {"en": ["af_heart"], "zh": ["zm_yunjian"]}},
            ["'af_heart'", "share the only"],
        ),
        (
            {"users": {"en": ["af_sky", "af_nova"], "zh": ["zm_yunjian"]}},
            ["cast.users.en", "none of its voices is of the split 'train'", "cast.disjoint=false"],
        ),
        (
            {"agents": {"en": ["af_bella"]}, "users": {"en": ["af_bella"], "zh": ["zm_yunjian"]}},
            ["'af_bella'", "share the only"],
        ),
    ],
)
def test_a_cast_that_cannot_be_names_the_key(cast: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Casting(Config(cast=cast, splits={"train": 1}), LIBRARY)
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value)


def test_the_voices_of_a_language_that_is_not_spoken_do_not_matter() -> None:
    assert casts(1, languages={"en": 1}, cast={"agents": {"zh": ["af_sky"]}})


SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.mark.parametrize("language", LANGUAGES)
def test_users_of_two_splits_share_no_parent(language: Language) -> None:
    casting = Casting(Config(), LARGE)
    parents: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for ordinal in range(400):
            user = casting.cast(planned(language, ordinal, split=split)).user
            assert user.split == split
            parents[split] |= set(user.recipe.parents)
    assert all(parents[one].isdisjoint(parents[other]) for one, other in [SPLITS[:2], SPLITS[1:], SPLITS[::2]])


def test_without_disjoint_every_split_hears_all_voices() -> None:
    casting = Casting(Config(cast={"disjoint": False}), LARGE)
    for ordinal in range(60):
        users = {casting.cast(planned("en", ordinal, split=split)).user.id for split in SPLITS}
        assert len(users) == 1
    assert {casting.cast(planned("en", ordinal, split="test")).user.split for ordinal in range(200)} == set(SPLITS)


def voice(id: str, **fields: object) -> Voice:
    common = {"gender": "female", "languages": ["en"], "engine": "kokoro", "license": "MIT"}
    return Voice.model_validate({"id": id, "recipe": {"timbre": {id: 1}}, **common, **fields})


def test_voices_that_share_a_parent_over_splits_are_found() -> None:
    mixed = voice("mixed", split="test", recipe={"timbre": {"af_b": 0.5, "af_c": 0.5}})
    library = VoiceLibrary((*LIBRARY.voices, voice("af_b"), voice("af_c", split="test"), mixed))
    with pytest.raises(ConfigError, match=r"af_b \(train\) and mixed \(test\) are both made of 'af_b'.*disjoint=false"):
        Casting(Config(languages={"en": 1}), library)
    assert Casting(Config(languages={"en": 1}, cast={"disjoint": False}), library).engines == ("kokoro",)
    # Of a split that the run has not, nobody is heard.
    assert Casting(Config(languages={"en": 1}, splits={"train": 1}), library)


def test_a_parent_is_of_one_split_in_both_languages() -> None:
    lent = {"timbre": {"af_b": 1}, "prosody": {"zf_xiaoyi": 1}}
    mixed = voice("mixed", split="test", languages=["zh"], recipe=lent)
    library = VoiceLibrary((*LIBRARY.voices, voice("af_b"), mixed))
    with pytest.raises(ConfigError, match=r"af_b \(train\) and mixed \(test\) are both made of 'af_b'"):
        Casting(Config(), library)


def test_the_voices_of_a_casting_are_those_that_may_be_heard() -> None:
    users = {"en": ["af_sky", "bm_daniel"], "zh": ["zm_yunjian"]}
    casting = Casting(Config(splits={"train": 1}, cast={"users": users, "disjoint": False}), LIBRARY)
    heard = {language: {voice.id for voice in voices} for language, voices in casting.voices.items()}
    assert heard == {
        "en": {"af_heart", "am_michael", "af_sky", "bm_daniel"},
        "zh": {"zf_xiaoxiao", "zm_yunxi", "zm_yunjian"},
    }


def test_a_library_without_a_split_says_so_where_the_run_has_it() -> None:
    library = VoiceLibrary(LARGE.select("en", split="train"))
    with pytest.raises(
        ConfigError, match=r"cast\.users\.en: .*split 'validation'.*splits\.validation=0.*disjoint=false"
    ):
        Casting(Config(languages={"en": 1}), library)
    Casting(Config(languages={"en": 1}, splits={"train": 1, "test": 0}), library)


SERVED = {"kind": "http", "base_url": "http://127.0.0.1:1", "license": "MIT", "takes": ["name"], "languages": ["en"]}


def test_only_voices_that_an_engine_of_the_run_can_speak_are_drawn() -> None:
    served = [
        voice(f"served_{n}", engine="mine", recipe={"name": f"n{n}"}, gender=g)
        for n, g in enumerate(("female", "male"))
    ]
    deaf = voice("deaf", engine="mine", recipe={"clip": "a.wav"})
    other = voice("other", engine="elsewhere", recipe={"name": "x"})
    library = VoiceLibrary((*LIBRARY.voices, *served, deaf, other))
    alone = Casting(Config(languages={"en": 1}, splits={"train": 1}), library)
    assert alone.engines == ("kokoro",)
    both = Config(languages={"en": 1}, splits={"train": 1}, tts={"engines": {"kokoro": {}, "mine": SERVED}})
    casting = Casting(both, library)
    assert casting.engines == ("kokoro", "mine")
    heard = {casting.cast(planned("en", ordinal)).user.id for ordinal in range(200)}
    assert heard >= {"served_0", "served_1", "af_bella"} and heard.isdisjoint({"deaf", "other"})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"engine": "xtts"},
            r"'odd' is of the engine 'xtts', which tts\.engines does not have \(it has kokoro, mine\): add it",
        ),
        (
            {"engine": "mine", "languages": ["en", "zh"], "recipe": {"name": "x"}},
            r"'odd' is of an engine that does not speak zh \(tts\.engines\.mine\.languages: en\)",
        ),
        (
            {"engine": "mine", "recipe": {"clip": "x.wav"}},
            r"'odd' is of the kind 'clip', which its server does not take \(tts\.engines\.mine\.takes: name\)",
        ),
    ],
)
@pytest.mark.parametrize("key", ["agents", "users"])
def test_a_named_voice_that_nothing_can_speak_is_refused(fields: dict[str, object], told: str, key: str) -> None:
    library = VoiceLibrary((*LIBRARY.voices, voice("odd", **fields)))
    language = "zh" if "zh" in str(fields) else "en"
    config = Config(
        languages={language: 1}, cast={key: {language: ["odd"]}}, tts={"engines": {"kokoro": {}, "mine": SERVED}}
    )
    with pytest.raises(ConfigError, match=rf"cast\.{key}\.{language}: voice {told}"):
        Casting(config, library)


def test_the_agent_is_of_the_small_set_in_every_split() -> None:
    casting = Casting(Config(), LARGE)
    for split in SPLITS:
        agents = {casting.cast(planned("zh", ordinal, split=split)).assistant.id for ordinal in range(20)}
        assert agents == {"zf_xiaoxiao", "zm_yunxi"}
