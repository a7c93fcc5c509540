"""What a request may lack for one of Coqui's models: a voice that can be made, a text of signs that it knows."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.voice import Fault, Recipe, Unsaid


class Unfit(Exception):
    """A request that the model cannot take."""

    def __init__(self, reason: Fault, detail: str):
        super().__init__(detail)
        self.unsaid = Unsaid(reason, detail)


def refuse_unknown(unknown: Iterable[str], text: str) -> None:
    """Letters, digits and signs that would be left out are faults; of punctuation none is heard."""
    heard = [sign for sign in unknown if unicodedata.category(sign)[0] in "LNS"]
    if heard:
        raise Unfit("symbols", f"the model does not know {' '.join(heard)} (in {text[:60]!r})")


def checked_clip(recipe: Recipe) -> Path:
    """The reference clip, if it is the one that the recipe was made with."""
    path = Path(recipe.clip)
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise Unfit("voice", f"{path}: the reference clip cannot be read: {error.strerror}") from None
    if recipe.clip_sha256 and found != recipe.clip_sha256:
        raise Unfit(
            "voice",
            f"{path}: not the reference clip that the voice was made of (sha256 {found[:12]}, "
            f"expected {recipe.clip_sha256[:12]})",
        )
    return path


def cloned(model: Any, recipe: Recipe, **settings: Any) -> dict[str, Any]:
    """What the model hears in the reference clip."""
    path = checked_clip(recipe)
    try:
        heard: dict[str, Any] = model.clone_voice(str(path), **settings)
    except Exception as error:
        if "CUDA" in str(error):  # no fault of the clip
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise Unfit("voice", f"{path}: no voice can be made of this clip: {reason}") from error
    return heard
