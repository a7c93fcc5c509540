from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, load_config
from pipeline.dialogue import Language, SourceRow
from pipeline.errors import ConfigError
from pipeline.sources import LICENSE, MULTI_TURN, ChatterbotSource
from pipeline.text.checks import count_units, unspeakable
from pipeline.text.verbalize import verbalize

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def take(source: ChatterbotSource, language: Language, start: int, stop: int) -> list[SourceRow]:
    return [source.row(language, ordinal) for ordinal in range(start, stop)]


def topic(row: SourceRow) -> str:
    return row.source.row.partition(".yml#")[0]


# ---- the real corpus ------------------------------------------------------------------------------------------------


QUICKSTART = load_config("quickstart")
[CORPUS] = QUICKSTART.sources


@pytest.fixture(scope="module")
def everything() -> tuple[Config, ChatterbotSource]:
    """Every topic of the installed corpus."""
    config = Config()
    return config, ChatterbotSource("chatterbot", config)


@pytest.fixture(scope="module")
def quickstart() -> ChatterbotSource:
    return ChatterbotSource(CORPUS, QUICKSTART)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_row_is_a_whole_talk_that_can_be_said(
    everything: tuple[Config, ChatterbotSource], language: Language
) -> None:
    config, source = everything
    for row in take(source, language, 0, 400):
        assert len(row.lines) >= 2 and len(row.lines) % 2 == 0
        assert len(row.lines) == 2 or topic(row).rpartition("/")[2] in MULTI_TURN
        assert len(row.lines) <= config.sources["chatterbot"].max_turns
        spoken = [verbalize(line, language) for line in row.lines]
        assert [unspeakable(line, language) for line in spoken] == [None] * len(spoken)
        sizes = [count_units(line, language) for line in spoken]
        assert max(sizes) <= config.text.max_units[language]
        assert len(row.lines) == 2 or sum(sizes) <= config.text.max_dialogue_units[language]
        assert len({line.casefold() for line in spoken}) == len(spoken)
        assert all(line == " ".join(line.split()) for line in row.lines)
        assert row.source.license == LICENSE


def test_no_opening_comes_twice_before_all_were_used(everything: tuple[Config, ChatterbotSource]) -> None:
    """Also not one that two topics share ("Hello")."""
    _, source = everything
    counts = {language: source.lap_size(language) for language in LANGUAGES}
    for language, count in counts.items():
        first = [row.lines[0] for row in take(source, language, 0, count)]
        second = [row.lines[0] for row in take(source, language, count, 2 * count)]
        assert sorted(first) == sorted(second) and len(set(first)) == count
        assert first != second
    assert counts["en"] > 600 and counts["zh"] > 300


def test_a_further_lap_gives_another_reply_where_there_is_one(quickstart: ChatterbotSource) -> None:
    count = quickstart.lap_size("en")
    replies: dict[str, list[tuple[str, ...]]] = {}
    for row in take(quickstart, "en", 0, 2 * count):
        replies.setdefault(row.lines[0], []).append(row.lines[1:])
    different = sum(first != second for first, second in replies.values())
    assert different > count // 4


def test_topics_take_turns(quickstart: ChatterbotSource) -> None:
    topics = QUICKSTART.sources[CORPUS].topics
    for language in LANGUAGES:
        drawn = [topic(row).rpartition("/")[2] for row in take(quickstart, language, 0, 3 * len(topics[language]))]
        assert drawn == 3 * list(topics[language])


def test_what_was_dropped_is_counted(everything: tuple[Config, ChatterbotSource]) -> None:
    counts = everything[1].counts()
    assert {"too long", "code", "echo"} <= set(counts.dropped)
    assert counts.read == counts.selected + sum(counts.dropped.values())
    # The same rows are read under any limit.
    few: dict[str, Any] = {"topics": {"en": ["ai"], "zh": ["ai"]}}
    stricter = ChatterbotSource("few", Config(text={"max_units": {"en": 6, "zh": 8}}, sources={"few": few})).counts()
    looser = ChatterbotSource("few", Config(sources={"few": few})).counts()
    assert stricter.selected < looser.selected and stricter.read == looser.read


def test_a_row_depends_on_nothing_but_seed_and_ordinal(quickstart: ChatterbotSource) -> None:
    other = ChatterbotSource(CORPUS, QUICKSTART)
    backwards = [other.row("zh", ordinal) for ordinal in reversed(range(600))]
    assert [other.next("zh") for _ in range(600)] == list(reversed(backwards)) == take(quickstart, "zh", 0, 600)
    reseeded = ChatterbotSource(CORPUS, load_config("quickstart", ["seed=1"]))
    assert take(reseeded, "zh", 0, 600) != list(reversed(backwards))
    assert reseeded.digest == quickstart.digest  # the digest is of the selection; the seed is in the configuration


# ---- a small corpus -------------------------------------------------------------------------------------------------


def write(root: Path, **topics: list[list[object]]) -> Path:
    for name, rows in topics.items():
        for folder in ("english", "chinese"):
            path = root / folder / f"{name}.yml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump({"conversations": rows}, allow_unicode=True), "utf-8")
    return root


def small(path: Path, text: dict[str, Any] | None = None, **source: object) -> ChatterbotSource:
    config = Config(languages={"en": 1}, sources={"small": {"data": str(path), **source}}, text=text or {})
    return ChatterbotSource("small", config)


