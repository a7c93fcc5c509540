"""What tiny models of Coqui's three kinds say, and what they cannot."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.outside import open_outside
from pipeline.dialogue import Clip, Language
from pipeline.voice import Recipe, SpeechRequest, Unsaid, Voice
from tests.coqui.conftest import Section

pytestmark = pytest.mark.coqui

TEXT = "Hello there, how are you?"
LONG = " ".join([TEXT] * 30)


def voice(**recipe: Any) -> Voice:
    return Voice(
        id="tiny", gender="female", languages=("en", "zh"), engine="tiny", license="CC0-1.0", recipe=Recipe(**recipe)
    )


def ask(text: str, speaker: Voice, seed: int = 1, language: Language = "en", speed: float = 1.0) -> SpeechRequest:
    return SpeechRequest(text, language, speaker, 0, speed, seed)


ANNA, BERT = voice(name="anna"), voice(name="bert")


def audio(answer: Clip | Unsaid) -> np.ndarray:
    assert isinstance(answer, Clip), answer
    assert answer.audio.dtype == np.float32
    assert 0.001 < np.abs(answer.audio).max() <= 1
    return answer.audio


def clips(engine: Synthesizer, *requests: SpeechRequest) -> list[np.ndarray]:
    return [audio(answer) for answer in engine.synthesize(requests)]


def unsaid(engine: Synthesizer, request: SpeechRequest) -> tuple[str, str]:
    (answer,) = engine.synthesize([request])
    assert isinstance(answer, Unsaid)
    return answer.reason, answer.detail


def write_clip(path: Path, seed: int, seconds: float = 3) -> Voice:
    """A reference clip; the voice that is to be made of it."""
    rng = np.random.default_rng(seed)
    soundfile.write(path, rng.normal(0, 0.1, round(24000 * seconds)).astype(np.float32), 24000)
    return voice(clip=str(path), clip_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_engines_are_what_their_models_are(vits: Synthesizer, cloner: Synthesizer, xtts: Synthesizer) -> None:
    assert (vits.name, vits.rate, cloner.rate, xtts.rate) == ("vits", 22050, 22050, 24000)
    assert vits.kinds == {"name"}
    assert cloner.kinds == {"name", "clip", "embedding"}
    assert xtts.kinds == {"clip"}
    assert (vits.languages, cloner.languages, xtts.languages) == ({"en", "zh"}, {"en"}, {"en", "zh"})
    for engine in (vits, cloner, xtts):
        assert engine.stochastic
        assert engine.deterministic == (engine.batch == 1)


def test_a_request_harms_no_neighbour_and_order_is_kept(vits: Synthesizer) -> None:
    good = [
        ask(TEXT, ANNA, 3),
        ask("你好吗？我很好。", BERT, 4, "zh"),
        ask("hi", BERT, 5),
        ask(TEXT, ANNA, 6, speed=1.3),
        ask("Hello!", voice(name="ming"), 7),
    ]
    bad = [ask("7 + 1", ANNA), ask("...", ANNA), ask("hi", voice(name="zoe")), ask("x" * 400, ANNA), ask("", ANNA)]
    answers = vits.synthesize([request for pair in zip(good, bad, strict=True) for request in pair])
    assert [answer.reason for answer in answers[1::2] if isinstance(answer, Unsaid)] == [
        "symbols",
        "empty",
        "voice",
        "too_long",
        "empty",
    ]
    for request, answer in zip(good, answers[::2], strict=True):
        assert np.array_equal(audio(answer), clips(vits, request)[0])


def test_a_seed_is_a_take_and_a_voice_a_voice(vits: Synthesizer) -> None:
    first, again, other, bert = clips(vits, ask(TEXT, ANNA), ask(TEXT, ANNA), ask(TEXT, ANNA, 2), ask(TEXT, BERT))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, bert)


@pytest.mark.parametrize("name", ["vits", "xtts"])
def test_speed_is_kept(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    engine: Synthesizer = request.getfixturevalue(name)
    speaker = ANNA if name == "vits" else write_clip(tmp_path / "a.wav", 1)
    slow, even, fast = clips(engine, *(ask(TEXT, speaker, speed=speed) for speed in (0.5, 1, 2)))
    assert len(slow) > 1.5 * len(even) > 2 * len(fast)


def test_long_texts_are_cut_and_joined_with_pauses(vits: Synthesizer) -> None:
    short, long = clips(vits, ask(TEXT, ANNA), ask(LONG, ANNA))
    assert 0.7 * 30 * len(short) < len(long) < 1.5 * 30 * len(short)
    silent = np.flatnonzero(np.convolve(np.abs(long) > 0, np.ones(vits.rate // 5), "valid") == 0)
    assert len(silent), "no fifth of a second of silence between sentences"


def test_lines_spoken_together_sound_as_alone(weights: Path, section: Section, tmp_path: Path) -> None:
    """Without noise in the model, a batch is what its lines are: each ends where it ends, with its voice and speed."""
    still = shutil.copytree(weights / "vits", tmp_path / "still")
    config = json.loads((still / "config.json").read_text())
    config["model_args"].update(inference_noise_scale=0.0, inference_noise_scale_dp=0.0)
    (still / "config.json").write_text(json.dumps(config))
    alone, together = (
        open_outside("tiny", section("vits", model_path=still, batch=batch), on_ray=False) for batch in (1, 4)
    )
    assert (alone.batch, alone.deterministic, together.batch, together.deterministic) == (1, True, 4, False)
    requests = [
        ask("hi", ANNA),
        ask(TEXT * 4, BERT),
        ask("9", ANNA),
        ask("你好吗？", voice(name="ming"), language="zh"),
        ask(TEXT * 4, ANNA, speed=0.3),
        ask(TEXT, ANNA),
    ]
    answers = together.synthesize(requests)
    assert isinstance(answers.pop(2), Unsaid)
    del requests[2]
    # What is padded after a line is not quite silent to the vocoder, which hears a few frames beyond the end.
    for answer, lonely in zip(map(audio, answers), clips(alone, *requests), strict=True):
        assert len(answer) == len(lonely)
        assert np.allclose(answer[:-1024], lonely[:-1024], atol=1e-4)
    hi, even, mandarin, slow, text = map(len, map(audio, answers))
    assert 1024 < hi < mandarin < text < even
    assert slow > 1.5 * even


def test_a_voice_is_a_vector(cloner: Synthesizer, tmp_path: Path) -> None:
    """Anna's vector is all ones; only its direction counts."""
    named, given, other = clips(
        cloner, ask(TEXT, ANNA), ask(TEXT, voice(embedding=(0.5,) * 256)), ask(TEXT, voice(embedding=(0.5, -0.5) * 128))
    )
    assert np.array_equal(named, given)
    assert not np.array_equal(named, other)
    assert unsaid(cloner, ask(TEXT, voice(embedding=(1.0, 2.0)))) == (
        "voice",
        "the model takes embeddings of 256 numbers, this has 2",
    )


