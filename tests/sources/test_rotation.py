"""Sources take turns by weight, and the whole goes on where it stood."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.dialogue import Language, SourceRow
from pipeline.sources import Sources
from pipeline.sources.rotation import furthest_behind
from tests.sources.data import alpaca, few_topics, write


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.1, 100), min_size=1), st.integers(1, 80))
def test_every_prefix_is_near_the_weights(weights: dict[str, float], count: int) -> None:
    counts = dict.fromkeys(weights, 0)
    for _ in range(count):
        counts[furthest_behind(weights, counts)] += 1
    assert sum(counts.values()) == count
    for name, weight in weights.items():
        assert abs(counts[name] - count * weight / sum(weights.values())) < len(weights)


def test_the_order_of_the_names_means_nothing() -> None:
    weights = {"b": 1.0, "a": 1.0, "c": 2.0}
    drawn = []
    for names in ("abc", "cba"):
        counts = dict.fromkeys(names, 0)
        drawn.append([])
        for _ in range(8):
            drawn[-1].append(furthest_behind(weights, counts))
            counts[drawn[-1][-1]] += 1
    assert drawn[0] == drawn[1] == ["c", "a", "b", "c"] * 2


def mixed(root: Path, **changes: Any) -> Config:
    """A data set of 8 English and 4 Mandarin rows, one of 5 English, and topics for ever."""
    sources = {
        "web": {
            "kind": "instructions",
            "license": "MIT",
            "data": str(write(root / "w.jsonl", alpaca(12, 3))),
            "weight": 2,
        },
        "more": {"kind": "instructions", "license": "MIT", "data": str(write(root / "m.csv", alpaca(5)))},
        "talk": {"kind": "topics", "language": "zh"},
    }
    return Config(sources={**sources, **changes}, text={"converse": {"mode": "whole"}})


def draw(sources: Sources, language: Language, count: int) -> list[SourceRow | None]:
    return [sources.next(language) for _ in range(count)]


def names(rows: list[SourceRow | None]) -> list[str]:
    return [row.source.name if row else "" for row in rows]


def test_an_exhausted_source_leaves_and_the_others_share(tmp_path: Path) -> None:
    sources = Sources(mixed(tmp_path))
    english = names(draw(sources, "en", 15))
    assert english[:6] == ["web", "more", "web"] * 2
    assert Counter(english) == {"web": 8, "more": 5, "": 2} and english[-2:] == ["", ""]
    chinese = names(draw(sources, "zh", 40))
    assert Counter(chinese) == {"web": 4, "topics": 36}  # topics are endless, and the other has no row of it
    # The one without a row leaves at its first turn, and the shares are counted anew from there.
    assert chinese[:6] == ["web", "web", "topics", "web", "web", "topics"]
    counts = sources.counts()
    assert {name: item.used for name, item in counts.items()} == {"web": 12, "more": 5, "talk": 36}
    assert list(counts) == ["more", "talk", "web"]


def test_a_weight_of_zero_is_no_source(tmp_path: Path) -> None:
    gone = {"kind": "instructions", "license": "MIT", "data": str(tmp_path / "none.jsonl"), "weight": 0}
    assert set(Sources(mixed(tmp_path, more=gone)).counts()) == {"web", "talk"}


def test_origins_and_digest(tmp_path: Path) -> None:
    sources = Sources(mixed(tmp_path))
    assert sources.origins == (("more", "MIT"), ("topics", "Apache-2.0"), ("web", "MIT"))
    assert Sources(mixed(tmp_path)).digest == sources.digest
    write(tmp_path / "m.csv", alpaca(6))
    other = {"kind": "instructions", "license": "MIT", "data": str(tmp_path / "m.csv")}
    assert Sources(mixed(tmp_path / "moved", more=other)).digest != sources.digest


SETUPS = ("web", "more", "talk", "corpus")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chosen=st.sets(st.sampled_from(SETUPS), min_size=1),
    laps=st.sampled_from([None, 1, 2]),
    turns=st.lists(st.sampled_from(["en", "zh"]), min_size=1, max_size=30),
    stops=st.sets(st.integers(0, 29)),
)
@pytest.mark.parametrize("kind", [".jsonl", ".parquet", ".json.gz"])
def test_it_goes_on_where_it_stood(
    tmp_path: Path, kind: str, chosen: set[str], laps: int | None, turns: list[Language], stops: set[int]
) -> None:
    data = write(tmp_path / f"w{kind}", alpaca(12, 3))
    corpus = tmp_path / "corpus"
    for folder, line in (("english", "Hello there"), ("chinese", "你好")):
        (corpus / folder).mkdir(parents=True, exist_ok=True)
        (corpus / folder / "a.yml").write_text(f"conversations:\n- - {line}\n  - {line * 2}\n", "utf-8")
    setups: dict[str, dict[str, Any]] = {
        "web": {"kind": "instructions", "license": "MIT", "data": str(data), "weight": 2},
        "more": {"kind": "questions", "license": "MIT", "data": str(data), "fields": {"question": "instruction"}},
        "talk": {"kind": "topics", "data": few_topics(tmp_path)},
        "corpus": {"kind": "chatterbot", "data": str(corpus)},
    }
    config = Config(
        sources={name: {**setups[name], "laps": laps} for name in chosen},
        text={"converse": {"mode": "whole", "personas": False}},
    )
    whole = Sources(config)
    expected = [whole.next(language) for language in turns]
    assert expected[0] is not None
    sources, drawn = Sources(config), []
    for place, language in enumerate(turns):
        if place in stops:
            state = json.loads(json.dumps(sources.state()))
            sources = Sources(config)
            sources.restore(state)
        drawn.append(sources.next(language))
    assert drawn == expected
    assert sources.state() == whole.state() and sources.counts() == whole.counts()
