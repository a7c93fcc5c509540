"""Where a model of Coqui comes from: its terms of use, its licence, its files, and how they are loaded."""

from __future__ import annotations

import difflib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import TtsEngineConfig
from pipeline.errors import ConfigError, ModelError

# Licences of the weights, from Coqui's catalogue, by a part of the model's name; the first that fits holds.
_LICENCES = {
    "xtts": "CPML (non-commercial)",
    "your_tts": "CC-BY-NC-ND-4.0",
    "fairseq": "CC-BY-NC-4.0",
    "en/vctk/fast_pitch": "CC-BY-NC-ND-4.0",
    "en/vctk/": "Apache-2.0",
    "en/ljspeech/vits--neon": "BSD-3-Clause",
    "en/ljspeech/glow-tts": "MPL-2.0",
    "en/ljspeech/tacotron2-dca": "MPL-2.0",
    "en/ljspeech/": "Apache-2.0",
    "zh-cn/baker/": "Apache-2.0",
    "multi-dataset/bark": "MIT",
    "multi-dataset/tortoise": "Apache-2.0",
}
_WEIGHTS = ("model.pth", "model_file.pth", "model_file.pth.tar", "best_model.pth", "checkpoint.pth")
# Files that a configuration names, often by the path that they had where the model was trained.
_FILES = (
    "speakers_file",
    "d_vector_file",
    "language_ids_file",
    "speaker_encoder_model_path",
    "speaker_encoder_config_path",
)
# What XTTS finds in its folder without being told.
_UNNAMED = ("config.json", "vocab.json", "speakers_xtts.pth")


def name_of(section: TtsEngineConfig) -> str:
    return section.model or (section.model_path.name if section.model_path else "coqui")


def license_of(section: TtsEngineConfig) -> str:
    """Of the weights: what the section says, or what is known of models of this name or kind; "" if nothing is."""
    known = section.model
    if section.model_path is not None:
        known += f" {_config(section.model_path).get('model')}"
    return section.license or next((text for part, text in _LICENCES.items() if part in known.lower()), "")


def check_terms(section: TtsEngineConfig) -> None:
    """Weights that ask for an agreement are neither fetched nor loaded without one."""
    if not section.model and section.model_path is None:
        raise ConfigError("an engine of kind coqui needs model (a name of Coqui's) or model_path (a folder)")
    if not section.accept_terms and ("xtts" in section.model.lower() or "CPML" in license_of(section)):
        raise _refusal(name_of(section))


def _refusal(name: str) -> ConfigError:
    return ConfigError(
        f"the weights of {name!r} come with terms of use to be agreed to (XTTS: the Coqui Public Model License, "
        "non-commercial): read them, then set accept_terms: true for this engine, or take another model"
    )


def device_of(asked: str, torch: Any) -> str:
    found = bool(torch.cuda.is_available())
    if asked == "cuda" and not found:
        raise ConfigError(
            "device=cuda, but torch finds no GPU here: take device=auto or cpu, give the worker a GPU "
            "(engine.studio_gpus), or install a torch with CUDA"
        )
    return "cuda" if found and asked != "cpu" else "cpu"


def load(section: TtsEngineConfig) -> Any:
    from TTS.api import TTS

    logging.getLogger("TTS").setLevel(logging.ERROR)  # it warns of each unknown sign, which `check` finds
    if section.model_path is None:
        _check_name(section.model, TTS(progress_bar=False).manager.models_dict["tts_models"], section.accept_terms)
    try:
        if section.model_path is None:
            with _agreed(section.accept_terms):
                return TTS(model_name=section.model, progress_bar=False)
        weights = weights_of(section.model_path)
        config = _config(section.model_path)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(json.dumps(_found_files(config, weights.parent)))
            # XTTS has several files in its folder and finds them by itself.
            model = weights.parent if config.get("model") == "xtts" else weights
            return TTS(model_path=str(model), config_path=str(path), progress_bar=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        where = section.model_path or f"{section.model} (or a folder that holds it, as model_path)"
        raise ModelError(f"{where}: Coqui cannot load it: {reason}") from error


def _check_name(name: str, catalogue: dict[str, Any], agreed: bool) -> None:
    known = {
        f"tts_models/{language}/{data}/{model}": item
        for language, sets in catalogue.items()
        for data, found in sets.items()
        for model, item in found.items()
    }
    if name not in known and "xtts" not in name and "fairseq" not in name:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise ConfigError(f"model: Coqui has no {name!r}; near to it: {', '.join(near) or 'none'}")
    if known.get(name, {}).get("tos_required") and not agreed:
        raise _refusal(name)


@contextmanager
def _agreed(agreed: bool) -> Iterator[None]:
    """Tell Coqui that its terms are accepted, which it would ask the user otherwise, for as long as it downloads."""
    before = os.environ.get("COQUI_TOS_AGREED")
    if agreed:
        os.environ["COQUI_TOS_AGREED"] = "1"
    try:
        yield
    finally:
        if agreed:
            os.environ.pop("COQUI_TOS_AGREED")
            if before is not None:
                os.environ["COQUI_TOS_AGREED"] = before


def weights_of(path: Path) -> Path:
    """The file of the weights, in a folder or given itself."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(
            f"model_path: {path}: no such folder; it should hold a model of Coqui (config.json, model.pth)"
        )
    checkpoints = sorted(path.glob("checkpoint_*.pth"), key=lambda file: (len(file.name), file.name))
    found = [path / name for name in _WEIGHTS if (path / name).is_file()] or checkpoints[-1:]
    if not found:
        raise ModelError(f"model_path: {path}: holds no weights, by one of the names {', '.join(_WEIGHTS)}")
    return found[0]


def settings_of(path: Path) -> list[Path]:
    """What lies beside the weights and decides how they sound, in alphabetical order: the configuration, and the files
    of speakers and languages that it names or that the model looks for."""
    folder = weights_of(path).parent
    config = _found_files(_config(path), folder)
    parts = [config, config.get("model_args")]
    named = [part.get(key) for part in parts if isinstance(part, dict) for key in _FILES]
    texts = [item for value in named for item in (value if isinstance(value, list) else [value]) if item]
    found = {folder / name for name in (*_UNNAMED, *map(str, texts))}
    return sorted(file for file in found if file.is_file() and file.parent == folder)


def _config(path: Path) -> dict[str, Any]:
    file = weights_of(path).parent / "config.json"
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file}: missing; Coqui saves it beside the weights") from None
    except ValueError as error:
        raise ModelError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file}: a configuration of Coqui is an object, this is a {type(found).__name__}")
    return found


def _found_files(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with the files that it names looked for beside it, where they are not where it says."""
    found = dict(config)
    for key in _FILES:
        value = found.get(key)
        if isinstance(value, str | list) and value:
            paths = [value] if isinstance(value, str) else value
            moved = [str(folder / Path(item).name) if _moved(item, folder) else item for item in paths]
            found[key] = moved[0] if isinstance(value, str) else moved
    if isinstance(found.get("model_args"), dict):
        found["model_args"] = _found_files(found["model_args"], folder)
    return found


def _moved(path: str, folder: Path) -> bool:
    return not Path(path).is_file() and (folder / Path(path).name).is_file()
