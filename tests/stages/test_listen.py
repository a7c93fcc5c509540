"""Who is asked to listen, in which order, whose hearing counts, and what is measured beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from pipeline.backends.asr.base import Spellings
from pipeline.config import AsrConfig, Config, JudgeConfig
from pipeline.dialogue import Clip, Language, Score, Transcript
from pipeline.errors import BackendError
from pipeline.listening_sections import RecognizerConfig
from pipeline.stages.judge import failure
from pipeline.stages.listen import Hearing, Listener, Spoken, looks_made_up

RATE = 16000
GATES = JudgeConfig(limits={"en": {"wer": 0.1, "cer": 0.05}, "zh": {"cer": 0.1}})
SECOND = AsrConfig(second=RecognizerConfig(languages=("en",)))


def heard(text: str, **others: float | str | None) -> Transcript:
    plain = Transcript(text, -0.2, 0.01, 1.1, language=0.98, recognizer="script")
    return replace(plain, **others)  # type: ignore[arg-type]


@dataclass
class Scripted:
    """Hears in each clip what `hasty` and `calm` say of it, by the clip's level in percent."""

    hasty: dict[int, Transcript]
    calm: dict[int, Transcript] = field(default_factory=dict)
    rate: int = RATE
    name: str = "script"
    deterministic: bool = True
    careful: bool = True
    asked: list[tuple[bool, list[int]]] = field(default_factory=list)

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        assert {clip.rate for clip in clips} == {self.rate}
        levels = [round(100 * float(np.median(clip.audio))) for clip in clips]
        self.asked.append((careful, levels))
        return [self.calm.get(level, self.hasty[level]) if careful else self.hasty[level] for level in levels]


class LengthQuality:
    name = "length"
    rate = 8000

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        assert {clip.rate for clip in clips} == {self.rate}
        return [(Score(name="mos_ovr", value=len(clip.audio) / self.rate),) for clip in clips]


def spoken(level: int, text: str, *others: str, seconds: float = 1.0, rate: float = 0.0) -> Spoken:
    clip = Clip(np.full(round(seconds * RATE), level / 100, np.float32), RATE)
    return Spoken(clip, (text, *others), "user", rate)


def scores(hearing: Hearing) -> dict[str, float]:
    return {score.name: score.value for score in hearing.scores}


def test_what_follows_the_text_is_heard_once_and_only_the_rest_again() -> None:
    asr = Scripted(
        {1: heard("Good morning."), 2: heard("Hood warning."), 3: heard("Food mooring.")},
        {2: heard("Good evening."), 3: heard("Goodness.")},
    )
    second = Scripted({3: heard("Good night.", recognizer="other")}, rate=8000)
    listener = Listener(Config(judge=GATES, asr=SECOND), asr, second)
    turns = [spoken(1, "Good morning."), spoken(2, "Good evening."), spoken(3, "Good night.")]
    found = listener.listen(turns, "en")
    assert [item.transcript.text for item in found] == ["Good morning.", "Good evening.", "Good night."]
    assert [item.score("wer") for item in found] == [0, 0, 0]
    assert found[2].transcript.recognizer == "other"
    assert asr.asked == [(False, [1, 2, 3]), (True, [2, 3])]
    assert second.asked == [(True, [3])]


def test_the_hearing_with_the_fewest_broken_gates_counts_then_the_nearest() -> None:
    text = "We walked along the river until the sun went down."
    near, far = heard("We walked along the river until the sun went town."), heard("We talked of a liver.")
    both = Scripted({1: far, 2: near}, {1: near, 2: far})
    found = Listener(Config(judge=GATES), both).listen([spoken(1, text), spoken(2, text)], "en")
    assert [item.transcript for item in found] == [near, near]
    # The first has the fewer wrong words and breaks two gates, the second breaks none.
    gates = JudgeConfig(limits={"en": {"wer": 0.3, "cer": 0.05, "dropped": 0}})
    dropped = heard("We walked along the river until the sun went.")
    letters = heard("We walked alonk the river until the son went down.")
    other = Scripted({1: dropped}, {1: letters})
    assert Listener(Config(judge=gates), other).listen([spoken(1, text)], "en")[0].transcript == letters


def test_score_only_asks_for_the_second_opinion_too() -> None:
    asr = Scripted({1: heard("Wood.")})
    second = Scripted({1: heard("Good.")})
    config = Config(judge=GATES.model_copy(update={"mode": "score_only"}), asr=SECOND)
    assert Listener(config, asr, second).listen([spoken(1, "Good.")], "en")[0].transcript.text == "Good."


def test_a_second_recogniser_is_not_asked_for_a_language_that_it_has_not() -> None:
    second = Scripted({1: heard("你好")})
    config = Config(judge=GATES, asr=SECOND)
    [found] = Listener(config, Scripted({1: heard("尼号")}), second).listen([spoken(1, "你好。")], "zh")
    assert (second.asked, found.transcript.text) == ([], "尼号")


LOOPS = heard("so " * 30, compression_ratio=9.0)


@pytest.mark.parametrize(
    ("made_up", "language"),
    [
        (LOOPS, "en"),
        (heard("Thank you.", no_speech=0.9, logprob=-1.4), "en"),
        (heard("a" * 60), "en"),
        (heard("你好。"), "en"),
        (heard("Спасибо"), "en"),
        (heard("好" * 20), "zh"),
        (heard("ありがとう"), "zh"),
        (heard("감사합니다"), "zh"),
    ],
)
def test_what_a_recogniser_makes_up_is_heard_again_whatever_is_gated(made_up: Transcript, language: Language) -> None:
    assert looks_made_up(made_up, 1.0, language)
    text = {"en": "Good morning.", "zh": "早上好。"}[language]
    right = heard(text)
    ungated = Config(judge=JudgeConfig(limits={"en": {}, "zh": {}}))
    [found] = Listener(ungated, Scripted({1: made_up}, {1: right})).listen([spoken(1, text)], language)
    assert found.transcript == right


