"""speak: turns → mastered clips, one batch at a time. A take differs from the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline import audio
from pipeline.backends.tts.router import Router, spoken_speed
from pipeline.backends.tts.sentences import Piece, join
from pipeline.backends.watermark.base import Watermark
from pipeline.config import Config
from pipeline.dialogue import Clip, Language, Role, derive_seed
from pipeline.voice import SpeechRequest, Unsaid, Voice

VERSION = 3


def request(
    text: str, number: int, voice: Voice, language: Language, seed: int, take: int, speed: float
) -> SpeechRequest:
    """What the engine is asked for turn `number` at take `take` (both 0-based): each take has a seed of its own."""
    return SpeechRequest(
        text=text,
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
        return self._config.tts.speeds[0 if self.chance(voice.engine) else take]

    def chance(self, engine: str) -> bool:
        """Whether a new seed is a new take for the engine of this name."""
        return self._router.stochastic(engine)

    def speak(
        self, requests: Sequence[SpeechRequest], roles: Sequence[Role], pieces: Sequence[Sequence[Piece]] | None = None
    ) -> list[Clip | Unsaid]:
        """One mastered clip a request, at the rate of its role's track, or why there is none.

        pieces: for each request, its text in parts that are spoken one by one and joined; none where it is not cut.
        """
        cuts = pieces or [()] * len(requests)
        groups = [_parts(request, cut) for request, cut in zip(requests, cuts, strict=True)]
        said = iter(self._router.synthesize([part for group in groups for part in group]))
        whole = [
            _joined([next(said) for _ in group], request, cut)
            for group, request, cut in zip(groups, requests, cuts, strict=True)
        ]
        return [
            result if isinstance(result, Unsaid) else self._master(result, request, role)
            for result, request, role in zip(whole, requests, roles, strict=True)
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


def _parts(request: SpeechRequest, pieces: Sequence[Piece]) -> list[SpeechRequest]:
    return [
        replace(request, text=piece.text, seed=derive_seed(request.seed, place)) for place, piece in enumerate(pieces)
    ] or [request]


def _joined(said: Sequence[Clip | Unsaid], request: SpeechRequest, pieces: Sequence[Piece]) -> Clip | Unsaid:
    """One clip of all; where a part has none, why."""
    clips: list[Clip] = []
    for result in said:
        if isinstance(result, Unsaid):
            return result
        clips.append(audio.resample(result, clips[0].rate if clips else result.rate))
    if len(clips) == 1:
        return clips[0]
    pauses = [piece.pause / request.speed for piece in pieces]
    return Clip(join([clip.audio for clip in clips], pauses, clips[0].rate), clips[0].rate)
