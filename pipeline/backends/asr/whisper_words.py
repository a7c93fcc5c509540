"""When Whisper heard each word: from its attention to the sound, aligned by dynamic time warping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.dialogue import Word

_BEFORE, _AFTER = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
"""Signs that belong to the word after or before them: faster-whisper's own."""


def word_times(
    model: Any, tokenizer: Any, tokens: Sequence[Sequence[int]], encoded: Any, frames: Sequence[int]
) -> list[tuple[Word, ...]]:
    """The words of each window of a batch, in seconds of the window.

    model: `faster_whisper.WhisperModel`. encoded: what its encoder made of the windows. frames: that hold sound, 100 a
    second; no word lasts longer.
    """
    from faster_whisper.transcribe import merge_punctuations

    texts = [[token for token in ids if token < tokenizer.eot] for ids in tokens]
    said = []
    for row, count in zip(model.find_alignment(tokenizer, texts, encoded, list(frames)), frames, strict=True):
        merge_punctuations(row, _BEFORE, _AFTER)
        said.append(
            tuple(
                Word(
                    text=item["word"].strip(),
                    start=round(min(float(item["start"]), count / 100), 2),
                    end=round(min(float(item["end"]), count / 100), 2),
                )
                for item in row
                if item["word"].strip()
            )
        )
    return said
