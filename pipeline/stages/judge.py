"""judge: scores → accepted or the reason why not. Pure, so that stored scores can be judged again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.config import JudgeConfig
from pipeline.dialogue import Language, Reject, RejectedTurn, SampleTurn, derive_seed
from pipeline.errors import ConfigError
from pipeline.listening_sections import WORDS

VERSION = 2
LOOP = 2.4
"""Compression ratio above which a transcript is a loop: Radford et al. 2022, section 4.5."""
OPTIONAL = frozenset({"pace", "language", "doubt", "surprise", "similarity", "swap", "snr"})


@dataclass(frozen=True)
class Failure:
    """Why a turn is refused. reason: the score that breaks its limit ("mos" for mos_ovr), or "silence", or
    "repetition" where the recogniser fell into a loop, so that its words say nothing of the clip. value, limit: of
    that score."""

    reason: str
    value: float
    limit: float


def failure(scores: Mapping[str, float], language: Language, config: JudgeConfig) -> Failure | None:
    """None if a turn with these scores passes, or if nothing is gated. Raises ConfigError for a gate on a score that
    was not measured."""
    if config.mode == "score_only":
        return None
    if "chars_per_second" in scores and scores["chars_per_second"] == 0:
        return Failure("silence", 0.0, 0.0)
    broken = _broken(scores, language, config, frozenset())
    if broken and broken.reason in WORDS and excused(scores, language, config):
        broken = _broken(scores, language, config, WORDS)
    if broken and scores.get("compression_ratio", 0.0) > LOOP:
        return Failure("repetition", scores["compression_ratio"], LOOP)
    return broken


def excused(scores: Mapping[str, float], language: Language, config: JudgeConfig) -> bool:
    """Whether the appeal holds: the words may then be other ones."""
    appeal = config.appeal.get(language, {})
    return bool(appeal) and all(name in scores and scores[name] <= limit for name, limit in appeal.items())


def _broken(
    scores: Mapping[str, float], language: Language, config: JudgeConfig, passed: Collection[str]
) -> Failure | None:
    """The first gate that is broken, limits before floors. passed: limits that do not count."""
    for name, limit in sorted(config.limits.get(language, {}).items()):
        if name in passed:
            continue
        value = _measured(scores, name, f"judge.limits.{language}.{name}")
        if value is not None and value > limit:
            return Failure(name, value, limit)
    for name, floor in sorted(config.floors.get(language, {}).items()):
        value = _measured(scores, name, f"judge.floors.{language}.{name}")
        if value is not None and value < floor:
            return Failure(name, value, floor)
    if config.min_mos is not None and scores.get("mos_ovr", 0.0) < config.min_mos:
        return Failure("mos", scores.get("mos_ovr", 0.0), config.min_mos)
    return None


def _measured(scores: Mapping[str, float], name: str, key: str) -> float | None:
    """The score; None where a turn can have none: a voice may have no pace and, alone in its dialogue, no reference,
    and nobody doubts a transcript that is the text."""
    if name not in scores and name not in OPTIONAL:
        raise ConfigError(f"{key}: {name} was not measured; what was: {', '.join(scores)}")
    return scores.get(name)


def verdict(scores: Mapping[str, float], language: Language, config: JudgeConfig) -> str:
    """Why a turn with these scores is refused, "" if it is not."""
    broken = failure(scores, language, config)
    return broken.reason if broken else ""


def judge_turns(key: str, language: Language, turns: tuple[SampleTurn, ...], config: JudgeConfig) -> Reject | None:
    """None if every turn passes; otherwise the reject, with the reason of the first turn that fails."""
    for number, turn in enumerate(turns):
        broken = failure({score.name: score.value for score in turn.scores}, language, config)
        if broken:
            detail = (
                f"turn {number}: {broken.reason} {broken.value:.3f}, limit {broken.limit}; "
                f"said {turn.spoken!r}, heard {turn.transcript!r}, {len(turn.takes)} takes"
            )
            heard = tuple(
                RejectedTurn(
                    turn=place,
                    spoken=item.spoken,
                    transcript=item.transcript,
                    scores=item.scores,
                    takes=item.takes,
                    disfluencies=item.disfluencies,
                )
                for place, item in enumerate(turns)
            )
            return Reject(id=key, language=language, stage="judge", reason=broken.reason, detail=detail, turns=heard)
    return None


def keeps_clips(key: str, config: JudgeConfig) -> bool:
    """Whether the clips of a rejected dialogue are kept. sample: one in ten, chosen by its id."""
    return config.keep == "all" or (config.keep == "sample" and derive_seed("keep", key) % 10 == 0)
