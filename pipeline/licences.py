"""Licences: whether what goes into a run may be used as the configuration says."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.config import Config
from pipeline.dialogue import ModelUse
from pipeline.errors import ConfigError
from pipeline.voice import Voice

# Creative Commons NC, Coqui's CPML, and what says so in words.
_FORBIDS = re.compile(
    r"(?<![a-z])NC(?![a-z])|\bCPML\b|coqui public model|non[- ]?commercial|research[- ](?:use[- ])?only", re.IGNORECASE
)


def forbids_commercial(license: str) -> bool:
    """Whether a licence, by its SPDX identifier or its name, is known to forbid commercial use."""
    return bool(_FORBIDS.search(license))


def check_licences(config: Config, voices: Iterable[Voice], models: Iterable[ModelUse]) -> None:
    """voices, models: those that may be used. Raises ConfigError, with what it is and its licence, where
    `require_licence` is not met."""
    if config.require_licence == "any":
        return
    held = [(f"the {use.role} model {use.name}", use.license) for use in models]
    held += [(f"the voice {voice.id}", voice.license) for voice in voices]
    held += [(f"sources.{name}", source.license) for name, source in config.sources.items()]
    for what, license in held:
        if forbids_commercial(license):
            raise ConfigError(
                f"require_licence=commercial: {what} is under {license!r}, which forbids it; "
                "take another one, or set require_licence=any"
            )
