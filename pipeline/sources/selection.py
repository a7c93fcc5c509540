"""Selection: which rows are worth a request to the LLM, decided by rule before anything is paid.

A user's line that the LLM writes anew need only ask for something that can be said; a line that is spoken as it is, or
that a failing LLM is replaced by, must be sayable itself. An answer that the LLM only reads may be of any length and
form, unless it shows that the question asks for code or a table.
"""

from __future__ import annotations

from pipeline.config import Config
from pipeline.dialogue import Language, SourceRow
from pipeline.text.checks import count_units, unspeakable
from pipeline.text.select import select_fault
from pipeline.text.verbalize import verbalize

_TELLING = frozenset({"code", "table"})
_HEAD: dict[Language, int] = {"en": 700, "zh": 250}  # characters of an answer that are looked at: about as many words


class Selection:
    """The rules that a configuration asks for."""

    def __init__(self, config: Config):
        self._text = config.text
        self._mode = config.text.converse.mode
        self._rewrite = config.text.rewrite.enabled

    def __call__(self, row: SourceRow, language: Language) -> tuple[SourceRow, str | None]:
        """The row, cut by pairs of turns to text.max_dialogue_units, and why it is not selected (None if it is): a
        reason of `select_fault` or `unspeakable`, "no reply", "too long" or "echo"."""
        if len(row.lines) < 2 and (row.ready or self._mode in ("reword", "none")):
            return row, "no reply"
        strict = [self._strict(place, row.ready) for place in range(len(row.lines))]
        spoken = [verbalize(line, language) if hard else None for line, hard in zip(row.lines, strict, strict=True)]
        sizes = [0 if line is None else count_units(line, language) for line in spoken]
        while len(sizes) > 2 and sum(sizes) > self._text.max_dialogue_units[language]:
            del spoken[-2:], sizes[-2:]
        row = row.model_copy(update={"lines": row.lines[: len(sizes)]})
        if sum(sizes) > self._text.max_dialogue_units[language]:
            return row, "too long"
        said = [line for line in spoken if line is not None]
        for place, (line, form, size) in enumerate(zip(row.lines, spoken, sizes, strict=True)):
            if form is None and place % 2:
                reason = select_fault(line[: _HEAD[language]], language)
                reason = reason if reason in _TELLING else None
            else:
                # Lists and tables are known by their line breaks, which the spoken form no longer has.
                reason = select_fault(line, language) if form is None or "\n" in line else None
            if reason is None and form is not None:
                reason = unspeakable(form, language)
                if reason is None and size > self._text.max_units[language]:
                    reason = "too long"
            if reason is not None:
                return row, reason
        return row, "echo" if len({line.casefold() for line in said}) < len(said) else None

    def _strict(self, place: int, ready: bool) -> bool:
        """Whether the line must be sayable as it is."""
        if ready:
            return True
        if self._mode == "whole" or (self._rewrite and place == 0):
            return False
        return self._mode != "reply" or place % 2 == 0
