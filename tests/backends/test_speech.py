"""The embedded speech models, for real: what Kokoro says, Whisper hears and DNSMOS judges."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jiwer import cer, wer

from pipeline.audio import resample
from pipeline.backends import make_quality, make_recognizer, make_synthesizer, speech_models
from pipeline.backends.asr.faster_whisper import FasterWhisper
from pipeline.backends.quality.dnsmos import Dnsmos, windows
from pipeline.backends.tts.kokoro import MAX_TOKENS, Kokoro, cut
from pipeline.config import load_config
from pipeline.dialogue import Clip, Language, SpeechRequest
from pipeline.errors import BackendError, ConfigError, ModelError
from speakers import load_library

pytestmark = pytest.mark.embedded

CONFIG = load_config("quickstart")


def ask(text: str, language: Language, voice: str, speed: float = 1.0, take: int = 0, seed: int = 7) -> SpeechRequest:
    return SpeechRequest(text, language, voice, take, speed, seed)


REQUESTS = (
    ask("The weather is lovely today, and we will walk in the park.", "en", "af_heart"),
    ask("I think that is a wonderful idea.", "en", "bm_george"),
    ask("今天的天气非常好。", "zh", "zf_xiaoxiao"),
    ask("我们一起去公园散步吧。", "zh", "zm_yunxi_yunyang"),
)


@pytest.fixture(scope="module")
def tts() -> Kokoro:
    engine = make_synthesizer(CONFIG, load_library())
    assert isinstance(engine, Kokoro)
    return engine


@pytest.fixture(scope="module")
def asr() -> FasterWhisper:
    engine = make_recognizer(CONFIG)
    assert isinstance(engine, FasterWhisper)
    return engine


@pytest.fixture(scope="module")
def dnsmos() -> Dnsmos:
    engine = make_quality(CONFIG)
    assert isinstance(engine, Dnsmos)
    return engine


@pytest.fixture(scope="module")
def spoken(tts: Kokoro) -> list[Clip]:
    return tts.synthesize(REQUESTS)


def checksum(clip: Clip) -> str:
    return hashlib.sha256(clip.audio.tobytes()).hexdigest()


def plain(text: str) -> str:
    """Letters and digits only; enough for these sentences, whose characters are the same in both scripts but these."""
    simplified = text.translate(str.maketrans("氣們園", "气们园"))
    return "".join(c for c in simplified.lower() if c.isalnum() or c == " ")


def test_what_is_said_is_heard(spoken: list[Clip], asr: FasterWhisper) -> None:
    heard = asr.transcribe([resample(clip, asr.rate) for clip in spoken], [r.language for r in REQUESTS])
    for request, transcript in zip(REQUESTS, heard, strict=True):
        rate = wer if request.language == "en" else cer
        assert rate(plain(request.text), plain(transcript.text)) <= 0.1, transcript.text
        assert -1 < transcript.logprob < 0
        assert 0 <= transcript.no_speech < 0.5
        assert transcript.compression_ratio < 2.4


def test_clips_are_speech_of_a_natural_length(spoken: list[Clip]) -> None:
    for clip in spoken:
        assert clip.rate == 24000
        assert clip.audio.dtype == np.float32
        assert clip.audio.ndim == 1
        assert 1 < clip.seconds < 6
        assert 0.1 < np.abs(clip.audio).max() <= 1


def test_bytes_do_not_depend_on_order_batch_or_seed(tts: Kokoro, spoken: list[Clip]) -> None:
    again = [tts.synthesize([ask(r.text, r.language, r.voice, seed=8)])[0] for r in (REQUESTS[3], REQUESTS[1])]
    assert [checksum(clip) for clip in again] == [checksum(spoken[3]), checksum(spoken[1])]


def test_bytes_do_not_depend_on_the_process(spoken: list[Clip]) -> None:
    code = (
        "import hashlib, sys\n"
        "from tests.backends.test_speech import CONFIG, REQUESTS, load_library, make_synthesizer\n"
        "clip = make_synthesizer(CONFIG, load_library()).synthesize(REQUESTS[2:3])[0]\n"
        "print(hashlib.sha256(clip.audio.tobytes()).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.strip() == checksum(spoken[2]), done.stderr
    # jieba talks when it loads; a worker's terminal is no place for it.
    assert "jieba" not in done.stderr
    assert "Building prefix dict" not in done.stderr


def test_a_slower_take_is_another_take(tts: Kokoro, spoken: list[Clip]) -> None:
    assert not tts.stochastic
    request = REQUESTS[1]
    slower = tts.synthesize([ask(request.text, request.language, request.voice, speed=0.8, take=1)])[0]
    assert 1.1 < slower.seconds / spoken[1].seconds < 1.4


def test_a_mix_is_neither_of_its_parents(tts: Kokoro) -> None:
    text = "你好。"
    clips = tts.synthesize([ask(text, "zh", voice) for voice in ("zm_yunxi_yunyang", "zm_yunxi", "zm_yunyang")])
    assert len({checksum(clip) for clip in clips}) == 3


def test_unknown_voice_names_the_nearest(tts: Kokoro) -> None:
    with pytest.raises(ConfigError, match=r"'zf_xiaoxia'.*did you mean 'zf_xiaoxiao'"):
        tts.synthesize([ask("你好。", "zh", "zf_xiaoxia")])


@pytest.mark.parametrize(
    ("text", "language", "voice"),
    [
        ("", "en", "af_heart"),
        ("  ", "zh", "zm_yunxi"),
        ("…?!", "en", "bm_george"),
        ("，。", "zh", "zf_xiaoyi"),
        ("你好", "en", "af_sky"),
    ],
)
def test_nothing_to_say_is_told_with_the_text(tts: Kokoro, text: str, language: Language, voice: str) -> None:
    with pytest.raises(BackendError, match="nothing to say") as caught:
        tts.synthesize([ask(text, language, voice)])
    assert repr(text) in str(caught.value)
    assert not caught.value.retryable


def test_a_voice_is_not_asked_for_a_language_that_it_lacks(tts: Kokoro) -> None:
    with pytest.raises(BackendError, match="'af_heart' does not speak 'zh'"):
        tts.synthesize([ask("你好。", "zh", "af_heart")])


def test_models_are_named_with_checksums() -> None:
    used = speech_models(CONFIG)
    assert [use.name for use in used] == ["kokoro", "kokoro-voices", "whisper-base", "dnsmos"]
    assert used[0].sha256.startswith("6e742170d309")
    assert all(len(use.sha256) == 64 and use.license in ("Apache-2.0", "MIT") for use in used)


def test_long_text_is_cut_into_pieces_that_fit_and_lose_nothing(tts: Kokoro) -> None:
    sentence = "The old lighthouse stood above the harbour, and its lamp was seen by every ship. "
    text = sentence * 20
    pieces = list(tts.pieces(text.strip(), "en", "us"))
    whole = [token for piece in pieces for token in piece]
    assert len(pieces) > 1
    assert all(0 < len(piece) <= MAX_TOKENS for piece in pieces)
    one = next(iter(tts.pieces(sentence.strip(), "en", "us")))
    full_stops = whole.count(one[-1])
    assert full_stops == 20
    spaces = len(pieces) - 1
    assert len(whole) + spaces == 20 * len(one) + 19


def test_cuts_prefer_sentences_to_clauses_to_words_to_letters() -> None:
    assert cut("One, two. Three four five, six seven.") == ("One, two.", "Three four five, six seven.")
    assert cut("Pi is 3.14 or so, they say it is enough") == ("Pi is 3.14 or so,", "they say it is enough")
    assert cut("我们走了很久，又累。后来，回家了。") == ("我们走了很久，又累。", "后来，回家了。")
    assert cut("one two three four") == ("one two", "three four")
    assert cut("天地玄黄") == ("天地", "玄黄")


def noise(seconds: float, level: float) -> np.ndarray:
    return (np.random.default_rng(5).standard_normal(int(16000 * seconds)) * level).astype(np.float32)


def test_silence_and_nothing_are_no_words(asr: FasterWhisper) -> None:
    nothing = asr.transcribe([Clip(np.zeros(0, np.float32), 16000)], ["zh"])[0]
    assert (nothing.text, nothing.no_speech) == ("", 1.0)


def test_clips_of_another_rate_are_a_bug(asr: FasterWhisper, dnsmos: Dnsmos) -> None:
    clip = Clip(np.zeros(24000, np.float32), 24000)
    with pytest.raises(ValueError, match="24000 Hz; faster-whisper wants 16000"):
        asr.transcribe([clip], ["en"])
    with pytest.raises(ValueError, match="24000 Hz; dnsmos wants 16000"):
        dnsmos.score([clip])


def test_dnsmos_hears_noise(dnsmos: Dnsmos, spoken: list[Clip]) -> None:
    clean = resample(spoken[0], 16000)
    noisy = Clip(clean.audio + noise(clean.seconds + 1, 0.05)[: len(clean.audio)], 16000)
    scores = [{score.name: score.value for score in scores} for scores in dnsmos.score([clean, noisy])]
    assert [list(names) for names in scores] == [["mos_sig", "mos_bak", "mos_ovr"]] * 2
    assert all(1 <= value <= 5 for names in scores for value in names.values())
    assert scores[0]["mos_ovr"] > 2.5
    assert scores[1]["mos_bak"] < scores[0]["mos_bak"] - 1
    assert scores[1]["mos_ovr"] < scores[0]["mos_ovr"] - 0.5


def test_dnsmos_windows_are_those_of_the_reference() -> None:
    def reference(audio: np.ndarray) -> Iterator[np.ndarray]:
        """speechmos/dnsmos.py, DNSMOS.__call__, for clips of at least 9.01 s."""
        for idx in range(int(np.floor(len(audio) / 16000) - 9.01) + 1):
            segment = audio[int(idx * 16000) : int((idx + 9.01) * 16000)]
            if len(segment) >= 144160:
                yield segment

    for seconds in (9.01, 10.0, 10.5, 12.02, 14.99):
        audio = noise(seconds, 0.1)
        expected = list(reference(audio))
        found = windows(audio)
        assert expected
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    short = noise(2, 0.1)
    (window,) = windows(short)
    assert window.shape == (144160,)
    assert np.array_equal(window[32000:64000], short)


def test_broken_model_files_are_named(tmp_path: Path) -> None:
    for name in ("kokoro.onnx", "vocab.json", "voices/af_heart.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=r"kokoro\.onnx: not a model"):
        Kokoro(load_library(), tmp_path)
