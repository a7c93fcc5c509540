"""Damage of every kind, everywhere it may lie, in the files of a small run: verify names the file and what is wrong."""

from __future__ import annotations

import functools
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import audio
from pipeline.config import Config
from pipeline.engine import verifying
from pipeline.engine.run import load_frozen
from pipeline.engine.verifying import verify_run
from pipeline.errors import DataError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.shards.unit_check import check_unit
from tests.shards.damage import Members, checked, members, problems, refit, reindex, repack
from tests.synthetic import make_run

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four units of one dialogue, the first of which was rejected with its clips."""
    return make_run(tmp_path_factory.mktemp("whole") / "run", dialogues=4, unit_size=1, languages=("en",), rejected=1)


@pytest.fixture
def folder(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy, to be damaged."""
    shutil.copytree(whole.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def told(folder: RunFolder, path: Path, number: int = 1) -> str:
    """What is said of `path` where nothing but one unit is checked."""
    unit = list(plan_units(config_of(folder)))[number]
    report = check_unit(folder, unit, decode=False, digests=None)
    assert report.damaged and all(line.startswith(f"{path}: ") for line in report.problems), report.problems
    return "\n".join(report.problems)


@functools.cache
def config_of(folder: RunFolder) -> Config:
    return load_frozen(folder)[0]


def shard_of(folder: RunFolder, unit: int = 1) -> Path:
    return folder.shard(unit, "train")


@pytest.mark.parametrize("fitted", [False, True], ids=["as published", "with a manifest that fits"])
def test_a_shard_cut_at_every_block_and_between(folder: RunFolder, fitted: bool) -> None:
    path, draw = shard_of(folder), random.Random(1)
    data = path.read_bytes()
    assert len(data) % 512 == 0 and len(data) > 40 * 512
    for start in range(0, len(data), 512):
        size = start if start // 512 % 8 else start + draw.randrange(1, 512)
        path.write_bytes(data[:size])
        if fitted:
            refit(folder, 1)
            told(folder, path)
        else:
            assert f"{size} bytes where {len(data)} were published: cut short" in told(folder, path)


def test_a_flipped_bit_all_over_a_header_behind_a_checksum_that_fits(folder: RunFolder) -> None:
    path, draw = shard_of(folder), random.Random(2)
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        at = [info.offset for info in tar][1]
    for first in range(at, at + 512, 4):
        damaged = bytearray(data)
        damaged[first + draw.randrange(4)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        refit(folder, 1)
        said = told(folder, path)
        assert "the header of member" in said or "where a plain file with an ASCII name belongs" in said, first


def test_a_header_that_lies_with_a_checksum_of_its_own(folder: RunFolder) -> None:
    """Its owner and its time are nobody's; a tar reader takes it."""
    path = shard_of(folder)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        info = tar.getmembers()[2]
    info.mtime, info.mode = 1, 0o644
    data[info.offset : info.offset + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    assert len(members(path)) == 3
    refit(folder, 1)
    assert f"the header of member {info.name!r}, at byte {info.offset}, is damaged" in problems(folder, path)


def test_a_flipped_bit_in_a_payload_behind_a_manifest_that_fits(folder: RunFolder) -> None:
    """The index tells, and where it is made to fit, for a track, decoding does."""
    path, index, draw = shard_of(folder), folder.index(1, "train"), random.Random(3)
    data, published = path.read_bytes(), index.read_bytes()
    with tarfile.open(path) as tar:
        infos = tar.getmembers()
    for info in infos[1:] * 4:
        damaged = bytearray(data)
        place = draw.randrange(info.offset_data + 100, info.offset_data + info.size)  # behind its metadata
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        index.write_bytes(published)
        refit(folder, 1)
        assert "does not say what the shard holds" in told(folder, index)
        reindex(folder, 1)
        assert f"{path}: {info.name}: not decodable" in problems(folder, path, decode=True)


def test_something_in_the_padding_of_a_member(folder: RunFolder) -> None:
    path = shard_of(folder)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        info = next(info for info in tar if info.size % 512)
    data[info.offset_data + info.size] ^= 1
    path.write_bytes(data)
    refit(folder, 1)
    assert f"something lies between {info.name} and the next member" in problems(folder, path)


@pytest.mark.parametrize("track", [1, 2])
def test_a_track_of_other_samples_with_a_header_of_this_one(folder: RunFolder, track: int) -> None:
    """Every frame of it has a checksum that fits, and it is as long as the other."""

    def swap(content: Members) -> Members:
        name, data = content[track]
        pcm, rate = audio.decode(data)
        other = audio.encode_flac(pcm[::-1].copy(), rate)
        content[track] = (name, other[:26] + data[26:42] + other[42:])  # STREAMINFO has the MD5 there
        return content

    path = repack(folder, swap, 1)
    reindex(folder, 1)
    assert checked(folder).ok
    assert f"{members(path)[track][0]}: its samples are not those that it was made of" in problems(folder, path, True)


def test_a_track_with_two_channels(folder: RunFolder) -> None:
    def widen(content: Members) -> Members:
        pcm, rate = audio.decode(content[1][1])
        content[1] = (content[1][0], audio.encode_flac(pcm.repeat(2).reshape(-1, 2), rate))
        return content

    assert "user.flac: 2 channels where one belongs" in problems(folder, repack(folder, widen, 1))


def test_every_clip_is_decoded(whole: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(audio, "check_flac", lambda data, name: told.append(name))
    assert checked(whole, decode=True).ok
    tracks = [
        f"{path}: {name}" for path in whole.root.rglob("*.tar") for name, _ in members(path) if name.endswith(".flac")
    ]
    assert sorted(told) == sorted(tracks) and len(tracks) >= 8


def test_a_text_that_was_edited_before_it_was_spoken(folder: RunFolder) -> None:
    """A byte order mark and blank lines are what an editor may leave: the run takes them, and so does verify."""
    path = folder.text(1)
    path.write_bytes(b"\xef\xbb\xbf\n" + path.read_bytes() + b"\n")
    refit(folder, 1)
    assert checked(folder).ok


def test_a_card_of_another_run(folder: RunFolder) -> None:
    folder.card.write_text(folder.card.read_text("utf-8").replace("| voices |", "| voices | 1"), "utf-8")
    assert "is not the card of this run" in problems(folder, folder.card)


@pytest.mark.parametrize("name", ["rows", "verdicts", "text"])
def test_damaged_inputs_of_a_unit(folder: RunFolder, name: str) -> None:
    """Those that no manifest names; of the text, that of an unfinished unit."""
    place: Callable[[int], Path] = getattr(folder, name)
    folder.manifest(3, "train").unlink()
    path = place(3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"{}\n")
    shard_of(folder, 3).unlink()
    folder.index(3, "train").unlink()
    config, frozen = load_frozen(folder)
    *_, state = verify_run(folder, config, digests=frozen.digests, workers=1)
    assert state.inputs == [str(path)] and state.missing == [3] and state.damaged == []
    assert len(state.problems) == 1 and state.problems[0].startswith(f"{path}: ")


def test_what_is_found_does_not_depend_on_the_workers(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    shard_of(folder, 2).write_bytes(b"")
    folder.text(1).unlink()
    (folder.root / "shards" / "stray.tar").write_bytes(b"x")
    config, frozen = load_frozen(folder)
    monkeypatch.setattr(verifying, "HASHED", 1)
    states = [list(verify_run(folder, config, digests=frozen.digests, workers=workers)) for workers in (1, 2)]
    assert states[0][-1] == states[1][-1] and len(states[0]) == len(states[1]) == 5
    assert states[1][-1].damaged == [1, 2] and len(states[1][-1].problems) == 3


def test_a_flac_header_is_read_as_libsndfile_reads_it(whole: RunFolder) -> None:
    for _, data in members(shard_of(whole))[1:]:
        pcm, rate = audio.decode(data)
        assert audio.header(data) == (len(pcm), rate)
        audio.check_flac(data)
        with pytest.raises(DataError, match="no readable audio header"):
            audio.header(data[:86])
