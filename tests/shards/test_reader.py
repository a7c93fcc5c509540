"""What a trainer gets is what went in, each turn once, and damage does not pass for data."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import audio
from pipeline.dialogue import Clip, Reject
from pipeline.errors import DataError
from pipeline.plan import Unit, plan_units
from pipeline.shards.reader import read_rejects, read_samples, read_tar, read_unit
from pipeline.shards.store import RunFolder
from pipeline.stages import studio
from pipeline.training.stream import DialogueStream
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


def accepted(folder: RunFolder, split: str = "train") -> list[str]:
    """Keys in the order of units and of their dialogues."""
    manifests = [manifest for manifest in folder.manifests() if manifest.split == split]
    return [item.sample.key for manifest in manifests for item in read_unit(folder, manifest)]


def test_turns_are_exactly_the_clips_that_went_in(made: tuple[RunFolder, Spoken], tmp_path: Path) -> None:
    folder, spoken = made
    turns = [
        turn for split in ("train", "test") for turn in DialogueStream(folder.root, split, each="turn", cache=tmp_path)
    ]
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


def test_the_tracks_last_equally_long_and_are_silent_in_turn(folder: RunFolder) -> None:
    for item in (item for manifest in folder.manifests() for item in read_unit(folder, manifest)):
        sample = item.sample
        tracks = {"user": audio.decode(item.user), "assistant": audio.decode(item.assistant)}
        for samples, rate in tracks.values():
            assert len(samples) / rate == pytest.approx(sample.duration, abs=1e-9)
        for turn in sample.turns:
            other, rate = tracks["assistant" if turn.role == "user" else "user"]
            assert not np.any(other[int(turn.start * rate) : int(turn.end * rate)])


def test_samples_are_read_without_their_tracks(folder: RunFolder) -> None:
    for manifest in folder.manifests():
        whole = [item.sample for item in read_unit(folder, manifest)]
        assert list(read_samples(folder, manifest)) == whole != []


def test_plain_webdataset_reads_every_sample(folder: RunFolder) -> None:
    """Without this package."""
    webdataset = pytest.importorskip("webdataset")
    for split in ("train", "test"):
        shards = sorted(map(str, (folder.root / "shards" / split).rglob("*.tar")))
        found = list(webdataset.WebDataset(shards, shardshuffle=False))
        assert [item["__key__"] for item in found] == accepted(folder, split) != []
        assert all(item["json"].startswith(b"{") and item["user.flac"][:4] == b"fLaC" for item in found)


def test_a_member_of_another_name_is_named(damaged: RunFolder) -> None:
    path = damaged.shard(0, next(manifest.split for manifest in damaged.manifests()))
    first = next(read_tar(path))
    data = bytearray(path.read_bytes())
    at = data.index(f"{first.sample.key}.user.flac".encode())
    info = tarfile.TarInfo(f"{first.sample.key}.other.flac")
    info.size, info.mode = len(first.user), 0o644
    data[at : at + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
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
