"""The shipped topics, personas and scenarios: enough of them, different from each other, in both languages."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources
from itertools import combinations, pairwise

import pytest
import yaml

HAN = re.compile(r"[\u4e00-\u9fff]")
WORD = re.compile(r"[a-z']+")
ENGLISH = re.compile(r"[A-Za-z][A-Za-z' ,-]*")
MANDARIN = re.compile(r"[\u4e00-\u9fff，]+")
KEBAB = re.compile(r"[a-z]+(?:-[a-z]+)*")
FILLING = re.compile(r"(?:an?|the|of|in|on|at|to|for|and|or|with|who|that|is|are|what|how|why|when|by|from|as|it|be)")
LEAST = {"topics": 320, "personas": 60, "scenarios": 40}
KEYS = {"topics": ["id", "domain", "en", "zh"], "personas": ["id", "en", "zh"], "scenarios": ["id", "en", "zh"]}


def read(name: str) -> list[dict[str, str]]:
    return yaml.safe_load((resources.files("prompts") / f"{name}.yaml").read_text("utf-8"))


def tokens(item: dict[str, str], language: str) -> set[str]:
    if language == "en":
        return set(WORD.findall(FILLING.sub(" ", item["en"].lower())))
    han = HAN.findall(item["zh"])
    return {first + second for first, second in pairwise(han)}


@pytest.mark.parametrize("name", LEAST)
def test_there_are_enough_and_each_is_whole(name: str) -> None:
    items = read(name)
    assert len(items) >= LEAST[name]
    for item in items:
        assert list(item) == KEYS[name], item
        assert KEBAB.fullmatch(item["id"]), item
        assert ENGLISH.fullmatch(item["en"]), item
        assert MANDARIN.fullmatch(item["zh"]), item


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("key", ["id", "en", "zh"])
def test_none_comes_twice(name: str, key: str) -> None:
    assert [text for text, times in Counter(item[key].lower() for item in read(name)).items() if times > 1] == []


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_none_is_nearly_another(name: str, language: str) -> None:
    """Jaccard similarity of content words (en) or of pairs of characters (zh)."""
    known = [(item["id"], tokens(item, language)) for item in read(name)]
    assert all(own for _, own in known)
    near = [
        (a, b) for (a, ours), (b, theirs) in combinations(known, 2) if len(ours & theirs) > 0.5 * len(ours | theirs)
    ]
    assert near == []


def test_the_similarity_finds_what_is_near() -> None:
    first = {"en": "choosing a first bicycle for a child", "zh": "给孩子挑第一辆自行车"}
    second = {"en": "choosing the first bicycle for children", "zh": "给小孩挑第一辆自行车"}
    for language in ("en", "zh"):
        ours, theirs = tokens(first, language), tokens(second, language)
        assert len(ours & theirs) >= 0.5 * len(ours | theirs)


def test_a_topic_is_a_short_phrase() -> None:
    for item in read("topics"):
        assert 3 <= len(item["en"].split()) <= 14, item
        assert 4 <= len(HAN.findall(item["zh"])) <= 24, item


def test_domains_are_balanced() -> None:
    domains = Counter(item["domain"] for item in read("topics"))
    assert len(domains) >= 20
    assert min(domains.values()) >= 8
    assert max(domains.values()) <= 2 * min(domains.values())
