"""What the barrier between text and speech costs: dialogues per CPU second, memory, and what it finds.

    python scripts/bench/bench_dedup.py [--rows 100000] [--sample 2000] [--files 20000]

The dialogues are synthetic: half English, half Mandarin, four turns, about 70 words or 110 characters. One in ten is an
exact copy of another one in other case and punctuation, one in ten has one to six words or characters changed. Their
making is not timed. One JSON line a figure; CPU seconds are user + system of this process, ratio = value / baseline:

    dedup.near             dialogues a CPU second, texts in memory → verdicts (exact and near), all rows; baseline:
                           datasketch's MinHash and MinHashLSH with as many slots, on the first --sample rows
                           (pip install datasketch==2.0.0; null where it is not installed)
    dedup.recall_exact     share of the exact copies that were dropped
    dedup.recall_near      share of the changed copies dropped that have a true Jaccard similarity of at least 0.8
    dedup.recall_clear     the same, of at least 0.85
    dedup.precision        of what was dropped and is no exact copy, the share with a true similarity of at least 0.8
    dedup.precision_clear  the same, at least 0.75 (the estimate has a standard error of 0.03)
    dedup.rss              MB: peak resident memory after all rows; baseline: before the first
    dedup.disk             bytes a dialogue in the scratch folder
    dedup.benchmarks       bytes of memory a benchmark question, of 10,000 with 30 words
    dedup.barrier          dialogues a CPU second of the whole stage on --files rows, with the benchmarks: from a run
                           folder to its verdicts; baseline: hashing and parsing the same files
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.config import Config, DedupConfig
from pipeline.dialogue import Dialogue, Language, PlannedDialogue, Role, Source, TextLine, Turn
from pipeline.errors import SpeechchatError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.dedup import apply_barrier, read_verdicts
from pipeline.text.decontaminate import Benchmarks
from pipeline.text.dedup import OPEN, SLOTS, Duplicates, Likeness
from pipeline.text.ngrams import UnitHasher, split_units

LIMIT = 0.8
NGRAM: dict[Language, int] = {"en": 3, "zh": 4}
OVERLAP: dict[Language, int] = {"en": 8, "zh": 13}
ROLES: tuple[Role, ...] = ("user", "assistant", "user", "assistant")
LENGTH = 18, 28
BATCH = 2048

Words = list[list[str]]


@cache
def vocabulary() -> tuple[list[str], list[str]]:
    chance = random.Random(0)
    words = {"".join(chance.choices("abcdefghijklmnoprstuvwy", k=chance.randint(2, 9))) for _ in range(20_000)}
    return sorted(words), [chr(code) for code in range(0x4E00, 0x4E00 + 3500)]


class Row:
    """Dialogue `number`, a function of its number. Of each twenty two are copies and two are changed copies of one
    of the first ten of an earlier twenty.

    true: Jaccard similarity to what it is a copy of, 0 if it is none.
    """

    def __init__(self, number: int):
        chance = random.Random(number)
        self.kind = {12: "copy", 13: "copy", 16: "changed", 17: "changed"}.get(number % 20, "") if number >= 20 else ""
        self.language: Language = "zh" if number % 2 else "en"
        if not self.kind:
            self.words = [self._draw(chance, LENGTH[number % 2]) for _ in ROLES]
            self.true = 0.0
            return
        origin = Row(20 * chance.randrange(number // 20) + 2 * chance.randrange(5) + number % 2)
        self.words = [list(turn) for turn in origin.words]
        for _ in range(chance.randint(1, 6) if self.kind == "changed" else 0):
            turn = chance.choice(self.words)
            turn[chance.randrange(len(turn))] = self._draw(chance, 1)[0]
        mine, other = self.shingles(), origin.shingles()
        self.true = len(mine & other) / len(mine | other)

    def _draw(self, chance: random.Random, count: int) -> list[str]:
        return chance.choices(vocabulary()[self.language == "zh"], k=count)

    def shingles(self) -> set[tuple[str, ...]]:
        flat, width = [word for turn in self.words for word in turn], NGRAM[self.language]
        return {tuple(flat[at : at + width]) for at in range(len(flat) - width + 1)}

    def turns(self) -> list[str]:
        """As text, in two ways of writing."""
        gap, comma, end = (" ", ", ", ".") if self.language == "en" else ("", "，", "。")
        if self.kind:
            return [gap.join(turn).upper() + "!" for turn in self.words]
        return [gap.join(turn[:9]).capitalize() + comma + gap.join(turn[9:]) + end for turn in self.words]


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak() -> float:
    """MB; ru_maxrss is in kB on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(name: str, value: float, unit: str, baseline: float | None = None) -> None:
    ratio = round(value / baseline, 4) if baseline else None
    line = {"name": f"dedup.{name}", "value": round(value, 4), "unit": unit, "baseline": baseline, "ratio": ratio}
    print(json.dumps({**line, "runs": 1}), flush=True)


