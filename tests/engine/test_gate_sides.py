"""What fits a rule and what tries it have nothing in common; and a table says what a run decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.config import JudgeConfig, load_config
from pipeline.dialogue import Clip, Language, Transcript
from pipeline.engine.gate_figures import figures
from pipeline.engine.gate_measure import PERFECT, Case, Opinion
from pipeline.engine.gate_rules import Table, rule_of
from pipeline.engine.gate_sides import once, split
from pipeline.stages.judge import verdict
from pipeline.stages.listen import Listener, Spoken
from tests.engine.test_gate_rules import case, corpus, opinion, sentence


def test_sides_share_no_voice_and_no_sentence() -> None:
    cases = [*corpus(40), *(case(100 + item, "good", [opinion("x")], text=sentence(item)) for item in range(40))]
    sides = split(cases)
    found = list(zip(cases, sides, strict=True))
    for name in ("voice", "texts"):
        fitted, held = ({getattr(item, name) for item, side in found if side == which} for which in ("fit", "held"))
        assert fitted and held and not fitted & held
    assert sides == split(cases) and "" in sides
    plain = split(corpus(40))
    assert min(plain.count(which) for which in ("fit", "held")) > 0.4 * len(plain) and "" not in plain


def test_swapped_clips_were_to_say_a_sentence_of_their_side() -> None:
    plain = corpus(40)
    swapped = [case(item, "swapped", [opinion(sentence(item))], text=sentence((item + 7) % 40)) for item in range(40)]
    # Of a turn that nobody heard: it is on one side as well.
    alone = [case(item, "swapped", [opinion("x")], text="a sentence of its own") for item in range(40)]
    cases = [*plain, *swapped, *alone]
    found = list(zip(cases, split(cases), strict=True))
    fitted, held = ({item.texts for item, side in found if side == which} for which in ("fit", "held"))
    assert not fitted & held and ("a sentence of its own",) in fitted | held
    assert 0 < sum(side != "" for item, side in found[len(plain) :] if item in swapped) < 40


def foreign(item: int, source: int) -> Case:
    """The clip `source` where turn `item` was to be said; every second source says what the one before it says."""
    made = case(item, "foreign", [opinion("ni hao")])
    return made.model_copy(update={"key": f"{item}f{source}", "clip": f"{source}.flac", "said": f"zh {source // 2}"})


def test_a_foreign_clip_counts_once_and_its_voice_is_on_one_side() -> None:
    speakers = {f"{source}.flac": f"z{source % 5}" for source in range(18)}  # of two more it is not known
    cases = [*corpus(40), *(foreign(item, item % 20) for item in range(40)), foreign(0, 1)]
    sides = split(cases, speakers)
    taken = [(item, side) for item, side in zip(cases, sides, strict=True) if item.kind == "foreign" and side]
    assert len({item.clip for item, _ in taken}) == len(taken) >= 8
    for name in (
        lambda item: speakers.get(item.clip, item.clip),
        lambda item: item.said,
        lambda item: item.voice,
        lambda item: item.texts,
    ):
        fitted, held = ({name(item) for item, side in taken if side == which} for which in ("fit", "held"))
        assert fitted and held and not fitted & held
    assert len([item for item in once(cases) if item.kind == "foreign"]) == 20


def test_the_voices_of_foreign_clips_are_those_of_the_other_language() -> None:
    chinese = [
        case(item, "good", [opinion("你好")], text="你好" * (item + 1), voice=f"z{item}", language="zh").model_copy(
            update={"clip": f"{item}.flac", "item": f"zh-{item}#0"}
        )
        for item in range(2)
    ]
    strange = [foreign(item, item % 2).model_copy(update={"said": f"zh {item % 2}"}) for item in range(40)]
    counts = []
    for others in (chinese, [one.model_copy(update={"voice": "z"}) for one in chinese]):
        found = figures([*corpus(40), *strange, *others], JudgeConfig(), {})["languages"]["en"]["clips"]
        counts.append([found[side].get("foreign", 0) for side in ("fit", "held")])
    assert sorted(counts[0]) == [1, 1] and sorted(counts[1]) == [0, 2]


def test_no_clip_is_compared_with_a_voice_of_the_other_side() -> None:
    draw = np.random.default_rng(1)

    def clips(voices: str) -> dict[str, Any]:
        cases = [
            case(item, "good", [opinion(sentence(item))], voice=voices[item % len(voices)]).model_copy(
                update={"embedding": tuple(draw.normal(size=8).tolist())}
            )
            for item in range(40)
        ]
        found: dict[str, Any] = figures(cases, JudgeConfig(), {})["languages"]["en"]["clips"]
        return found

    assert all("voice" not in kinds for kinds in clips("ab").values())
    assert all(kinds["voice"] == kinds["good"] for kinds in clips("abcd").values())


class Script:
    """Says in turn what it was given, and remembers it."""

    name = "script"
    rate = 16000
    deterministic = True
    careful = True

    def __init__(self, lines: Sequence[Transcript]):
        self._lines = iter(lines)
        self.said: list[Transcript] = []

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: Any = None
    ) -> list[Transcript]:
        self.said += [next(self._lines) for _ in clips]
        return self.said[-len(clips) :]


APPEAL = {"doubt": 2.0, "surprise": 3.0, "added": 0.0}
RULES = [
    JudgeConfig(limits={"en": {"cer": 0.05}}),
    JudgeConfig(limits={"en": {"cer": 0.05, "gap": 2}}, appeal={"en": APPEAL}),
    JudgeConfig(limits={"en": {"dropped": 0, "cer": 0.1}}, floors={"en": {"language": 0.5}}, appeal={"en": APPEAL}),
]


@pytest.mark.parametrize("judge", RULES)
def test_a_table_says_what_a_run_decides(judge: JudgeConfig) -> None:
    """Over two or three hearings by two recognisers, of which a run may stop at an earlier one."""
    draw, clip = random.Random(3), Clip(np.full(48000, 0.1, np.float32), 16000)
    config = load_config("quickstart", ["asr.second={engine: faster-whisper, model: small, license: MIT}"])

    def slip(text: str, careful: bool) -> Transcript:
        words = text.split()
        place = draw.randrange(len(words))
        way = draw.random()
        if way < 0.15:
            return Transcript(text, -0.2, 0.0, 1.0, 0.9)
        if way < 0.5:
            words[place] = draw.choice(("xylophone", words[place] + "s"))
        elif way < 0.75:
            del words[place]
        else:
            words.insert(place, "window")
        likely = (draw.uniform(0, 4), draw.uniform(0, 6)) if careful else (None, None)
        ratio = draw.choice((1.0, 1.0, 3.0))  # some look made up
        return Transcript(" ".join(words), -0.2, 0.0, ratio, draw.random(), doubt=likely[0], surprise=likely[1])

    def listen(
        judge: JudgeConfig, lines: Sequence[Transcript], texts: tuple[str, ...]
    ) -> tuple[list[Transcript], bool]:
        first, second = Script(lines[:2]), Script(lines[2:])
        listener = Listener(config.model_copy(update={"judge": judge}), first, second)
        [hearing] = listener.listen([Spoken(clip, texts, "user")], "en")
        scores = {score.name: score.value for score in hearing.scores}
        return first.said + second.said, verdict(scores, "en", judge) == ""

    cases, decided, counts = [], [], set()
    for item in range(300):
        text = sentence(item)
        texts = (text, text.replace("number", "numeral")) if item % 3 == 0 else (text,)
        lines = [slip(text, careful) for careful in (False, True, True)]
        asked, passed = listen(judge, lines, texts)
        heard, _ = listen(JudgeConfig(limits=PERFECT), lines, texts)
        assert heard[: len(asked)] == asked
        counts.add((len(asked), len(heard)))
        own = Opinion.model_fields
        opinions = [
            Opinion(**{name: getattr(one, name) for name in own if name != "recognizer"}, recognizer="")
            for one in heard
        ]
        cases.append(case(item, "good", opinions).model_copy(update={"texts": texts}))
        decided.append(passed)
    assert Table(cases).passes(rule_of(judge, "en")).tolist() == decided
    assert 30 < sum(decided) < 270 and counts >= {(1, 1), (2, 3), (3, 3)}, (sum(decided), counts)
