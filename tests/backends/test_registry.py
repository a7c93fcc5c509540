"""Engines are found by the name in the configuration; a wrong name or a missing package is told in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.backends import (
    engine_names,
    make_encoder,
    make_quality,
    make_recognizer,
    make_synthesizer,
    make_watermark,
    speech_models,
)
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, ModelError


def config(*settings: str) -> Config:
    return load_config("quickstart", settings)


def test_unknown_engines_name_the_key_and_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^tts\.engines\.kokoro\.kind: unknown engine 'Kokorro'; did you mean 'kokoro'\?"
    ):
        make_synthesizer(config("tts.engines.kokoro.kind=Kokorro"))
    with pytest.raises(ConfigError, match=r"^asr\.engine: .*'whisper'; did you mean 'faster-whisper'\?"):
        make_recognizer(config("asr.engine=whisper"))
    with pytest.raises(ConfigError, match=r"^quality\.engine: .*'squim'; .*known: dnsmos, none"):
        make_quality(config("quality.engine=squim"))


ROOMS: dict[str, Callable[[Config], object]] = {
    "tts.engines.kokoro.kind": make_synthesizer,
    "asr.engine": make_recognizer,
    "quality.engine": make_quality,
    "quality.speaker": make_encoder,
    "watermark.engine": make_watermark,
}


@pytest.mark.parametrize("key", ROOMS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":build", "names no function: write package.module:function"),
        (".x:build", "names no function: write package.module:function"),
        ("os..path:build", "names no function: write package.module:function"),
        ("os.path:", "names no function: write package.module:function"),
        ("os.path:sep", "is no function but str: write package.module:function"),
        ("os.path:jion", "cannot be imported: module 'posixpath' has no attribute 'jion'"),
        ("os.paht:join", "cannot be imported: No module named 'os.paht'"),
    ],
)
def test_a_function_that_is_none_is_told_by_its_key(key: str, name: str, message: str) -> None:
    told = f"^{re.escape(f'{key}: {name!r} {message}')}"
    wrong = config(f"{key}={name!r}")
    with pytest.raises(ConfigError, match=told):
        ROOMS[key](wrong)
    with pytest.raises(ConfigError, match=told):
        speech_models(wrong)


@pytest.mark.parametrize("key", ROOMS)
def test_a_module_that_does_not_name_its_models_is_no_engine(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: 'os\.path:join' is no engine: posixpath has no function `models`"):
        speech_models(config(f"{key}='os.path:join'"))


def test_no_quality_model_is_a_choice() -> None:
    assert make_quality(config("quality.engine=none")) is None


@pytest.mark.parametrize("package", ["hibari", "misaki", "jieba"])
def test_missing_package_of_the_tts_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModelError, match=rf"^tts\.engines\.kokoro\.kind=kokoro needs the package '{package}'.*'speechchat\[embedded\]'"
    ):
        make_synthesizer(config())


def test_missing_package_of_the_asr_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ModelError, match=r"^asr\.engine=faster-whisper needs the package 'faster_whisper'.*embedded"):
        make_recognizer(config())


def install(folder: Path, module: str, code: str) -> None:
    """A package of somebody else's, as pip would leave it."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[speechchat.backends.asr]\n{module}-ear = {module}:build\n")


def test_package_of_somebody_else_brings_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "elsewhere", "def build(section):\n    return ('an ear', section.beam)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert make_recognizer(config("asr.engine=elsewhere-ear", "asr.beam=3")) == ("an ear", 3)
    assert engine_names("asr") == ["elsewhere-ear", "faster-whisper", "http", "sherpa"]
    assert "elsewhere-ear" not in engine_names("tts")


def test_package_of_somebody_else_that_misses_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "faraway", "import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"needs the package 'a_package_that_is_not_there'.*: install 'a_package"):
        make_recognizer(config("asr.engine=faraway-ear"))
