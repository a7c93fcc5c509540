"""listen: clips → transcripts and scores. What is heard is what is shipped: the mastered clip."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pipeline import audio
from pipeline.audio.measures import silences, snr
from pipeline.backends.asr.base import Recognizer
from pipeline.backends.quality.base import QualityModel
from pipeline.backends.speaker.base import SpeakerEncoder
from pipeline.config import Config
from pipeline.dialogue import Clip, Language, Role, Score, Transcript
from pipeline.errors import BackendError
from pipeline.listening_sections import WORDS
from pipeline.stages.judge import LOOP, excused
from pipeline.stages.likeness import Likeness, Voiced
from pipeline.text.rates import MAIN_METRIC, error_rates
from pipeline.text.spellings import spellings

VERSION = 3

# Where both are broken, Whisper takes its words back: Radford et al. 2022, section 4.5.
NO_SPEECH = 0.6
MIN_LOGPROB = -1.0
LIKELY = ("doubt", "surprise")
"""What a recogniser that is asked for it says of the text itself."""
FASTEST: dict[Language, float] = {"en": 40.0, "zh": 12.0}
"""Characters a second that nobody says: half as many again as of the fastest voice that ships."""
LENGTH: dict[Language, tuple[float, float]] = {"en": (0.32, 0.98), "zh": (0.34, 0.78)}
"""Seconds of a turn without characters, and a turn's share of the seconds that its characters take at `Voice.rate`,
which is of whole sentences. Least squares over 36 mastered clips of Kokoro a language (0.5 to 6.5 s, 31 voices), which
are then 0.8 to 1.2 of what they should be; a word alone would seem three times too slow without the first."""
LATIN_IN_ZH = 0.3
"""What a Latin letter or a space counts beside a Han character, by the time that it takes."""

_FOREIGN: dict[Language, re.Pattern[str]] = {
    # Letters that no recogniser writes for speech of that language: of another script than Latin, or Latin and Han.
    "en": re.compile(r"[^\W\d_\u0000-\u024f]"),
    "zh": re.compile(r"[^\W\d_\u0000-\u024f\u2e80-\u2fdf\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
}


@dataclass(frozen=True)
class Spoken:
    """A clip that is to be heard. texts: what was to be said, and other transcripts of it that are as right
    (recognisers leave out the fillers that they hear): the nearest counts.

    rate: characters a second expected of the voice, the engine and the speed (as `Voice.rate`), 0 if it is not known.
    voice: id of the voice, "" if it is not known.
    """

    clip: Clip
    texts: tuple[str, ...]
    role: Role
    rate: float = 0.0
    voice: str = ""


@dataclass(frozen=True)
class Hearing:
    """What was heard of a clip, and every score of it by name."""

    transcript: Transcript
    scores: tuple[Score, ...]

    def score(self, name: str) -> float:
        return next(item.value for item in self.scores if item.name == name)


@dataclass(frozen=True)
class _Heard:
    """A transcript and the scores that depend on it, beside one of the right texts. broken: gates that these break;
    excused: whether words are not counted there."""

    transcript: Transcript
    scores: Mapping[str, float]
    rate: float
    doubtful: bool
    broken: int = 0
    excused: bool = False

    @property
    def again(self) -> bool:
        return self.broken > 0 or (self.doubtful and self.rate > 0 and not self.excused)


class Listener:
    """Who listens to clips: a recogniser, and as configured a second one, a model of quality and a speaker encoder.

    A clip is blamed only after it was heard again: whatever does not follow the text, and whatever looks made up by the
    recogniser, is heard once more with care, and if it still does not by the second recogniser. The nearest to the text
    counts. One per worker; threads may share it as far as the models allow.

    references: embeddings of voices by id, for the likeness; where a voice has none, the speaker's other turns serve.
    """

    def __init__(
        self,
        config: Config,
        recognizer: Recognizer,
        second: Recognizer | None = None,
        quality: QualityModel | None = None,
        encoder: SpeakerEncoder | None = None,
        references: Mapping[str, np.ndarray] | None = None,
    ):
        self._config = config
        self._recognizer = recognizer
        self._second = second
        self._quality = quality
        self._likeness = Likeness(encoder, references or {}) if encoder else None

    def listen(self, spoken: Sequence[Spoken], language: Language, company: Sequence[Spoken] = ()) -> list[Hearing]:
        """One hearing a clip, in order. All are of one dialogue. company: clips of its other turns, which are not heard
        but compared to. An empty clip is heard as "" and has no scores of its sound.

        Raises BackendError of a recogniser.
        """
        full = [item for item in spoken if len(item.clip.audio)]
        heard = self._hear(full, language)
        qualities = self._qualities(full)
        likenesses = self._likenesses(full, [item for item in company if len(item.clip.audio)])
        found = zip(full, heard, qualities, likenesses, strict=True)
        sound = iter([{**one.scores, **_signal(item, language), **mos, **like} for item, one, mos, like in found])
        words = iter(heard)
        return [
            _hearing(next(words).transcript, next(sound)) if len(item.clip.audio) else self._nothing(item, language)
            for item in spoken
        ]

    def _nothing(self, item: Spoken, language: Language) -> Hearing:
        heard = self._best(self._weigh(item, Transcript("", 0.0, 1.0, 0.0), language), language)
        return _hearing(heard.transcript, {**heard.scores, "chars_per_second": 0.0})

    def _hear(self, spoken: Sequence[Spoken], language: Language) -> list[_Heard]:
        ways = self._ask(self._recognizer, spoken, language)
        best = [self._best(one, language) for one in ways]
        for recognizer in self._opinions(language):
            open_clips = [number for number, item in enumerate(best) if item.again]
            if not open_clips:
                break
            others = self._ask(recognizer, [spoken[number] for number in open_clips], language, careful=True)
            for number, other in zip(open_clips, others, strict=True):
                ways[number] += other
                best[number] = self._best(ways[number], language)
        return best

    def _best(self, ways: Sequence[_Heard], language: Language) -> _Heard:
        """Of all that was heard of a clip, the one that breaks fewest gates, and then the nearest to the text; of two
        that are as near the first, unless it looks made up."""
        # What was said of the text itself holds for whichever is kept, and may excuse an earlier one.
        likely = {name: way.scores[name] for way in ways for name in LIKELY if name in way.scores}
        judged = (self._judged(replace(way, scores={**way.scores, **likely}), language) for way in ways)
        return min(judged, key=lambda one: (one.broken, one.rate, one.doubtful))

    def _opinions(self, language: Language) -> Iterator[Recognizer]:
        """Whom to ask next, with care: the one that is loaded and has heard the clip is the cheaper."""
        if self._recognizer.careful:
            yield self._recognizer
        second = self._config.asr.second
        if self._second is not None and second is not None and language in second.languages:
            yield self._second

    def _ask(
        self, recognizer: Recognizer, spoken: Sequence[Spoken], language: Language, careful: bool = False
    ) -> list[list[_Heard]]:
        if not spoken:
            return []
        clips = [audio.resample(item.clip, recognizer.rate) for item in spoken]
        texts = [partial(_spellings, item.texts, language) for item in spoken] if careful else None
        transcripts = recognizer.transcribe(clips, [language] * len(clips), careful, texts)
        if len(transcripts) != len(clips):
            raise BackendError(f"{recognizer.name}: {len(transcripts)} transcripts of {len(clips)} clips")
        for transcript in transcripts:
            _check(transcript, recognizer.name)
        return [self._weigh(item, one, language) for item, one in zip(spoken, transcripts, strict=True)]

    def _weigh(self, item: Spoken, transcript: Transcript, language: Language) -> list[_Heard]:
        """The transcript beside each of the right texts."""
        own = {
            "logprob": transcript.logprob,
            "no_speech": transcript.no_speech,
            "compression_ratio": transcript.compression_ratio,
            **{
                name: value
                for name in ("language", *LIKELY)
                for value in (getattr(transcript, name),)
                if value is not None
            },
        }
        rates = [error_rates(text, transcript.text, language) for text in item.texts]
        made_up = looks_made_up(transcript, item.clip.seconds, language)
        return [_Heard(transcript, {**found, **own}, found[MAIN_METRIC[language]], made_up) for found in rates]

    def _judged(self, heard: _Heard, language: Language) -> _Heard:
        """With the gates on what was heard that are broken after the appeal, in every mode: it is the measure of the
        better hearing."""
        judge, scores = self._config.judge, heard.scores
        limits, floors = judge.limits.get(language, {}), judge.floors.get(language, {})
        free = excused(scores, language, judge)
        broken = sum(
            scores.get(name, limit) > limit for name, limit in limits.items() if not (free and name in WORDS)
        ) + sum(scores.get(name, floor) < floor for name, floor in floors.items())
        return replace(heard, broken=broken, excused=free)

    def _qualities(self, spoken: Sequence[Spoken]) -> list[dict[str, float]]:
        if self._quality is None or not spoken:
            return [{} for _ in spoken]
        rows = self._quality.score([audio.resample(item.clip, self._quality.rate) for item in spoken])
        return [{score.name: score.value for score in row} for row in rows]

    def _likenesses(self, spoken: Sequence[Spoken], company: Sequence[Spoken]) -> list[dict[str, float]]:
        if self._likeness is None or not spoken:
            return [{} for _ in spoken]
        turns, others = ([Voiced(item.clip, item.role, item.voice) for item in part] for part in (spoken, company))
        return self._likeness.scores(turns, others)


def _spellings(texts: Sequence[str], language: Language, heard: str) -> list[str]:
    return [way for text in texts for way in spellings(text, heard, language)]


def looks_made_up(transcript: Transcript, seconds: float, language: Language) -> bool:
    """Whether a transcript looks like the recogniser's invention rather than what is said in a clip so long: a loop,
    words on silence, more than anybody can say, letters of a script that the language has not."""
    return (
        transcript.compression_ratio > LOOP
        or (transcript.no_speech > NO_SPEECH and transcript.logprob < MIN_LOGPROB)
        or characters(transcript.text, language) > FASTEST[language] * max(seconds, 0.3)
        or _FOREIGN[language].search(transcript.text) is not None
    )


def characters(text: str, language: Language) -> float:
    """As `Voice.rate` counts them: letters, figures and spaces of English, Han characters of Mandarin. A Latin letter
    in Mandarin counts LATIN_IN_ZH."""
    said = sum(char.isalnum() or char.isspace() for char in text)
    if language == "en":
        return said
    latin = sum((char.isalnum() and ord(char) < 0x250) or char.isspace() for char in text)
    return said - latin + latin * LATIN_IN_ZH


def _check(transcript: Transcript, name: str) -> None:
    """Numbers that are none go into no sample."""
    for field in ("logprob", "no_speech", "compression_ratio", "language", *LIKELY):
        value = getattr(transcript, field)
        if value is not None and not math.isfinite(value):
            raise BackendError(f"{name}: {field} of a transcript is {value}, no number: {transcript.text!r}")


def _signal(item: Spoken, language: Language) -> dict[str, float]:
    clip, text = item.clip, item.texts[0]
    lead, tail, hush = silences(clip)
    scores = {"chars_per_second": len(text) / clip.seconds, "lead": lead, "tail": tail, "hush": hush}
    if item.rate > 0:
        still, share = LENGTH[language]
        scores["pace"] = (still + share * characters(text, language) / item.rate) / clip.seconds
    found = snr(clip)
    return scores if found is None else {**scores, "snr": found}


def _hearing(transcript: Transcript, scores: Mapping[str, float]) -> Hearing:
    return Hearing(transcript, tuple(Score(name=name, value=round(float(value), 6)) for name, value in scores.items()))
