"""faster-whisper for real: windows, batches, languages, the times of words, and what it says of bad input."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.backends.asr.base import Spellings
from pipeline.backends.asr.faster_whisper import FasterWhisper, models
from pipeline.dialogue import Clip, Language
from pipeline.errors import ConfigError, ModelError
from pipeline.listening_sections import RecognizerConfig
from pipeline.models import locate
from tests.backends.asr_clips import english, joined, mandarin, plain

pytestmark = pytest.mark.embedded

WALK, NICE = "We could walk in the park.", "It is nice to see you again after all these years."


def section(**fields: object) -> RecognizerConfig:
    return RecognizerConfig.model_validate({"device": "cpu", **fields})


@pytest.fixture(scope="module")
def short() -> FasterWhisper:
    return FasterWhisper(section(words=True))


def test_care_is_the_full_window(short: FasterWhisper) -> None:
    full = FasterWhisper(section(window="full"))
    [quick] = short.transcribe([english(WALK)], ["en"])
    [careful] = short.transcribe([english(WALK)], ["en"], careful=True)
    assert full.transcribe([english(WALK)], ["en"]) == [replace(careful, words=())]
    assert quick.text == careful.text == WALK
    assert quick.logprob != careful.logprob
    assert short.careful


def test_a_transcript_does_not_depend_on_its_company(short: FasterWhisper) -> None:
    clips = [english(WALK), english(NICE), mandarin(), Clip(np.zeros(0, np.float32), 16000)]
    languages: list[Language] = ["en", "en", "zh", "en"]
    alone = [short.transcribe([clip], [tongue])[0] for clip, tongue in zip(clips, languages, strict=True)]
    together = FasterWhisper(section(words=True, batch=3))
    assert together.transcribe(clips, languages) == alone
    assert together.transcribe(clips[::-1], languages[::-1]) == alone[::-1]
    assert together.deterministic and together.name == alone[0].recognizer == "whisper-base"


def test_how_likely_the_language_is(short: FasterWhisper) -> None:
    heard = short.transcribe([english(NICE), mandarin(), english(NICE), mandarin()], ["en", "zh", "zh", "en"])
    found = [item.language or 0.0 for item in heard]
    assert min(found[:2]) > 0.9 and max(found[2:]) < 0.1


def test_words_have_their_times(short: FasterWhisper) -> None:
    clip = joined(Clip(np.zeros(16000, np.float32), 16000), english(WALK))
    [heard] = short.transcribe([clip], ["en"])
    assert [word.text for word in heard.words] == WALK.split()
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times) and heard.words[0].end > 0.5 and times[-1] <= clip.seconds
    assert heard.words[1].start > 1
    assert FasterWhisper(section()).transcribe([clip], ["en"])[0].words == ()


def test_what_is_longer_than_a_window_is_heard_in_several(short: FasterWhisper) -> None:
    silence = Clip(np.zeros(26 * 16000, np.float32), 16000)
    [heard] = short.transcribe([joined(english(NICE), silence, english(WALK))], ["en"])
    assert plain(heard.text).startswith(plain(NICE)) and heard.text.endswith("park.")
    assert heard.words[0].start < 1 and heard.words[-1].start > 29


def test_a_text_that_is_too_long_is_not_weighed(short: FasterWhisper) -> None:
    """The decoder has 448 positions, of which the prompt has four and the end of the text one."""
    clips, long = [english(WALK)] * 2, WALK * 90
    texts: list[Spellings] = [lambda heard: [long], lambda heard: [long, NICE, NICE + long]]
    none, one = FasterWhisper(section(batch=2)).transcribe(clips, ["en", "en"], True, texts)
    assert none.text == one.text == WALK
    assert (none.doubt, none.surprise) == (None, None)
    [alone] = short.transcribe(clips[:1], ["en"], True, [lambda heard: [NICE]])
    assert alone.doubt is not None and alone.doubt > 1
    assert (one.doubt, one.surprise) == (alone.doubt, alone.surprise)


@pytest.mark.parametrize(("count", "known"), [(443, True), (444, False)])
def test_the_longest_text_that_is_weighed(short: FasterWhisper, count: int, known: bool) -> None:
    text = "a" + " a" * (count - 1)  # a token each
    [heard] = short.transcribe([english(WALK)], ["en"], True, [lambda heard: [text]])
    assert (heard.doubt is not None, heard.surprise is not None) == (known, known)


def test_what_was_heard_may_be_too_long_as_well(short: FasterWhisper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short.bare, "max_length", 8)  # four tokens are heard then, and three can be weighed
    [heard] = short.transcribe([english(WALK)], ["en"], True, [lambda heard: ["We could"]])
    assert heard.text == "We could walk in" and (heard.doubt, heard.surprise) == (None, None)


def test_a_text_without_a_token_is_not_weighed(short: FasterWhisper) -> None:
    [heard] = short.transcribe([mandarin()], ["zh"], True, [lambda heard: [""]])
    assert "散步" in heard.text and (heard.doubt, heard.surprise) == (None, None)


def test_a_language_that_was_not_named_is_refused() -> None:
    engine = FasterWhisper(section(languages=["en"]))
    with pytest.raises(ConfigError, match=r"^asr\.languages: .* not to hear zh; see asr\.by_language\.zh"):
        engine.transcribe([mandarin()], ["zh"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compute": "int3"}, r"^asr\.compute=int3: cpu has no such number format; it has .*int8"),
        ({"model": "larg-v3"}, r"^asr\.model: faster-whisper knows no size 'larg-v3'; it knows .*large-v3"),
    ],
)
def test_settings_that_it_has_not(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FasterWhisper(section(**fields))


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"^asr\.device=cuda, but CTranslate2 finds no GPU here: take device=auto"):
        FasterWhisper(section(device="cuda"))


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.bin is missing in asr\.model_path="):
        FasterWhisper(section(model_path=tmp_path))
    for name in ("config.json", "tokenizer.json", "vocabulary.json"):
        shutil.copy(locate("whisper-base") / name, tmp_path)
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=rf"^{tmp_path}: not a model that faster-whisper can load"):
        FasterWhisper(section(model_path=tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"not a model that faster-whisper can load"):
        FasterWhisper(section(model_path=tmp_path))


def test_a_size_is_found_where_the_hub_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"^asr\.model=tiny could not be fetched .* set asr\.model_path"):
        models(section(model="tiny"))
    kept = tmp_path / "models--Systran--faster-whisper-tiny"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    (kept / "snapshots").mkdir()
    (kept / "snapshots" / "abc").symlink_to(locate("whisper-base"))
    engine = FasterWhisper(section(model="tiny"))
    assert engine.transcribe([english(WALK)], ["en"])[0].text == WALK
    [use] = models(section(model="tiny"))
    assert (use.name, use.license) == (engine.name, "MIT") == ("tiny", "MIT")
    assert use.sha256 == models(section())[0].sha256
