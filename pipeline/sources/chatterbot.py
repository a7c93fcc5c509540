"""Rows of `chatterbot-corpus`: short dialogues by topic, written by people (BSD).

In most of its files the lines after the second are other replies to the first one, not further turns; only the topics
in MULTI_TURN are talks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from importlib import util
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.dialogue import Language, Source, SourceRow, derive_seed
from pipeline.errors import ConfigError, ModelError
from pipeline.sources.base import OrdinalSource, PreviewRow, SourceCounts, shorten
from pipeline.sources.selection import Selection

FOLDERS: dict[Language, str] = {"en": "english", "zh": "chinese"}
MULTI_TURN = frozenset({"conversations", "health"})
NAME = "chatterbot-corpus"
LICENSE = "BSD-3-Clause"


class ChatterbotSource(OrdinalSource):
    """The selected rows. The corpus is small, so it is read and judged whole at the start.

    digest: over every selected line, so that another version of the corpus is another digest.
    """

    origin = (NAME, LICENSE)

    def __init__(self, name: str, config: Config):
        self._name = name
        self._seed = config.seed
        self._source = config.sources[name]
        self._select = Selection(config)
        self._dropped: Counter[str] = Counter()
        self._openings: dict[Language, list[list[list[SourceRow]]]] = {}  # by language: topics of openings of rows
        self._laps_drawn: dict[Language, tuple[int, list[list[SourceRow]]]] = {}
        self._folder = _folder(name, self._source.data)
        languages = [item for item in config.active_languages if self._source.language in ("auto", item)]
        super().__init__(languages, self._source.laps)
        sha = hashlib.sha256()
        for language in languages:
            topics = []
            known: dict[str, list[SourceRow]] = {}
            for path in self._paths(language):
                openings: dict[str, list[SourceRow]] = {}  # belong to the first topic that has them
                for row, fault in self._judged(path, language):
                    if fault is not None:
                        self._dropped[fault] += 1
                        continue
                    line = row.lines[0]
                    if line not in known:
                        known[line] = openings[line] = []
                    known[line].append(row)
                    sha.update("\n".join((row.source.row, *row.lines, "")).encode())
                topics.append([openings[line] for line in sorted(openings)])
            if not any(topics):
                raise ConfigError(
                    f"sources.{name}.topics.{language}: no speakable row in {self._folder / FOLDERS[language]}; "
                    f"name other topics or raise text.max_units.{language}"
                )
            self._openings[language] = topics
        self.digest = sha.hexdigest()[:16]

    def counts(self) -> SourceCounts:
        selected = sum(len(rows) for topics in self._openings.values() for openings in topics for rows in openings)
        dropped = dict(sorted(self._dropped.items()))
        return SourceCounts(read=selected + self._dropped.total(), selected=selected, used=self.used, dropped=dropped)

    def lap_size(self, language: Language) -> int:
        return sum(map(len, self._openings[language]))

    def row(self, language: Language, ordinal: int) -> SourceRow:
        """Topics take turns; no opening comes twice before all were used. Each further lap takes another order and,
        where the corpus has one, another reply."""
        lap, place = divmod(ordinal, self.lap_size(language))
        rows = self._lap(language, lap)[place]
        return rows[lap % len(rows)]

    def preview(self, limit: int) -> Iterator[PreviewRow]:
        for language in sorted(self.languages):
            rows = (judged for path in self._paths(language) for judged in self._judged(path, language))
            for row, fault in islice(rows, limit):
                yield PreviewRow(self._name, language, row, shorten(" / ".join(row.lines)), fault)

    def _lap(self, language: Language, lap: int) -> list[list[SourceRow]]:
        """All openings in the order of a lap. One lap is kept: memory does not grow with the run."""
        if self._laps_drawn.get(language, (-1, []))[0] != lap:

            def draw(opening: list[SourceRow]) -> int:
                return derive_seed(self._seed, "opening", language, lap, opening[0].lines[0])

            shuffled = [sorted(openings, key=draw) for openings in self._openings[language]]
            order = [opening for turn in zip_longest(*shuffled) for opening in turn if opening is not None]
            self._laps_drawn[language] = (lap, order)
        return self._laps_drawn[language][1]

    def _paths(self, language: Language) -> list[Path]:
        base = self._folder / FOLDERS[language]
        names = self._source.topics.get(language) or tuple(sorted(path.stem for path in base.glob("*.yml")))
        paths = [base / f"{topic}.yml" for topic in dict.fromkeys(names)]
        for path in paths:
            if not path.is_file():
                known = ", ".join(sorted(item.stem for item in base.glob("*.yml"))) or "none"
                raise ConfigError(
                    f"sources.{self._name}.topics.{language}: no topic {path.stem!r} in {base}; there are: {known}"
                )
        return paths

    def _judged(self, path: Path, language: Language) -> Iterator[tuple[SourceRow, str | None]]:
        """Every row of a topic, and why it is not selected."""
        turns = self._source.max_turns if path.stem in MULTI_TURN else 2
        for number, given in enumerate(_conversations(path)):
            lines = [" ".join(str(line).split()) for line in given][:turns]
            lines = lines[: len(lines) // 2 * 2]
            source = Source(name=NAME, license=LICENSE, row=f"{FOLDERS[language]}/{path.name}#{number}")
            row = SourceRow(source=source, lines=tuple(lines))
            yield (row, "too few turns") if len(lines) < 2 else self._select(row, language)


def _folder(name: str, path: str | None) -> Path:
    if path is not None:
        try:
            is_folder = Path(path).is_dir()
        except OSError:  # a name that is too long, a folder closed to us
            is_folder = False
        if not is_folder:
            raise ConfigError(f"sources.{name}.data: {shorten(path, 100)} is not a folder")
        return Path(path)
    spec = util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"chatterbot-corpus is not installed: pip install 'speechchat[embedded]', or set sources.{name}.data"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _conversations(path: Path) -> list[list[str]]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text("utf-8"), Loader=loader)  # both are safe loaders
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not readable as YAML: it is nested too deep") from None
    conversations = data.get("conversations") if isinstance(data, dict) else None
    if not isinstance(conversations, list):
        raise ConfigError(f"{path}: not a corpus file: it has no list of `conversations`")
    return [list(lines) for lines in conversations if isinstance(lines, list)]
