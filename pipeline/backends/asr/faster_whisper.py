"""Whisper on CTranslate2 (`faster-whisper`), 8-bit on the CPU, greedy or beam search at temperature 0.

Every clip is padded to 30 s, so that a call costs about 1 s of CPU whatever the clip's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.dialogue import Clip, Language, ModelUse, Transcript
from pipeline.errors import ModelError
from pipeline.models import locate, uses

# A window is silent where the model says so and trusts its own words little: Radford et al. 2022,
# "Robust Speech Recognition via Large-Scale Weak Supervision", section 4.5.
NO_SPEECH = 0.6
MIN_LOGPROB = -1.0


class FasterWhisper:
    """A `Recognizer`. model_path: folder of a CTranslate2 Whisper model; the installed one if None."""

    name = "faster-whisper"
    rate = 16000
    deterministic = True

    def __init__(self, model_path: Path | None = None, beam: int = 1, threads: int = 1):
        import faster_whisper

        folder = locate("whisper-base", model_path)
        if not (folder / "tokenizer.json").is_file():
            # faster-whisper would ask a hub for it.
            raise ModelError(f"{folder}: tokenizer.json is missing; it belongs to the model")
        self._beam = beam
        try:
            self._model = faster_whisper.WhisperModel(
                str(folder), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{folder}: not a model that faster-whisper can load: {error}") from error

    def transcribe(self, clips: Sequence[Clip], languages: Sequence[Language]) -> list[Transcript]:
        return [self._listen(clip, language) for clip, language in zip(clips, languages, strict=True)]

    def _listen(self, clip: Clip, language: Language) -> Transcript:
        if clip.rate != self.rate:
            raise ValueError(f"a clip at {clip.rate} Hz; {self.name} wants {self.rate} Hz")
        if not clip.audio.size:
            return _join([])
        segments, _ = self._model.transcribe(
            np.ascontiguousarray(clip.audio, np.float32),
            language=language,
            beam_size=self._beam,
            # One value: with several, the fallback to the higher ones samples.
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            vad_filter=False,
            # No initial prompt: one in simplified characters brought punctuation but raised the PER of Mandarin
            # (1.0 to 2.1 % over ten clips), and the normaliser folds the scripts anyway.
            # The rule is applied in _join, so that the scores of a silent clip are kept.
            no_speech_threshold=None,
        )
        return _join(list(segments))


def models(config: Config) -> tuple[ModelUse, ...]:
    """What `build` would load; nothing is loaded for it."""
    return (uses("whisper-base", "asr", config.asr.model_path),)


def build(config: Config) -> FasterWhisper:
    return FasterWhisper(config.asr.model_path, config.asr.beam, config.asr.threads)


def _join(segments: list[Any]) -> Transcript:
    """One transcript of the windows of a clip (one per 30 s).

    logprob is the mean over all tokens, no_speech the mean over windows, compression_ratio that of the worst window
    (above 2.4 it is a loop, same paper). Where there is no window: no words, no_speech 1.
    """
    if not segments:
        return Transcript(text="", logprob=0.0, no_speech=1.0, compression_ratio=0.0)
    heard = [s for s in segments if not (s.no_speech_prob > NO_SPEECH and s.avg_logprob < MIN_LOGPROB)]
    return Transcript(
        text="".join(segment.text for segment in heard).strip(),
        logprob=float(np.average([s.avg_logprob for s in segments], weights=[len(s.tokens) + 1 for s in segments])),
        no_speech=float(np.mean([s.no_speech_prob for s in segments])),
        compression_ratio=float(max(s.compression_ratio for s in segments)),
    )
