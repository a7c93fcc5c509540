"""sherpa-onnx for real, on a model of SenseVoice's layout that is written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.backends.asr.sherpa import Sherpa, models
from pipeline.dialogue import Clip, Language
from pipeline.errors import ConfigError, ModelError
from pipeline.listening_sections import RecognizerConfig
from tests.backends.tiny_sense_voice import write


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


SILENCE = np.zeros(8000, np.float32)
LOW, HIGH = Clip(tone(200), 16000), Clip(tone(5000, 0.7), 16000)
BOTH = Clip(np.concatenate([tone(200), SILENCE, tone(5000)]), 16000)


def section(folder: Path, **fields: object) -> RecognizerConfig:
    given = {"engine": "sherpa", "model_path": folder, "license": "CC0-1.0", "words": True}
    return RecognizerConfig.model_validate(given | fields)


@pytest.mark.parametrize("batch", [None, 2])
def test_each_clip_is_heard_in_its_language(tmp_path: Path, batch: int | None) -> None:
    engine = Sherpa(section(write(tmp_path / "tiny"), batch=batch))
    clips = [LOW, HIGH, BOTH, Clip(SILENCE, 16000), Clip(SILENCE[:0], 16000), BOTH]
    heard = engine.transcribe(clips, ["en", "en", "en", "en", "zh", "zh"])
    assert [item.text for item in heard] == ["low", "high", "low high", "", "", "低高"]
    assert {item.recognizer for item in heard} == {"tiny"}
    assert engine.deterministic == (batch is None)


def test_it_listens_no_otherwise_with_care(tmp_path: Path) -> None:
    engine = Sherpa(section(write(tmp_path)))
    careful = engine.transcribe([LOW], ["en"], True, [lambda heard: ["high"]])
    assert careful == engine.transcribe([LOW], ["en"]) and not engine.careful


def test_words_last_until_the_next(tmp_path: Path) -> None:
    engine = Sherpa(section(write(tmp_path)))
    languages: list[Language] = ["en", "zh"]
    for heard, texts in zip(engine.transcribe([BOTH, BOTH], languages), (["low", "high"], ["低", "高"]), strict=True):
        low, high = heard.words
        assert [low.text, high.text] == texts
        assert low.start < 0.2 and low.end == high.start and abs(high.start - 1.5) < 0.2 and high.end == BOTH.seconds
    assert Sherpa(section(tmp_path, words=False)).transcribe([BOTH], ["en"])[0].words == ()


def test_the_model_is_named_with_its_checksum(tmp_path: Path) -> None:
    [use] = models(section(write(tmp_path / "tiny"), model="SenseVoice"))
    assert (use.name, use.license, len(use.sha256)) == ("SenseVoice", "CC0-1.0", 64)
    [other] = models(section(write(tmp_path / "other", comment="another")))
    assert other.name == "other" and other.sha256 != use.sha256


def test_what_no_model_can_be_made_of(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^asr\.model_path=.*: no model\.int8\.onnx and no model\.onnx in it"):
        Sherpa(section(tmp_path))
    for key, empty in (("model_path", None), ("license", "")):
        with pytest.raises(ConfigError, match=rf"^asr\.{key}: name the .* \(engine: sherpa\)"):
            models(section(tmp_path, **{key: empty}))
    write(tmp_path, model_type="melotts")
    # sherpa-onnx itself would end the process.
    with pytest.raises(ModelError, match=r"its metadata says that it is melotts; known kinds: sense_voice_ctc"):
        Sherpa(section(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"model\.onnx: not a model that onnxruntime can load"):
        Sherpa(section(tmp_path))
    (tmp_path / "tokens.txt").unlink()
    with pytest.raises(ModelError, match=r"tokens\.txt is missing"):
        Sherpa(section(tmp_path))


def test_a_language_or_a_device_that_it_has_not(tmp_path: Path) -> None:
    engine = Sherpa(section(write(tmp_path), languages=["zh"]))
    with pytest.raises(ConfigError, match=r"^asr\.languages: .* not to hear en; see asr\.by_language\.en"):
        engine.transcribe([LOW], ["en"])
    with pytest.raises(ConfigError, match=r"^asr\.device=cuda: "):
        Sherpa(section(tmp_path, device="cuda"))
