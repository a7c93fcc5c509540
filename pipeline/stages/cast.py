"""cast: who speaks a dialogue. A pure function of its plan and persona, so that it needs no state and no order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from pipeline.config import Config, TtsEngineConfig
from pipeline.dialogue import Language, PlannedDialogue, Role, Split, derive_seed
from pipeline.errors import ConfigError
from pipeline.text.persona import who
from pipeline.voice import Age, Gender, Voice
from speakers import VoiceLibrary

VERSION = 2
GENDERS: tuple[Gender, Gender] = ("female", "male")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Cast:
    user: Voice
    assistant: Voice

    def voice(self, role: Role) -> Voice:
        return self.user if role == "user" else self.assistant

    def recast(self, role: Role, voice: Voice) -> Cast:
        return replace(self, **{role: voice})


class Casting:
    """Voices in balance: the user's gender alternates with every dialogue of a language, the agent's with every second
    one, so that all four pairs are equally frequent; within a gender each voice comes once before any comes again.

    A persona that gives a gender or an age decides instead: the voice has that gender, and that age where the library
    has such a voice. Somebody described without an age is grown up.

    With cast.disjoint a user's voice is of the dialogue's split. The laps in which voices take turns are counted over
    all dialogues of a language, so that within a split no voice comes twice in a lap, but some may be passed over.

    voices: by language, whoever may be asked to speak it. engines: names of theirs, sorted.
    """

    def __init__(self, config: Config, library: VoiceLibrary):
        self._seed = config.seed
        self._personas = config.cast.persona
        self._disjoint = config.cast.disjoint
        self._agents: dict[Language, _Pool] = {}
        self._users: dict[tuple[Language, Split], _Pool] = {}
        self.voices: dict[Language, tuple[Voice, ...]] = {}
        owners: dict[tuple[str, str], Voice] = {}
        splits = tuple(name for name in SPLITS if config.splits.get(name))
        for language in config.active_languages:
            agents = _named(config.cast.agents.get(language, ()), language, library, config, f"cast.agents.{language}")
            key = f"cast.users.{language}"
            if config.cast.users is None:
                ids = {voice.id for voice in agents}
                voices = library.select(language)
                users = tuple(v for v in voices if v.id not in ids and not _fault(v, language, config.tts.engines))
            else:
                users = _named(config.cast.users.get(language, ()), language, library, config, key)
            if not users:
                raise ConfigError(
                    f"{key}: no voice is left for the user; name fewer in cast.agents.{language}, or give cast.library "
                    f"more voices of tts.engines ({', '.join(config.tts.engines)})"
                )
            self._agents[language] = _Pool(agents, self._seed, "agent", language)
            if self._disjoint:
                users = tuple(voice for voice in users if voice.split in splits) or users
                _check_parents(users, owners, key)
            self.voices[language] = tuple(dict.fromkeys((*agents, *users)))
            for split in splits:
                group = tuple(v for v in users if v.split == split) if self._disjoint else users
                _check(group, agents, key, split)
                self._users[language, split] = _Pool(group, self._seed, "user", language)
        self.engines = tuple(sorted({voice.engine for group in self.voices.values() for voice in group}))

    def cast(self, planned: PlannedDialogue, persona: str = "") -> Cast:
        """The voices of a dialogue; persona: who the user is, in words, "" where the text does not say."""
        agent = self._agents[planned.language].draw(planned.ordinal // 2)
        users = self._users[planned.language, planned.split].without(agent)
        if not (self._personas and persona):
            return Cast(user=users.draw(planned.ordinal), assistant=agent)
        gender, age = who(persona, planned.language)
        return Cast(user=users.draw_like(planned.ordinal, gender, age or "adult"), assistant=agent)

    def another(
        self,
        planned: PlannedDialogue,
        cast: Cast,
        role: Role,
        tried: Collection[Voice],
        engine: bool = False,
        others: Collection[Voice] = (),
    ) -> Voice | None:
        """A voice that may stand in for that of `role`: of those that this speaker may have, never the other speaker's,
        of the same gender and, if there is one, age. An agent, of whom there are few, may be of the other gender where
        nobody else is left. None if there is no such voice.

        tried: those that the speaker had; others: and those that the other one had. engine: whether it is to be of
        another engine than they, or of the same.
        """
        pool = self._users[planned.language, planned.split] if role == "user" else self._agents[planned.language]
        own, engines = cast.voice(role), {voice.engine for voice in tried}
        avoid = {voice.id for voice in (cast.user, cast.assistant, *tried, *others)}

        def fits(voice: Voice) -> bool:
            return voice.id not in avoid and (voice.engine not in engines if engine else voice.engine == own.engine)

        start = derive_seed(planned.seed, "another", role, len(tried))
        return pool.next_like(start, own.gender, own.age, fits) or (
            pool.next_like(start, None, own.age, fits) if role == "assistant" else None
        )


class _Pool:
    """Voices that take turns. `keys` seed the order of a lap."""

    def __init__(self, voices: tuple[Voice, ...], *keys: object):
        self._voices = voices
        self._ids = frozenset(voice.id for voice in voices)
        self._keys = keys
        # Laps and groups are made again when they are needed again: a library has tens of thousands of voices.
        self._lap = functools.lru_cache(maxsize=16)(self._make_lap)
        self._group = functools.lru_cache(maxsize=16)(self._make_group)
        self._without = functools.lru_cache(maxsize=16)(self._make_without)

    def without(self, voice: Voice) -> _Pool:
        return self._without(voice.id) if voice.id in self._ids else self

    def draw(self, turn: int) -> Voice:
        """Genders alternate, then voices within a gender take turns."""
        if self._both:
            turn, gender = divmod(turn, len(GENDERS))
            return self._turn(turn, GENDERS[gender], None, "")
        return self._turn(turn, None, None, "")

    def draw_like(self, turn: int, gender: Gender | None, age: Age) -> Voice:
        """A voice of that gender, if there is one, and of that age, if there is one; if no gender is given they
        alternate."""
        if gender is None and self._both:
            turn, place = divmod(turn, len(GENDERS))
            gender = GENDERS[place]
        wanted = gender if self._group(gender, None) else None
        return self._turn(turn, wanted, age if self._group(wanted, age) else None, "persona")

    def next_like(self, start: int, gender: Gender | None, age: Age, fits: Callable[[Voice], bool]) -> Voice | None:
        """The first that fits, from the place `start` on and round, of that gender, and of that age if there is one."""
        for wanted in (age, None):
            group = self._group(gender, wanted)
            for place in range(len(group)):
                found = group[(start + place) % len(group)]
                if fits(found):
                    return found
        return None

    @functools.cached_property
    def _both(self) -> bool:
        return len({voice.gender for voice in self._voices}) > 1

    def _turn(self, turn: int, gender: Gender | None, age: Age | None, purpose: str) -> Voice:
        lap, place = divmod(turn, len(self._group(gender, age)))
        return self._lap(gender, age, purpose, lap)[place]

    def _make_lap(self, gender: Gender | None, age: Age | None, purpose: str, lap: int) -> list[Voice]:
        keys = (*self._keys, purpose, lap)
        return sorted(self._group(gender, age), key=lambda voice: derive_seed("cast", *keys, voice.id))

    def _make_group(self, gender: Gender | None, age: Age | None) -> tuple[Voice, ...]:
        return tuple(v for v in self._voices if gender in (None, v.gender) and age in (None, v.age))

    def _make_without(self, id: str) -> _Pool:
        return _Pool(tuple(voice for voice in self._voices if voice.id != id), *self._keys)


def _named(
    ids: Iterable[str], language: Language, library: VoiceLibrary, config: Config, key: str
) -> tuple[Voice, ...]:
    try:
        voices = tuple(library.voice(item) for item in dict.fromkeys(ids))
    except ConfigError as error:
        place = config.cast.library or "not set, so that only the shipped voices are there"
        raise ConfigError(f"{key}: {error} (cast.library: {place})") from None
    if not voices:
        raise ConfigError(f"{key}: name at least one voice; `speechchat voices --language {language}` lists them")
    for voice in voices:
        fault = _fault(voice, language, config.tts.engines)
        if fault:
            raise ConfigError(f"{key}: voice {voice.id!r} {fault}")
    return voices


def _fault(voice: Voice, language: Language, engines: Mapping[str, TtsEngineConfig]) -> str:
    """Why a voice cannot speak a language here, "" if it can."""
    if language not in voice.languages:
        return f"speaks {', '.join(voice.languages)}, not {language}"
    if voice.engine not in engines:
        return (
            f"is of the engine {voice.engine!r}, which tts.engines does not have (it has {', '.join(engines)}): "
            "add it there, or name voices of these, from a cast.library that has them"
        )
    engine = engines[voice.engine]
    if language not in engine.languages:
        spoken = ", ".join(engine.languages)
        return f"is of an engine that does not speak {language} (tts.engines.{voice.engine}.languages: {spoken})"
    if engine.kind == "http" and voice.recipe.kind not in engine.takes:
        taken = f"tts.engines.{voice.engine}.takes: {', '.join(engine.takes)}"
        return f"is of the kind {voice.recipe.kind!r}, which its server does not take ({taken})"
    return ""


def _check(users: tuple[Voice, ...], agents: tuple[Voice, ...], key: str, split: Split) -> None:
    if not users:
        raise ConfigError(
            f"{key}: none of its voices is of the split {split!r}, and no voice may be heard in two; name or add some, "
            f"set splits.{split}=0, or allow it with cast.disjoint=false"
        )
    if len(users) == 1 and users[0] in agents:
        raise ConfigError(f"{key}: user and agent would share the only voice {users[0].id!r}")


def _check_parents(users: Iterable[Voice], owners: dict[tuple[str, str], Voice], key: str) -> None:
    """owners: of each parent the first voice made of it, in any language; grows."""
    for voice in users:
        for parent in voice.recipe.parents:
            other = owners.setdefault((voice.engine, parent), voice)
            if other.split != voice.split:
                raise ConfigError(
                    f"{key}: {other.id} ({other.split}) and {voice.id} ({voice.split}) are both made of {parent!r}; "
                    "move one of them to the other's split in the library, or allow it with cast.disjoint=false"
                )
