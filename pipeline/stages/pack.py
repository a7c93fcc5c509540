"""pack: kept takes → one sample on one timeline, encoded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pipeline import audio
from pipeline.config import AudioConfig, Config
from pipeline.dialogue import (
    SAMPLE_VERSION,
    Clip,
    Dialogue,
    ModelUse,
    PlannedDialogue,
    Provenance,
    Role,
    Sample,
    SampleTurn,
    SampleVoice,
    Take,
    Word,
    derive_seed,
)
from pipeline.shards.format import Encoded, TakeClip
from pipeline.stages.cast import Cast
from pipeline.stages.listen import Hearing
from pipeline.text.rates import MAIN_METRIC
from pipeline.voice import Voice

VERSION = 3


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
    """One timeline, two tracks, one closed record. cast: the voices that are heard in the kept takes."""
    plan = dialogue.plan
    clips = [(turn.role, item.kept.clip) for turn, item in zip(dialogue.turns, spoken, strict=True)]
    timeline = audio.lay_out(
        clips, _gaps(plan.seed, [turn.role for turn in dialogue.turns], config.audio), config.audio
    )
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
            words=_on_timeline(item.kept.hearing.transcript.words, span[0]),
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
            age=cast.voice(role).age,
            license=cast.voice(role).license,
            consent=cast.voice(role).consent,
            recipe=_recipe(cast.voice(role)),
        )
        for role in roles
    )
    sample = Sample(
        version=SAMPLE_VERSION,
        key=plan.id,
        language=plan.language,
        split=plan.split,
        view="",
        channel=(),
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
    tags = _tags(plan.id, plan.language)
    return Encoded(
        sample,
        audio.encode_flac(timeline.user, config.audio.user_rate, tags),
        audio.encode_flac(timeline.assistant, config.audio.assistant_rate, tags),
    )


def encode_take(plan: PlannedDialogue, turn: int, take: int, clip: Clip) -> TakeClip:
    """A take by itself, as evidence of why it was refused."""
    return TakeClip(turn, take, audio.encode_flac(audio.to_pcm(clip.audio), clip.rate, _tags(plan.id, plan.language)))


def _on_timeline(words: Sequence[Word], start: float) -> tuple[Word, ...]:
    return tuple(
        Word(text=word.text, start=round(start + word.start, 3), end=round(start + word.end, 3)) for word in words
    )


def _recipe(voice: Voice) -> str:
    """Of a reference clip its name alone: where a library lies is no part of a sample, and differs by machine."""
    recipe = voice.recipe
    return recipe.model_copy(update={"clip": PurePath(recipe.clip).name}).text


def _gaps(seed: int, roles: Sequence[Role], config: AudioConfig) -> list[float]:
    """Seconds of silence before each turn: the lead, then responses and pauses drawn for this dialogue."""
    chance = random.Random(derive_seed(seed, "gaps"))
    spreads = [config.response if role == "assistant" else config.pause for role in roles[1:]]
    return [config.lead] + [audio.draw(spread, chance) for spread in spreads]


def _tags(key: str, language: str) -> dict[str, str]:
    """What a track says of itself when it has left its shard."""
    return {"title": key, "comment": f"synthetic speech ({language}), made by speechchat", "genre": "synthetic"}
