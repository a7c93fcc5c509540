"""The audit of a voice library: who is measured, what is kept, what is written, on tones and on the real models."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import audio
from pipeline.config import Config, TtsEngineConfig
from pipeline.dialogue import Clip, Language, ModelUse, Score, Transcript
from pipeline.engine.voice_audit import audit, read_measured
from pipeline.engine.voice_figures import reasons
from pipeline.engine.voice_measure import HEARD, Measured, median_pitch
from pipeline.engine.voice_measure import texts as sentences
from pipeline.engine.voice_plan import Limits, audit_config, plan_audit
from pipeline.errors import ConfigError, DataError, UsageError
from pipeline.voice import SpeechRequest, Unsaid
from speakers import VoiceLibrary, load_library
from tests.command_line import CommandLine, refused
from tests.synthetic import ToneSynthesizer

LOG = "SPEECHCHAT_TEST_SPOKEN"
"""Names a file to which the synthesizer, in whatever process, adds a line a voice."""


class Talkers(ToneSynthesizer):
    """Voices called `mute…` say nothing, `broken…` break down, `slow…` take ten minutes. Each is asked: nothing is
    remembered of chance."""

    batch = 8
    deterministic = False

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        said: list[Clip | Unsaid] = list(super().synthesize(requests))
        for request in requests[:1]:
            if path := os.environ.get(LOG):
                with Path(path).open("a", encoding="utf-8") as log:
                    log.write(f"{request.voice.id} {len(requests)}\n")
            if request.voice.id.startswith("slow"):
                time.sleep(600)
            if request.voice.id.startswith("broken"):
                raise ValueError("a bug in the engine")
            if request.voice.id.startswith("mute"):
                said = [Unsaid("refused", "no")] * len(requests)
        return said


class Ears:
    """Hears what was said last; of `mumble…` something else, and of `packed…` where it is given one clip."""

    name = "ears"
    rate = 16000
    deterministic = True
    careful = True

    def __init__(self) -> None:
        self._lock = multiprocessing.RLock()  # as tqdm makes one, which real ones use

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: object = None
    ) -> list[Transcript]:
        if said := _talkers.said():
            self._voice = said[-1].voice.id
            self._texts = [request.text for request in said if request.voice.id == self._voice]
        wrong = self._voice.startswith("mumble") or (self._voice.startswith("packed") and len(clips) == 1)
        heard = "something else" if wrong else " ".join(t for t in sentences(languages[0], HEARD) if t in self._texts)
        return [Transcript(heard if not place else "", -0.1, 0.0, 1.0) for place in range(len(clips))]


class Judge:
    """As loud as it is, so good it is: what it is given decides, not what was made of it."""

    name = "judge"
    rate = 16000

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        return [(Score(name="mos_ovr", value=1 + 10 * float(np.abs(clip.audio).max())),) for clip in clips]


_talkers = Talkers()


def build_tts(section: TtsEngineConfig) -> Talkers:
    return _talkers


class Certain(Talkers):
    deterministic = True


def build_certain_tts(section: TtsEngineConfig) -> Talkers:
    global _talkers
    _talkers = Certain()
    return _talkers


def build_asr(config: Config) -> Ears:
    return Ears()


def build_quality(config: Config) -> Judge:
    return Judge()


def models(config: Config | TtsEngineConfig) -> tuple[ModelUse, ...]:
    return (ModelUse(role="speech", name="tones", sha256="", license="CC0-1.0"),)


HERE = "tests.engine.test_voice_audit"
SETTINGS = (
    f"tts.engines.kokoro.kind={HERE}:build_tts",
    f"asr.engine={HERE}:build_asr",
    f"quality.engine={HERE}:build_quality",
    "audio.trim=level",
)
NAMES = ("anna", "bert", "mumble", "packed", "mute")


def library(path: Path, names: Sequence[str] = NAMES) -> Path:
    """Voices of any style, in turn English and Mandarin, women and men; the first is a stock voice."""
    voices = [
        {
            "id": name,
            "gender": "female" if place % 2 else "male",
            "languages": ["zh" if place % 4 == 3 else "en"],
            "recipe": {"timbre": {name: 1}, "shift": 0.0 if not place else 0.5 * place},
        }
        for place, name in enumerate(names)
    ]
    path.write_text(yaml.safe_dump({"defaults": {"engine": "kokoro", "license": "CC0-1.0"}, "voices": voices}))
    return path


def quiet(done: int, count: int, cpu: float) -> None:
    pass


def run(path: Path, out: Path, *settings: str, sample: int = 200, seed: int = 0) -> dict[str, object]:
    voices = load_library(path)
    plan = plan_audit(voices, sample, seed, selected=False)
    return audit(voices, out, audit_config(None, [*SETTINGS, *settings], 1), plan, Limits(), quiet)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit")
    run(library(root / "own.yaml"), root / "out")
    return root / "out"


def table(out: Path) -> dict[str, dict[str, object]]:
    return {str(row["id"]): row for row in pq.read_table(out / "voices.parquet").to_pylist()}


@pytest.mark.embedded
def test_what_was_measured_of_a_voice(done: Path) -> None:
    rows = table(done)
    assert list(rows) == list(NAMES)
    anna = rows["anna"]
    assert (anna["wer"], anna["per"], anna["reasons"], anna["base"], anna["sample"]) == (0, None, [], True, True)
    assert np.linalg.norm(anna["embedding"]) == pytest.approx(1, abs=1e-5)  # type: ignore[arg-type]
    assert 0.04 < anna["pace"] < 0.08 and anna["uses"] == ["embed", "more"]  # type: ignore[operator]
    clip, rate = audio.decode((done / "clips" / "anna.flac").read_bytes())
    assert rate == 16000 and len(clip) > 3 * rate
    voice = load_library(done.parent / "own.yaml").voice("anna")
    requests = [SpeechRequest(text, "en", voice, 0, 1.0, 0) for text in sentences("en", ["embed"])]
    made = [
        audio.resample(clip, Judge.rate) for clip in ToneSynthesizer().synthesize(requests) if isinstance(clip, Clip)
    ]
    raw = [score.value for [score] in Judge().score(made)]
    assert anna["mos"] == pytest.approx(np.mean(raw), abs=1e-3)  # as it came out, and not as it was mastered
    assert anna["mos"] != pytest.approx(1 + 10 * np.abs(audio.from_pcm(clip)).max(), rel=0.06)


@pytest.mark.embedded
def test_who_fails_is_rejected_with_the_reason(done: Path) -> None:
    rows = table(done)
    lines = dict(line.split("\t") for line in (done / "rejected.txt").read_text("utf-8").splitlines())
    assert set(lines) == {"mumble", "mute"}
    assert re.fullmatch(r"wer \d\.\d{3}", lines["mumble"])
    first = sentences("en", ["embed"])[0]
    assert lines["mute"].startswith(f"fault refused: {first}") and rows["mute"]["embedding"] is None
    assert not (done / "clips" / "mute.flac").exists()
    # What is misheard in one window is heard again, sentence by sentence.
    assert rows["packed"]["per"] == 0 and rows["packed"]["reasons"] == []


@pytest.mark.embedded
def test_the_figures_add_up(done: Path) -> None:
    found = json.loads((done / "audit.json").read_bytes())
    assert found["passed"] == {
        "voices": 5, "passed": 3, "share": 0.6, "at_least": 0.1893, "reasons": {"fault": 1, "wer": 1}
    }  # fmt: skip
    assert found["library"]["balance"]["language"] == {"en": 4, "zh": 1}
    assert found["library"]["balance"]["gender"] == {"female": 2, "male": 3}
    english = found["languages"]["en"]
    assert english["sample"] == 4 and english["nearest"]["count"] == 3 and english["coverage"] is None
    assert english["distinct"]["0.85"]["base"] == 1 <= english["distinct"]["0.85"]["all"] <= 2
    rows = table(done)
    anna, near = rows["anna"]["embedding"], rows[str(rows["anna"]["nearest"])]["embedding"]
    assert rows["anna"]["nearest_cosine"] == pytest.approx(np.dot(anna, near), abs=1e-3)  # type: ignore[arg-type]
    assert rows["anna"]["nearest_base"] is None and rows["bert"]["nearest_base"] == "anna"
    assert [row["voices"] for row in found["scores"] if row["by"] == "all"] == [4, 1]


@pytest.mark.embedded
def test_the_page_has_every_voice_and_needs_no_network(done: Path) -> None:
    page = (done / "index.html").read_text("utf-8")
    assert re.findall(r'<audio [^>]*src="clips/(\w+)\.flac"', page) == ["anna", "bert", "mumble", "packed"]
    assert len(re.findall(r"<tr data-language", page)) == len(NAMES)
    assert "://" not in page and "3 of 5 voices drawn at random pass" in page
    assert (done / "map.png").read_bytes().startswith(b"\x89PNG") == ('src="map.png"' in page)


@pytest.mark.embedded
def test_nobody_is_measured_twice(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, out, own = tmp_path / "log", tmp_path / "out", library(tmp_path / "own.yaml")
    monkeypatch.setenv(LOG, str(log))
    run(own, out)
    assert len(log.read_text().splitlines()) == 2 * len(NAMES)  # embed and more
    names = ("audit.json", "voices.parquet", "rejected.txt", "index.html", "clips/anna.flac")
    before = [(out / name).read_bytes() for name in names]
    assert before == [(done / name).read_bytes() for name in names]
    log.unlink()
    run(own, out)
    assert not log.exists() and before == [(out / name).read_bytes() for name in names]
    # Another recipe, a clip that is gone, a new voice: these, and nobody else.
    library(own, [*NAMES[:4], "mute_too", "new"])
    (out / "clips" / "bert.flac").unlink()
    run(own, out)
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"bert", "mute_too", "new"}
    log.unlink()
    run(own, out, "audio.loudness=-20", sample=2)
    assert {line.split()[0] for line in log.read_text().splitlines()} == plan_audit(load_library(own), 2, 0, False).ids


@pytest.mark.embedded
def test_one_clip_serves_all_who_differ_in_what_is_done_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, own = tmp_path / "log", tmp_path / "own.yaml"
    monkeypatch.setenv(LOG, str(log))
    recipes = [{"shift": 0}, {"shift": 3, "speed": 2 ** (3 / 12)}, {"shift": 3}]
    same = {"gender": "female", "languages": ["en"], "engine": "kokoro", "license": "CC0-1.0"}
    voices = [{"id": f"kin{n}", "recipe": {"timbre": {"anna": 1}, **recipe}} for n, recipe in enumerate(recipes)]
    own.write_text(yaml.safe_dump({"defaults": same, "voices": voices}))
    run(own, tmp_path / "out", f"tts.engines.kokoro.kind={HERE}:build_certain_tts")
    asked = [line.split()[0] for line in log.read_text().splitlines()]
    # The second is the first, played faster; the third keeps its tempo, and so is spoken more slowly.
    assert asked.count("kin0") == asked.count("kin2") > 0 and "kin1" not in asked
    found = read_measured(tmp_path / "out" / "voices.parquet")
    assert found["kin1"].pitch == pytest.approx(found["kin0"].pitch * 2 ** (3 / 12), rel=0.05)


@pytest.mark.embedded
def test_a_smaller_sample_forgets_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, out = library(tmp_path / "own.yaml"), tmp_path / "out"
    run(own, out)
    found = run(own, out, sample=2)
    assert found["measured"] == {"sample": 2, "selected": 0, "base": 1, "within": 2}
    rows = table(out)
    assert list(rows) == list(NAMES) and sum(bool(row["sample"]) for row in rows.values()) == 2
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    run(own, out)
    assert not (tmp_path / "log").exists()


@pytest.mark.embedded
def test_a_bug_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, out = library(tmp_path / "own.yaml", ["anna", "broken"]), tmp_path / "out"
    with pytest.raises(ValueError, match="a bug in the engine"):
        run(own, out)
    assert set(read_measured(out / "voices.parquet")) == {"anna"}
    assert not (out / "audit.json").exists()


@pytest.mark.embedded
def test_processes_measure_as_one_does(done: Path, tmp_path: Path, speechchat: CommandLine) -> None:
    words = [part for setting in SETTINGS for part in ("--set", setting)]
    out = tmp_path / "out"
    told = speechchat("voices", "audit", library(tmp_path / "own.yaml"), "--out", out, "--workers", 2, "--json", *words)
    assert told.status == 0 and json.loads(told.out)["passed"]["passed"] == 3
    assert "measured 5 of 5 voices" in told.err and "CPU s a voice" in told.err
    for name in ("voices.parquet", "audit.json", "rejected.txt", "clips/bert.flac"):
        assert (out / name).read_bytes() == (done / name).read_bytes()


def test_bad_input_is_one_line(tmp_path: Path, speechchat: CommandLine) -> None:
    own = library(tmp_path / "own.yaml")
    options = ("voices", "audit", own, "--out", tmp_path / "out")
    refused(speechchat(*options, "--selected"), 2, "--selected", "none of the shipped selected voices")
    refused(speechchat(*options, "--sample", 0), 2, "--sample 0")
    refused(speechchat(*options, "--set", "tts.engines.kokoro.knid=x"), 2, "knid", "kind")
    refused(speechchat("voices", "audit", tmp_path / "no.parquet", "--out", tmp_path / "out"), 2, "no.parquet")
    own.write_text(own.read_text().replace("engine: kokoro", "engine: served"))
    refused(speechchat(*options), 2, "'anna'", "'served'", "--config")
    assert not (tmp_path / "out").exists()


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voices.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"voices\.parquet: .*another --out"):
        read_measured(tmp_path / "voices.parquet")


def test_the_sample_has_the_shares_of_the_library() -> None:
    voices = load_library()
    plan = plan_audit(voices, 12, 3, selected=False)
    assert len(plan.sample) == 12 and plan.within == plan.sample and not plan.selected
    women = [voice for voice in voices.voices if voice.gender == "female"]
    share = len(women) / len(voices.voices)
    assert abs(sum(voice.id in plan.sample for voice in women) - 12 * share) < 2
    assert plan.base == {v.id for v in voices.voices if v.recipe.timbre == ((v.id, 1.0),) and v.recipe.shift == 0}
    assert plan_audit(voices, 12, 4, selected=False).sample != plan.sample
    with pytest.raises(UsageError, match="--sample 0"):
        plan_audit(VoiceLibrary(()), 200, 0, selected=False)


@pytest.mark.parametrize(
    ("rates", "mos", "faults", "said"),
    [
        ({"wer": 0.05}, 2.8, (), []),
        ({"wer": 0.06, "cer": 0.01}, 2.8, (), ["wer 0.060"]),
        ({"wer": 0.0}, 2.79, ("length: Hello.",), ["fault length: Hello.", "mos 2.79"]),
        ({}, None, (), []),
    ],
)
def test_limits(rates: dict[str, float], mos: float | None, faults: tuple[str, ...], said: list[str]) -> None:
    voice = load_library().voice("af_heart")
    item = Measured("af_heart", "", ("embed",), faults, "", rates, mos, 0.05, 200.0, {})
    assert reasons(voice, item, Limits()) == said


@pytest.mark.parametrize("pitch", [72.0, 131.0, 260.0, 410.0])
def test_the_pitch_of_a_pulse_train(pitch: float) -> None:
    time = np.arange(16000) / 16000
    voiced = sum(np.cos(2 * np.pi * pitch * k * time) / k for k in range(1, 8))
    assert median_pitch([Clip((0.1 * voiced).astype(np.float32), 16000)]) == pytest.approx(pitch, rel=0.02)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert median_pitch([Clip(0.1 * noise, 16000), Clip(np.zeros(16000, np.float32), 16000)]) == 0
    assert median_pitch([Clip(noise[:100], 16000)]) == median_pitch([]) == 0


def test_the_way_to_measure_is_in_the_configuration() -> None:
    assert audit_config(None, [], 3).engine.studios == 3 and audit_config(None, [], None).engine.kind == "local"
    assert audit_config(None, ["engine.kind=ray"], None).engine.kind == "ray"
    assert audit_config("quickstart", ["judge.min_mos=2"], None).judge.min_mos == 2
    with pytest.raises(ConfigError, match="judge"):
        audit_config(None, ["judge.min_mso=2"], None)


REAL = """
defaults: {engine: hibari, license: Apache-2.0, gender: female, languages: [en]}
voices:
  - {id: heart, recipe: {name: heart}}
  - {id: low, recipe: {name: heart, shift: -4}}
  - {id: astray, recipe: {name: heart, shift: -8, speed: 1.6}}
  - {id: zf_xiaoxiao, engine: kokoro, languages: [zh], accent: cn, recipe: {timbre: {zf_xiaoxiao: 1}}}
