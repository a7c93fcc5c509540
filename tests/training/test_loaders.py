"""Under torch's DataLoader and torchdata's StatefulDataLoader, in one process and in several."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from pipeline.errors import UsageError
from pipeline.shards.store import RunFolder
from pipeline.training.items import Batches
from pipeline.training.state import merge_states
from pipeline.training.stream import DialogueStream

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:'set_vital' is deprecated")
JOB = Path(__file__).with_name("torch_job.py")


def keys_of(items: Any) -> list[str]:
    return [one.key for item in items for one in (item if isinstance(item, list) else [item])]


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_data_loader_gives_everything_once(
    run: RunFolder, cache: Path, keys: list[str], workers: int, batch_size: int | None
) -> None:
    stream = DialogueStream(run.root, decode=False, cache=cache)
    loader = DataLoader(
        stream, batch_size=batch_size, num_workers=workers, collate_fn=None if batch_size is None else list
    )
    for epoch in range(2):
        stream.set_epoch(epoch)
        assert sorted(keys_of(loader)) == sorted(keys)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_that_are_kept_hear_of_the_epoch(run: RunFolder, cache: Path, start: str) -> None:
    """Also after an epoch that was left in its middle, when they have read ahead."""
    stream = DialogueStream(run.root, decode=False, cache=cache)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=start)
    assert len(keys_of(islice(loader, 3))) == 3
    for epoch in (1, 2, 0):
        stream.set_epoch(epoch)
        alone = DialogueStream(run.root, decode=False, cache=cache)
        alone.set_epoch(epoch)
        assert keys_of(loader) == keys_of(alone)


def test_a_spawned_worker_takes_the_rank_of_its_stream(
    run: RunFolder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not joined the process group, and the environment need not tell."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stream = DialogueStream(run.root, decode=False, cache=cache)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    found = keys_of(DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
    assert found == keys_of(DialogueStream(run.root, rank=1, ranks=2, decode=False, cache=cache))


def test_the_number_of_workers_changes_nothing(run: RunFolder, cache: Path) -> None:
    """Item by item, a loader with workers gives what the stream gives."""
    for rank in range(2):
        stream = DialogueStream(run.root, rank=rank, ranks=2, decode=False, cache=cache)
        found = keys_of(DataLoader(stream, batch_size=None, num_workers=3))
        assert found == keys_of(DialogueStream(run.root, rank=rank, ranks=2, decode=False, cache=cache))


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("taken", [0, 1, 4, 6])
def test_a_plain_loader_resumes_by_what_was_taken(
    run: RunFolder, cache: Path, keys: list[str], taken: int, batch_size: int | None
) -> None:
    """From two ranks with two workers each to one rank without any."""
    found, states = [], []
    for rank in range(2):
        stream = DialogueStream(run.root, rank=rank, ranks=2, decode=False, cache=cache)
        loader = DataLoader(
            stream, batch_size=batch_size, num_workers=2, collate_fn=None if batch_size is None else list
        )
        count = min(taken, len(loader) if batch_size is None else 4)
        found += keys_of(islice(loader, count))
        states.append(stream.state_dict(taken=count, workers=2, batch_size=batch_size))
    rest = DialogueStream(run.root, decode=False, cache=cache)
    rest.load_state_dict(states)
    assert Counter(found + keys_of(rest)) == Counter(keys)


def test_a_plain_loader_that_was_resumed_counts_on(run: RunFolder, cache: Path, keys: list[str]) -> None:
    stream = DialogueStream(run.root, decode=False, cache=cache)
    found = keys_of(islice(DataLoader(stream, batch_size=None, num_workers=2), 5))
    state = stream.state_dict(taken=5, workers=2)
    for workers in (3, 0, 2):
        stream = DialogueStream(run.root, decode=False, cache=cache)
        stream.load_state_dict(state)
        found += keys_of(islice(DataLoader(stream, batch_size=None, num_workers=workers), 4))
        state = stream.state_dict(taken=4, workers=workers) if workers else stream.state_dict()
    stream.load_state_dict(state)
    assert Counter(found + keys_of(stream)) == Counter(keys)
    for wrong in (23, -1):
        with pytest.raises(UsageError, match=rf"state_dict\(taken={wrong}\): this rank had 22 left in this epoch"):
            DialogueStream(run.root, cache=cache).state_dict(taken=wrong)


@pytest.mark.parametrize(("batches", "times"), [(2, 1), (8, 2)])
def test_a_plain_loader_without_workers_is_not_counted_twice(
    run: RunFolder, cache: Path, keys: list[str], batches: int, times: int
) -> None:
    """It reads here, and at the end of the epoch the stream is in the next one."""
    stream = DialogueStream(run.root, decode=False, cache=cache)
    found = keys_of(islice(DataLoader(stream, batch_size=3, collate_fn=list), batches))
    resumed = DialogueStream(run.root, decode=False, cache=cache)
    resumed.load_state_dict(stream.state_dict(taken=batches, workers=0, batch_size=3))
    assert Counter(found + keys_of(resumed)) == Counter(keys * times)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [None, Batches(40.0, pool=8)])
def test_a_stateful_loader_resumes_exactly(run: RunFolder, cache: Path, workers: int, batches: Batches | None) -> None:
    def loader() -> StatefulDataLoader:
        stream = DialogueStream(run.root, decode=False, batches=batches, cache=cache)
        return StatefulDataLoader(stream, batch_size=None, num_workers=workers)

    whole = keys_of(loader())
    first = loader()
    found = keys_of(islice(first, 4))
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = loader()
    second.load_state_dict(state)
    assert found + keys_of(second) == whole


def test_a_stateful_loader_with_other_workers(run: RunFolder, cache: Path, keys: list[str]) -> None:
    """The stream takes the state of the whole loader, and shares out what is left anew."""
    first = StatefulDataLoader(
        DialogueStream(run.root, decode=False, cache=cache), batch_size=3, num_workers=2, collate_fn=list
    )
    found = keys_of(islice(first, 3))
    stream = DialogueStream(run.root, decode=False, cache=cache)
    stream.load_state_dict(first.state_dict())
    second = StatefulDataLoader(stream, batch_size=3, num_workers=3, collate_fn=list)
    found += keys_of(islice(second, 2))
    stream = DialogueStream(run.root, decode=False, cache=cache)
    stream.load_state_dict(merge_states([second.state_dict()]))
    assert Counter(found + keys_of(stream)) == Counter(keys)


def test_a_stateful_loader_whose_state_is_old(run: RunFolder, cache: Path) -> None:
    loader = StatefulDataLoader(
        DialogueStream(run.root, decode=False, cache=cache), batch_size=None, num_workers=2, snapshot_every_n_steps=4
    )
    list(islice(loader, 6))
    with pytest.raises(UsageError, match=r"2 batches old: make it with snapshot_every_n_steps=1"):
        DialogueStream(run.root, decode=False, cache=cache).load_state_dict(loader.state_dict())


def job(
    run: RunFolder, cache: Path, folder: Path, ranks: int, workers: int, batches: int, states: list[str]
) -> list[str]:
    """The keys that the ranks of a job saw, all together."""
    folder.mkdir()
    arguments = [run.root, cache, folder / "rendezvous", workers, batches, folder, *states]
    world = [
        subprocess.Popen(
            [sys.executable, str(JOB), *map(str, arguments)],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "PYTHONPATH": str(JOB.parents[2])},
        )
        for rank in range(ranks)
    ]
    assert [rank.wait(timeout=120) for rank in world] == [0] * ranks
    return [key for path in sorted(folder.glob("keys-*")) for key in path.read_text().split()]


def test_a_job_of_two_processes_goes_on_as_four_workers(
    run: RunFolder, cache: Path, tmp_path: Path, keys: list[str]
) -> None:
    """Two ranks with a worker each stop in the middle of an epoch; two ranks with two workers each take the rest."""
    before = job(run, cache, tmp_path / "two", 2, 1, 3, [])
    assert len(before) == 12
    states = sorted(map(str, (tmp_path / "two").glob("state-*")))
    after = job(run, cache, tmp_path / "four", 2, 2, 1000, states)
    assert Counter(before + after) == Counter(keys)
