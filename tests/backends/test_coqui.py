"""What is known of a model of Coqui without Coqui: its terms, licence, checksum and files. See also tests/coqui."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.tts.coqui import build, models
from pipeline.config import TtsEngineConfig
from pipeline.errors import ConfigError, ModelError


def section(**keys: Any) -> TtsEngineConfig:
    return TtsEngineConfig(kind="coqui", **keys)


def folder_of(path: Path, model: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model": model}))
    (path / "model.pth").write_bytes(b"weights")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHCHAT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("model", "license"),
    [
        ("tts_models/multilingual/multi-dataset/your_tts", "CC-BY-NC-ND-4.0"),
        ("tts_models/en/vctk/vits", "Apache-2.0"),
        ("tts_models/en/vctk/fast_pitch", "CC-BY-NC-ND-4.0"),
        ("tts_models/en/ljspeech/glow-tts", "MPL-2.0"),
        ("tts_models/zh-CN/baker/tacotron2-DDC-GST", "Apache-2.0"),
        ("tts_models/cmn/fairseq/vits", "CC-BY-NC-4.0"),
    ],
)
def test_licences_of_the_catalogue_are_known(model: str, license: str) -> None:
    (use,) = models(section(model=model))
    assert (use.role, use.name, use.sha256, use.license) == ("tts", model, "", license)


def test_a_model_of_ones_own_is_named_by_its_folder_and_weights(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "mine", "vits")
    use, settings = models(section(model_path=path, license="CC0-1.0"))
    assert (use.name, use.license) == ("mine", "CC0-1.0")
    assert use.sha256 == hashlib.sha256(b"weights").hexdigest()
    # The same weights with other settings sound otherwise, wherever they lie.
    (path / "speakers.pth").write_bytes(b"speakers")
    seen = {settings.sha256}
    for args in ({}, {"speakers_file": "/elsewhere/speakers.pth"}, {"length_scale": 2}):
        (path / "config.json").write_text(json.dumps({"model": "vits", "model_args": args}))
        seen.add(models(section(model_path=path, license="CC0-1.0"))[1].sha256)
    (path / "config.json").write_text(json.dumps({"model": "vits", "speakers_file": ["/elsewhere/speakers.pth"]}))
    seen.add(models(section(model_path=path, license="CC0-1.0"))[1].sha256)
    (path / "speakers.pth").write_bytes(b"others")
    seen.add(models(section(model_path=path, license="CC0-1.0"))[1].sha256)
    assert len(seen) == 6
    moved = path.rename(tmp_path / "elsewhere")
    assert models(section(model_path=moved, license="CC0-1.0"))[1].sha256 in seen


def test_a_licence_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the licence of 'mine' is not known.*name it in `license`"):
        models(section(model_path=folder_of(tmp_path / "mine", "vits")))
    with pytest.raises(ConfigError, match=r"'tts_models/fa/custom/glow-tts'"):
        models(section(model="tts_models/fa/custom/glow-tts"))


@pytest.mark.parametrize("name", ["tts_models/multilingual/multi-dataset/xtts_v2", "xtts_v2.0.3", "xtts"])
def test_terms_are_accepted_in_the_configuration_or_not_at_all(name: str) -> None:
    for function in (models, build):
        with pytest.raises(ConfigError, match=rf"weights of '{name}' come with terms.*accept_terms: true"):
            function(section(model=name))
    (use,) = models(section(model=name, accept_terms=True))
    assert use.license == "CPML (non-commercial)"


def test_terms_go_with_the_weights_into_a_folder(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "mine", "xtts")
    with pytest.raises(ConfigError, match=r"'mine' come with terms"):
        models(section(model_path=path))
    assert models(section(model_path=path, accept_terms=True))[0].license == "CPML (non-commercial)"
    # Weights of one's own, of the same kind of model.
    assert models(section(model_path=path, license="CC0-1.0"))[0].license == "CC0-1.0"


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"needs model .* or model_path"):
        models(section())


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_path: .*nowhere: no such folder"):
        models(section(model_path=tmp_path / "nowhere", license="MIT"))
    path = folder_of(tmp_path / "mine", "vits")
    (path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON"):
        models(section(model_path=path, license="MIT"))
    (path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"config\.json: a configuration of Coqui is an object"):
        models(section(model_path=path, license="MIT"))
    (path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: missing"):
        models(section(model_path=path, license="MIT"))
    (path / "model.pth").unlink()
    with pytest.raises(ModelError, match=r"mine: holds no weights, by one of the names model\.pth"):
        models(section(model_path=path, license="MIT"))


def test_the_last_checkpoint_of_a_training_is_taken(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "mine", "vits")
    (path / "model.pth").unlink()
    for steps in (900, 1000):
        (path / f"checkpoint_{steps}.pth").write_bytes(b"%d" % steps)
    assert models(section(model_path=path, license="MIT"))[0].sha256 == hashlib.sha256(b"1000").hexdigest()