"""


@pytest.mark.embedded
def test_real_voices_are_understood_and_told_apart(tmp_path: Path) -> None:
    """A voice that is moved a little is another one, and one that is moved too far and hurried is not followed."""
    path, out = tmp_path / "real.yaml", tmp_path / "out"
    path.write_text(REAL, "utf-8")
    voices = load_library(path)
    plan = replace(plan_audit(voices, 4, 0, selected=False), within=frozenset({"heart"}))
    config = audit_config(None, ["tts.engines.hibari.kind=hibari"], 1)
    found = audit(voices, out, config, plan, Limits(), quiet)
    rows = table(out)
    assert [id for id, row in rows.items() if row["reasons"]] == ["astray"]
    assert rows["astray"]["wer"] > 0.05 and rows["heart"]["wer"] == rows["zf_xiaoxiao"]["per"] == 0  # type: ignore[operator]
    english = found["languages"]["en"]
    assert english["distinct"]["0.85"]["all"] == 2
    assert english["within"]["median"] > 0.9 and rows["heart"]["nearest_cosine"] < 0.85  # type: ignore[operator]
    assert rows["low"]["pitch"] == pytest.approx(rows["heart"]["pitch"] * 2 ** (-4 / 12), rel=0.08)  # type: ignore[operator]
    assert rows["zf_xiaoxiao"]["mos"] > 2.8 and rows["zf_xiaoxiao"]["base"]  # type: ignore[operator]
