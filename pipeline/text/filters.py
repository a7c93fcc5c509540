"""Rules on the finished text of a dialogue, beside what `checks.unspeakable` says of each turn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.config import FilterConfig
from pipeline.dialogue import Language, Turn
from pipeline.text.language import is_foreign, language_of
from pipeline.text.personal import find_personal
from pipeline.text.safety import find_unsafe
from pipeline.text.words import words_of

_HAS_FIGURES = re.compile("[0-9@]")
_LATIN = re.compile("[A-Za-z]+")
_ENDS = re.compile("[.!?。！？]+")
# So many words (en) or characters (zh) people say twice as a matter of course: as a turn of anybody's (good night, good
# night), and as a sentence of the same speaker (what do you think?).
_COURTEOUS: dict[Language, tuple[int, int]] = {"en": (3, 5), "zh": (4, 7)}


def text_fault(
    turns: Sequence[Turn], language: Language, config: FilterConfig, code_switch: bool = False
) -> tuple[int, str] | None:
    """A turn (0-based) that should not be in a dialogue and why, or None: "personal", "unsafe", "language" (it is in
    another than the dialogue's) or "repetition" (of an earlier turn, or of a sentence of the same speaker).

    Reads the fluent text, because disfluencies repeat by intent; figures in the written text are looked at too.
    code_switch: English words may stand in Mandarin, as long as most of it is Han.
    """
    seen: set[object] = set()
    for place, turn in enumerate(turns):
        text = turn.fluent if turn.disfluencies else turn.spoken
        words = words_of(text, language)
        if config.personal == "reject" and (
            find_personal(text, language)
            or (_HAS_FIGURES.search(turn.written) and find_personal(turn.written, language))
        ):
            return place, "personal"
        if config.safety and find_unsafe(text, language, words):
            return place, "unsafe"
        if config.language and not _is_in(text, language, words, code_switch):
            return place, "language"
        said = _sayings(text, words, turn.role, language)
        if not seen.isdisjoint(said) or len(set(said)) < len(said):
            return place, "repetition"
        seen.update(said)
    return None


def _is_in(text: str, language: Language, words: Sequence[str], code_switch: bool) -> bool:
    if language == "en":
        return (text.isascii() or language_of(text) == "en") and not is_foreign(text, "en", words)
    latin = _LATIN.findall(text)
    if language_of(text) != "zh" or is_foreign(text, "zh") or (latin and not code_switch):
        return False
    return len(latin) < 3 or not is_foreign(" ".join(latin), "en")


def _sayings(text: str, words: Sequence[str], role: str, language: Language) -> list[object]:
    """What should come once in a dialogue: the turn, whoever says it, and each of its sentences, by its speaker."""
    turn, sentence = _COURTEOUS[language]
    if len(words) <= turn:
        return []
    found: list[object] = [tuple(words)]
    if len(words) > sentence:
        for part in _ENDS.split(text):
            # Shorter than this in characters, it has too few words.
            if len(part) > sentence and len(said := words_of(part, language)) > sentence:
                found.append((role, *said))
    return found
