"""Several recognisers behind one door: each clip goes to the one of its language."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import soxr

from pipeline.backends.asr.base import Recognizer, Spellings
from pipeline.dialogue import Clip, Language, Transcript
from pipeline.errors import BackendError, SpeechchatError


class Named:
    """A `Recognizer` whose errors name `key` as its section of the configuration."""

    def __init__(self, key: str, recognizer: Recognizer):
        self._key = key
        self._recognizer = recognizer
        self.name = recognizer.name
        self.rate = recognizer.rate
        self.deterministic = recognizer.deterministic
        self.careful = recognizer.careful

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        with renamed(self._key):
            return self._recognizer.transcribe(clips, languages, careful, texts)

    def close(self) -> None:
        close(self._recognizer)


class ByLanguage:
    """A `Recognizer` made of several. It wants the highest rate of them, and resamples for the others."""

    def __init__(self, recognizers: Mapping[Language, Recognizer]):
        self._of = dict(recognizers)
        self.name = ", ".join(f"{language}: {item.name}" for language, item in sorted(self._of.items()))
        self.rate = max(item.rate for item in self._of.values())
        self.deterministic = all(item.deterministic for item in self._of.values())
        self.careful = any(item.careful for item in self._of.values())

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        heard: dict[int, Transcript] = {}
        for language in dict.fromkeys(languages):
            recognizer = self._of[language]
            places = [place for place, item in enumerate(languages) if item == language]
            wanted = [_at(clips[place], recognizer.rate) for place in places]
            theirs = None if texts is None else [texts[place] for place in places]
            found = recognizer.transcribe(wanted, [language] * len(places), careful, theirs)
            heard |= dict(zip(places, found, strict=True))
        return [heard[place] for place in range(len(clips))]

    def close(self) -> None:
        with ExitStack() as stack:  # all of them, also where one fails
            for recognizer in self._of.values():
                stack.callback(close, recognizer)


def close(recognizer: Recognizer) -> None:
    """Ends what a recogniser holds outside this process, such as connections. No thread may be listening."""
    if hasattr(recognizer, "close"):
        recognizer.close()


@contextmanager
def renamed(key: str) -> Iterator[None]:
    """Messages of errors name `key`, where they name `asr`: a recogniser does not know which of the sections is its."""
    try:
        yield
    except SpeechchatError as error:
        said = re.sub(r"\basr\.(?!by_language|second)", f"{key}.", str(error))
        if said == str(error):
            raise
        raise (BackendError(said, error.retryable) if isinstance(error, BackendError) else type(error)(said)) from error


def _at(clip: Clip, rate: int) -> Clip:
    if clip.rate == rate:
        return clip
    return Clip(soxr.resample(clip.audio, clip.rate, rate, quality="HQ"), rate)
