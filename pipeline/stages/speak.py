"""speak: turns → mastered clips, one batch at a time. A take differs from the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import audio
from pipeline.backends.tts.router import Router, spoken_speed
from pipeline.backends.watermark.base import Watermark
from pipeline.config import Config
from pipeline.dialogue import Clip, Language, Role, Turn, derive_seed
from pipeline.voice import SpeechRequest, Unsaid, Voice

VERSION = 2


def request(
    turn: Turn, number: int, voice: Voice, language: Language, seed: int, take: int, speed: float
) -> SpeechRequest:
    """What the engine is asked for turn `number` at take `take` (both 0-based): each take has a seed of its own."""
    return SpeechRequest(
        text=turn.spoken,
        language=language,
        voice=voice,
        take=take,
        speed=speed,
        seed=derive_seed(seed, "speech", number, take),
    )


class Speaking:
    """Engines, and what is done to their clips before anybody listens: faults are found, the rest is mastered.

    watermark: embedded before the clip is listened to, because what is heard is what is shipped.
    """

    def __init__(self, router: Router, config: Config, vad: audio.Vad | None, watermark: Watermark | None = None):
        self._router = router
        self._config = config
        self._vad = vad
        self._watermark = watermark

    def speed(self, voice: Voice, take: int) -> float:
        """Of a take: where a new seed is a new take the speed stays, elsewhere each take has its own."""
        speeds = self._config.tts.speeds
        return speeds[0 if self._router.stochastic(voice.engine) else take]

    def speak(self, requests: Sequence[SpeechRequest], roles: Sequence[Role]) -> list[Clip | Unsaid]:
        """One mastered clip a request, at the rate of its role's track, or why there is none."""
        said = self._router.synthesize(requests)
        return [
            result if isinstance(result, Unsaid) else self._master(result, request, role)
            for result, request, role in zip(said, requests, roles, strict=True)
        ]

    def _master(self, clip: Clip, request: SpeechRequest, role: Role) -> Clip | Unsaid:
        config = self._config.audio
        fault = audio.check_raw(clip, config)
        if fault is None:
            clip = audio.master(clip, role, config, self._vad)
            fault = audio.check(clip, request.text, config, spoken_speed(request))
        if fault is None and self._watermark is not None:
            clip = audio.quantize(self._watermark.embed(clip, self._config.watermark.message))
        return fault or clip
