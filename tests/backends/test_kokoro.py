"""Kokoro for real: voices of any mix, what cannot be said and why, long turns, the same bytes each time."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.backends.tts.kokoro import COMFORTABLE, MAX_TOKENS, Kokoro, build, models
from pipeline.backends.tts.phonemes import Phonemes
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip, Language
from pipeline.errors import ModelError
from pipeline.models import locate
from pipeline.text.checks import unspeakable
from pipeline.voice import Recipe, SpeechRequest, Unsaid, Voice

pytestmark = pytest.mark.embedded

HEART, MICHAEL = {"af_heart": 1.0}, {"am_michael": 1.0}


def voice(
    timbre: dict[str, float],
    prosody: dict[str, float] | None = None,
    languages: tuple[Language, ...] = ("en",),
    accent: str = "us",
) -> Voice:
    recipe = Recipe.model_validate({"timbre": timbre, "prosody": prosody or {}})
    return Voice.model_validate(
        {
            "id": "somebody",
            "gender": "female",
            "languages": languages,
            "accent": accent,
            "engine": "kokoro",
            "license": "Apache-2.0",
            "recipe": recipe,
        }
    )


def ask(text: str, who: Voice, language: Language = "en", speed: float = 1.0, seed: int = 7) -> SpeechRequest:
    return SpeechRequest(text, language, who, take=0, speed=speed, seed=seed)


@pytest.fixture(scope="module")
def tts() -> Kokoro:
    return build(TtsEngineConfig())


def clip(tts: Kokoro, request: SpeechRequest) -> Clip:
    [said] = tts.synthesize([request])
    assert isinstance(said, Clip), said
    return said


def fault(tts: Kokoro, request: SpeechRequest) -> Unsaid:
    [said] = tts.synthesize([request])
    assert isinstance(said, Unsaid)
    return said


def checksum(clip: Clip) -> str:
    return hashlib.sha256(clip.audio.tobytes()).hexdigest()


GREETING = ask("Hello.", voice(HEART))
BOTH = voice(HEART, languages=("en", "zh"))


@pytest.fixture(scope="module")
def greeting(tts: Kokoro) -> Clip:
    return clip(tts, GREETING)


def test_a_clip_is_speech_of_a_natural_length(greeting: Clip) -> None:
    assert (greeting.rate, greeting.audio.dtype, greeting.audio.ndim) == (24000, np.float32, 1)
    assert 0.5 < greeting.seconds < 2.5
    assert 0.1 < np.abs(greeting.audio).max() <= 1


@pytest.fixture(scope="module")
def michael(tts: Kokoro) -> Clip:
    return clip(tts, ask("Hello.", voice(MICHAEL)))


def test_bytes_depend_on_no_seed_no_neighbour_and_no_thread(tts: Kokoro, greeting: Clip, michael: Clip) -> None:
    requests = [ask("", voice(HEART)), ask("Hello.", voice(MICHAEL)), ask("Hello.", voice(HEART), seed=8)]
    with ThreadPoolExecutor(2) as pool:
        [_, first], [second] = pool.map(tts.synthesize, [requests[:2], requests[2:]])
    assert isinstance(first, Clip) and isinstance(second, Clip)
    assert checksum(first) == checksum(michael) != checksum(greeting)
    assert checksum(second) == checksum(greeting)


def test_an_english_style_speaks_mandarin_with_the_same_bytes_in_another_process(tts: Kokoro) -> None:
    here = clip(tts, ask("好。", BOTH, "zh"))
    assert here.seconds > 0.3 and np.abs(here.audio).max() > 0.1
    code = (
        "from tests.backends.test_kokoro import *\n"
        "print(checksum(build(TtsEngineConfig()).synthesize([ask('好。', BOTH, 'zh')])[0]))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.strip() == checksum(here), done.stderr
    # jieba talks when it loads; a worker's terminal is no place for it.
    assert "jieba" not in done.stderr and "Building prefix dict" not in done.stderr


def test_a_slower_take_is_another_take(tts: Kokoro, greeting: Clip) -> None:
    assert not tts.stochastic and tts.deterministic
    slower = clip(tts, ask("Hello.", voice(HEART), speed=0.8))
    assert 1.1 < slower.seconds / greeting.seconds < 1.4


def test_prosody_gives_the_durations_and_timbre_the_sound(tts: Kokoro, greeting: Clip, michael: Clip) -> None:
    both = clip(tts, ask("Hello.", voice(HEART, MICHAEL)))
    assert len(both.audio) == len(michael.audio) != len(greeting.audio)
    assert checksum(both) != checksum(michael)


def test_a_mix_is_the_weighted_sum_of_its_styles(tts: Kokoro) -> None:
    def style(recipe: Recipe) -> np.ndarray:
        return tts.feed(range(20), recipe, 1.0)["style"]

    heart, michael = (style(voice(timbre).recipe) for timbre in (HEART, MICHAEL))
    assert heart.shape == (1, 256) and heart.dtype == np.float32
    mixed = style(voice({"af_heart": 1.25, "am_michael": -0.25}, MICHAEL).recipe)
    np.testing.assert_allclose(mixed[:, :128], (1.25 * heart - 0.25 * michael)[:, :128], atol=1e-6)
    assert np.array_equal(mixed[:, 128:], michael[:, 128:])
    assert not np.array_equal(style(voice(HEART).recipe), tts.feed(range(21), voice(HEART).recipe, 1.0)["style"])


def test_the_language_chooses_the_reader_and_the_accent_its_english(tts: Kokoro) -> None:
    read = {accent: tts.utterances("bath", "en", accent) for accent in ("us", "gb", "cn", "")}
    assert read["us"] == read["cn"] == read[""] != read["gb"]
    assert tts.utterances("我要 bath 吧", "zh", "gb") != tts.utterances("我要 bath 吧", "zh", "cn")


SYMBOLS: list[tuple[str, Language, str]] = [
    ("你好", "en", "'你' (U+4F60), '好' (U+597D)"),
    ("Hello 😀", "en", "'😀' (U+1F600)"),
    ("Привет", "en", "'П' (U+041F)"),
    ("a*b", "en", "'*' (U+002A)"),
    ("[hello](/həlˈO/)", "en", "'[' (U+005B)"),
    ("我β你", "zh", "'β' (U+03B2)"),  # which the model knows, as a phoneme
    ("我→你", "zh", "'→' (U+2192)"),  # the same, as a tone
    ("五@六", "zh", "'@' (U+0040)"),
    ("请看1/2/3", "zh", "'/' (U+002F)"),
    ("我叫𠮷", "zh", "'𠮷' (U+20BB7)"),
    ("桛了", "zh", "'桛' (U+685B)"),  # a character of Japan, without a reading
    ("我说Ħ", "zh", "'Ħ' (U+0126)"),
]


@pytest.mark.parametrize(("text", "language", "named"), SYMBOLS)
def test_symbols_that_would_be_left_out_are_named(tts: Kokoro, text: str, language: Language, named: str) -> None:
    said = fault(tts, ask(text, BOTH, language))
    assert said.reason == "symbols" and named in said.detail


@pytest.mark.parametrize(
    ("text", "same", "language"),
    [
        ("e\u2011mail\u00a0him", "e-mail him", "en"),
        ("don’t", "don't", "en"),
        ("soft\u00adly\u200b", "softly", "en"),
        ("cafe\u0301", "café", "en"),
        ("托马斯·爱迪生", "托马斯爱迪生", "zh"),
        ("二〇二四", "二零二四", "zh"),
        ("『好』〈书〉", "「好」《书》", "zh"),
        ("他说‘好’", "他说“好”", "zh"),
        ("好\u3000吧", "好 吧", "zh"),
    ],
)
def test_what_only_looks_different_is_said_the_same(tts: Kokoro, text: str, same: str, language: Language) -> None:
    said = tts.utterances(text, language, "us")
    assert isinstance(said, list) and said == tts.utterances(same, language, "us")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_the_rules_on_text_let_pass_can_be_said(tts: Kokoro, language: Language) -> None:
    with (Path(__file__).parents[1] / "text" / f"verbalize.{language}.tsv").open(encoding="utf-8") as file:
        texts = [row["spoken"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    texts = [text for text in texts if unspeakable(text, language, code_switch=True) is None]
    assert len(texts) > 300
    faults = {text: said for text in texts if isinstance(said := tts.utterances(text, language, "us"), Unsaid)}
    assert faults == {}


@pytest.mark.parametrize("text", ["", "  ", "…?!", "，。"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_to_say_is_told(tts: Kokoro, text: str, language: Language) -> None:
    if text != "，。" or language == "zh":
        said = fault(tts, ask(text, BOTH, language))
        assert said.reason == "empty" and repr(text.strip()) in said.detail


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_word_that_would_be_cut_off_is_too_long(tts: Kokoro, language: Language) -> None:
    said = fault(tts, ask("Tell me: " + "abcdefghij" * 4, BOTH, language))
    assert said.reason == "too_long" and "abcdefghijabc" in said.detail


@pytest.mark.parametrize(
    ("who", "language", "part"),
    [
        (voice(HEART), "zh", "'somebody' does not speak zh"),
        (voice({"af_hart": 1}), "en", "no style 'af_hart'; did you mean 'af_heart'?"),
        (voice(HEART, {"nobody_at_all": 1}), "en", "no style 'nobody_at_all'"),
        (voice(HEART).model_copy(update={"recipe": Recipe(name="anna")}), "en", "makes no voice of a name"),
    ],
)
def test_a_voice_that_cannot_be_made_is_told(tts: Kokoro, who: Voice, language: Language, part: str) -> None:
    said = fault(tts, ask("你好" if language == "zh" else "Hello.", who, language))
    assert said.reason == "voice" and part in said.detail


SENTENCE = "The old lighthouse stood above the harbour, and its lamp was seen by every ship. "


@pytest.mark.parametrize(
    ("text", "language"), [(SENTENCE * 20, "en"), ("我们走了很久，又累又饿。后来终于回到了家里！" * 20, "zh")]
)
def test_a_long_turn_is_cut_at_sentences_and_loses_nothing(tts: Kokoro, text: str, language: Language) -> None:
    said = tts.utterances(text, language, "us")
    assert isinstance(said, list) and len(said) > 2
    assert all(0 < len(piece.tokens) <= COMFORTABLE for piece in said)
    marks = json.loads((locate("kokoro") / "vocab.json").read_text("utf-8"))["vocab"]
    ends = {marks["."], marks["!"]}
    assert all(piece.tokens[-1] in ends for piece in said)
    assert sum(token in ends for piece in said for token in piece.tokens) == (20 if language == "en" else 40)
    assert sum(piece.tokens.count(marks[","]) for piece in said) == 20
    assert all(0.2 <= piece.pause <= 0.4 for piece in said[:-1]) and said[-1].pause == 0


def test_one_endless_sentence_is_cut_where_the_model_ends(tts: Kokoro) -> None:
    said = tts.utterances("and then we walked " * 60, "en", "us")
    assert isinstance(said, list) and len(said) > 1
    assert all(MAX_TOKENS // 4 < len(piece.tokens) <= MAX_TOKENS for piece in said)


def test_a_text_is_read_once() -> None:
    reader = Phonemes(("en",), remembered=2)
    first = reader.read("Hello there", "en", "us")
    assert first and reader.read("Hello there", "en", "us") is first
    assert reader.read("Hello there", "en", "gb") != first
    for text in ("one", "two"):
        reader.read(text, "en", "us")
    again = reader.read("Hello there", "en", "us")
    assert again == first and again is not first


@pytest.mark.parametrize("sentence", ["I said no.", "The cat sat.", "Look at the sun.", "No. Never."])
def test_a_word_at_the_end_is_no_abbreviation(sentence: str) -> None:
    reader = Phonemes(("en",))
    assert reader.read(sentence, "en", "us") == str(reader.read(sentence.replace(".", " ."), "en", "us"))
    assert "ˈʌmbəɹ" in str(reader.read("No. 5 is alive", "en", "us"))


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's own: the real model and style, damaged styles, a vocabulary with a token too many."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "kokoro.onnx").symlink_to(locate("kokoro") / "kokoro.onnx")
    vocab = json.loads((locate("kokoro") / "vocab.json").read_text("utf-8"))
    vocab["vocab"]["ʒ"] = 9999
    (folder / "vocab.json").write_text(json.dumps(vocab))
    style = (locate("kokoro-voices") / "voices" / "af_heart.bin").read_bytes()
    numbers = np.frombuffer(style, np.float32).reshape(510, 256).copy()
    numbers[:, :128] = np.nan
    files = {"af_heart": style, "short": style[:1000], "gone": style, "nan": numbers.tobytes()}
    (folder / "voices").mkdir()
    for name, data in files.items():
        (folder / "voices" / f"{name}.bin").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def own_tts(own: Path) -> Kokoro:
    return Kokoro(own)


def test_files_of_another_kind_are_named(tmp_path: Path, own: Path) -> None:
    (tmp_path / "voices").symlink_to(own / "voices")
    (tmp_path / "kokoro.onnx").write_bytes(b"{}")
    for damaged in ("{", "[1]", '{"a": "b"}'):
        (tmp_path / "vocab.json").write_text(damaged)
        with pytest.raises(ModelError, match=r"vocab\.json: not a map of phonemes to tokens"):
            Kokoro(tmp_path)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "vocab.json").symlink_to(own / "vocab.json")
    with pytest.raises(ModelError, match=r"kokoro\.onnx: not a model"):
        Kokoro(tmp_path)
    (tmp_path / "kokoro.onnx").unlink()
    (tmp_path / "kokoro.onnx").symlink_to(locate("dnsmos") / "sig_bak_ovr.onnx")
    with pytest.raises(ModelError, match=r"kokoro\.onnx: .*its inputs are input_1, not tokens, style, speed"):
        Kokoro(tmp_path)


def test_a_style_that_is_damaged_or_gone_is_an_error_of_the_installation(own: Path, own_tts: Kokoro) -> None:
    with pytest.raises(ModelError, match=r"short\.bin: 250 numbers where a style has 510 x 256"):
        own_tts.synthesize([ask("Hello.", voice({"short": 1}))])
    (own / "voices" / "gone.bin").unlink()
    with pytest.raises(ModelError, match=r"gone\.bin is gone"):
        own_tts.synthesize([ask("Hello.", voice({"gone": 1}))])


def test_what_the_model_refuses_is_told_in_its_words(own_tts: Kokoro) -> None:
    """A token that it does not have."""
    said = fault(own_tts, ask("Measure.", voice(HEART)))
    assert said.reason == "refused" and "9999" in said.detail and "\n" not in said.detail


def test_samples_that_are_no_numbers_are_no_clip(own_tts: Kokoro) -> None:
    said = fault(own_tts, ask("Hello.", voice({"nan": 1})))
    assert said.reason == "not_a_number" and "'Hello.'" in said.detail


def test_what_is_loaded_is_named_with_its_checksum() -> None:
    used = models(TtsEngineConfig())
    assert [(use.name, use.role, use.license) for use in used] == [
        ("kokoro", "tts", "Apache-2.0"),
        ("kokoro-voices", "voices", "Apache-2.0"),
    ]
    assert used[0].sha256.startswith("6e742170d309")