@pytest.mark.parametrize(
    ("plain", "language"),
    [
        (heard("Good morning, café."), "en"),
        (heard("", no_speech=0.9, logprob=-0.4), "en"),
        (heard("早上好 OK"), "zh"),
        (heard("𠮷野家〇"), "zh"),
        (heard("好", language=0.01), "zh"),
    ],
)
def test_what_may_have_been_said_is_not_made_up(plain: Transcript, language: Language) -> None:
    assert not looks_made_up(plain, 1.0, language)


def test_a_text_that_repeats_itself_may_be_heard_so() -> None:
    loop = heard("so " * 30, compression_ratio=9.0)
    asr = Scripted({1: loop})
    [found] = Listener(Config(judge=GATES), asr).listen([spoken(1, "So " * 30, seconds=9)], "en")
    assert len(asr.asked) == 1
    assert failure(scores(found), "en", GATES) is None


def test_a_loop_that_stays_is_the_reason() -> None:
    [found] = Listener(Config(judge=GATES), Scripted({1: LOOPS})).listen([spoken(1, "Good morning.")], "en")
    broken = failure(scores(found), "en", GATES)
    assert broken is not None and broken.reason == "repetition"


def test_the_nearest_of_several_texts_counts() -> None:
    asr = Scripted({1: heard("I like tea.")})
    [found] = Listener(Config(judge=GATES), asr).listen([spoken(1, "Um, I I like tea.", "I like tea.")], "en")
    assert (found.score("wer"), len(asr.asked)) == (0, 1)


def test_every_clip_has_its_scores_and_only_those_that_can_be_told() -> None:
    asr = Scripted({1: heard("Good morning."), 2: heard("Good night.", language=None)})
    turns = [spoken(1, "Good morning.", seconds=0.1, rate=15.0), spoken(2, "Good night.")]
    first, second = map(scores, Listener(Config(judge=GATES), asr, quality=LengthQuality()).listen(turns, "en"))
    assert (first["mos_ovr"], second["mos_ovr"]) == (0.1, 1.0)
    assert first["language"] == 0.98 and "language" not in second
    assert first["pace"] > 5 and "pace" not in second  # twelve letters and a space in a tenth of a second
    assert "snr" in second and "snr" not in first
    assert first["chars_per_second"] == 130
    assert {"wer", "cer", "lead", "tail", "hush", "logprob", "no_speech", "compression_ratio"} <= first.keys()
    assert not {"similarity", "swap"} & first.keys()


@pytest.mark.parametrize(("text", "language", "rate"), [("Good " * 10, "en", 20.0), ("早上好" * 5, "zh", 5.0)])
def test_pace_tells_fast_from_slow(text: str, language: Language, rate: float) -> None:
    asr = Scripted({1: heard(text)})
    listener = Listener(Config(judge=GATES), asr)
    paces = [
        listener.listen([spoken(1, text, seconds=seconds, rate=rate)], language)[0].score("pace")
        for seconds in (1.4, 2.8, 5.6)
    ]
    assert 0.85 < paces[1] < 1.15
    assert paces == pytest.approx([2 * paces[1], paces[1], paces[1] / 2], rel=1e-4)


def test_an_empty_clip_is_silence_and_shifts_nothing() -> None:
    asr = Scripted({1: heard("Good morning."), 2: heard("Good night.")})
    empty = Spoken(Clip(np.zeros(0, np.float32), RATE), ("Good day.",), "user")
    turns = [spoken(1, "Good morning."), empty, spoken(2, "Good night.", seconds=2)]
    found = Listener(Config(judge=GATES), asr, quality=LengthQuality()).listen(turns, "en")
    assert [item.transcript.text for item in found] == ["Good morning.", "", "Good night."]
    assert [scores(item).get("mos_ovr") for item in found] == [1.0, None, 2.0]
    assert [failure(scores(item), "en", GATES) is None for item in found] == [True, False, True]
    broken = failure(scores(found[1]), "en", GATES)
    assert broken is not None and broken.reason == "silence"
    assert Listener(Config(judge=GATES), asr).listen([empty], "en")[0].transcript.text == ""
    assert Listener(Config(judge=GATES), asr).listen([], "en") == []


class Lossy(Scripted):
    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        return super().transcribe(clips, languages, careful, texts)[:-1]


def test_a_recogniser_that_loses_clips_is_named() -> None:
    asr = Lossy({1: heard("a"), 2: heard("b")}, name="lossy")
    with pytest.raises(BackendError, match=r"^lossy: 1 transcripts of 2 clips$"):
        Listener(Config(), asr).listen([spoken(1, "a"), spoken(2, "b")], "en")


@pytest.mark.parametrize("name", ["logprob", "no_speech", "compression_ratio", "language"])
def test_a_number_that_is_none_is_named(name: str) -> None:
    asr = Scripted({1: heard("Good.", **{name: math.nan})})
    with pytest.raises(BackendError, match=f"^script: {name} of a transcript is nan"):
        Listener(Config(), asr).listen([spoken(1, "Good.")], "en")