def test_an_opening_of_two_topics_belongs_to_the_first(tmp_path: Path) -> None:
    rows: list[list[object]] = [["Hello there", "Hi, how are you?"], ["Good night", "Sleep well, my friend."]]
    root = write(tmp_path, a=rows, b=[["Hello there", "Good morning to you."], ["See you", "See you tomorrow."]])
    source = small(root)
    lap = [source.row("en", ordinal) for ordinal in range(3)]
    assert Counter(row.lines[0] for row in lap) == {"Hello there": 1, "Good night": 1, "See you": 1}
    hellos = [row for row in take(source, "en", 0, 6) if row.lines[0] == "Hello there"]
    assert [row.lines[1] for row in hellos] == ["Hi, how are you?", "Good morning to you."]
    assert [row.source.row for row in hellos] == ["english/a.yml#0", "english/b.yml#0"]


def test_a_topic_named_twice_is_read_once(tmp_path: Path) -> None:
    root = write(tmp_path, a=[["Hello there", "Hi, how are you?"]])
    once, twice = small(root, topics={"en": ["a"]}), small(root, topics={"en": ["a", "a"]})
    assert (twice.counts(), twice.digest) == (once.counts(), once.digest) and once.counts().selected == 1


def test_talks_are_cut_to_even_turns_and_to_their_length(tmp_path: Path) -> None:
    lines: list[object] = [f"This is line {word}." for word in ("one", "two", "three", "four", "five")]
    root = write(tmp_path, conversations=[lines], chat=[lines])
    talk: dict[str, Any] = {"path": root, "topics": {"en": ["conversations"]}}
    [row] = take(small(**talk), "en", 0, 1)
    assert list(row.lines) == lines[:4]
    [row] = take(small(**talk, max_turns=3), "en", 0, 1)
    assert list(row.lines) == lines[:2]
    [row] = take(small(**talk, text={"max_dialogue_units": {"en": 10}}), "en", 0, 1)
    assert list(row.lines) == lines[:2]
    [row] = take(small(root, topics={"en": ["chat"]}), "en", 0, 1)
    assert list(row.lines) == lines[:2]  # what follows in other topics are other replies


def test_rows_that_cannot_be_said_are_dropped_with_their_reason(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["Hello there", "Hi, how are you?"],
        ["Only one line"],
        ["What is it?", "See http://example.org for more."],
        ["Say it again", "say it again"],
        ["Count", " ".join(["word and"] * 20)],
        ["How much is it?", 42],
    ]
    source = small(write(tmp_path, a=rows))
    counts = source.counts()
    assert (counts.read, counts.selected, sum(counts.dropped.values())) == (6, 2, 4)
    assert {"too few turns": 1, "url": 1, "echo": 1}.items() <= counts.dropped.items()
    assert ["How much is it?", "42"] in [list(row.lines) for row in take(source, "en", 0, 2)]


def test_another_line_is_another_digest(tmp_path: Path) -> None:
    digests = set()
    for name, reply in (("one", "Hi, how are you?"), ("two", "Hi, how are you now?")):
        digests.add(small(write(tmp_path / name, a=[["Hello there", reply]])).digest)
    assert len(digests) == 2


# ---- bad input ------------------------------------------------------------------------------------------------------


def refused(root: Path, **source: object) -> str:
    with pytest.raises(ConfigError) as caught:
        small(root, **source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_topic_names_those_that_are_there(tmp_path: Path) -> None:
    root = write(tmp_path, food=[["a", "b"]], ai=[["a", "b"]])
    message = refused(root, topics={"en": ["fod"]})
    assert "sources.small.topics.en: no topic 'fod'" in message and message.endswith("there are: ai, food")


def test_it_never_ends_unless_laps_say_so(tmp_path: Path) -> None:
    root = write(tmp_path, a=[["Hello there", "Hi, how are you?"], ["Good night", "Sleep well, my friend."]])
    endless, twice = small(root), small(root, laps=2)
    assert all(endless.next("en") for _ in range(50))
    drawn = [twice.next("en") for _ in range(6)]
    assert drawn[:4] == [endless.row("en", ordinal) for ordinal in range(4)] and drawn[4:] == [None, None]
    assert twice.counts().used == 4


def test_a_language_that_the_source_is_not_for(tmp_path: Path) -> None:
    root = write(tmp_path, a=[["Hello there", "Hi, how are you?"]])
    both = Config(sources={"small": {"data": str(root), "language": "en"}})
    assert ChatterbotSource("small", both).languages == {"en"}


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == f"sources.small.data: {tmp_path / 'none'} is not a folder"


def test_nothing_to_select(tmp_path: Path) -> None:
    (tmp_path / "english").mkdir()
    assert "sources.small.topics.en: no speakable row" in refused(tmp_path)
    assert "raise text.max_units.en" in refused(write(tmp_path, a=[["x = y;", "{}"]]))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"conversations:\n- - a\n - b: [\n", "not readable as YAML"),
        (b"conversations:\n- - caf\xe9\n", "not readable as YAML"),
        (b"- a\n- b\n", "no list of `conversations`"),
        (b"categories: [a]\n", "no list of `conversations`"),
        (b"conversations: 3\n", "no list of `conversations`"),
        (b"conversations:\n", "no list of `conversations`"),
        (b"", "no list of `conversations`"),
    ],
)
def test_a_broken_corpus_file_is_named(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "english" / "a.yml"
    path.parent.mkdir()
    path.write_bytes(content)
    message = refused(tmp_path)
    assert message.startswith(f"{path}: ") and part in message
