"""All sources of a configuration as one: they take turns by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config import Config, digest
from pipeline.dialogue import Language, SourceRow
from pipeline.errors import ConfigError
from pipeline.sources.base import PreviewRow, SourceCounts, TextSource
from pipeline.sources.chatterbot import ChatterbotSource
from pipeline.sources.rows import RowSource
from pipeline.sources.topics import TopicSource


class Sources:
    """The rows of a run, by language, in an order that depends on nothing but configuration and data.

    digest: 16 hex digits over what identifies the rows of every source. Raises ConfigError (see the sources), also
    where a language of the run has no source.
    """

    def __init__(self, config: Config):
        self._weights = {name: config.sources[name].weight for name in sorted(config.sources)}
        self._sources = {name: _make(name, config) for name, weight in self._weights.items() if weight > 0}
        # By language: rows taken from each source in the rotation, since the last one left it.
        self._taken: dict[Language, dict[str, int]] = {
            language: {name: 0 for name, source in self._sources.items() if language in source.languages}
            for language in config.active_languages
        }
        self._drawn: dict[Language, int] = dict.fromkeys(self._taken, 0)
        for language, taken in self._taken.items():
            if not taken:
                raise ConfigError(f"languages.{language}: no source has this language; give it one, or weight 0")
        self.digest = digest({name: source.digest for name, source in self._sources.items()})

    @property
    def origins(self) -> tuple[tuple[str, str], ...]:
        """Name and licence of what the rows come from, sorted, each once."""
        return tuple(sorted({source.origin for source in self._sources.values()}))

    def next(self, language: Language) -> SourceRow | None:
        """The next row, None for ever where all sources of the language are exhausted.

        Raises ConfigError where they had not one row of it.
        """
        taken = self._taken[language]
        while taken:
            name = furthest_behind(self._weights, taken)
            row = self._sources[name].next(language)
            if row is not None:
                taken[name] += 1
                self._drawn[language] += 1
                return row
            # The others share what it leaves from here on; they owe nothing for what was before.
            self._taken[language] = taken = {other: 0 for other in taken if other != name}
        if not self._drawn[language]:
            raise ConfigError(
                f"languages.{language}: no source has a row in this language that can be used; add one, or give the "
                "language weight 0; `speechchat text preview` shows the rows"
            )
        return None

    def state(self) -> dict[str, Any]:
        """Where everything stands, a few hundred bytes, fit for JSON."""
        return {
            "taken": {language: dict(taken) for language, taken in self._taken.items()},
            "drawn": dict(self._drawn),
            "sources": {name: source.state() for name, source in self._sources.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, with the same configuration and data."""
        self._taken = {language: dict(state["taken"][language]) for language in self._taken}
        self._drawn = dict(state["drawn"])
        for name, source in self._sources.items():
            source.restore(state["sources"][name])

    def counts(self) -> dict[str, SourceCounts]:
        return {name: source.counts() for name, source in self._sources.items()}

    def preview(self, limit: int) -> Iterator[PreviewRow]:
        for source in self._sources.values():
            yield from source.preview(limit)


def furthest_behind(weights: Mapping[str, float], counts: Mapping[str, int]) -> str:
    """Which of the names in `counts` is next, so that each prefix holds each as near to its weight as it can.

    It is the one furthest behind its share; on a tie the first by name.
    """
    names = sorted(counts)
    total = sum(weights[name] for name in names)
    step = sum(counts.values()) + 1
    return max(names, key=lambda name: weights[name] / total * step - counts[name])


def _make(name: str, config: Config) -> TextSource:
    kind, data = config.sources[name].kind, config.sources[name].data
    if data is not None and not data.strip():  # as a path it would be the folder that we happen to be in
        raise ConfigError(f"sources.{name}.data: it is empty; name a file, a folder or a data set, or take it out")
    if kind == "chatterbot":
        return ChatterbotSource(name, config)
    return TopicSource(name, config) if kind == "topics" else RowSource(name, config)
