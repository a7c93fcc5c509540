"""Whisper on CTranslate2 (`faster-whisper`), of any size, on a CPU or a GPU; greedy or beam search at temperature 0.

The encoder pays for its whole window, which Whisper was trained to have 30 s long whatever the clip's length; a turn of
a dialogue has 2 to 10 s. In a window of 10 s the encoder needs a sixth of the time, because attention is quadratic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.backends.asr.base import Spellings, compression_ratio
from pipeline.backends.asr.whisper_files import identity, whisper_folder
from pipeline.backends.asr.whisper_words import word_times
from pipeline.dialogue import Clip, Language, ModelUse, Transcript, Word
from pipeline.errors import ConfigError, ModelError
from pipeline.listening_sections import RecognizerConfig

FRAMES = 100  # a second, of the log-mel spectrogram; the encoder gives one vector for two of them
WINDOWS = (10, 15, 20, 30)
"""Seconds that the encoder is given. Few, and chosen by the clip alone: what else is in its batch changes nothing."""
FULL = WINDOWS[-1]
MARGIN = 2
"""Seconds of silence that a short window has behind the clip: with less the decoder does not find the end."""
_ENOUGH = WINDOWS[0] * FRAMES // 2
MOST_TOKENS = 15
"""A second of speech; nobody says so many, and a loop ends."""
BATCH = 16
"""Windows at once on a GPU. On a CPU one after the other is as fast and needs less memory."""

# A window is silent where the model says so and trusts its own words little: Radford et al. 2022,
# "Robust Speech Recognition via Large-Scale Weak Supervision", section 4.5.
NO_SPEECH = 0.6
MIN_LOGPROB = -1.0


@dataclass(frozen=True)
class _Window:
    """Features to be heard, [mels, frames]. clip: whose they are; start: seconds into it; content: its frames there."""

    clip: int
    language: Language
    features: np.ndarray
    start: float
    content: int
    text: Spellings | None = None


@dataclass(frozen=True)
class _Heard:
    text: str
    tokens: int
    logprob: float
    no_speech: float
    compression_ratio: float
    language: float | None
    words: tuple[Word, ...]
    doubt: float | None
    surprise: float | None

    @property
    def silent(self) -> bool:
        return self.no_speech > NO_SPEECH and self.logprob < MIN_LOGPROB


class FasterWhisper:
    """A `Recognizer`. Clips are heard in a window of 30 s if asked to be careful or if `window` is "full", otherwise in
    the shortest of WINDOWS that holds them with a margin. What is longer than 30 s is heard in several windows.

    bare: the `faster_whisper.WhisperModel`. Raises ModelError, and ConfigError for a device, a number format or a
    language that it has not.
    """

    rate = 16000
    careful = True

    def __init__(self, section: RecognizerConfig):
        import faster_whisper
        from faster_whisper.tokenizer import Tokenizer

        folder = whisper_folder(section)
        device = _device(section.device)
        compute = section.compute if section.compute != "auto" else "float16" if device == "cuda" else "int8"
        _check_compute(compute, device)
        try:
            model = faster_whisper.WhisperModel(
                str(folder), device=device, compute_type=compute, cpu_threads=section.threads, local_files_only=True
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{folder}: not a model that faster-whisper can load: {error}") from error
        self.name = identity(section).name
        self.deterministic = device == "cpu"
        self._multilingual = bool(model.model.is_multilingual)
        if not self._multilingual and section.languages != ("en",):
            raise ConfigError(
                f"asr.languages: {self.name} understands English only: set languages: [en], "
                "and asr.by_language.zh for Mandarin"
            )
        self.bare = model
        self._beam = section.beam
        self._words = section.words
        self._short = section.window == "short"
        self._batch = section.batch or (BATCH if device == "cuda" else 1)
        self._tokenizers: dict[Language, Any] = {
            language: Tokenizer(model.hf_tokenizer, self._multilingual, task="transcribe", language=language)
            for language in section.languages
        }

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        windows: list[_Window] = []
        for number, (clip, language) in enumerate(zip(clips, languages, strict=True)):
            parts = self._windows(number, clip, language, self._short and not careful)
            if texts is not None and len(parts) == 1:  # nobody knows where the text of several is to be cut
                parts = [replace(parts[0], text=texts[number])]
            windows += parts
        # The longest first: a GPU that has not the memory says so at once.
        order = sorted(range(len(windows)), key=lambda n: (-windows[n].features.shape[1], windows[n].language))
        heard: dict[int, _Heard] = {}
        while order:
            first = windows[order[0]]
            alike = (first.features.shape, first.language)
            batch = [n for n in order[: self._batch] if (windows[n].features.shape, windows[n].language) == alike]
            heard |= dict(zip(batch, self._listen([windows[n] for n in batch]), strict=True))
            order = order[len(batch) :]
        of_clip: list[list[_Heard]] = [[] for _ in clips]
        for number, window in enumerate(windows):
            of_clip[window.clip].append(heard[number])
        return [_join(parts, self.name) for parts in of_clip]

    def _windows(self, number: int, clip: Clip, language: Language, short: bool) -> list[_Window]:
        if clip.rate != self.rate:
            raise ValueError(f"a clip at {clip.rate} Hz; faster-whisper wants {self.rate} Hz")
        if language not in self._tokenizers:
            raise ConfigError(f"asr.languages: {self.name} is not to hear {language}; see asr.by_language.{language}")
        if not clip.audio.size:
            return []
        # As in faster-whisper, which adds a frame that it takes away again.
        features = self.bare.feature_extractor(np.ascontiguousarray(clip.audio, np.float32))[:, :-1]
        windows = []
        for first in range(0, features.shape[1], FULL * FRAMES):
            part = features[:, first : first + FULL * FRAMES]
            fits = [seconds for seconds in WINDOWS if part.shape[1] <= (seconds - MARGIN) * FRAMES]
            size = (fits[0] if short and fits else FULL) * FRAMES
            # faster-whisper fills up with 0, a hiss that is louder than silence (the lowest value in the clip). In 30 s
            # it is what every other program hears; in a short window it cost 4 of 36 short Mandarin clips.
            filling = 0.0 if size == FULL * FRAMES else float(features.min())
            padded = np.pad(part, ((0, 0), (0, size - part.shape[1])), constant_values=filling)
            windows.append(_Window(number, language, padded, first / FRAMES, part.shape[1]))
        return windows

    def _listen(self, windows: list[_Window]) -> list[_Heard]:
        """Windows of one length and one language through the model at once."""
        import ctranslate2

        tokenizer = self._tokenizers[windows[0].language]
        prompt = self.bare.get_prompt(tokenizer, [], without_timestamps=True)
        features = np.ascontiguousarray(np.stack([window.features for window in windows]), np.float32)
        model = self.bare.model
        encoded = model.encode(ctranslate2.StorageView.from_array(features))
        seconds = 1 + max(window.content for window in windows) // FRAMES
        # CTranslate2 generates half of `max_length`: the other half is for a prompt.
        # No initial prompt: one in simplified characters brought punctuation but raised the PER of Mandarin (1.0 to
        # 2.1 % over ten clips), and the normaliser folds the scripts anyway.
        results = model.generate(
            encoded,
            [prompt] * len(windows),
            beam_size=self._beam,
            max_length=min(2 * MOST_TOKENS * seconds, self.bare.max_length),
            return_scores=True,
            return_no_speech_prob=True,
        )
        probabilities = self._probabilities(encoded, windows)
        tokens = [[int(token) for token in result.sequences_ids[0]] for result in results]
        words: list[tuple[Word, ...]] = [()] * len(windows)
        if self._words:
            content = [window.content for window in windows]
            rows = word_times(self.bare, tokenizer, tokens, encoded, content)
            words = [_later(row, window.start) for row, window in zip(rows, windows, strict=True)]
        likely = self._likelihoods(tokenizer, tokens, encoded, windows)
        return [_heard(tokenizer, *found) for found in zip(tokens, results, probabilities, words, likely, strict=True)]

    def _likelihoods(
        self, tokenizer: Any, tokens: list[list[int]], encoded: Any, windows: list[_Window]
    ) -> list[tuple[float | None, float | None]]:
        """doubt and surprise of each window whose text is given: of the spelling that is the likeliest as a whole. None
        where what was heard, or the text in every spelling, is longer than the decoder has positions.

        The end of the text is not weighed (CTranslate2 gives no probability for it), so that words too many in the
        clip are not found here.
        """
        if all(window.text is None for window in windows):
            return [(None, None)] * len(windows)
        # The prompt has positions too, and so has the end of the text.
        room = self.bare.max_length - len(self.bare.get_prompt(tokenizer, [], without_timestamps=True)) - 1
        ways = []
        for window, ids in zip(windows, tokens, strict=True):
            spelled = [tokenizer.encode(way) for way in _spelled(window, tokenizer.decode(ids))]
            ways.append([row for row in spelled if 0 < len(row) <= room] or [[]])
        heard = self._token_logprobs(tokenizer, encoded, windows, [ids if len(ids) <= room else [] for ids in tokens])
        # As many calls as the most spellings: those of a batch have one text each.
        asked = [[row[min(way, len(row) - 1)] for row in ways] for way in range(max(map(len, ways)))]
        said = [self._token_logprobs(tokenizer, encoded, windows, texts) for texts in asked]
        found: list[tuple[float | None, float | None]] = []
        for number, window in enumerate(windows):
            best = max((texts[number] for texts in said), key=lambda row: float(row.sum()))
            known = window.text is not None and best.size and len(tokens[number]) <= room
            found.append((float(heard[number].sum() - best.sum()), float(-best.min())) if known else (None, None))
        return found

    def _token_logprobs(
        self, tokenizer: Any, encoded: Any, windows: list[_Window], texts: list[list[int]]
    ) -> list[np.ndarray]:
        """Natural logarithms, [tokens], of each text's tokens, each after those before it."""
        frames = [window.content for window in windows]
        rows = self.bare.model.align(encoded, tokenizer.sot_sequence, texts, frames)
        return [np.log(np.maximum(np.asarray(row.text_token_probs, np.float64), 1e-12)) for row in rows]

    def _probabilities(self, encoded: Any, windows: list[_Window]) -> list[float | None]:
        """Of the language that each window should be in; the first 10 s tell."""
        import ctranslate2

        if not self._multilingual:
            return [None] * len(windows)
        if encoded.device == "cpu" and encoded.shape[1] > _ENOUGH:
            # The decoder pays for every vector of the encoder's, which in a full window are mostly those of silence.
            encoded = ctranslate2.StorageView.from_array(np.ascontiguousarray(np.asarray(encoded)[:, :_ENOUGH]))
        rows = [dict(row) for row in self.bare.model.detect_language(encoded)]
        return [float(row[f"<|{window.language}|>"]) for row, window in zip(rows, windows, strict=True)]


