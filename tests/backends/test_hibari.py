"""hibari for real, and the engine that CONTRIBUTING.md shows, installed as a package of somebody else's."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import resample
from pipeline.backends import build_engine, engine_names, make_recognizer, speech_models
from pipeline.backends.tts.hibari import HibariVoice
from pipeline.config import TtsEngineConfig, load_config
from pipeline.dialogue import Clip, Language
from pipeline.text.rates import error_rates
from pipeline.voice import Recipe, SpeechRequest, Unsaid, Voice

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).parents[2]
SENTENCE = "The weather is lovely today, and we will walk in the park."


def ask(text: str, speed: float = 1.0, name: str = "heart", language: Language = "en", seed: int = 7) -> SpeechRequest:
    recipe = Recipe(name=name)
    voice = Voice(
        id="lady", gender="female", languages=("en", "zh"), engine="hibari", license="Apache-2.0", recipe=recipe
    )
    return SpeechRequest(text, language, voice, take=0, speed=speed, seed=seed)


@pytest.fixture(scope="module")
def tts() -> HibariVoice:
    engine = build_engine("hibari", TtsEngineConfig(kind="hibari"))
    assert isinstance(engine, HibariVoice)
    return engine


def clip(tts: HibariVoice, request: SpeechRequest) -> Clip:
    [said] = tts.synthesize([request])
    assert isinstance(said, Clip), said
    return said


def test_what_is_said_is_heard(tts: HibariVoice) -> None:
    said = clip(tts, ask(SENTENCE))
    assert (said.rate, said.audio.dtype, said.audio.ndim) == (24000, np.float32, 1)
    assert 0.1 < np.abs(said.audio).max() <= 1
    asr = make_recognizer(load_config("quickstart"))
    [heard] = asr.transcribe([resample(said, asr.rate)], ["en"])
    assert error_rates(SENTENCE, heard.text, "en")["wer"] == 0


def test_the_same_request_gives_the_same_bytes_and_speed_is_kept(tts: HibariVoice) -> None:
    first, again, other_seed = tts.synthesize(
        [ask("Good morning."), ask("Good morning."), ask("Good morning.", seed=8)]
    )
    assert isinstance(first, Clip) and isinstance(again, Clip) and isinstance(other_seed, Clip)
    assert first.audio.tobytes() == again.audio.tobytes() == other_seed.audio.tobytes()
    assert 1.1 < clip(tts, ask("Good morning.", speed=0.8)).seconds / first.seconds < 1.4


def silences(said: Clip) -> list[float]:
    """Lengths in seconds of the pauses inside the clip, of those above 0.19 s."""
    loud = np.flatnonzero(np.abs(said.audio) > 10 ** (-50 / 20))
    steps = np.diff(loud) / said.rate
    return [round(float(step), 2) for step in steps[steps > 0.19]]


def test_long_turns_have_natural_pauses_between_their_sentences(tts: HibariVoice) -> None:
    one, many = clip(tts, ask("We walked along the river.")), clip(tts, ask("We walked along the river. " * 12))
    pauses = silences(many)
    assert silences(one) == []
    assert pauses and all(0.2 <= pause <= 0.4 for pause in pauses)
    assert 6 * one.seconds < many.seconds < 12 * one.seconds


@pytest.mark.parametrize(
    ("request_", "reason", "part"),
    [
        (ask("Hello 你好"), "symbols", "'你' (U+4F60), '好' (U+597D)"),
        (ask(" …!"), "empty", "'…!'"),
        (ask("Oh " + "abcdefghij" * 4), "too_long", "abcdefghij"),
        (ask("Hello.", name="emma"), "voice", "only the English voice 'heart'"),
        (ask("你好", language="zh"), "voice", "only the English voice"),
    ],
)
def test_what_cannot_be_said_is_told(tts: HibariVoice, request_: SpeechRequest, reason: str, part: str) -> None:
    said, neighbour = tts.synthesize([request_, ask("Hello.")])
    assert isinstance(said, Unsaid) and said.reason == reason and part in said.detail
    assert isinstance(neighbour, Clip)


def test_its_model_is_named_with_its_checksum() -> None:
    used = speech_models(load_config("quickstart", ["tts.engines.hibari.kind=hibari"]))
    [model] = [use for use in used if use.name == "hibari"]
    assert model.sha256.startswith("5f70741d4e90") and model.license == "Apache-2.0"


# ---- CONTRIBUTING.md ------------------------------------------------------------------------------------------------


def page() -> dict[str, str]:
    """The blocks of code in "Adding a backend": engine, toml, yaml, test."""
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Adding a backend")[1].split("\n## ")[0]
    engine, toml, yaml, test = re.findall(r"```(\w+)\n(.*?)```", section, re.S)
    assert [kind for kind, _ in (engine, toml, yaml, test)] == ["python", "toml", "yaml", "python"]
    return {"engine": engine[1], "toml": toml[1], "yaml": yaml[1], "test": test[1]}


def install(blocks: dict[str, str], folder: Path) -> None:
    """As pip would leave it."""
    points = tomllib.loads(blocks["toml"])["project"]["entry-points"]
    lines = [f"[{group}]\n{name} = {value}\n" for group, own in points.items() for name, value in own.items()]
    info = folder / "my_tts-1.0.dist-info"
    for path in (folder / "my_tts", info):
        path.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_tts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(lines))
    (folder / "my_tts" / "__init__.py").write_text("")
    (folder / "my_tts" / "lark.py").write_text(blocks["engine"], "utf-8")
    (folder / "voices.yaml").write_text(blocks["yaml"], "utf-8")
    (folder / "test_lark.py").write_text(blocks["test"], "utf-8")


def test_the_engine_of_the_page_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = page()
    lines = [line for line in blocks["engine"].splitlines() if line.strip()]
    assert len(lines) <= 40
    install(blocks, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "lark" in engine_names("tts")
    try:
        spec = importlib.util.spec_from_file_location("test_lark", tmp_path / "test_lark.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tests = [node.name for node in ast.parse(blocks["test"]).body if isinstance(node, ast.FunctionDef)]
        assert len(tests) == 1
        getattr(module, tests[0])()
        config = load_config("quickstart", ["tts.engines.lark.kind=lark"])
        [model] = [use for use in speech_models(config) if use.role == "tts:lark"]
        with (Path(sys.modules["hibari"].__path__[0]) / "assets" / "hibari.onnx").open("rb") as file:
            assert model.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        for name in ("my_tts", "my_tts.lark"):
            sys.modules.pop(name, None)