def near(count: int) -> float:
    """All rows through `Duplicates`; returns dialogues a CPU second."""
    vocabulary()
    kinds, truth = np.zeros(count, "U8"), np.zeros(count, np.float32)
    used, before = 0.0, peak()
    with tempfile.TemporaryDirectory() as scratch:
        start = cpu()
        duplicates, hasher = Duplicates(Path(scratch), LIMIT, NGRAM), UnitHasher()
        used += cpu() - start
        for begin in range(0, count, BATCH):
            rows = [Row(number) for number in range(begin, min(begin + BATCH, count))]
            kinds[begin : begin + BATCH] = [row.kind for row in rows]
            truth[begin : begin + BATCH] = [row.true for row in rows]
            texts, languages = [row.turns() for row in rows], [row.language for row in rows]
            start = cpu()
            turns = hasher.hash([split_units(turn) for text in texts for turn in text])
            duplicates.add(turns, [len(text) for text in texts], languages, [OPEN] * len(rows))
            used += cpu() - start
        start = cpu()
        likeness = duplicates.resolve()
        used += cpu() - start
        disk = sum(path.stat().st_size for path in Path(scratch).iterdir())
    quality(likeness, kinds, truth)
    say("rss", peak(), "MB", round(before, 1))
    say("disk", disk / count, "bytes/dialogue")
    return count / used


def quality(likeness: Likeness, kinds: np.ndarray, truth: np.ndarray) -> None:
    dropped = likeness.of >= 0
    say("recall_exact", dropped[kinds == "copy"].mean(), "share")
    for name, least in (("near", 0.8), ("clear", 0.85)):
        say(f"recall_{name}", dropped[(kinds == "changed") & (truth >= least)].mean(), "share")
    for name, least in (("", 0.8), ("_clear", 0.75)):
        say(f"precision{name}", (truth[dropped & (kinds != "copy")] >= least).mean(), "share")


def datasketch_rate(count: int) -> float | None:
    try:
        from datasketch import MinHash, MinHashLSH  # the only place that needs it
    except ImportError:
        return None
    rows = [Row(number) for number in range(count)]
    start = cpu()
    index = MinHashLSH(threshold=LIMIT, num_perm=SLOTS)
    for number, row in enumerate(rows):
        signature = MinHash(num_perm=SLOTS)
        signature.update_batch([" ".join(shingle).encode() for shingle in row.shingles()])
        if not index.query(signature):
            index.insert(number, signature)
    return round(count / (cpu() - start), 1)


def barrier(count: int) -> None:
    """The stage on a run folder of `count` dialogues."""
    config = Config(dialogues=count, unit_size=50, languages={"en": 1, "zh": 1}, dedup=DedupConfig(enabled=True))
    with tempfile.TemporaryDirectory() as place:
        questions = Path(place) / "questions.txt"
        questions.write_text("\n".join(question(number) for number in range(10_000)), "utf-8")
        benchmarks = Benchmarks([questions], OVERLAP)
        say("benchmarks", benchmarks.nbytes / 10_000, "bytes/question")
        dedup = config.dedup.model_copy(update={"benchmarks": (questions,)})
        config, folder = config.model_copy(update={"dedup": dedup}), RunFolder(Path(place) / "run")
        for unit in plan_units(config):
            publish(folder.text(unit.number), "".join(line(plan) for plan in unit.dialogues).encode())
        files = sorted((folder.root / "dialogues").rglob("*.jsonl"))
        start = cpu()
        for path in files:
            data = path.read_bytes()
            hashlib.sha256(data).hexdigest()
            for item in data.splitlines():
                json.loads(item)
        bare, start = cpu() - start, cpu()
        apply_barrier(config, folder, lambda: plan_units(config), lambda done, total: None)
        used = cpu() - start
        dropped = sum(len(read_verdicts(folder, number)) for number in range(len(files)))
    if not 0.1 * count < dropped < 0.2 * count:
        raise RuntimeError(f"{dropped} of {count} dialogues dropped: the bench is broken")
    say("barrier", count / used, "dialogues/cpu_s", round(count / bare, 1))


def question(number: int) -> str:
    return " ".join(random.Random(f"question {number}").choices(vocabulary()[0], k=30))


def line(plan: PlannedDialogue) -> str:
    row = Row(50 * plan.unit + plan.index)
    turns = tuple(
        Turn(role=role, written=text, spoken=text, author="source")
        for role, text in zip(ROLES, row.turns(), strict=True)
    )
    dialogue = Dialogue(plan=plan, system="", source=Source(name="b", license="CC0-1.0", row=plan.id), turns=turns)
    return TextLine(plan=plan, dialogue=dialogue, reject=None, failed=()).model_dump_json() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=2_000)
    parser.add_argument("--files", type=int, default=20_000, help="a multiple of 50")
    options = parser.parse_args(arguments)
    try:
        rate = near(options.rows)
        say("near", rate, "dialogues/cpu_s", datasketch_rate(options.sample))
        barrier(options.files)
    except SpeechchatError as error:
        print(f"bench_dedup: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
