"""cast: who speaks a dialogue. A pure function of the plan, so that it needs no state and no order."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Config
from pipeline.dialogue import Language, PlannedDialogue, Role, derive_seed
from pipeline.errors import ConfigError
from speakers import Voice, VoiceLibrary

VERSION = 1
GENDERS = ("female", "male")


@dataclass(frozen=True)
class Cast:
    user: Voice
    assistant: Voice

    def voice(self, role: Role) -> Voice:
        return self.user if role == "user" else self.assistant


class Casting:
    """Voices in balance: the user's gender alternates with every dialogue of a language, the agent's with every second
    one, so that all four pairs are equally frequent; within a gender each voice comes once before any comes again.
    """

    def __init__(self, config: Config, library: VoiceLibrary):
        self._seed = config.seed
        self._agents: dict[Language, tuple[Voice, ...]] = {}
        self._users: dict[Language, tuple[Voice, ...]] = {}
        for language in config.active_languages:
            agents = _voices(config.cast.agents.get(language, ()), language, library, f"cast.agents.{language}")
            named = None if config.cast.users is None else config.cast.users.get(language, ())
            if named is None:
                users = tuple(voice for voice in library.select(language) if voice not in agents)
            else:
                users = _voices(named, language, library, f"cast.users.{language}")
            if not users:
                raise ConfigError(
                    f"cast.users.{language}: no voice is left for the user; name fewer in cast.agents.{language}"
                )
            if set(agents) == set(users) and len(agents) == 1:
                raise ConfigError(f"cast.users.{language}: user and agent would share the only voice {agents[0].id!r}")
            self._agents[language], self._users[language] = agents, users

    def cast(self, planned: PlannedDialogue) -> Cast:
        agent = self._draw(self._agents[planned.language], planned, "agent", planned.ordinal // 2)
        others = tuple(voice for voice in self._users[planned.language] if voice != agent)
        return Cast(user=self._draw(others, planned, "user", planned.ordinal), assistant=agent)

    def _draw(self, voices: tuple[Voice, ...], planned: PlannedDialogue, role: str, turn: int) -> Voice:
        pool = list(voices)
        if len({voice.gender for voice in voices}) > 1:
            turn, gender = divmod(turn, 2)
            pool = [voice for voice in voices if voice.gender == GENDERS[gender]]
        lap, place = divmod(turn, len(pool))
        order = sorted(pool, key=lambda voice: derive_seed(self._seed, "cast", role, planned.language, lap, voice.id))
        return order[place]


def _voices(ids: tuple[str, ...], language: Language, library: VoiceLibrary, key: str) -> tuple[Voice, ...]:
    if not ids:
        raise ConfigError(f"{key}: name at least one voice; `speechchat voices --language {language}` lists them")
    voices = tuple(library.voice(item) for item in ids)
    for voice in voices:
        if language not in voice.languages:
            raise ConfigError(f"{key}: voice {voice.id!r} speaks {', '.join(voice.languages)}, not {language}")
    return voices
