"""speak: turns → mastered clips, one batch at a time. A take differs from the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import audio
from pipeline.backends.tts.base import Synthesizer
from pipeline.config import Config
from pipeline.dialogue import Clip, Language, Role, SpeechRequest, Turn, derive_seed
from speakers import Voice

VERSION = 1


def request(
    turn: Turn, number: int, voice: Voice, language: Language, seed: int, take: int, config: Config
) -> SpeechRequest:
    """What the engine is asked for turn `number` (0-based) at take `take` (0-based).

    speeds[take] of the configuration is the speed; a stochastic engine also gets a seed of its own for each take.
    """
    return SpeechRequest(
        text=turn.spoken,
        language=language,
        voice=voice.id,
        take=take,
        speed=config.tts.speeds[take],
        seed=derive_seed(seed, "speech", number, take),
    )


def speak(
    requests: Sequence[SpeechRequest], roles: Sequence[Role], synthesizer: Synthesizer, config: Config
) -> list[Clip]:
    """One mastered clip a request, at the rate of its role's track. An empty clip: the engine gave only silence."""
    clips = synthesizer.synthesize(requests)
    return [audio.master(clip, role, config.audio) for clip, role in zip(clips, roles, strict=True)]
