"""The stream: every sample once an epoch, whoever reads it and whenever they stop; and what was asked for of each."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.compute import field, if_else

from pipeline import audio
from pipeline.dialogue import SampleTurn
from pipeline.errors import DataError, UsageError
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder
from pipeline.training.items import Batches
from pipeline.training.reading import DialogueExample, RawExample, TurnsExample
from pipeline.training.state import merge_states
from pipeline.training.stream import DialogueStream

OPTIONS: list[dict[str, Any]] = [
    {},
    {"shuffle": 0},
    {"shuffle": 5, "tail": "drop"},
    {"batches": Batches(30.0, pool=8)},
    {"each": "turn", "turns": "assistant", "batches": Batches(6.0, padded=False)},
    {"weights": if_else(field("language") == "zh", 1.5, 0.5)},
]


def names(item: Any) -> list[tuple[str, int]]:
    """Of an item: (key, turn) of all that is in it."""
    return [(one.key, getattr(one, "turn", -1)) for one in (item if isinstance(item, list) else [item])]


def take(stream: DialogueStream, count: int | None = None) -> list[tuple[str, int]]:
    found = []
    for number, item in enumerate(stream, 1):
        found += names(item)
        if number == count:
            break
    return found


@pytest.fixture(scope="module")
def encoded(run: RunFolder) -> dict[str, Any]:
    return {item.sample.key: item for manifest in run.manifests() for item in read_unit(run, manifest)}


def score(turn: SampleTurn, name: str) -> float:
    return next(score.value for score in turn.scores if score.name == name)


# ---- once an epoch ----


@settings(max_examples=40, deadline=None)
@given(option=st.sampled_from(OPTIONS), worlds=st.lists(st.integers(1, 4), max_size=3), data=st.data())
def test_every_item_once_an_epoch_through_any_stops(
    run: RunFolder, cache: Path, option: dict[str, Any], worlds: list[int], data: st.DataObject
) -> None:
    """Random worlds, which stop at random places; each rank's state is saved as JSON, and the next world is another."""

    def streams(ranks: int) -> list[DialogueStream]:
        options = {"decode": "each" in option, **option, "seed": 3, "cache": cache, "ranks": ranks}
        return [DialogueStream(run.root, rank=rank, **options) for rank in range(ranks)]

    whole = take(streams(1)[0])
    found: list[tuple[str, int]] = []
    states: list[str] = []
    for ranks in worlds:
        world = streams(ranks)
        for stream in world:
            if states:
                stream.load_state_dict([json.loads(state) for state in states])
        states = []
        for stream in world:
            count = data.draw(st.integers(0, 8))
            if count and stream.epoch == 0:
                found += take(stream, count)
            states.append(json.dumps(stream.state_dict()))
    last = streams(1)[0]
    if states:
        last.load_state_dict(merge_states(map(json.loads, states)))
    if last.epoch == 0:
        found += take(last)
    if option.get("tail") == "drop":  # what does not come out even was left out, and nothing came twice
        assert Counter(found) <= Counter(whole) and len(whole) - len(found) < 4
    else:
        assert Counter(found) == Counter(whole)