def models(section: RecognizerConfig) -> tuple[ModelUse, ...]:
    """What `build` would load. A model that is named by `model` is fetched from its hub if it is not there yet."""
    return (identity(section),)


def build(section: RecognizerConfig) -> FasterWhisper:
    return FasterWhisper(section)


def _device(asked: str) -> str:
    import ctranslate2

    if asked == "cpu":
        return asked
    found = ctranslate2.get_cuda_device_count() > 0
    if asked == "cuda" and not found:
        raise ConfigError(
            "asr.device=cuda, but CTranslate2 finds no GPU here: take device=auto or cpu, or give the worker a GPU "
            "(engine.studio_gpus)"
        )
    return "cuda" if found else "cpu"


def _check_compute(compute: str, device: str) -> None:
    import ctranslate2

    known = ctranslate2.get_supported_compute_types(device)
    if compute not in known and compute != "default":
        raise ConfigError(
            f"asr.compute={compute}: {device} has no such number format; it has {', '.join(sorted(known))}"
        )


def _spelled(window: _Window, heard: str) -> list[str]:
    if window.text is None:
        return []
    # Whisper begins a text of a language with spaces between words with one.
    space = " " if window.language == "en" else ""
    return [space + way for way in window.text(heard.strip())]


def _heard(
    tokenizer: Any,
    tokens: list[int],
    result: Any,
    language: float | None,
    words: tuple[Word, ...],
    likely: tuple[float | None, float | None],
) -> _Heard:
    text = tokenizer.decode(tokens)
    # The score is the mean over the tokens; the paper's is over one more, the end of the text.
    logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
    ratio = compression_ratio(text.strip())
    return _Heard(text, len(tokens), logprob, result.no_speech_prob, ratio, language, words, *likely)


