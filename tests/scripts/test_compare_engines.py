"""The script that compares engines, with tones for an engine. See also tests/coqui/test_compare.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config, TtsEngineConfig
from pipeline.dialogue import Clip
from pipeline.voice import SpeechRequest, Unsaid
from scripts.compare_engines import compare
from speakers.sentences import sentences
from tests.synthetic import ToneSynthesizer


class Choosy(ToneSynthesizer):
    """Does not say the first sentence."""

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        return [
            Unsaid("symbols", "&") if request.text in (sentences("en")[0], sentences("zh")[0]) else clip
            for request, clip in zip(requests, super().synthesize(requests), strict=True)
        ]


def build(section: TtsEngineConfig) -> Choosy:
    return Choosy()


def test_a_clip_has_the_number_of_its_sentence(tmp_path: Path) -> None:
    """So that the same number is the same sentence for every engine, also where one could not say some."""
    config = Config.model_validate(
        {
            "tts": {"engines": {"kokoro": {"kind": f"{__name__}:build"}}},
            "asr": {"engine": "tests.fakes:build_deaf_asr"},
            "audio": {"trim": "level"},
        }
    )
    figures = compare(config, 3, tmp_path)
    assert [(figure["clips"], figure["faults"]) for figure in figures] == [(2, {"symbols": 1})] * 2
    names = {f"kokoro.{language}.{number}.flac" for language in ("en", "zh") for number in ("01", "02")}
    assert {path.name for path in tmp_path.iterdir()} == names
