"""The voice library: who can speak, in which language, and how an engine makes each voice.

A library is a YAML file, or a Parquet table (speakers/table.py). The form of the YAML:

    defaults: {engine: kokoro, license: Apache-2.0}        # of every voice that does not say otherwise
    voices:
      - {id: af_sky, gender: female, languages: [en], accent: us, recipe: {timbre: {af_sky: 1}}}
      - {id: anna, gender: female, languages: [zh], engine: xtts, license: CC0-1.0, recipe: {clip: anna.wav}}

In short, a voice of styles may say `timbre`, `prosody`, `shift` and `speed` without the word recipe, and `language` for
a single one. What was measured of it (EVIDENCE) may stand beside; it is for readers. A clip's path is relative to the
file. `voices.yaml` beside this module has the stock voices, `distinct.yaml` selected recipes.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config import digest, parse_yaml
from pipeline.dialogue import Language, Split
from pipeline.errors import ConfigError
from pipeline.voice import Gender, Recipe, Voice
from speakers.recipes import apparent_age, canonical, like_parents

SHIPPED = ("voices.yaml", "distinct.yaml")
EVIDENCE = frozenset({"wer", "cer", "per", "mos", "f0", "nearest", "strict", "evidence"})
FOLLOWED = 0.55
"""Share of the twelve short turns of scripts/short_turns.py that the recogniser has to get right from a shipped voice:
more than half. In whole sentences, where what came before helps it, it follows voices that it does not in 没关系."""
_SHORT = ("timbre", "prosody", "shift", "speed")
_VOICES = TypeAdapter(list[Voice])


@dataclass(frozen=True)
class VoiceLibrary:
    """The voices, in the order of their file. Raises ConfigError where two have one id."""

    voices: tuple[Voice, ...]
    _selected: dict[tuple[object, ...], tuple[Voice, ...]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        id, count = Counter(voice.id for voice in self.voices).most_common(1)[0] if self.voices else ("", 0)
        if count > 1:
            raise ConfigError(f"voices: the id {id!r} is there more than once")

    @cached_property
    def digest(self) -> str:
        """16 hex digits over every voice; comments and layout of the file, and where clips lie, do not reach it."""
        return digest([_content(voice) for voice in self.voices])

    @cached_property
    def _by_id(self) -> dict[str, Voice]:
        return {voice.id: voice for voice in self.voices}

    def voice(self, id: str) -> Voice:
        """The voice called `id`; ConfigError naming the nearest one if there is none."""
        if id in self._by_id:
            return self._by_id[id]
        near = difflib.get_close_matches(id, self._by_id, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no voice {id!r}; {hint}`speechchat voices` lists them")

    def select(
        self, language: Language | None = None, gender: Gender | None = None, split: Split | None = None
    ) -> tuple[Voice, ...]:
        """The voices that speak `language`, are of `gender` and belong to `split`, in the order of the library."""
        asked = (language, gender, split)
        if asked not in self._selected:
            self._selected[asked] = tuple(
                voice
                for voice in self.voices
                if (language is None or language in voice.languages)
                and gender in (None, voice.gender)
                and split in (None, voice.split)
            )
        return self._selected[asked]


def load_library(path: Path | None = None, hard: bool = False) -> VoiceLibrary:
    """The library in `path` (.yaml, .parquet), or the one that ships: stock voices, then selected recipes.

    hard: of the latter also those that are not `FOLLOWED` in short turns. Raises ConfigError naming the file and the
    field.
    """
    if path is None:
        return _shipped_library(hard)
    if path.suffix == ".parquet":
        from speakers.table import read_table

        return read_table(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8; a table is called .parquet"
        raise ConfigError(f"{path}: the voice library cannot be read ({reason})") from None
    return library_of(read_yaml(text, str(path), path.parent), str(path))


def library_of(voices: Iterable[Voice], name: str) -> VoiceLibrary:
    """A library of voices that were read from the file `name`, which an error names."""
    try:
        return VoiceLibrary(tuple(voices))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def merge(library: VoiceLibrary, other: VoiceLibrary, name: str) -> VoiceLibrary:
    """The voices of both; `other` was read from the file `name`. Raises ConfigError where both have an id."""
    ids = {voice.id for voice in library.voices}
    for voice in other.voices:
        if voice.id in ids:
            raise ConfigError(f"{name}: the id {voice.id!r} is that of another voice already; give it another one")
    return VoiceLibrary((*library.voices, *other.voices))


@cache
def _shipped_library(hard: bool) -> VoiceLibrary:
    """Once a process: the driver and the studio beside it both want it, and reading takes longer than a small unit."""
    return VoiceLibrary(tuple(_shipped(hard)))


def _shipped(hard: bool) -> Iterable[Voice]:
    """A selected recipe that is a stock voice is left out: it is there under the name that it is known by."""
    texts = [
        (f"speakers/{name}", file.read_text("utf-8"))
        for name in SHIPPED
        for file in (resources.files("speakers").joinpath(name),)
        if file.is_file()
    ]
    stock, *others = (read_yaml(text, name, None) for name, text in texts)
    left_out = set() if hard else {id for name, text in texts for id in _hard(parse_yaml(text, name))}
    selected = [voice for voices in others for voice in voices if voice.id not in left_out]
    known = set(map(_sound, stock))
    bases = {voice.id: voice for voice in stock}
    return [*stock, *(like_parents(voice, bases) for voice in selected if _sound(voice) not in known)]


def _hard(data: dict[str, Any]) -> Iterable[str]:
    """Ids of voices whose evidence says that they are not followed in short turns."""
    evidence = {row["id"]: row.get("evidence", {}) for row in data["voices"]}
    return (id for id, known in evidence.items() if known.get("short", 1.0) < FOLLOWED)


def _sound(voice: Voice) -> tuple[object, ...]:
    return voice.engine, voice.languages, voice.accent, canonical(voice.recipe)


def read_yaml(text: str, name: str, folder: Path | None) -> list[Voice]:
    """The voices of a YAML file called `name`, whose clips lie below `folder`. Raises ConfigError."""
    data = parse_yaml(text, name)
    unknown = sorted(set(data) - {"defaults", "voices"}, key=str)
    if unknown:
        raise ConfigError(f"{name}: unknown key {unknown[0]!r}; a voice library has `defaults` and `voices`")
    defaults, rows = data.get("defaults") or {}, data.get("voices")
    if not isinstance(defaults, dict):
        raise ConfigError(f"{name}: defaults: a map of fields is wanted (it is {defaults!r})")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{name}: voices: a list of maps is wanted, one a voice")
    rows = [_spelled_out({**defaults, **row}) for row in rows]
    voices = validate_voices(rows, name, [str(row.get("id", "no id")) for row in rows])
    return [_completed(voice, "age" in row, name, folder) for voice, row in zip(voices, rows, strict=True)]


def _spelled_out(row: dict[str, Any]) -> dict[str, Any]:
    full = {key: value for key, value in row.items() if key not in EVIDENCE and key not in _SHORT}
    short = {key: row[key] for key in _SHORT if key in row}
    if short and "recipe" not in full:
        full["recipe"] = short
    else:
        full |= short  # said twice: it is refused by name
    if "language" in full and "languages" not in full:
        full["languages"] = [full.pop("language")]
    return full


def validate_voices(rows: list[dict[str, Any]], name: str, ids: Sequence[str]) -> list[Voice]:
    """Voices of plain data; `ids` are what an error calls the rows by. Raises ConfigError for the first few faults."""
    try:
        return _VOICES.validate_python(rows)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ConfigError(f"{name}: " + "; ".join(_explain(item, ids) for item in faults[:3]) + more) from None


def _completed(voice: Voice, has_age: bool, name: str, folder: Path | None) -> Voice:
    """With what the file leaves to us: the age, and where the clip lies and what is in it."""
    if not has_age and voice.recipe.kind == "styles":
        age = apparent_age(voice.gender, voice.recipe)
        return voice if age == voice.age else voice.model_copy(update={"age": age})
    if voice.recipe.kind == "clip" and folder is not None:
        return voice.model_copy(update={"recipe": _found(voice.recipe, f"{name}: recipe.clip ({voice.id})", folder)})
    return voice


def _found(recipe: Recipe, where: str, folder: Path) -> Recipe:
    path = (folder / recipe.clip).absolute()
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{where}: the reference clip {path} cannot be read ({error.strerror})") from None
    if recipe.clip_sha256 not in ("", sha256):
        raise ConfigError(f"{where}: {path} is not the clip whose clip_sha256 is given (its own is {sha256})")
    return recipe.model_copy(update={"clip": str(path), "clip_sha256": sha256})


def _content(voice: Voice) -> dict[str, Any]:
    data = voice.model_dump(mode="json")
    if data["recipe"]["clip_sha256"]:
        del data["recipe"]["clip"]
    return data


def _explain(item: Any, ids: Sequence[str]) -> str:
    """`voices.3.gender (af_bella): what is wrong (it is 'x')`."""
    loc = [part for part in item["loc"] if part != "[key]"]
    where = "voices." + ".".join(str(part) for part in loc) + f" ({ids[loc[0]]})"
    if item["type"] == "extra_forbidden":
        known = Recipe.model_fields if "recipe" in loc else Voice.model_fields
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        return f"{where}: unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], (dict, list, tuple)) else f" (it is {item['input']!r})"
    return f"{where}: {message}{shown}"
