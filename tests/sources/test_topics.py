from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.sources import Sources
from pipeline.sources.topics import TopicSource

TOPICS = [
    {"id": "tea", "domain": "food", "en": "green tea", "zh": "绿茶"},
    {"id": "soup", "domain": "food", "en": "hot soup", "zh": "热汤"},
    {"id": "bus", "domain": "travel", "en": "taking the bus", "zh": "坐公交车"},
]


def config(personas: bool = True, seed: int = 0, **source: Any) -> Config:
    converse = {"mode": "whole", "personas": personas}
    return Config(seed=seed, sources={"talk": {"kind": "topics", **source}}, text={"converse": converse})


def file(tmp_path: Path, topics: object = TOPICS) -> str:
    path = tmp_path / "topics.yaml"
    path.write_text(yaml.safe_dump(topics, allow_unicode=True), "utf-8")
    return str(path)


def test_all_shipped_topics_come_once_before_any_comes_again() -> None:
    source = TopicSource("talk", config())
    size = source.lap_size("en")
    assert size >= 300
    laps = [[source.next("en") for _ in range(size)] for _ in range(2)]
    topics = [[row.topic for row in lap if row] for lap in laps]
    assert len(set(topics[0])) == size and sorted(topics[0]) == sorted(topics[1]) and topics[0] != topics[1]
    casts = [{row.topic: (row.persona, row.scenario) for row in lap if row} for lap in laps]
    assert all(casts[0][topic] != casts[1][topic] for topic in topics[0])
    assert len(set(casts[0].values())) > size // 2  # neighbours are not asked by the same person


def test_a_row_is_in_its_language_and_names_its_ids(tmp_path: Path) -> None:
    source = TopicSource("talk", config(data=file(tmp_path)))
    english = {row.source.row.split("/")[0]: row for row in (source.row("en", place) for place in range(3))}
    chinese = {row.source.row.split("/")[0]: row for row in (source.row("zh", place) for place in range(3))}
    assert {name: row.topic for name, row in chinese.items()} == {item["id"]: item["zh"] for item in TOPICS}
    row = english["tea"]
    assert row.topic == "green tea" and row.lines == () and row.persona.isascii() and row.scenario.isascii()
    assert row.source.row.count("/") == 2 and row.source.name == "topics" and row.source.license == "Apache-2.0"
    assert not chinese["tea"].persona.isascii()


def test_every_pair_of_persona_and_scenario_comes_before_one_comes_again(tmp_path: Path) -> None:
    source = TopicSource("talk", config(data=file(tmp_path, TOPICS[:1])))
    seen: list[str] = []
    while (row := source.row("en", len(seen)).source.row) not in seen[:1]:
        seen.append(row)
    personas, scenarios = ({row.split("/")[place] for row in seen} for place in (1, 2))
    assert len(set(seen)) == len(seen) == len(personas) * len(scenarios) > 100


def test_without_personas(tmp_path: Path) -> None:
    row = TopicSource("talk", config(personas=False, data=file(tmp_path))).row("en", 0)
    assert (row.persona, row.scenario) == ("", "") and row.source.row in ("tea", "soup", "bus")


def test_only_some_topics(tmp_path: Path) -> None:
    source = TopicSource("talk", config(data=file(tmp_path), topics={"en": ["food"], "zh": ["bus", "tea"]}))
    rows = {language: {source.row(language, place).topic for place in range(4)} for language in ("en", "zh")}
    assert rows == {"en": {"green tea", "hot soup"}, "zh": {"坐公交车", "绿茶"}}
    assert source.counts().read == 4


def test_laps_end_it(tmp_path: Path) -> None:
    source = Sources(config(data=file(tmp_path), laps=2))
    drawn = [source.next("en") for _ in range(8)]
    assert [row is None for row in drawn] == [False] * 6 + [True] * 2


def test_the_seed_changes_the_order_and_the_content_the_digest(tmp_path: Path) -> None:
    data = file(tmp_path)
    one, two = (TopicSource("talk", config(seed=seed)) for seed in (1, 2))
    assert one.digest == two.digest
    assert [one.row("en", place) for place in range(9)] != [two.row("en", place) for place in range(9)]
    before = TopicSource("talk", config(data=data)).digest
    file(tmp_path, [*TOPICS[:2], {**TOPICS[2], "en": "taking the train"}])
    assert before not in (TopicSource("talk", config(data=data)).digest, one.digest)


@pytest.mark.parametrize(
    ("topics", "parts"),
    [
        ([{"id": "tea", "en": "tea", "zh": "茶"}], ["0.domain: Field required", "list of {id, en, zh, domain}"]),
        ([*TOPICS, TOPICS[0]], ["id 'tea' is there twice"]),
        ([], ["it holds no entry"]),
        ({"topics": TOPICS}, ["it must be a list"]),
        ("[", ["it must be a list"]),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, topics: object, parts: list[str]) -> None:
    data = file(tmp_path, topics)
    with pytest.raises(ConfigError) as caught:
        TopicSource("talk", config(data=data))
    assert str(caught.value).startswith(f"{data}: ") and all(part in str(caught.value) for part in parts)


def test_a_file_that_is_nested_too_deep_is_named(tmp_path: Path) -> None:
    data = tmp_path / "topics.yaml"
    for text in ("[" * 100_000, "- " * 3000 + "x"):
        data.write_text(text)
        with pytest.raises(ConfigError, match=r"topics\.yaml: not readable as YAML: it is nested too deep"):
            TopicSource("talk", config(data=str(data)))


def test_a_missing_file_and_an_unknown_topic_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.talk\.data: .*none\.yaml: not readable: .*null takes"):
        TopicSource("talk", config(data=str(tmp_path / "none.yaml")))
    with pytest.raises(ConfigError, match=r"topics\.en: no topic or domain 'fod'; did you mean 'food'\? domains: food"):
        TopicSource("talk", config(data=file(tmp_path), topics={"en": ["fod"]}))
