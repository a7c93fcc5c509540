"""What voices say when they are measured and compared (sentences.yaml)."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Literal

import yaml

from pipeline.dialogue import Language

Use = Literal["embed", "check", "more", "short"]


@functools.cache
def sentences(language: Language, *uses: Use) -> tuple[str, ...]:
    """The sentences of a language that are for these uses, the twenty that are no short turns if none is named."""
    held = yaml.safe_load(resources.files("speakers").joinpath("sentences.yaml").read_text("utf-8"))[language]
    return tuple(text for use in uses or ("embed", "check", "more") for text in held[use])