@pytest.mark.parametrize("name", ["cloner", "xtts"])
def test_a_clip_is_a_voice(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    engine: Synthesizer = request.getfixturevalue(name)
    one, two = write_clip(tmp_path / "one.wav", 1), write_clip(tmp_path / "two.wav", 2)
    first, other, again = clips(engine, ask("hi", one), ask("hi", two), ask("hi", one))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["cloner", "xtts"])
def test_a_clip_that_makes_no_voice_is_named(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    engine: Synthesizer = request.getfixturevalue(name)
    missing = write_clip(tmp_path / "missing.wav", 3)
    changed = write_clip(tmp_path / "changed.wav", 4)
    (tmp_path / "missing.wav").unlink()
    write_clip(tmp_path / "changed.wav", 5)
    (tmp_path / "text.wav").write_text("no sound at all")
    text = voice(clip=str(tmp_path / "text.wav"))
    reasons = [unsaid(engine, ask("hi", speaker)) for speaker in (missing, changed, text)]
    assert [reason for reason, _ in reasons] == ["voice"] * 3
    assert "missing.wav: the reference clip cannot be read: No such file" in reasons[0][1]
    assert "changed.wav: not the reference clip that the voice was made of (sha256 " in reasons[1][1]
    assert "text.wav: no voice can be made of this clip" in reasons[2][1]


def test_xtts_speaks_both_languages_and_knows_its_signs(xtts: Synthesizer, tmp_path: Path) -> None:
    speaker = write_clip(tmp_path / "one.wav", 1)
    assert len(clips(xtts, ask("Hello!", speaker), ask("你好吗？", speaker, language="zh"))) == 2
    assert unsaid(xtts, ask("straße", speaker)) == ("symbols", "the model does not know ß (in 'straße')")
    reason, detail = unsaid(xtts, ask("hello " * 30, speaker))
    assert reason == "too_long"
    assert "takes less than 120" in detail


def test_what_an_engine_cannot_make_is_named(vits: Synthesizer, cloner: Synthesizer, xtts: Synthesizer) -> None:
    assert unsaid(vits, ask("hi", voice(name="zoe"))) == (
        "voice",
        "the model has no speaker 'zoe'; it has anna, bert, ming",
    )
    assert unsaid(vits, ask("hi", voice(clip="some.wav"))) == ("voice", "vits makes no voice of a clip: 'tiny'")
    assert unsaid(xtts, ask("hi", ANNA)) == ("voice", "xtts makes no voice of a name: 'tiny'")
    assert unsaid(cloner, ask("你好", ANNA, language="zh")) == ("voice", "dvector does not speak zh")
    assert unsaid(vits, ask("Hi ☃ 7", ANNA)) == ("symbols", "the model does not know ☃ 7 (in 'Hi ☃ 7')")
