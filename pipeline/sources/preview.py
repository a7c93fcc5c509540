"""The first rows of every source, as they are mapped and what the rules say of them."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.dialogue import Language, SourceRow, Turn
from pipeline.sources.base import PreviewRow
from pipeline.sources.rotation import Sources
from pipeline.text.filters import text_fault
from pipeline.text.verbalize import verbalize


def preview(config: Config, limit: int) -> Iterator[PreviewRow]:
    """At most `limit` rows of each source (of each language, for chatterbot and topics), in the order of its data.

    A row that is spoken as it is meets the rules on finished text too, and has a fault like "filter: personal" where
    one of them would drop it; what the LLM would make of others nobody can tell. Nothing is drawn or written, and
    broken rows are shown, however many they are. Raises ConfigError where a source cannot be opened.
    """
    for shown in Sources(config).preview(limit):
        if shown.fault is None and shown.row and shown.language and _is_final(shown.row, config):
            found = text_fault(_turns(shown.row, shown.language), shown.language, config.text.filter)
            yield shown._replace(fault=f"filter: {found[1]}") if found else shown
        else:
            yield shown


def _is_final(row: SourceRow, config: Config) -> bool:
    """Whether no LLM touches it."""
    text = config.text
    rewritten = text.rewrite.enabled and len(row.lines) <= 2
    return row.ready or not (text.converse.mode != "none" or rewritten or text.style.enabled)


def _turns(row: SourceRow, language: Language) -> list[Turn]:
    lines = [" ".join(line.split()) for line in row.lines]
    return [
        Turn(
            role="assistant" if place % 2 else "user",
            written=line,
            spoken=verbalize(line, language),
            author="source",
        )
        for place, line in enumerate(lines)
    ]
