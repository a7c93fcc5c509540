"""Where opening lines come from: rows of real text, selected by rule before anything is paid.

`chatterbot-corpus` holds short dialogues by topic, written by people (BSD). In most of its files the lines after the
second are other replies to the first one, not further turns; only the topics in MULTI_TURN are talks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.dialogue import Language, PlannedDialogue, Source, derive_seed
from pipeline.errors import ConfigError, ModelError
from pipeline.text.checks import count_units, unspeakable
from pipeline.text.verbalize import verbalize

FOLDERS: dict[Language, str] = {"en": "english", "zh": "chinese"}
MULTI_TURN = frozenset({"conversations", "health"})
NAME = "chatterbot-corpus"
LICENSE = "BSD-3-Clause"


@dataclass(frozen=True)
class SourceRow:
    """A human dialogue: lines alternate user, assistant, …; an even number of at least two."""

    source: Source
    lines: tuple[str, ...]


class ChatterbotSource:
    """The selected rows of both languages, and which of them a planned dialogue gets.

    digest: over every selected line, so that another version of the corpus is another text digest.
    dropped: how many rows were not selected, by reason.
    """

    def __init__(self, config: Config):
        self.dropped: Counter[str] = Counter()
        self._seed = config.seed
        self._openings: dict[Language, list[list[list[SourceRow]]]] = {}  # by language: topics of openings of rows
        self._laps: dict[Language, tuple[int, list[list[SourceRow]]]] = {}
        folder = _folder(config.source.path)
        sha = hashlib.sha256()
        for language in config.active_languages:
            topics = []
            known: dict[str, list[SourceRow]] = {}
            for rows in self._read(folder, language, config):
                openings: dict[str, list[SourceRow]] = {}  # belong to the first topic that has them
                for row in rows:
                    line = row.lines[0]
                    if line not in known:
                        known[line] = openings[line] = []
                    known[line].append(row)
                    sha.update("\n".join((row.source.row, *row.lines, "")).encode())
                topics.append([openings[line] for line in sorted(openings)])
            if not any(topics):
                raise ConfigError(
                    f"source.topics.{language}: no speakable row in {folder / FOLDERS[language]}; "
                    f"name other topics or raise text.max_units.{language}"
                )
            self._openings[language] = topics
        self.digest = sha.hexdigest()[:16]

    @property
    def selected(self) -> int:
        """Rows that passed the rules."""
        return sum(len(rows) for topics in self._openings.values() for openings in topics for rows in openings)

    def row(self, planned: PlannedDialogue) -> SourceRow:
        """Topics take turns; no opening comes twice before all were used. Each further lap takes another order and,
        where the corpus has one, another reply."""
        count = sum(map(len, self._openings[planned.language]))
        lap, place = divmod(planned.ordinal, count)
        rows = self._lap(planned.language, lap)[place]
        return rows[lap % len(rows)]

    def _lap(self, language: Language, lap: int) -> list[list[SourceRow]]:
        """All openings in the order of a lap. One lap is kept: memory does not grow with the run."""
        if self._laps.get(language, (-1, []))[0] != lap:

            def draw(opening: list[SourceRow]) -> int:
                return derive_seed(self._seed, "opening", language, lap, opening[0].lines[0])

            shuffled = [sorted(openings, key=draw) for openings in self._openings[language]]
            order = [opening for turn in zip_longest(*shuffled) for opening in turn if opening is not None]
            self._laps[language] = (lap, order)
        return self._laps[language][1]

    def _read(self, folder: Path, language: Language, config: Config) -> Iterator[list[SourceRow]]:
        """The selected rows of each topic."""
        base = folder / FOLDERS[language]
        topics = config.source.topics.get(language) or tuple(sorted(path.stem for path in base.glob("*.yml")))
        for topic in dict.fromkeys(topics):
            path = base / f"{topic}.yml"
            if not path.is_file():
                known = ", ".join(sorted(item.stem for item in base.glob("*.yml"))) or "none"
                raise ConfigError(f"source.topics.{language}: no topic {topic!r} in {base}; there are: {known}")
            rows = []
            for number, lines in enumerate(_conversations(path)):
                source = Source(name=NAME, license=LICENSE, row=f"{FOLDERS[language]}/{topic}.yml#{number}")
                rows.append(self._select(source, lines, topic in MULTI_TURN, language, config))
            yield [row for row in rows if row]

    def _select(
        self, source: Source, lines: list[str], talk: bool, language: Language, config: Config
    ) -> SourceRow | None:
        lines = [" ".join(str(line).split()) for line in lines][: config.source.max_turns if talk else 2]
        lines = lines[: len(lines) // 2 * 2]
        spoken = [verbalize(line, language) for line in lines]
        sizes = [count_units(line, language) for line in spoken]
        while len(sizes) > 2 and sum(sizes) > config.text.max_dialogue_units[language]:
            lines, spoken, sizes = lines[:-2], spoken[:-2], sizes[:-2]
        reason = "too few turns" if len(lines) < 2 else ""
        for line, size in zip(spoken, sizes, strict=True):
            reason = reason or unspeakable(line, language) or ""
            if not reason and size > config.text.max_units[language]:
                reason = "too long"
        if not reason and len({line.casefold() for line in spoken}) < len(spoken):
            reason = "echo"
        if reason:
            self.dropped[reason] += 1
            return None
        return SourceRow(source, tuple(lines))


def _folder(path: Path | None) -> Path:
    if path is not None:
        if not path.is_dir():
            raise ConfigError(f"source.path: {path} is not a folder")
        return path
    spec = util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("chatterbot-corpus is not installed: pip install 'speechchat[embedded]', or set source.path")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _conversations(path: Path) -> list[list[str]]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text("utf-8"), Loader=loader)  # both are safe loaders
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    conversations = data.get("conversations") if isinstance(data, dict) else None
    if not isinstance(conversations, list):
        raise ConfigError(f"{path}: not a corpus file: it has no list of `conversations`")
    return [list(lines) for lines in conversations if isinstance(lines, list)]
