"""Recognisers of the Next-gen Kaldi project (`sherpa-onnx`, Apache-2.0): SenseVoice and Paraformer of FunASR, Zipformer
and WeNet. SenseVoice is small, fast and good at Mandarin, and errs otherwise than Whisper does: a second opinion.

model_path: a folder as the project publishes them, with model.onnx (or model.int8.onnx) and tokens.txt.
https://k2-fsa.github.io/sherpa/onnx
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backends.asr.base import Spellings, compression_ratio
from pipeline.backends.onnx import open_session
from pipeline.dialogue import Clip, Language, ModelUse, Transcript, Word
from pipeline.errors import ConfigError, ModelError
from pipeline.listening_sections import RecognizerConfig
from pipeline.models import checksum

KINDS = {
    "sense_voice_ctc": ("from_sense_voice", "model"),
    "paraformer": ("from_paraformer", "paraformer"),
    "zipformer2_ctc": ("from_zipformer_ctc", "model"),
    "wenet_ctc": ("from_wenet_ctc", "model"),
}
"""By the `model_type` in the metadata of the file: what loads it, and what that calls the file."""
_NAMES = ("model.int8.onnx", "model.onnx")


class Sherpa:
    """A `Recognizer`. It has no more careful way to listen, and says little of its own certainty.

    Raises ConfigError, and ModelError for a folder that holds no such model.
    """

    rate = 16000
    careful = False

    def __init__(self, section: RecognizerConfig):
        import sherpa_onnx

        (use,) = models(section)
        file = _file(section)
        kind = _kind(file)
        load, argument = KINDS[kind]
        if section.device == "cuda":
            raise ConfigError("asr.device=cuda: sherpa-onnx from the package registry has no CUDA; take auto or cpu")
        # SenseVoice is told the language when it is loaded; the others take none, and one serves for all.
        told = [{"language": language} for language in section.languages] if kind == "sense_voice_ctc" else [{}]
        files = {argument: str(file), "tokens": str(file.parent / "tokens.txt")}
        make = getattr(sherpa_onnx.OfflineRecognizer, load)
        try:
            made: list[Any] = [make(**files, num_threads=section.threads, **extra) for extra in told]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{file}: not a model that sherpa-onnx can load: {error}") from error
        self._models = dict(zip(section.languages, made * (len(section.languages) // len(made)), strict=True))
        self.name = use.name
        self._words = section.words
        # Padding to the longest of a batch changes the last digits, and with them now and then a word.
        self._batch = section.batch or 1
        self.deterministic = self._batch == 1

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        streams = [self._stream(clip, language) for clip, language in zip(clips, languages, strict=True)]
        for language, model in self._models.items():
            mine = [n for n, item in enumerate(languages) if item == language and clips[n].audio.size]
            mine.sort(key=lambda n: -len(clips[n].audio))
            for first in range(0, len(mine), self._batch):
                model.decode_streams([streams[n] for n in mine[first : first + self._batch]])
        return [self._read(stream.result, clip) for stream, clip in zip(streams, clips, strict=True)]

    def _stream(self, clip: Clip, language: Language) -> Any:
        if clip.rate != self.rate:
            raise ValueError(f"a clip at {clip.rate} Hz; {self.name} wants {self.rate} Hz")
        if language not in self._models:
            raise ConfigError(f"asr.languages: {self.name} is not to hear {language}; see asr.by_language.{language}")
        stream = self._models[language].create_stream()
        if clip.audio.size:
            stream.accept_waveform(self.rate, np.ascontiguousarray(clip.audio, np.float32))
        return stream

    def _read(self, result: Any, clip: Clip) -> Transcript:
        text = result.text.strip()
        likely = [float(value) for value in getattr(result, "ys_log_probs", ())]
        return Transcript(
            text=text,
            logprob=float(np.mean(likely)) if likely else 0.0,
            no_speech=0.0 if clip.audio.size else 1.0,
            compression_ratio=compression_ratio(text),
            words=_words(list(result.tokens), list(result.timestamps), clip.seconds) if self._words else (),
            recognizer=self.name,
        )


def models(section: RecognizerConfig) -> tuple[ModelUse, ...]:
    """What `build` would load. Raises ConfigError, and ModelError where there is none."""
    for key in ("model_path", "license"):
        if not getattr(section, key):
            what = "folder of the model" if key == "model_path" else "licence of the weights"
            raise ConfigError(f"asr.{key}: name the {what} (engine: sherpa)")
    file = _file(section)
    name = section.model or file.parent.name
    return (ModelUse(role="asr", name=name, sha256=checksum(file, file.parent), license=section.license),)


def build(section: RecognizerConfig) -> Sherpa:
    return Sherpa(section)


def _file(section: RecognizerConfig) -> Path:
    folder = section.model_path or Path()
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    if not found:
        raise ModelError(f"asr.model_path={folder}: no {' and no '.join(_NAMES)} in it")
    if not (folder / "tokens.txt").is_file():
        raise ModelError(f"asr.model_path={folder}: tokens.txt is missing; it belongs to the model")
    return found[0]


def _kind(file: Path) -> str:
    """Which of KINDS the file is. sherpa-onnx would not ask: it ends the process for a file of another kind."""
    kind = str(open_session(file, 1).get_modelmeta().custom_metadata_map.get("model_type", ""))
    if kind not in KINDS:
        raise ModelError(
            f"{file}: its metadata says that it is {kind or 'of no kind'}; known kinds: {', '.join(KINDS)}"
        )
    return kind


def _words(tokens: list[str], starts: list[float], seconds: float) -> tuple[Word, ...]:
    """Pieces put together: one that begins with a blank (or "▁") or a Han character begins a word, which lasts until
    the next."""
    words: list[tuple[str, float]] = []
    for token, start in zip(tokens, starts, strict=False):
        text = token.replace("▁", " ")
        first = not words or text.startswith(" ") or "一" <= text[:1] <= "鿿" or "一" <= words[-1][0][-1:] <= "鿿"
        if first:
            words.append((text.strip(), float(start)))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1])
    ends = [*(start for _, start in words[1:]), seconds][: len(words)]
    return tuple(
        Word(text=text, start=round(min(start, seconds), 2), end=round(min(end, seconds), 2))
        for (text, start), end in zip(words, ends, strict=True)
        if text
    )
