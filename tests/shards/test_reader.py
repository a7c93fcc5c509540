"""What a trainer gets is what went in, each turn once, and damage does not pass for data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import audio
from pipeline.dialogue import Clip, Reject
from pipeline.errors import DataError, RunFolderError, UsageError
from pipeline.plan import Unit, plan_units
from pipeline.shards.reader import (
    read_rejects,
    read_tar,
    read_unit,
    shard_paths,
    stream_samples,
    stream_turns,
)
from pipeline.shards.store import RunFolder
from pipeline.stages import studio
from tests.synthetic import make_run

Spoken = list[tuple[str, int, str, str, np.ndarray, int]]  # key, turn, role, text, int16 samples, rate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Spoken]:
    """A run of six train shards and two test shards, and the clips that were packed into it, in order."""
    spoken: Spoken = []
    pack = studio.pack

    def recording(dialogue: Any, cast: Any, takes: Any, origin: Any, config: Any) -> Any:
        for number, (turn, item) in enumerate(zip(dialogue.turns, takes, strict=True)):
            clip = item.kept.clip
            spoken.append((dialogue.plan.id, number, turn.role, turn.spoken, audio.to_pcm(clip.audio), clip.rate))
        return pack(dialogue, cast, takes, origin, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio, "pack", recording)
        root = tmp_path_factory.mktemp("made") / "run"
        folder = make_run(root, dialogues=16, unit_size=2, rejected=1, splits={"train": 3, "test": 1})
    return folder, spoken


@pytest.fixture
def folder(made: tuple[RunFolder, Spoken]) -> RunFolder:
    return made[0]


@pytest.fixture
def damaged(folder: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(folder.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def keys(stream: Iterator[dict[str, Any]]) -> list[str]:
    return [item["key"] for item in stream]


def accepted(folder: RunFolder, split: str = "train") -> list[str]:
    """Keys in the order of units and of their dialogues."""
    manifests = [manifest for manifest in folder.manifests() if manifest.split == split]
    return [item.sample.key for manifest in manifests for item in read_unit(folder, manifest)]


def test_turns_are_exactly_the_clips_that_went_in(made: tuple[RunFolder, Spoken]) -> None:
    folder, spoken = made
    turns = [turn for split in ("train", "test") for turn in stream_turns(folder.root, split)]
    known = {(key, number): (role, text, clip, rate) for key, number, role, text, clip, rate in spoken}
    rejected = {reject.id for manifest in folder.manifests() for reject, _ in read_rejects(folder, manifest)}
    assert {(turn.key, turn.turn) for turn in turns} == {name for name in known if name[0] not in rejected}
    assert len(turns) == len({(turn.key, turn.turn) for turn in turns}) > 30
    for turn in turns:
        role, text, clip, rate = known[turn.key, turn.turn]
        assert (turn.role, turn.text, turn.rate, turn.loss) == (role, text, rate, role == "assistant")
        assert turn.audio.dtype == np.float32 and np.array_equal(audio.to_pcm(turn.audio), clip)
        assert turn.language == turn.key[:2] and np.any(clip)
    assert {turn.rate for turn in turns if turn.role == "user"} == {16000}
    assert {turn.rate for turn in turns if turn.role == "assistant"} == {24000}


def test_samples_come_in_order_and_their_tracks_last_equally_long(folder: RunFolder) -> None:
    samples = list(stream_samples(folder.root))
    assert [item["key"] for item in samples] == accepted(folder)
    for item in samples:
        sample = item["sample"]
        assert sample.key == item["key"] and item["user"].dtype == item["assistant"].dtype == np.int16
        assert len(item["user"]) / sample.user_rate == pytest.approx(sample.duration, abs=1e-9)
        assert len(item["assistant"]) / sample.assistant_rate == pytest.approx(sample.duration, abs=1e-9)
        for turn in sample.turns:  # each is silent while the other speaks
            other, rate = (
                (item["assistant"], sample.assistant_rate) if turn.role == "user" else (item["user"], sample.user_rate)
            )
            assert not np.any(other[int(turn.start * rate) : int(turn.end * rate)])


def test_turns_come_in_the_order_of_the_dialogue(folder: RunFolder) -> None:
    turns = [(turn.key, turn.turn, turn.start) for turn in stream_turns(folder.root)]
    place = {key: number for number, key in enumerate(accepted(folder))}
    assert turns == sorted(turns, key=lambda item: (place[item[0]], item[1]))
    assert turns == sorted(turns, key=lambda item: (place[item[0]], item[2]))


def test_shuffling_is_seeded_and_loses_nothing(folder: RunFolder) -> None:
    plain = keys(stream_samples(folder.root))
    first = keys(stream_samples(folder.root, shuffle=100, seed=1))
    assert first == keys(stream_samples(folder.root, shuffle=100, seed=1))
    assert first != plain and first != keys(stream_samples(folder.root, shuffle=100, seed=2))
    assert sorted(first) == sorted(plain)


def test_epochs(folder: RunFolder) -> None:
    once = keys(stream_samples(folder.root))
    assert keys(stream_samples(folder.root, epochs=3)) == once * 3
    for_ever = iter(stream_samples(folder.root, epochs=None))
    assert [next(for_ever)["key"] for _ in range(4 * len(once))] == once * 4


def test_epochs_of_a_shuffled_stream_are_whole(folder: RunFolder) -> None:
    once = sorted(keys(stream_samples(folder.root)))
    twice = keys(stream_samples(folder.root, shuffle=100, epochs=2))
    assert sorted(twice[: len(once)]) == sorted(twice[len(once) :]) == once


def test_a_list_of_shards_instead_of_a_run(folder: RunFolder) -> None:
    paths = shard_paths(folder.root)
    assert (
        keys(stream_samples([str(path) for path in paths[1:]]))
        == accepted(folder)[-len(keys(stream_samples(paths[1:]))) :]
    )
    assert keys(stream_samples(paths)) == accepted(folder)
    [turns, alone] = [list(stream_turns(run)) for run in (folder.root, paths)]
    assert [(turn.key, turn.turn) for turn in turns] == [(turn.key, turn.turn) for turn in alone]


def test_splits(folder: RunFolder) -> None:
    assert keys(stream_samples(folder.root, "test")) == accepted(folder, "test") != []
    assert not set(accepted(folder, "test")) & set(keys(stream_samples(folder.root)))
    with pytest.raises(UsageError, match=r"no finished shard of split 'validation'; this run has: test, train"):
        stream_samples(folder.root, "validation")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="so it is no run"):
        stream_samples(tmp_path)


def test_a_truncated_shard_is_named(damaged: RunFolder) -> None:
    path = shard_paths(damaged.root)[1]
    whole = path.read_bytes()
    first = next(read_tar(path))
    boundary = 512 * sum(1 + -(-len(data) // 512) for _, data in first.members())
    assert 0 < boundary < len(whole)
    path.write_bytes(whole[:boundary])  # where tar readers see nothing wrong
    with pytest.raises(DataError, match=rf"{path}: {boundary} bytes where {len(whole)} were published.*verify"):
        stream_samples(damaged.root)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path}: 0 bytes where"):
        stream_samples(damaged.root)


def _rot(path: Path) -> str:
    """Garbage in the first track of a shard, its size unchanged; the key of the sample that it hits."""
    first = next(read_tar(path))
    data = path.read_bytes()
    at = data.index(first.user)
    path.write_bytes(data[:at] + bytes(len(first.user)) + data[at + len(first.user) :])
    return first.sample.key


def test_a_damaged_sample_raises_and_is_named(damaged: RunFolder) -> None:
    path = shard_paths(damaged.root)[1]
    key = _rot(path)
    before = accepted(damaged).index(key)
    stream = iter(stream_samples(damaged.root))
    assert [next(stream)["key"] for _ in range(before)] == accepted(damaged)[:before]
    with pytest.raises(DataError, match=rf"{path}: {key}\.user\.flac: not decodable"):
        next(stream)


def test_a_damaged_sample_is_told_and_passed_over(damaged: RunFolder) -> None:
    path = shard_paths(damaged.root)[1]
    key = _rot(path)
    with pytest.warns(UserWarning, match=key):
        found = keys(stream_samples(damaged.root, on_damage="warn"))
    assert found == [item for item in accepted(damaged) if item != key]


def test_a_missing_member_is_named(damaged: RunFolder) -> None:
    path = shard_paths(damaged.root)[0]
    first = next(read_tar(path))
    data = bytearray(path.read_bytes())
    name = f"{first.sample.key}.user.flac".encode()
    at = data.index(name)
    import tarfile

    info = tarfile.TarInfo(f"{first.sample.key}.other.flac")
    info.size, info.mode = len(first.user), 0o644
    data[at : at + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{path}: {first.sample.key}: member 'user\.flac' is missing"):
        list(stream_samples(damaged.root))
    with pytest.raises(DataError, match=rf"{path}: member .*other\.flac' where KEY\.user\.flac belongs"):
        list(read_tar(path))


def test_rejects_are_read_with_their_clips(folder: RunFolder) -> None:
    units: list[Unit] = [unit for unit in plan_units(_config(folder)) if unit.number == 0]
    manifest = folder.load_manifest(0, "train") or folder.load_manifest(0, "test")
    assert manifest is not None
    [(reject, encoded)] = read_rejects(folder, manifest)
    assert isinstance(reject, Reject) and reject.id == units[0].dialogues[0].id
    assert encoded is not None and encoded.sample.key == reject.id
    samples, rate = audio.decode(encoded.user)
    assert Clip(audio.from_pcm(samples), rate).seconds == pytest.approx(encoded.sample.duration)


def _config(folder: RunFolder) -> Any:
    from pipeline.engine.run import load_frozen

    return load_frozen(folder)[0]


def test_two_workers_of_a_dataloader_give_every_turn_once(folder: RunFolder) -> None:
    torch_data = pytest.importorskip("torch.utils.data", reason="the [train] extra is not installed")
    expected = sorted((turn.key, turn.turn, turn.audio.sum()) for turn in stream_turns(folder.root))
    loader = torch_data.DataLoader(stream_turns(folder.root, shuffle=10), batch_size=None, num_workers=2)
    for _ in range(2):
        assert sorted((turn.key, turn.turn, turn.audio.sum()) for turn in loader) == expected
