"""listen: clips → transcripts and scores. What is heard is what is shipped: the mastered clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import audio
from pipeline.backends.asr.base import Recognizer
from pipeline.backends.quality.base import QualityModel
from pipeline.dialogue import Clip, Language, Score, Transcript
from pipeline.text.rates import MAIN_METRIC, error_rates

VERSION = 1


@dataclass(frozen=True)
class Hearing:
    """What was heard of a clip, and every score of it by name."""

    transcript: Transcript
    scores: tuple[Score, ...]

    def score(self, name: str) -> float:
        return next(item.value for item in self.scores if item.name == name)


def listen(
    clips: Sequence[Clip],
    texts: Sequence[Sequence[str]],
    languages: Sequence[Language],
    recognizer: Recognizer,
    quality: QualityModel | None,
) -> list[Hearing]:
    """One hearing a clip, in order. texts: what was to be said, and other transcripts of it that are as right
    (recognisers leave out the fillers that they hear): the nearest counts. An empty clip is heard as "" and has no MOS.
    """
    full = [number for number, clip in enumerate(clips) if len(clip.audio)]
    heard = {number: Transcript("", 0.0, 1.0, 0.0) for number in range(len(clips))}
    wanted = [audio.resample(clips[number], recognizer.rate) for number in full]
    heard |= dict(zip(full, recognizer.transcribe(wanted, [languages[number] for number in full]), strict=True))
    quality_scores: dict[int, tuple[Score, ...]] = {}
    if quality:
        wanted = [audio.resample(clips[number], quality.rate) for number in full]
        quality_scores = dict(zip(full, quality.score(wanted), strict=True))
    return [
        Hearing(heard[number], _scores(heard[number], text, language, clip) + quality_scores.get(number, ()))
        for number, (clip, text, language) in enumerate(zip(clips, texts, languages, strict=True))
    ]


def _scores(transcript: Transcript, texts: Sequence[str], language: Language, clip: Clip) -> tuple[Score, ...]:
    metric = MAIN_METRIC[language]
    rates = min((error_rates(text, transcript.text, language) for text in texts), key=lambda item: item[metric])
    others = {
        "logprob": transcript.logprob,
        "no_speech": transcript.no_speech,
        "compression_ratio": transcript.compression_ratio,
        "chars_per_second": len(texts[0]) / clip.seconds if clip.seconds else 0.0,
    }
    return tuple(Score(name=name, value=round(float(value), 6)) for name, value in {**rates, **others}.items())
