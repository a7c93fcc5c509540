"""How an engine of Coqui opens: on Ray, and not at all where something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.outside import open_outside
from pipeline.config import TtsEngineConfig
from pipeline.dialogue import Clip
from pipeline.errors import ConfigError, ModelError
from pipeline.voice import Unsaid
from tests.coqui.conftest import Section
from tests.coqui.test_speaking import ANNA, TEXT, ask

pytestmark = pytest.mark.coqui


def test_on_ray_it_lives_beside_its_worker(vits: Synthesizer, section: Section, ray_here: None) -> None:
    import ray

    @ray.remote
    class Studio:
        def __init__(self, section: TtsEngineConfig):
            self._engine = open_outside("tiny", section, on_ray=True)

        def speak(self) -> list[Clip | Unsaid]:
            return self._engine.synthesize([ask(TEXT, ANNA, 3), ask("7", ANNA), ask("hi", ANNA, 4)])

    studio = Studio.remote(section("vits"))  # type: ignore[attr-defined]
    first, fault, last = ray.get(studio.speak.remote())
    ray.kill(studio)
    assert fault.reason == "symbols"
    here = vits.synthesize([ask(TEXT, ANNA, 3), ask("hi", ANNA, 4)])
    for there, alone in zip((first, last), here, strict=True):
        assert isinstance(alone, Clip)
        assert np.array_equal(there.audio, alone.audio)


def test_a_gpu_that_is_not_there(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(
        ConfigError, match=r"^tts\.engines\.tiny: device=cuda, but torch finds no GPU here: .*engine\.studio_gpus"
    ):
        open_outside("tiny", section("vits", device="cuda"), on_ray=False)


def test_a_language_that_the_model_lacks(section: Section) -> None:
    with pytest.raises(
        ModelError, match=r"^tts\.engines\.tiny: dvector: its config\.json says that it speaks en, none of zh"
    ):
        open_outside("tiny", section("dvector", languages=["zh"]), on_ray=False)


def test_a_name_that_coqui_does_not_know(section: Section) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^tts\.engines\.tiny: model: Coqui has no 'tts_models/en/vctk/vitz'; .*tts_models/en/vctk/vits",
    ):
        open_outside("tiny", section("", model="tts_models/en/vctk/vitz"), on_ray=False)


def test_weights_that_are_none(section: Section, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "config.json").write_text((weights / "vits" / "config.json").read_text())
    (tmp_path / "model.pth").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"test_weights_that_are_none0: Coqui cannot load it: "):
        open_outside("tiny", section("", model_path=tmp_path, license="MIT"), on_ray=False)


def test_accepted_terms_ask_nobody(section: Section, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The download begins, and fails for want of a network; without the acceptance Coqui would ask and wait."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TTS_HOME", str(tmp_path))
    name = "tts_models/multilingual/multi-dataset/xtts_v2"
    with pytest.raises(
        ModelError, match=rf"^tts\.engines\.tiny: {name} \(or a folder .*Coqui cannot load it: .*Connect"
    ):
        open_outside("tiny", section("", model=name, accept_terms=True), on_ray=False)
