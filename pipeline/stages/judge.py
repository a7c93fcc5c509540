"""judge: scores → accepted or the reason why not. Pure, so that stored scores can be judged again."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import JudgeConfig
from pipeline.dialogue import Language, Reject, RejectedTurn, SampleTurn, derive_seed

VERSION = 1


def verdict(scores: Mapping[str, float], language: Language, config: JudgeConfig) -> str:
    """Why a turn with these scores is refused, "" if it is not: the first limit that it breaks, or "silence"."""
    if "chars_per_second" in scores and scores["chars_per_second"] == 0:
        return "silence"
    for name, limit in sorted(config.limits[language].items()):
        if scores[name] > limit:
            return name
    if config.min_mos is not None and scores.get("mos_ovr", 0.0) < config.min_mos:
        return "mos"
    return ""


def judge_turns(key: str, language: Language, turns: tuple[SampleTurn, ...], config: JudgeConfig) -> Reject | None:
    """None if every turn passes; otherwise the reject, with the reason of the first turn that fails."""
    for number, turn in enumerate(turns):
        scores = {score.name: score.value for score in turn.scores}
        reason = verdict(scores, language, config)
        if reason:
            value, limit = scores.get(reason, 0.0), config.limits[language].get(reason)  # type: ignore[call-overload]
            if reason == "mos":
                value, limit = scores.get("mos_ovr", 0.0), config.min_mos
            detail = (
                f"turn {number}: {reason} {value:.3f}, limit {limit}; "
                f"said {turn.spoken!r}, heard {turn.transcript!r}, {len(turn.takes)} takes"
            )
            heard = tuple(
                RejectedTurn(turn=place, spoken=item.spoken, transcript=item.transcript, scores=item.scores)
                for place, item in enumerate(turns)
            )
            return Reject(id=key, language=language, stage="judge", reason=reason, detail=detail, turns=heard)
    return None


def keeps_clips(key: str, config: JudgeConfig) -> bool:
    """Whether the clips of a rejected dialogue are kept. sample: one in ten, chosen by its id."""
    return config.keep == "all" or (config.keep == "sample" and derive_seed("keep", key) % 10 == 0)
