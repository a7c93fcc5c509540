"""A server that writes whole dialogues step by step and misbehaves by the request, and what is asked of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config, load_config
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.write import TextProgress
from tests.fakes import Silent, config_file
from tests.faulty_llm import PASSING, Answer, completion, says

ADJECTIVES = ("old", "green", "quiet", "warm", "heavy", "bright", "narrow", "sweet", "empty", "famous")
THINGS = (
    "garden",
    "river",
    "kitchen",
    "window",
    "bicycle",
    "market",
    "bridge",
    "library",
    "candle",
    "orchard",
    "ladder",
    "harbor",
)
PLACES = ("village", "valley", "station", "corner", "museum", "forest", "island", "square")
STEPS = {
    "rewrite": {"enabled": True},
    "converse": {"mode": "whole", "turns": {2: 0.6, 4: 0.4}},
    "style": {"enabled": True, "emotions": ["calm", "happy"], "styles": ["casual"]},
    "review": {"enabled": True},
}
"""Every step that asks the LLM, as `text` of a configuration."""
LOSSES = dict.fromkeys(PASSING, 0.012) | {"hang": 0.006}
"""Share of the tries that meet a fault which another try may not meet."""
SPOILT = dict.fromkeys(("wrong schema", "truncated", "length", "no choice", "refusal", "content filter"), 0.02)
"""Share of the requests whose reply is of no use, however often they are sent."""
SALT = 15
"""Chosen so that a campaign of 64 dialogues meets every fault."""


class Teller:
    """A script for `FaultyLLM`: the reply of every step depends on nothing but the request, of which the seed is enough
    to tell one from the other.

    losses: by the names of `PASSING`, at the first two tries of a request. met: how often each fault was sent.
    """

    def __init__(self, losses: Mapping[str, float] | None = None, spoilt: Mapping[str, float] | None = None):
        self._losses, self._spoilt = losses or {}, spoilt or {}
        self._tries: Counter[str] = Counter()
        self.met: Counter[str] = Counter()

    def __call__(self, number: int, body: dict[str, Any]) -> Answer:
        request = f"{SALT} {body['seed']}"
        self._tries[request] += 1
        loss = _draw(f"{request} {self._tries[request]}", self._losses) if self._tries[request] <= 2 else ""
        if loss:
            self.met[loss] += 1
            return PASSING[loss]
        text = json.dumps(_reply(body, random.Random(request)))
        fault = _draw(f"spoilt {request}", self._spoilt)
        self.met[fault] += 1
        return {
            "wrong schema": says('{"unasked": true}'),
            "truncated": says(text[: len(text) // 2]),
            "length": says(text[: len(text) // 2], "length"),
            "no choice": Answer(body={**completion(""), "choices": []}),
            "refusal": says(None, refusal="I would rather not."),
            "content filter": says(None, "content_filter"),
        }.get(fault) or says(text)


def _draw(key: str, shares: Mapping[str, float]) -> str:
    names, weights = [*shares, ""], [*shares.values(), 1 - sum(shares.values())]
    return random.Random(key).choices(names, weights)[0]


def _reply(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    shape = body["response_format"]["json_schema"]["schema"]["properties"]
    if "speakable" in shape:
        speakable = chance.random() > 0.05
        return {"speakable": speakable, "question": _said(0, chance) if speakable else ""}
    if "turns" not in shape:
        marks = {name: chance.choice((4, 5)) for name in shape if name != "reason"}
        return {**marks, "reason": "fine"} | ({"coherence": 2} if chance.random() < 0.1 else {})
    turns = []
    for place in range(shape["turns"]["minItems"]):
        turn: dict[str, Any] = {"text": _said(place, chance)}
        if "role" in shape["turns"]["items"]["properties"]:
            turn["role"] = ("user", "assistant")[place % 2]
        else:
            kinds = shape["turns"]["items"]["properties"]
            turn |= {name: chance.choice(kinds[name]["enum"]) for name in ("emotion", "style")}
        turns.append(turn)
    return {"turns": turns}


def _said(place: int, chance: random.Random) -> str:
    first, second = chance.sample(THINGS, 2)
    adjective, where = chance.choice(ADJECTIVES), chance.choice(PLACES)
    if place % 2 == 0:
        return f"Could you tell me about the {adjective} {first} and the {second} in our {where}?"
    return f"I think the {first} is {adjective}, and you will find the {second} near the {where}."


class Watch(Silent):
    """An Observer that keeps the last that it was told of the writers."""

    def __init__(self) -> None:
        super().__init__()
        self.last = TextProgress()

    def written(self, progress: Any) -> None:
        self.last = progress


def configure(path: Path, base_url: str, kind: str, *settings: str, **changes: Any) -> Config:
    """The configuration of tests/fakes.py with other keys (a dot is __), for an engine."""
    corpus = path.parent / "no corpus"
    return load_config(str(config_file(path, base_url, corpus, **changes)), [f"engine.kind={kind}", *settings])


def lines(folder: RunFolder, config: Config) -> list[dict[str, Any]]:
    """The journals of all units."""
    found = []
    for unit in plan_units(config):
        if folder.replies(unit.number).exists():
            found += [json.loads(line) for line in folder.replies(unit.number).read_text("utf-8").splitlines()]
    return found


def part(tree: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    """Those files of a run that lie in these folders."""
    return {path: data for path, data in tree.items() if path.partition("/")[0] in names}