def _later(words: tuple[Word, ...], seconds: float) -> tuple[Word, ...]:
    return tuple(
        Word(text=word.text, start=round(word.start + seconds, 2), end=round(word.end + seconds, 2)) for word in words
    )


def _join(parts: list[_Heard], name: str) -> Transcript:
    """One transcript of the windows of a clip (one per 30 s).

    logprob is the mean over all tokens, no_speech and language the mean over windows, compression_ratio that of the
    worst window (above 2.4 it is a loop, same paper). Where there is no window: no words, no_speech 1.
    """
    if not parts:
        return Transcript(text="", logprob=0.0, no_speech=1.0, compression_ratio=0.0, recognizer=name)
    heard = [part for part in parts if not part.silent]
    known = [part.language for part in parts if part.language is not None]
    return Transcript(
        text="".join(part.text for part in heard).strip(),
        logprob=float(np.average([part.logprob for part in parts], weights=[part.tokens + 1 for part in parts])),
        no_speech=float(np.mean([part.no_speech for part in parts])),
        compression_ratio=float(max(part.compression_ratio for part in parts)),
        language=float(np.mean(known)) if known else None,
        words=tuple(word for part in heard for word in part.words),
        recognizer=name,
        doubt=parts[0].doubt if len(parts) == 1 else None,
        surprise=parts[0].surprise if len(parts) == 1 else None,
    )
