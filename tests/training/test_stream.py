"""The stream: every sample once an epoch, whoever reads it and whenever they stop; and what was asked for of each."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.compute import field, if_else

from pipeline import audio
from pipeline.dialogue import SampleTurn
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder
from pipeline.training import reading
from pipeline.training.items import Batches
from pipeline.training.reading import DialogueExample, RawExample, TurnsExample
from pipeline.training.state import merge_states
from pipeline.training.stream import DialogueStream
from tests.training.taking import take

OPTIONS: list[dict[str, Any]] = [
    {},
    {"shuffle": 0},
    {"shuffle": 5, "tail": "drop"},
    {"batches": Batches(30.0, pool=8)},
    {"each": "turn", "turns": "assistant", "batches": Batches(6.0, padded=False)},
    {"weights": if_else(field("language") == "zh", 1.5, 0.5)},
]


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


def test_without_torch(run: RunFolder, cache: Path, keys: list[str]) -> None:
    """An epoch, a stop in the middle and a resume, in a process that finds no torch."""
    code = (
        "import json, sys; sys.modules['torch'] = None\n"
        "from pipeline import DialogueStream\n"
        f"make = lambda: DialogueStream({str(run.root)!r}, decode=False, cache={str(cache)!r})\n"
        "first, items = make(), []\n"
        "for item in first:\n"
        "    items.append(item.key)\n"
        "    if len(items) == 7: break\n"
        "second = make(); second.load_state_dict(json.loads(json.dumps(first.state_dict())))\n"
        "print(*items, *(item.key for item in second))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Counter(done.stdout.split()) == Counter(keys)


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


def test_a_shard_that_another_thread_closes_is_read_to_its_end(
    run: RunFolder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More shards are asked for than are held open, so that one is dropped while it is read."""
    monkeypatch.setattr(reading, "_OPEN", 0)
    assert len(take(DialogueStream(run.root, decode=False, threads=4, cache=cache))) == 22


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
