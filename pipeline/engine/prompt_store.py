"""Reference clips on disk: reading them, keeping those that came as bytes, writing the voices made of them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.audio import read_clip
from pipeline.dialogue import Clip
from pipeline.engine.prompt_files import Prompt
from pipeline.errors import DataError, UsageError
from speakers.library import VoiceLibrary
from speakers.recipes import plain
from speakers.table import write_table

if TYPE_CHECKING:
    from pipeline.engine.voice_prompts import Clones

SUFFIXES = (".parquet", ".yaml")


class PromptStore:
    """The clips of one library. out: its file; clips that were no files of their own go to a folder beside it."""

    def __init__(self, out: Path):
        if out.suffix not in SUFFIXES:
            raise UsageError(f"--out {out}: end the name in {' or '.join(SUFFIXES)}")
        self._out = out
        self._folder = out.with_name(f"{out.stem}_clips")
        self._kept: set[Path] = set()

    def read(self, prompt: Prompt) -> tuple[Clip, str]:
        """The clip and the SHA-256 of its bytes. Raises DataError and UsageError as `read_clip` does."""
        if prompt.data is None:
            clip = read_clip(prompt.path)
            return clip, hashlib.sha256(prompt.path.read_bytes()).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"clip{prompt.path.suffix}"
            path.write_bytes(prompt.data)
            try:
                return read_clip(path), hashlib.sha256(prompt.data).hexdigest()
            except (DataError, UsageError) as error:
                raise type(error)(str(error).replace(str(path), prompt.name)) from None

    def keep(self, prompt: Prompt, sha256: str) -> Prompt:
        """The prompt with a file of its own; its bytes need not be held any longer."""
        if prompt.data is None:
            return prompt
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{sha256[:16]}{prompt.path.suffix}"
        path.write_bytes(prompt.data)
        self._kept.add(path)
        return replace(prompt, path=path, data=None)

    def drop(self, prompt: Prompt) -> None:
        """Undoes `keep`; a file of the user's own stays."""
        if prompt.data is None and prompt.path in self._kept:
            prompt.path.unlink(missing_ok=True)

    def write(self, clones: Clones) -> None:
        """The library, its clips named relative to it; the same voices give the same bytes. Raises OSError."""
        self._out.parent.mkdir(parents=True, exist_ok=True)
        if self._out.suffix == ".parquet":
            write_table(VoiceLibrary(clones.voices), self._out, clones.embeddings)
            return
        rows = []
        for voice in clones.voices:
            row = voice.model_dump(mode="json", exclude_defaults=True, exclude={"recipe"})
            clip = Path(os.path.relpath(voice.recipe.clip, self._out.absolute().parent)).as_posix()
            recipe = plain(voice.recipe.model_copy(update={"clip": clip}))
            evidence = {"mos": round(clones.mos[voice.id], 2), "clips": clones.clips[voice.id]}
            rows.append({**row, "split": voice.split, "recipe": recipe, "evidence": evidence})
        partial = self._out.with_name(f".{self._out.name}.partial")
        try:
            text = yaml.safe_dump({"voices": rows}, sort_keys=False, allow_unicode=True, width=1000)
            partial.write_text(text, "utf-8")
            partial.replace(self._out)
        finally:
            partial.unlink(missing_ok=True)
