"""Between text and speech: stopping there, editing by hand, and the barrier, through both engines."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.dialogue import Sample
from pipeline.engine.regate import regate
from pipeline.engine.run import load_frozen, run
from pipeline.errors import EndpointError, RunIncomplete
from pipeline.plan import plan_units
from pipeline.shards.reader import read_rejects, read_unit
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from tests.engine.campaign import ADJECTIVES, PLACES, THINGS, configure, part
from tests.fakes import Silent, tree
from tests.faults import tools
from tests.faults.tools import Driver
from tests.sources.data import write

SIZE = 4  # dialogues of a unit
QUESTION = "How many ladders does a famous orchard need before the market opens on a rainy Friday?"
WEB = "You can see all of it on http://example.org if you like."
# What became of the sixteen dialogues that RUN holds, where nobody edits them.
DROPPED = {2: "near duplicate", 3: "contaminated", 4: "duplicate", 7: "near duplicate", 11: "near duplicate"}
GROWN = {12: "near duplicate", 15: "duplicate"}


def story(seed: object) -> str:
    chance = random.Random(str(seed))
    first, second, third = chance.sample(THINGS, 3)
    old, new = chance.sample(ADJECTIVES, 2)
    here, there = chance.sample(PLACES, 2)
    return (
        f"Last week I saw the {old} {first} by the {here}, and then somebody painted the {second} "
        f"so that it looked {new} from the {there}, which made me think of a {third}."
    )


def near(text: str) -> str:
    return text.removesuffix(".") + " again."


def rows() -> list[dict[str, Any]]:
    """Dialogues to be spoken as they are: the n-th one is that of the n-th row."""
    told = {number: story(number) for number in range(18)}
    told |= {2: near(told[0]), 3: f"{told[3]} {QUESTION}", 4: told[1].upper(), 7: near(told[5]), 11: near(told[8])}
    told |= {12: near(told[6]), 15: told[8]}
    return [{"messages": [said, f"I see, {said[0].lower()}{said[1:60].rsplit(' ', 1)[0]}."]} for said in told.values()]


def key(number: int) -> str:
    return f"en-{number // SIZE:06d}-{number % SIZE:02d}"


Make = Callable[..., Config]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


def maker(root: Path) -> Make:
    """Makes configurations over the rows, with the barrier."""
    (root / "exam.txt").write_text(f"{QUESTION}\n")
    data = write(root / "rows.jsonl", rows())
    talk = {"kind": "dialogues", "data": str(data), "license": "MIT"}

    def make(kind: str = "local", dialogues: int = 16, **changes: Any) -> Config:
        dedup = {"enabled": True, "benchmarks": [str(root / "exam.txt")]}
        settings = {"unit_size": SIZE, "sources": {"talk": talk}, "text__converse": {"mode": "none"}, "dedup": dedup}
        return configure(root / "run.yaml", "http://127.0.0.1:9/v1", kind, dialogues=dialogues, **settings | changes)

    return make


def spoken(folder: RunFolder, config: Config) -> dict[str, Sample]:
    """Samples by id."""
    found: dict[str, Sample] = {}
    for unit in plan_units(config):
        manifest = folder.load_manifest(unit.number, unit.split)
        assert manifest is not None
        found |= {item.sample.key: item.sample for item in read_unit(folder, manifest)}
    return found


def rejected(folder: RunFolder, config: Config) -> dict[str, tuple[str, str]]:
    """Stage and reason by id."""
    found: dict[str, tuple[str, str]] = {}
    for unit in plan_units(config):
        manifest = folder.load_manifest(unit.number, unit.split)
        assert manifest is not None
        found |= {item.id: (item.stage, item.reason) for item, _ in read_rejects(folder, manifest)}
    return found


def checked(folder: RunFolder) -> list[str]:
    *_, state = verify(folder, load_frozen(folder)[0], decode=True)
    return state.problems


def edit(folder: RunFolder, number: int, place: int, said: str) -> None:
    """As somebody does with an editor."""
    path = folder.text(number // SIZE)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[number % SIZE]["dialogue"]["turns"][place] |= {"written": said, "spoken": said, "author": "human"}
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


@pytest.fixture(scope="module")
def edited(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], tuple[RunFolder, Config, Stats]]:
    """A run of each engine that was stopped behind the text, edited, and finished."""
    made: dict[str, tuple[RunFolder, Config, Stats]] = {}
    root = tmp_path_factory.mktemp("edited")

    def of(kind: str) -> tuple[RunFolder, Config, Stats]:
        if kind not in made:
            if kind == "ray":
                request.getfixturevalue("ray_here")
            config, folder, observer = maker(root)(kind, engine__studios=1), RunFolder(root / kind), Silent()
            run(config, folder.root, observer, until="write")
            names = {path.partition("/")[0] for path in tree(folder.root)}
            assert names == {"config.yaml", "sources", "dialogues", "dedup", "stats.json", "README.md"}
            assert verdicts(folder) == {**DROPPED, **GROWN} and observer.units == []
            edit(folder, 9, 1, WEB)
            for place, said in enumerate(rows()[0]["messages"]):
                edit(folder, 10, place, said)
            edit(folder, 11, 0, story("by hand"))
            edit(folder, 13, 1, "That is what a person wrote.")
            made[kind] = folder, config, run(config, folder.root, observer)
            assert sorted(observer.units) == [0, 1, 2, 3] and observer.troubles == []
        return made[kind]

    return of


def verdicts(folder: RunFolder) -> dict[int, str]:
    files = sorted((folder.root / "dedup").rglob("*.jsonl"))
    found = [json.loads(line) for path in files for line in path.read_text().splitlines()[1:]]
    return {int(item["id"][3:9]) * SIZE + int(item["id"][-2:]): item["reason"] for item in found}


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_what_was_edited_is_spoken_as_edited_and_judged_again(
    edited: Callable[[str], tuple[RunFolder, Config, Stats]], kind: str
) -> None:
    folder, config, stats = edited(kind)
    samples, refused = spoken(folder, config), rejected(folder, config)
    assert {turn.author for turn in samples[key(0)].turns} == {"source"}
    for number, place, said in ((11, 0, story("by hand")), (13, 1, "That is what a person wrote.")):
        turn = samples[key(number)].turns[place]
        assert (turn.spoken, turn.author, turn.transcript) == (said, "human", said)
    expected = {key(number): ("dedup", reason) for number, reason in {**DROPPED, **GROWN}.items() if number != 11}
    # Number 11 is like nobody any more, number 10 is now like number 0, and number 9 cannot be said.
    assert refused == {**expected, key(10): ("dedup", "duplicate"), key(9): ("filter", "url")}
    assert stats.planned == 16 == stats.accepted + sum(stats.rejected.values())
    assert stats.rejected == {
        "dedup: contaminated": 1,
        "dedup: duplicate": 3,
        "dedup: near duplicate": 3,
        "filter: url": 1,
    }
    assert set(samples) | set(refused) == {key(number) for number in range(16)}
    assert checked(folder) == []


def test_both_engines_make_the_same_run(edited: Callable[[str], tuple[RunFolder, Config, Stats]]) -> None:
    local, ray = (tree(edited(kind)[0].root) for kind in ("local", "ray"))
    assert local == ray and sum(name.endswith(".tar") for name in local) >= 4


def test_a_run_from_a_file_can_be_judged_again(
    edited: Callable[[str], tuple[RunFolder, Config, Stats]], tmp_path: Path
) -> None:
    folder, _, stats = edited("local")
    again = regate(folder.root, tmp_path / "again", ["judge.limits.en.wer=0.5"], Silent())
    assert (again.accepted, again.rejected) == (stats.accepted, stats.rejected)
    assert checked(RunFolder(tmp_path / "again")) == []


def test_growing_touches_nothing_that_was_there(make: Make, tmp_path: Path) -> None:
    run(make(), tmp_path / "at once", Silent())
    folder = RunFolder(tmp_path / "grown")
    run(make(dialogues=12), folder.root, Silent())
    assert verdicts(folder) == DROPPED
    units = [path for path in folder.root.rglob("unit-*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in units}
    observer = Silent()
    run(make(), folder.root, observer)
    assert observer.units == [3] and verdicts(folder) == {**DROPPED, **GROWN}
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in units} == before
    assert tree(folder.root) == tree(tmp_path / "at once")
    # With more dialogues than rows, the rest is rejected for that.
    stats = run(make(dialogues=20), folder.root, Silent())
    assert stats.rejected["source: exhausted"] == 2 and stats.planned == 20
    assert stats.accepted + sum(stats.rejected.values()) == 20 and checked(folder) == []


class Stopped(Silent):
    """Ctrl-C while the barrier reads."""

    def compared(self, done: int, total: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.faults
def test_killed_between_text_and_speech(make: Make, tmp_path: Path) -> None:
    run(make(), tmp_path / "undisturbed", Silent())
    folder = RunFolder(tmp_path / "run")
    driver = Driver(tmp_path / "run.yaml", folder.root, "--engine", "local")
    driver.until(folder.text(3).exists)
    driver.kill()
    assert not tools.manifests(folder.root) and len(part(tree(folder.root), "dialogues")) >= 4
    shutil.rmtree(folder.root / "dedup", ignore_errors=True)  # so that the barrier has something to do
    with pytest.raises(KeyboardInterrupt):
        run(make(), folder.root, Stopped())
    assert not tools.manifests(folder.root)
    run(make(), folder.root, Silent())
    assert tree(folder.root) == tree(tmp_path / "undisturbed")


def test_a_line_that_is_no_json_costs_its_own_unit_only(make: Make, tmp_path: Path) -> None:
    config, folder, observer = make(dedup={"enabled": False}), RunFolder(tmp_path / "run"), Silent()
    run(config, folder.root, observer, until="write")
    path = folder.text(2)
    text = path.read_text("utf-8")
    lines = text.splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "{not json\n", lines[3]]), "utf-8")
    with pytest.raises(RunIncomplete, match="1 of 4 units"):
        run(config, folder.root, observer)
    assert sorted(observer.units) == [0, 1, 3]
    [trouble] = observer.troubles
    assert trouble.startswith("unit 2 is quarantined") and f"{path}: line 3: Invalid JSON" in trouble
    path.write_text(text, "utf-8")
    stats = run(config, folder.root, observer)
    assert stats.accepted == 16 and not part(tree(folder.root), "quarantine")


def test_rows_that_nothing_came_of_are_drawn_anew(make: Make, tmp_path: Path) -> None:
    """Until something was paid for or written, another configuration is welcome; the old one's rows are none of it."""
    folder = RunFolder(tmp_path / "run")
    whole = {"kind": "conversations", "data": str(tmp_path / "rows.jsonl"), "license": "MIT"}
    first = make(dialogues=4, sources={"whole": whole}, text__converse={"mode": "reword"})
    with pytest.raises(EndpointError):
        run(first, folder.root, Silent(), until="write")
    assert folder.rows(0).exists()
    data = write(tmp_path / "other.jsonl", rows()[4:8])
    changed = make(dialogues=4, sources={"other": {**whole, "kind": "dialogues", "data": str(data)}})
    run(changed, folder.root, Silent(), until="write")
    run(changed, tmp_path / "undisturbed", Silent(), until="write")
    assert tree(folder.root) == tree(tmp_path / "undisturbed")