def test_an_epoch_is_everything_in_an_order_of_its_own(run: RunFolder, cache: Path, keys: list[str]) -> None:
    stream = DialogueStream(run.root, decode=False, cache=cache)
    epochs = [[key for key, _ in take(stream)] for _ in range(3)]
    assert all(sorted(epoch) == sorted(keys) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = DialogueStream(run.root, decode=False, cache=cache)
    again.set_epoch(2)
    assert [key for key, _ in take(again)] == epochs[2]
    assert [key for key, _ in take(DialogueStream(run.root, decode=False, shuffle=0, cache=cache))] == keys


@pytest.mark.parametrize(
    ("ranks", "tail", "counts"), [(4, "keep", [6, 6, 5, 5]), (4, "drop", [5] * 4), (30, "drop", [0] * 30)]
)
def test_ranks_share_alike(run: RunFolder, cache: Path, ranks: int, tail: Any, counts: list[int]) -> None:
    world = [DialogueStream(run.root, decode=False, rank=r, ranks=ranks, tail=tail, cache=cache) for r in range(ranks)]
    found = [take(stream) for stream in world]
    assert [len(own) for own in found] == [len(stream) for stream in world] == counts
    assert max(Counter(item for own in found for item in own).values(), default=1) == 1


def test_the_same_world_goes_on_where_it_was(run: RunFolder, cache: Path) -> None:
    """To the sample, from the state of each rank by itself."""
    for rank in range(2):
        stream = DialogueStream(run.root, rank=rank, ranks=2, decode=False, cache=cache)
        whole = take(DialogueStream(run.root, rank=rank, ranks=2, decode=False, cache=cache))
        before = take(stream, 4)
        resumed = DialogueStream(run.root, rank=rank, ranks=2, decode=False, cache=cache)
        resumed.load_state_dict(stream.state_dict())
        resumed.set_epoch(0)  # as a training loop says before each epoch; it is in this one already
        assert before + take(resumed) == whole
        assert resumed.epoch == 1 and len(take(resumed)) == 11


def test_a_state_between_epochs(run: RunFolder, cache: Path, keys: list[str]) -> None:
    """Who has finished is in the next epoch already when another rank is saved in this one."""
    world = [DialogueStream(run.root, rank=r, ranks=2, decode=False, cache=cache) for r in range(2)]
    found = take(world[0]) + take(world[1], 10)
    rest = DialogueStream(run.root, decode=False, cache=cache)
    rest.load_state_dict([stream.state_dict() for stream in world])
    found += take(rest)
    assert sorted(key for key, _ in found) == sorted(keys)


def test_a_spawned_copy_opens_the_data_itself(run: RunFolder, cache: Path) -> None:
    stream = DialogueStream(run.root, decode=False, cache=cache, where=field("language") == "zh")
    before = take(stream, 3)
    copy = pickle.loads(pickle.dumps(stream))
    assert before + take(copy) == take(
        DialogueStream(run.root, decode=False, cache=cache, where=field("language") == "zh")
    )


# ---- what an item holds ----


def test_raw_dialogues_are_the_members(run: RunFolder, cache: Path, encoded: dict[str, Any]) -> None:
    for item in DialogueStream(run.root, decode=False, cache=cache):
        assert isinstance(item, RawExample)
        members = dict(encoded[item.key].members())
        assert (item.json, item.user, item.assistant) == tuple(
            members[name] for name in ("json", "user.flac", "assistant.flac")
        )


def test_dialogues_are_decoded_whole(run: RunFolder, cache: Path, encoded: dict[str, Any]) -> None:
    for item in DialogueStream(run.root, cache=cache):
        assert isinstance(item, DialogueExample)
        own = encoded[item.key]
        assert item.sample == own.sample
        assert np.array_equal(item.user, audio.decode(own.user)[0])
        assert np.array_equal(item.assistant, audio.decode(own.assistant)[0])


@pytest.mark.parametrize("each", ["dialogue", "turn"])
@pytest.mark.parametrize(
    ("turns", "chosen"),
    [
        ("assistant", lambda number, turn, count: turn.role == "assistant"),
        ("user", lambda number, turn, count: turn.role == "user"),
        (field("turn") == field("turns") - 1, lambda number, turn, count: number == count - 1),
        (field("seconds") < 1.5, lambda number, turn, count: turn.end - turn.start < 1.5),
        (field("pace") > 0.9, lambda number, turn, count: score(turn, "pace") > 0.9),
        (field("error_rate") >= 0, lambda number, turn, count: True),
    ],
)  # fmt: skip
def test_turns_are_those_of_the_tracks(
    run: RunFolder, cache: Path, encoded: dict[str, Any], each: Any, turns: Any, chosen: Any
) -> None:
    """Sample for sample, though no more was read than their frames."""
    found = []
    for item in DialogueStream(run.root, each=each, turns=turns, cache=cache):
        if each == "dialogue":
            assert isinstance(item, TurnsExample) and item.sample == encoded[item.key].sample
            assert [one.turn for one in item.turns] == sorted(one.turn for one in item.turns)
        found += item.turns if each == "dialogue" else [item]
    expected = {
        (key, number)
        for key, item in encoded.items()
        for number, turn in enumerate(item.sample.turns)
        if chosen(number, turn, len(item.sample.turns))
    }
    assert Counter((one.key, one.turn) for one in found) == Counter(expected) and expected
    for one in found:
        own = encoded[one.key]
        turn = own.sample.turns[one.turn]
        track, rate = audio.decode(own.user if turn.role == "user" else own.assistant)
        assert (one.role, one.text, one.start, one.rate) == (turn.role, turn.spoken, turn.start, rate)
        assert one.loss == (turn.role == "assistant") and one.language == own.sample.language
        assert np.array_equal(one.audio, audio.from_pcm(track[round(turn.start * rate) : round(turn.end * rate)]))


def test_threads_change_nothing(run: RunFolder, cache: Path) -> None:
    options: dict[str, Any] = {"each": "turn", "batches": Batches(9.0), "cache": cache}
    plain, ahead = DialogueStream(run.root, **options), DialogueStream(run.root, threads=3, **options)
    assert take(ahead, 2) == take(plain, 2)
    assert ahead.state_dict() == plain.state_dict()
    assert take(ahead) == take(plain)


# ---- which, and how often ----


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (field("language") == "en", lambda sample: sample.language == "en"),
        ((field("turns") > 2) & (field("seconds") < 100), lambda sample: len(sample.turns) > 2),
        (field("pace_max") > 1, lambda sample: max(score(turn, "pace") for turn in sample.turns) > 1),
        (field("pace_mean") > 0.95, lambda sample: np.mean([score(turn, "pace") for turn in sample.turns]) > 0.95),
        (field("snr_min") > 32, lambda sample: min(score(turn, "snr") for turn in sample.turns) > 32),
        (field("source_name") != "", lambda sample: True),
    ],
)  # fmt: skip
def test_filters(run: RunFolder, cache: Path, encoded: dict[str, Any], where: Any, chosen: Any) -> None:
    found = sorted(key for key, _ in take(DialogueStream(run.root, decode=False, where=where, cache=cache)))
    assert found == sorted(key for key, item in encoded.items() if chosen(item.sample)) and len(found) > 0


