"""Violence, hate, sex, self-harm, crime and foul language, by the word lists of safety.yaml."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pipeline.dialogue import Language
from pipeline.text.words import words_of

_MARKED = re.compile(r"<([^<>=!]+)>")
_LATIN = re.compile("[A-Za-z]{2}")


@dataclass(frozen=True)
class _Lists:
    """The compiled entries of a language. keys: words that point to the entries they belong to (English only)."""

    benign: re.Pattern[str]
    entries: tuple[tuple[str, re.Pattern[str]], ...]
    keys: dict[str, tuple[int, ...]]


def find_unsafe(text: str, language: Language, words: Sequence[str] | None = None) -> tuple[str, str] | None:
    """The category and the stretch of what no dialogue may hold, or None.

    Categories: violence, self-harm, crime, hate, sexual, profanity. English within Mandarin is searched too.
    words: `words_of(text, language)` where it is at hand.
    """
    if language == "zh" and ((found := _search(text, _lists("zh"), None)) or not _LATIN.search(text)):
        return found
    lists = _lists("en")
    words = words_of(text, language) if words is None else words
    places = {place for word in lists.keys.keys() & set(words) for place in lists.keys[word]}
    return _search(" ".join(words), lists, places) if places else None


def _search(text: str, lists: _Lists, places: set[int] | None) -> tuple[str, str] | None:
    text = lists.benign.sub(" ", text)
    for place in range(len(lists.entries)) if places is None else sorted(places):
        category, pattern = lists.entries[place]
        if match := pattern.search(text):
            return category, match[0]
    return None


@functools.cache
def _lists(language: Language) -> _Lists:
    import yaml

    data: dict[str, Any] = yaml.safe_load(resources.files("pipeline.text").joinpath("safety.yaml").read_text("utf-8"))
    lists = dict(data[language])
    macros, benign = lists.pop("macros"), lists.pop("benign")
    if language == "zh":
        # One alternation a category: the compiled search skips characters that begin none of them.
        found = [(category, "|".join(_fill(entry, macros) for entry in rows)) for category, rows in lists.items()]
        return _Lists(re.compile("|".join(benign)), tuple((name, re.compile(entry)) for name, entry in found), {})
    entries: list[tuple[str, re.Pattern[str]]] = []
    keys: dict[str, tuple[int, ...]] = {}
    for category, rows in lists.items():
        for row in rows:
            entry = _fill(row, macros)
            marked = _MARKED.search(entry)
            for word in (marked[1] if marked else entry).split("|"):
                keys[word] = (*keys.get(word, ()), len(entries))
            pattern = _MARKED.sub(r"(?:\1)", entry) if marked else f"(?:{entry})"
            entries.append((category, re.compile(rf"(?<![\w'-]){pattern}(?![\w'-])")))
    return _Lists(re.compile(rf"\b(?:{'|'.join(benign)})\b"), tuple(entries), keys)


def _fill(entry: str, macros: dict[str, str]) -> str:
    """`entry` with its macros; numbers in braces are repetitions."""
    return re.sub(r"\{([a-z]+)\}", lambda match: macros[match[1]], entry)
