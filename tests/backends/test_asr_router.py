"""Which recogniser hears which language, and who is asked second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.backends import make_recognizer, make_second, speech_models
from pipeline.backends.asr.base import Spellings
from pipeline.backends.asr.router import ByLanguage, Named
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip, Language, Transcript
from pipeline.errors import ConfigError, EndpointError, ModelError
from tests.backends.tiny_sense_voice import write

SOUND = Clip((0.3 * np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)).astype(np.float32), 16000)


def config(folder: Path, **asr: Any) -> Config:
    """A configuration whose asr section is this one."""
    path = folder / "listen.yaml"
    path.write_text(yaml.safe_dump({"asr": asr}))
    return load_config(str(path))


def sherpa(folder: Path, **fields: Any) -> dict[str, Any]:
    return {"engine": "sherpa", "model_path": str(write(folder)), "license": "CC0-1.0", **fields}


def test_each_language_has_its_own(tmp_path: Path) -> None:
    own = {"zh": sherpa(tmp_path / "mandarin", languages=["zh"])}
    made = config(tmp_path, **sherpa(tmp_path / "english", languages=["en"]), by_language=own)
    heard = make_recognizer(made).transcribe([SOUND, SOUND, SOUND], ["en", "zh", "en"])
    assert [(item.text, item.recognizer) for item in heard] == [
        ("low", "english"),
        ("低", "mandarin"),
        ("low", "english"),
    ]
    named = {(use.role, use.name) for use in speech_models(made)}
    assert {("asr", "english"), ("asr:zh", "mandarin")} <= named


def test_one_for_each_language_leaves_nothing_to_the_first(tmp_path: Path) -> None:
    both: dict[str, Any] = {name: sherpa(tmp_path / name, languages=[name]) for name in ("en", "zh")}
    made = config(tmp_path, engine="sherpa", by_language=both)  # which alone would lack its folder
    assert make_recognizer(made).transcribe([SOUND], ["zh"])[0].recognizer == "zh"


def test_the_second_is_opened_where_there_is_one(tmp_path: Path) -> None:
    assert make_second(config(tmp_path)) is None
    made = config(tmp_path, **sherpa(tmp_path / "first"), second=sherpa(tmp_path / "other"))
    second = make_second(made)
    assert second is not None and second.transcribe([SOUND], ["en"])[0].recognizer == "other"
    assert ("asr:second", "other") in {(use.role, use.name) for use in speech_models(made)}


def test_a_recogniser_without_the_language_is_told_by_its_key(tmp_path: Path) -> None:
    english = sherpa(tmp_path / "tiny", languages=["en"])
    with pytest.raises(
        ConfigError, match=r"^asr\.languages: sherpa is to hear zh .* of its own in asr\.by_language\.zh"
    ):
        make_recognizer(config(tmp_path, **english))
    with pytest.raises(ConfigError, match=r"^asr\.by_language\.zh\.languages: sherpa is to hear zh"):
        make_recognizer(config(tmp_path, by_language={"zh": english}))


def test_errors_name_the_section_that_they_are_about(tmp_path: Path) -> None:
    broken = {"engine": "sherpa", "license": "MIT", "model_path": str(tmp_path / "nowhere")}
    for made, key in (
        ({"second": broken}, r"asr\.second"),
        ({"by_language": {"zh": broken}}, r"asr\.by_language\.zh"),
        (broken, "asr"),
    ):
        with pytest.raises(ModelError, match=rf"^{key}\.model_path=.*nowhere: no model\.int8\.onnx"):
            speech_models(config(tmp_path, **made))
    with pytest.raises(ModelError, match=r"^asr\.second\.model_path=.*nowhere: no model\.int8\.onnx"):
        make_second(config(tmp_path, second=broken))
    gone = {"engine": "http", "model": "m", "license": "MIT", "base_url": "http://127.0.0.1:9/v1", "retries": 0}
    second = make_second(config(tmp_path, second=gone))
    assert second is not None
    with pytest.raises(EndpointError, match=r"^asr\.second\.base_url=.* start it, or set asr\.second\.base_url$"):
        second.transcribe([SOUND], ["en"])


class Ears:
    """Says how long what it was given is."""

    name = "ears"
    deterministic = True

    def __init__(self, rate: int, careful: bool = True):
        self.rate = rate
        self.careful = careful

    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        known = texts or [lambda heard: ["unknown"]] * len(clips)
        assert {clip.rate for clip in clips} == {self.rate}
        return [
            Transcript(f"{language} {clip.seconds:g} {careful} {text('')[0]}", 0.0, 0.0, 0.0)
            for clip, language, text in zip(clips, languages, known, strict=True)
        ]


def test_each_gets_its_own_rate_its_own_texts_and_the_care_asked_for() -> None:
    both = ByLanguage({"en": Ears(16000), "zh": Ears(8000)})
    assert (both.rate, both.name) == (16000, "en: ears, zh: ears")
    clips = [SOUND, Clip(SOUND.audio[:8000], 16000)]
    assert [item.text for item in both.transcribe(clips, ["zh", "en"])] == [
        "zh 1 False unknown",
        "en 0.5 False unknown",
    ]
    texts: list[Spellings] = [lambda heard: ["一"], lambda heard: ["one"]]
    heard = both.transcribe(clips, ["zh", "en"], True, texts)
    assert [item.text for item in heard] == ["zh 1 True 一", "en 0.5 True one"]


@pytest.mark.parametrize(("english", "mandarin"), [(True, True), (True, False), (False, True), (False, False)])
def test_care_is_of_use_where_one_of_them_takes_it(english: bool, mandarin: bool) -> None:
    both = ByLanguage(
        {"en": Named("asr", Ears(16000, english)), "zh": Named("asr.by_language.zh", Ears(8000, mandarin))}
    )
    assert both.careful == (english or mandarin)