def test_weights(run: RunFolder, cache: Path) -> None:
    weights = if_else(field("language") == "zh", 2.5, 0.0)
    stream = DialogueStream(run.root, decode=False, weights=weights, cache=cache)
    epochs = [Counter(key for key, _ in take(stream)) for _ in range(4)]
    assert all(key.startswith("zh") and count in (2, 3) for epoch in epochs for key, count in epoch.items())
    assert len({tuple(sorted(epoch.items())) for epoch in epochs}) > 1
    assert len(epochs[0]) == 11


def test_batches_by_tokens(run: RunFolder, cache: Path, encoded: dict[str, Any]) -> None:
    batches = Batches(120.0, length=field("seconds") * 12.5 + field("characters"), most=3)
    for item in DialogueStream(run.root, each="turn", batches=batches, cache=cache):
        lengths = [len(one.audio) / one.rate * 12.5 + len(one.text) for one in item]
        assert max(lengths) * len(item) <= 120.01 and len(item) <= 3


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
    assert len(found) == 22 - lost
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == lost and all("unit-000000.tar" in line for line in lines)
    resumed = DialogueStream(copy.root, damage="skip", cache=tmp_path, **options)
    resumed.load_state_dict(state)
    assert resumed.skipped <= lost and take(resumed) == []


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


# ---- bad input ----


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rank": 2, "ranks": 2}, r"^rank 2 is none of 2 ranks"),
    ({"split": "tset"}, r"no finished shard of split 'tset'; this run has: train"),
    ({"where": field("languge") == "zh"}, r"^where: dialogues have no 'languge'; did you mean 'language'\?"),
    ({"where": field("duration")}, r"^where: duration gives double, not true or false"),
    ({"where": "language == 'zh'"}, r"^where: .* is none of pyarrow's expressions"),
    ({"where": field("language") > 3}, r"^where: "),
    ({"where": field("duration") < 0}, r"^nothing is left of 22 dialogues by where=\(duration < 0\)"),
    ({"turns": "asistant"}, r"^turns: 'asistant' is none of user, assistant"),
    ({"turns": field("snrr") > 3}, r"^turns: turns have no 'snrr'; did you mean 'snr'\?"),
    ({"weights": field("duration") - 100}, r"^weights: .* is not a number of at least 0"),
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
