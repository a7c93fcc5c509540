"""What a stream says of damage, of options and states that cannot be."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyarrow.compute import field, if_else

from pipeline.errors import DataError, UsageError
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder
from pipeline.training.items import Batches
from pipeline.training.state import merge_states
from pipeline.training.stream import DialogueStream
from tests.training.taking import names, take

# ---- damage ----


def spoil(run: RunFolder, folder: Path, what: str) -> RunFolder:
    copy = RunFolder(Path(shutil.copytree(run.root, folder / "run")))
    tar = copy.shard(0, "train")
    data = bytearray(tar.read_bytes())
    first = next(read_unit(copy, next(iter(copy.manifests()))))
    if what == "missing":
        tar.unlink()
        return copy
    if what == "cut":
        del data[-600:]
    else:
        at = {
            "header": 100,
            "json": 700,
            "user": data.find(first.user) + 4000,
            "assistant": data.find(first.assistant) + 4000,
        }
        data[at[what]] ^= 4
    tar.write_bytes(data)
    return copy


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("header", r"\.json: its tar header is damaged"),
        ("json", r"en-000000-02\.json: its checksum is not the one of the index: damaged"),
        ("user", r"en-000000-02\.user\.flac: its checksum"),
        ("assistant", r"en-000000-02\.assistant\.flac: its checksum"),
        ("cut", r"bytes where \d+ were published: cut, or changed since"),
        ("missing", "this shard is missing"),
    ],
)
def test_damage_is_named_and_ends_the_stream(
    run: RunFolder, tmp_path: Path, what: str, says: str, decode: bool
) -> None:
    copy = spoil(run, tmp_path, what)
    with pytest.raises(DataError, match=rf"unit-000000\.tar: .*{says}"):
        take(DialogueStream(copy.root, decode=decode, cache=tmp_path))


@pytest.mark.parametrize(("what", "lost"), [("user", 1), ("missing", 3)])
@pytest.mark.parametrize("options", [{}, {"batches": Batches(100.0)}, {"threads": 2}])
def test_damage_is_passed_over_aloud(
    run: RunFolder, tmp_path: Path, what: str, lost: int, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    copy = spoil(run, tmp_path, what)
    lost = len([1 for _ in read_unit(run, next(iter(run.manifests())))]) if what == "missing" else lost
    stream = DialogueStream(copy.root, damage="skip", cache=tmp_path, **options)
    found = []
    for item in stream:
        found += names(item)
        state = stream.state_dict()
    assert len(found) == 22 - lost and stream.skipped == lost
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == lost and all("unit-000000.tar" in line for line in lines)
    resumed = DialogueStream(copy.root, damage="skip", cache=tmp_path, **options)
    resumed.load_state_dict(state)
    assert take(resumed) == [] and resumed.skipped == lost


def test_damage_is_counted_once_through_resumes(run: RunFolder, tmp_path: Path) -> None:
    copy = spoil(run, tmp_path, "missing")
    lost = len([1 for _ in read_unit(run, next(iter(run.manifests())))])
    states: list[dict[str, Any]] = []
    for counts in [(7, 6), (2, 1), (1, 1), (None, None)]:
        world = [DialogueStream(copy.root, damage="skip", rank=rank, ranks=2, cache=tmp_path) for rank in range(2)]
        for stream in world:
            if states:
                stream.load_state_dict(states)
        before = world[0].skipped
        for stream, count in zip(world, counts, strict=True):
            take(stream, count)
        states = [stream.state_dict() for stream in world]
    assert sum(stream.skipped - before for stream in world) + before == lost


@pytest.mark.parametrize("turns", ["user", "assistant"])
def test_damage_outside_the_turns_that_are_asked_for_harms_nobody(run: RunFolder, tmp_path: Path, turns: Any) -> None:
    copy = spoil(run, tmp_path, "user")
    stream = DialogueStream(copy.root, turns=turns, cache=tmp_path)
    if turns == "user":
        with pytest.raises(DataError, match=r"en-000000-02\.user\.flac \(turn 0\): its checksum"):
            take(stream)
    else:
        assert len(take(stream)) == 22


def test_headers_only_pass_over_the_payload(run: RunFolder, tmp_path: Path) -> None:
    copy = spoil(run, tmp_path, "user")
    assert len(take(DialogueStream(copy.root, decode=False, check="headers", cache=tmp_path))) == 22


def test_a_damaged_index_is_named(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.root, tmp_path / "run")))
    path = copy.index(3, "train")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"unit-000003\.parquet: its SHA-256"):
        DialogueStream(copy.root, cache=tmp_path)


def test_the_cache_is_of_the_run_as_it_is(run: RunFolder, tmp_path: Path) -> None:
    """A unit that is made anew, or added, is seen."""
    copy = RunFolder(Path(shutil.copytree(run.root, tmp_path / "run")))
    manifest = copy.manifest(5, "train")
    data = manifest.read_bytes()
    manifest.unlink()
    assert len(DialogueStream(copy.root, cache=tmp_path / "c")) == 18
    manifest.write_bytes(data)
    assert len(DialogueStream(copy.root, cache=tmp_path / "c")) == 22
    assert len(list((tmp_path / "c").glob("*-base-*"))) == 1
    assert len(DialogueStream(copy.root, cache=manifest)) == 22  # where no cache can be: it only costs time


def test_the_cache_serves_a_process_in_another_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.root.parent)
    relative = DialogueStream(run.root.name, decode=False, cache=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(take(DialogueStream(run.root, decode=False, cache=tmp_path))) == 22
    assert len(take(relative)) == 22


def test_a_cache_that_cannot_be_written_leaves_nothing(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert len(DialogueStream(run.root, cache=tmp_path)) == 22
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}


def test_ranks_that_begin_at_once_read_each_index_once(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, found = Path.read_bytes, Counter[str]()

    def counted(path: Path) -> bytes:
        if path.suffix == ".parquet":
            time.sleep(0.05)  # until the others have begun as well
            found[path.name] += 1
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    with ThreadPoolExecutor(4) as pool:
        world = list(pool.map(lambda rank: DialogueStream(run.root, rank=rank, ranks=4, cache=tmp_path), range(4)))
    assert found == {f"unit-{unit:06d}.parquet": 1 for unit in range(6)}
    assert sum(map(len, world)) == 22


def test_a_file_beside_the_folders_of_shards_harms_nobody(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.root, tmp_path / "run")))
    (copy.root / "shards/train/.DS_Store").write_bytes(b"x")
    assert len(DialogueStream(copy.root, cache=tmp_path)) == 22


# ---- bad input ----


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rank": 2, "ranks": 2}, r"^rank 2 is none of 2 ranks"),
    ({"rank": "1", "ranks": 2}, r"^rank '1' is none of 2 ranks"),
    ({"split": "tset"}, r"no finished shard of split 'tset'; this run has: train"),
    ({"where": field("languge") == "zh"}, r"^where: dialogues have no 'languge'; did you mean 'language'\?"),
    ({"where": field("duration")}, r"^where: duration gives double, not true or false"),
    ({"where": "language == 'zh'"}, r"^where: .* is none of pyarrow's expressions"),
    ({"where": field("language") > 3}, r"^where: "),
    ({"where": field("duration") < 0}, r"^nothing is left of 22 dialogues by where=\(duration < 0\)"),
    ({"turns": "asistant"}, r"^turns: 'asistant' is none of user, assistant"),
    ({"turns": field("snrr") > 3}, r"^turns: turns have no 'snrr'; did you mean 'snr'\?"),
    ({"weights": field("duration") - 100}, r"^weights: .* is not a number of at least 0"),
    ({"weights": if_else(field("language") == "ch", 1.0, 0.0)}, r"^weights: nothing is left: .* is 0 for every"),
    ({"weights": field("key")}, r"^weights: key gives string, not numbers"),
    ({"batches": Batches(2.0)}, r"^batches\.budget: ..-00000\d-0\d has [\d.]+ by itself, and a batch holds 2"),
    ({"each": "word"}, r"^each: 'word' is none of dialogue, turn"),
    ({"damage": "ignore"}, r"^damage: 'ignore' is none of raise, skip"),
    ({"shuffle": -1}, r"^shuffle and threads: not below 0"),
    ({"decode": False, "turns": "user"}, r"^decode=False gives whole dialogues"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "says"), BAD)
def test_what_cannot_be_is_said_at_once(run: RunFolder, cache: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        DialogueStream(run.root, **{"cache": cache, **options})


def test_batches_of_nothing() -> None:
    with pytest.raises(UsageError, match=r"^batches\.most: 0 is not above 0"):
        Batches(1.0, most=0)


@pytest.mark.parametrize("epoch", [1.0, "1", None])
def test_an_epoch_that_is_no_number(run: RunFolder, cache: Path, epoch: Any) -> None:
    with pytest.raises(UsageError, match=r"^set_epoch: .* is no whole number"):
        DialogueStream(run.root, cache=cache).set_epoch(epoch)


def test_the_world_is_found_in_the_environment(run: RunFolder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    stream = DialogueStream(run.root, cache=cache)
    assert (stream.rank, stream.ranks, len(stream)) == (1, 3, 7)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="was made as rank 1 of 3, and this process is 1 of 2"):
        next(iter(stream))
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UsageError, match="no numbers"):
        DialogueStream(run.root, cache=cache)


def other(run: RunFolder, folder: Path) -> Path:
    """The run with one unit less."""
    copy = RunFolder(Path(shutil.copytree(run.root, folder / "less")))
    copy.manifest(5, "train").unlink()
    return copy.root


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, "with seed=0, and this one has seed=1"),
        ({"shuffle": 7}, "with shuffle=4096, and this one has shuffle=7"),
        ({"where": field("turns") > 1}, r"with where=None, and this one has where=\(turns > 1\)"),
        ({"batches": Batches(99.0)}, r"with batches\.budget=unset, and this one has batches\.budget=99"),
    ],
)
def test_a_state_of_another_stream(run: RunFolder, cache: Path, options: dict[str, Any], says: str) -> None:
    state = DialogueStream(run.root, cache=cache).state_dict()
    with pytest.raises(UsageError, match=says):
        DialogueStream(run.root, cache=cache, **options).load_state_dict(state)


@pytest.mark.parametrize("option", ["where", "weights"])
def test_a_state_of_a_choice_whose_text_is_too_long_to_tell(
    run: RunFolder, cache: Path, keys: list[str], option: str
) -> None:
    """pyarrow shows the ends of a long list only."""

    def stream(key: str) -> DialogueStream:
        chosen = field("key").isin(["a"] * 20 + [key] + ["z"] * 20)
        return DialogueStream(
            run.root, cache=cache, **{option: chosen if option == "where" else if_else(chosen, 1.0, 0.0)}
        )

    stream(keys[0]).load_state_dict(stream(keys[0]).state_dict())
    with pytest.raises(UsageError, match=r"where, turns, weights or batches\.length chose or weighed other items"):
        stream(keys[1]).load_state_dict(stream(keys[0]).state_dict())


def test_a_state_of_other_data(run: RunFolder, cache: Path, tmp_path: Path) -> None:
    state = DialogueStream(run.root, cache=cache).state_dict()
    with pytest.raises(UsageError, match=r"of other data: .*22 samples in 6 shards.*18 samples in 5 shards"):
        DialogueStream(other(run, tmp_path), cache=cache).load_state_dict(state)


def states(run: RunFolder, cache: Path, ranks: Sequence[int] = (0, 1)) -> list[dict[str, Any]]:
    found = []
    for rank in ranks:
        stream = DialogueStream(run.root, decode=False, rank=rank, ranks=2, cache=cache)
        take(stream, 3 + rank)
        found.append(stream.state_dict())
    return found


def test_states_that_do_not_make_one(run: RunFolder, cache: Path) -> None:
    first, second = states(run, cache)
    stream = DialogueStream(run.root, decode=False, cache=cache)
    stream.load_state_dict(first)
    with pytest.raises(UsageError, match=r"of consumer 0 out of 2, and this is 0 out of 1 .*the states of all ranks"):
        next(iter(stream))
    (again,) = states(run, cache, [1])
    assert merge_states([first, second, again]) == merge_states([second, first])  # the same one twice does no harm
    third = DialogueStream(run.root, decode=False, rank=1, ranks=2, cache=cache)
    take(third, 1)
    with pytest.raises(UsageError, match="two of these states are of consumer 1, and differ"):
        merge_states([first, second, third.state_dict()])
    alone = DialogueStream(run.root, decode=False, cache=cache)
    take(alone, 1)
    with pytest.raises(UsageError, match="not of one moment"):
        merge_states([first, alone.state_dict()])
    alone.set_epoch(5)
    with pytest.raises(UsageError, match=r"of epochs \[0, 5\]"):
        merge_states([first, alone.state_dict()])


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "no state of a stream"),
        ({"model": [1, 2]}, "no state of a stream"),
        ({"speechchat_stream": {"version": 99}}, "has version 99"),
        ({"speechchat_stream": None}, "has version None"),
        ({"speechchat_stream": {"version": 1, "epoch": "x"}}, "damaged: data: Field required"),
    ],
)
def test_what_is_no_state(run: RunFolder, cache: Path, state: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        DialogueStream(run.root, cache=cache).load_state_dict(state)


@pytest.mark.parametrize(
    "change", [{"items": 23}, {"open": {"world": 1, "done": {"0": 23}}}, {"open": {"world": 1, "done": {"0": -1}}}]
)
def test_a_state_that_cannot_be(run: RunFolder, cache: Path, change: dict[str, Any]) -> None:
    state = DialogueStream(run.root, cache=cache).state_dict()
    state["speechchat_stream"] |= change
    with pytest.raises(UsageError, match="damaged"):
        DialogueStream(run.root, cache=cache).load_state_dict(state)
