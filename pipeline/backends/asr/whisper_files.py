"""Which Whisper model a section means, and where its files are."""

from __future__ import annotations

from pathlib import Path

from pipeline.dialogue import ModelUse
from pipeline.errors import ConfigError, ModelError
from pipeline.listening_sections import RecognizerConfig
from pipeline.models import checksum, locate, uses

EMBEDDED = "whisper-base"


def whisper_folder(section: RecognizerConfig) -> Path:
    """The folder of a CTranslate2 Whisper model: `model_path`; else what `model` names (a size, as "large-v3", or a
    repository on the hub, with "@" and a revision if one is to be pinned), fetched if it is not there; else the
    embedded one.

    Raises ModelError where a file is missing or cannot be fetched, ConfigError for an unknown size.
    """
    if section.model_path is not None or not section.model:
        folder = locate(EMBEDDED, section.model_path)
    else:
        folder = _fetched(section.model)
    if not (folder / "tokenizer.json").is_file():
        # faster-whisper would ask a hub for it.
        raise ModelError(f"{folder}: tokenizer.json is missing; it belongs to the model")
    return folder


def identity(section: RecognizerConfig) -> ModelUse:
    """Name, checksum of the weights and licence. Raises as `whisper_folder`."""
    if section.model_path is not None or not section.model:
        use = uses(EMBEDDED, "asr", section.model_path)
        if use.license == "unknown" and section.model_path is not None:
            name = section.model or f"{section.model_path.name} (the user's own)"
            use = use.model_copy(update={"name": name, "license": section.license or "unknown"})
        return use
    folder = whisper_folder(section)
    # OpenAI's own weights, under one of faster-whisper's short names, are under the MIT licence.
    licence = section.license or ("unknown" if "/" in section.model or "distil" in section.model else "MIT")
    return ModelUse(role="asr", name=section.model, sha256=checksum(folder / "model.bin", folder), license=licence)


def _fetched(name: str) -> Path:
    from faster_whisper.utils import available_models, download_model
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    if "/" not in repo and repo not in available_models():
        raise ConfigError(
            f"asr.model: faster-whisper knows no size {repo!r}; it knows {', '.join(available_models())}, "
            "or a repository (owner/name) on the hub"
        )
    try:
        try:
            return Path(download_model(repo, local_files_only=True, revision=revision or None))
        except LocalEntryNotFoundError:
            return Path(download_model(repo, revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"asr.model={name} could not be fetched from the hub ({type(error).__name__}: {reason}); put its files "
            f"in a folder and set asr.model_path"
        ) from error
