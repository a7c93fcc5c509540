"""pack: kept takes → one sample on one timeline, encoded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import audio
from pipeline.config import Config
from pipeline.dialogue import (
    SAMPLE_VERSION,
    Clip,
    Dialogue,
    ModelUse,
    Provenance,
    Role,
    Sample,
    SampleTurn,
    SampleVoice,
    Take,
    derive_seed,
)
from pipeline.shards.format import Encoded
from pipeline.stages.cast import Cast
from pipeline.stages.listen import Hearing
from pipeline.text.rates import MAIN_METRIC

VERSION = 1


@dataclass(frozen=True)
class KeptTake:
    """The clip of take number `take` (0-based), and what was heard of it."""

    clip: Clip
    hearing: Hearing
    take: int


@dataclass(frozen=True)
class SpokenTurn:
    """The take that was kept of a turn, and the record of all of them."""

    kept: KeptTake
    takes: tuple[Take, ...]


@dataclass(frozen=True)
class Origin:
    """What all samples of a run share: digests, models, and who made them."""

    generator: str
    digests: dict[str, str]
    models: tuple[ModelUse, ...]


def pack(dialogue: Dialogue, cast: Cast, spoken: Sequence[SpokenTurn], origin: Origin, config: Config) -> Encoded:
    """One timeline, two tracks, one closed record."""
    plan = dialogue.plan
    clips = [(turn.role, item.kept.clip) for turn, item in zip(dialogue.turns, spoken, strict=True)]
    timeline = audio.lay_out(clips, _gaps(plan.seed, len(clips), config), config.audio)
    metric = MAIN_METRIC[plan.language]
    turns = tuple(
        SampleTurn(
            role=turn.role,
            speaker=turn.role,
            written=turn.written,
            spoken=turn.spoken,
            author=turn.author,
            emotion=turn.emotion,
            style=turn.style,
            disfluencies=turn.disfluencies,
            voice=cast.voice(turn.role).id,
            start=span[0],
            end=span[1],
            transcript=item.kept.hearing.transcript.text,
            metric=metric,
            error_rate=item.kept.hearing.score(metric),
            scores=item.kept.hearing.scores,
            take=item.kept.take,
            takes=item.takes,
        )
        for turn, item, span in zip(dialogue.turns, spoken, timeline.spans, strict=True)
    )
    roles: tuple[Role, ...] = ("user", "assistant")
    voices = tuple(
        SampleVoice(
            id=cast.voice(role).id,
            role=role,
            engine=cast.voice(role).engine,
            gender=cast.voice(role).gender,
            license=cast.voice(role).license,
        )
        for role in roles
    )
    sample = Sample(
        version=SAMPLE_VERSION,
        key=plan.id,
        language=plan.language,
        split=plan.split,
        system=dialogue.system,
        source=dialogue.source,
        instruction=dialogue.instruction,
        topic=dialogue.topic,
        persona=dialogue.persona,
        scenario=dialogue.scenario,
        code_switch=dialogue.code_switch,
        text_scores=dialogue.scores,
        duration=timeline.duration,
        user_rate=config.audio.user_rate,
        assistant_rate=config.audio.assistant_rate,
        turns=turns,
        voices=voices,
        provenance=Provenance(
            synthetic=True,
            generator=origin.generator,
            seed=plan.seed,
            text_digest=origin.digests["text"],
            speech_digest=origin.digests["speech"],
            judge_digest=origin.digests["judge"],
            models=origin.models,
        ),
    )
    return Encoded(
        sample,
        audio.encode_flac(timeline.user, config.audio.user_rate),
        audio.encode_flac(timeline.assistant, config.audio.assistant_rate),
    )


def _gaps(seed: int, turns: int, config: Config) -> list[float]:
    """Seconds of silence before each turn: the lead, then pauses drawn for this dialogue, in whole milliseconds."""
    draw = random.Random(derive_seed(seed, "gaps"))
    low, high = config.audio.gap
    return [config.audio.lead] + [round(low + (high - low) * draw.random(), 3) for _ in range(turns - 1)]
