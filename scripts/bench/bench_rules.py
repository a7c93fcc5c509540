"""What the rules on text cost: dialogues per CPU second.

    python scripts/bench/bench_rules.py [--runs 5] [--dialogues 2000]

The text is that of chatterbot-corpus, verbalised beforehand: its speakable lines of both languages in turn, four to a
dialogue. Everything is done once in each of `runs` rounds after one that warms up. One JSON line a figure, medians over
the rounds, of the CPU time of this process; ratio = value / baseline:

    rules.filter       `unspeakable` and `count_units` on each turn, `text_fault` on the dialogue; baseline: 5,000
    rules.filter.en    the same on English alone; baseline: 5,000
    rules.filter.zh    the same on Mandarin alone; baseline: 5,000
    rules.select       `select_fault` on each raw line, also unspeakable ones, in lines; baseline: count_units on them
    rules.verbalize    `verbalize` on each raw line, in dialogues of four lines; baseline: rules.filter
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import util
from itertools import islice
from pathlib import Path

import yaml

from pipeline.config import FilterConfig
from pipeline.dialogue import Language, Role, Turn
from pipeline.errors import ModelError, SpeechchatError
from pipeline.text.checks import count_units, unspeakable
from pipeline.text.filters import text_fault
from pipeline.text.select import select_fault
from pipeline.text.verbalize import verbalize

TARGET = 5000
"""Dialogues per CPU second that the filter rules are to reach."""
TURNS = 4
FOLDERS: dict[Language, str] = {"en": "english", "zh": "chinese"}
MAX_UNITS: dict[Language, int] = {"en": 60, "zh": 100}
ROLES: tuple[Role, Role] = ("user", "assistant")


class Bench:
    """Lines of the corpus, and dialogues of them: half of each language."""

    def __init__(self, dialogues: int):
        self.config = FilterConfig()
        self.lines = {language: corpus_lines(language) for language in FOLDERS}
        self.dialogues = {language: self._dialogues(language, dialogues // 2) for language in FOLDERS}

    def _dialogues(self, language: Language, count: int) -> list[list[Turn]]:
        turns: list[Turn] = []
        for line in self.lines[language]:
            spoken = verbalize(line, language)
            if unspeakable(spoken, language) is None and count_units(spoken, language) <= MAX_UNITS[language]:
                role = ROLES[len(turns) % len(ROLES)]
                turns.append(Turn(role=role, written=line, spoken=spoken, author="source"))
        whole = [turns[start : start + TURNS] for start in range(0, len(turns) - TURNS + 1, TURNS)]
        return list(islice((item for _ in range(-(-count // len(whole))) for item in whole), count))

    def filter(self, language: Language) -> None:
        for turns in self.dialogues[language]:
            for turn in turns:
                unspeakable(turn.spoken, language)
                count_units(turn.spoken, language)
            text_fault(turns, language, self.config)

    def each_line(self, rule: Callable[[str, Language], object]) -> None:
        for language, lines in self.lines.items():
            for line in lines:
                rule(line, language)

    def seconds(self) -> dict[str, float]:
        """CPU seconds of each task, once."""
        return {
            "en": cpu_seconds(lambda: self.filter("en")),
            "zh": cpu_seconds(lambda: self.filter("zh")),
            "select": cpu_seconds(lambda: self.each_line(select_fault)),
            "count": cpu_seconds(lambda: self.each_line(count_units)),
            "verbalize": cpu_seconds(lambda: self.each_line(verbalize)),
        }


def corpus_lines(language: Language) -> list[str]:
    spec = util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("chatterbot-corpus is not installed: pip install 'speechchat[embedded]'")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / FOLDERS[language]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [
        " ".join(str(line).split())
        for path in sorted(folder.glob("*.yml"))
        for talk in yaml.load(path.read_text("utf-8"), Loader=loader)["conversations"]
        for line in talk
    ]


def cpu_seconds(task: Callable[[], None]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def report(bench: Bench, rounds: Sequence[dict[str, float]]) -> None:
    median = {name: statistics.median(seconds[name] for seconds in rounds) for name in rounds[0]}
    count = {language: len(items) for language, items in bench.dialogues.items()}
    lines = sum(map(len, bench.lines.values()))
    filtered = sum(count.values()) / (median["en"] + median["zh"])
    figures = {
        "filter": (filtered, "dialogues", TARGET),
        "filter.en": (count["en"] / median["en"], "dialogues", TARGET),
        "filter.zh": (count["zh"] / median["zh"], "dialogues", TARGET),
        "select": (lines / median["select"], "lines", lines / median["count"]),
        "verbalize": (lines / TURNS / median["verbalize"], "dialogues", filtered),
    }
    for name, (value, what, baseline) in figures.items():
        line = {
            "name": f"rules.{name}",
            "value": round(value, 1),
            "unit": f"{what}/cpu_s",
            "baseline": round(baseline, 1),
            "ratio": round(value / baseline, 4),
            "runs": len(rounds),
        }
        print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dialogues", type=int, default=2000)
    options = parser.parse_args(arguments)
    try:
        bench = Bench(max(options.dialogues, 2))
        bench.seconds()
        report(bench, [bench.seconds() for _ in range(max(options.runs, 1))])
    except SpeechchatError as error:
        print(f"bench_rules: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
