"""Rows without lines: what the LLM is to write about, who asks, and where."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from math import gcd, lcm
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.config import Config, digest
from pipeline.dialogue import Language, Source, SourceRow, derive_seed
from pipeline.errors import ConfigError
from pipeline.sources.base import OrdinalSource, PreviewRow, SourceCounts, nearest, shorten

NAME = "topics"
LICENSE = "Apache-2.0"


class Choice(BaseModel):
    """A persona or a scenario, in both languages. `id` names it for good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    en: str
    zh: str

    def text(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


class Topic(Choice):
    """domain groups topics: a configuration may name ids or domains."""

    domain: str


Kind = TypeVar("Kind", bound=Choice)


class TopicSource(OrdinalSource):
    """Topics in a seeded order, all of them once before any comes again; each lap gives a topic another persona and
    scenario until it has had every pair of them.

    digest: over the files' content.
    """

    def __init__(self, name: str, config: Config):
        source = config.sources[name]
        self._name = name
        self._seed = config.seed
        self.origin = (NAME, source.license or LICENSE)
        languages = [item for item in config.active_languages if source.language in ("auto", item)]
        super().__init__(languages, source.laps)
        content, topics = read_choices(source.data, f"sources.{name}.data", "topics.yaml", Topic)
        contents = [content]
        self._personas: tuple[Choice, ...] = ()
        self._scenarios: tuple[Choice, ...] = ()
        if config.text.converse.personas:
            content, self._personas = read_choices(None, "prompts", "personas.yaml", Choice)
            contents.append(content)
            content, self._scenarios = read_choices(None, "prompts", "scenarios.yaml", Choice)
            contents.append(content)
        self.digest = digest([hashlib.sha256(content).hexdigest() for content in contents])
        self._topics = {
            language: _chosen(topics, source.topics.get(language, ()), f"sources.{name}.topics.{language}")
            for language in languages
        }
        self._laps_drawn: dict[Language, tuple[int, list[Topic]]] = {}

    def counts(self) -> SourceCounts:
        rows = sum(map(len, self._topics.values()))
        return SourceCounts(read=rows, selected=rows, used=self.used)

    def lap_size(self, language: Language) -> int:
        return len(self._topics[language])

    def row(self, language: Language, ordinal: int) -> SourceRow:
        lap, place = divmod(ordinal, self.lap_size(language))
        topic = self._lap(language, lap)[place]
        persona, scenario = self._cast(language, topic, lap)
        ids = [item.id for item in (topic, persona, scenario) if item is not None]
        return SourceRow(
            source=Source(name=self.origin[0], license=self.origin[1], row="/".join(ids)),
            lines=(),
            topic=topic.text(language),
            persona=persona.text(language) if persona else "",
            scenario=scenario.text(language) if scenario else "",
        )

    def preview(self, limit: int) -> Iterator[PreviewRow]:
        for language in sorted(self.languages):
            for ordinal in range(min(limit, self.lap_size(language))):
                row = self.row(language, ordinal)
                raw = shorten(" / ".join(filter(None, (row.topic, row.persona, row.scenario))))
                yield PreviewRow(self._name, language, row, raw, None)

    def _lap(self, language: Language, lap: int) -> list[Topic]:
        """All topics in the order of a lap. One lap is kept: memory does not grow with the run."""
        if self._laps_drawn.get(language, (-1, []))[0] != lap:

            def draw(topic: Topic) -> int:
                return derive_seed(self._seed, "topic", language, lap, topic.id)

            self._laps_drawn[language] = (lap, sorted(self._topics[language], key=draw))
        return self._laps_drawn[language][1]

    def _cast(self, language: Language, topic: Topic, lap: int) -> tuple[Choice | None, Choice | None]:
        """Persona and scenario of a topic's lap.

        Both indices advance with each lap; after lcm(personas, scenarios) laps the pairs would repeat, so one of them
        is moved by one, which reaches every pair before any comes twice.
        """
        if not self._personas or not self._scenarios:
            return None, None
        sizes = len(self._personas), len(self._scenarios)
        starts = (derive_seed(self._seed, kind, language, topic.id) for kind in ("persona", "scenario"))
        persona, scenario = (start + lap for start in starts)
        scenario += lap // lcm(*sizes) % gcd(*sizes)
        return self._personas[persona % sizes[0]], self._scenarios[scenario % sizes[1]]


def read_choices(path: str | None, key: str, shipped: str, kind: type[Kind]) -> tuple[bytes, tuple[Kind, ...]]:
    """Content and entries of the file `path`, or of the shipped one if None.

    Raises ConfigError naming the file, and `key` where it is not readable.
    """
    where = path or f"prompts/{shipped}"
    try:
        content = Path(path).read_bytes() if path else resources.files("prompts").joinpath(shipped).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {where}: not readable: {error.strerror}; null takes the shipped file") from None
    # The fast one is for files that are known: what is nested deep enough makes it crash.
    loader: Any = yaml.SafeLoader if path else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(content.decode("utf-8"), Loader=loader)  # both are safe loaders
        entries: tuple[Kind, ...] = TypeAdapter(tuple[kind, ...]).validate_python(data)  # type: ignore[valid-type]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not readable as YAML: it is nested too deep") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "file"
        wanted = ", ".join(kind.model_fields)
        raise ConfigError(f"{where}: {place}: {fault['msg']}; it must be a list of {{{wanted}}}") from None
    twice = [name for name, count in Counter(item.id for item in entries).items() if count > 1]
    if twice or not entries:
        raise ConfigError(f"{where}: " + (f"id {twice[0]!r} is there twice" if twice else "it holds no entry"))
    return content, entries


def _chosen(topics: tuple[Topic, ...], names: tuple[str, ...], key: str) -> list[Topic]:
    """The topics with one of these ids or domains, in the order of the file; all if no name is given."""
    known = {item.id for item in topics} | {item.domain for item in topics}
    for name in names:
        if name not in known:
            domains = ", ".join(sorted({item.domain for item in topics}))
            raise ConfigError(f"{key}: no topic or domain {name!r}; {nearest(name, sorted(known))}domains: {domains}")
    return [item for item in topics if not names or item.id in names or item.domain in names]
