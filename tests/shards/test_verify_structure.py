"""verify finds shards of another structure, behind checksums that fit."""

from __future__ import annotations

import io
import random
import re
import tarfile
from collections.abc import Callable

import pytest

from pipeline import audio
from pipeline.shards.store import RunFolder
from tests.shards.damage import Members, checked, members, problems, refit, reindex, repack, tar_bytes


def _mixed(content: Members) -> Members:
    return [*content[:1], content[4], *content[2:4], content[1], *content[5:]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content[:1] + content[2:], "where KEY.user.flac belongs"),
        (lambda content: content[:-1], "ends inside sample"),
        (lambda content: [*content[:2], content[1], *content[2:]], "where KEY.assistant.flac belongs"),
        (lambda content: [content[1], content[0], *content[2:]], "where KEY.json belongs"),
        (lambda content: [*content, ("notes.txt", b"hello")], "'notes.txt' where KEY.json belongs"),
        (lambda content: [*content[:3], ("stray.json", b"{}"), *content[3:]], "where KEY.user.flac belongs"),
        (lambda content: [(f"ü{content[0][0]}", content[0][1]), *content[1:]], "where a plain file with an ASCII name"),
        (_mixed, "members of different samples are mixed"),
        (lambda content: [("zz.json", content[0][1]), *content[1:]], "mixed|says that its key is"),
        (lambda content: [(content[0][0], b"{}"), *content[1:]], "Field required"),
        (lambda content: [(content[0][0], b"\xff"), *content[1:]], r"\.json: "),
        (
            lambda content: [content[0], (content[1][0], b"no audio"), *content[2:]],
            "no readable audio header",
        ),
        (
            lambda content: [content[0], (content[1][0], content[2][1]), *content[2:]],
            "at 24000 Hz where .* 16000",
        ),
    ],
    ids=[
        "missing",
        "last",
        "doubled",
        "reordered",
        "foreign",
        "stray",
        "name",
        "mixed",
        "key",
        "json",
        "noise",
        "silence",
        "rate",
    ],
)
def test_a_shard_of_another_structure(folder: RunFolder, change: Callable[[Members], Members], told: str) -> None:
    assert re.search(told, problems(folder, repack(folder, change)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content[3:], "planned dialogues are not exactly the accepted and the rejected ones"),
        (lambda content: content + content[:3], "planned dialogues are not exactly"),
        (lambda content: content[3:] + content[:3], "samples are not in the order of the plan"),
    ],
    ids=["missing", "doubled", "reordered"],
)
def test_whole_samples_are_accounted_for(folder: RunFolder, change: Callable[[Members], Members], told: str) -> None:
    repack(folder, change)
    assert "does not say what the shard holds" in problems(folder, folder.index(0, "train"))
    reindex(folder)
    assert told in problems(folder, folder.manifest(0, "train"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, b"L", b"S"])
def test_members_that_are_no_files(folder: RunFolder, kind: bytes) -> None:
    path = folder.shard(0, "train")
    content = members(path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (name, data) in enumerate(content):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == 1:
                info.type, info.linkname = kind, content[0][0]
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(buffer.getvalue())
    refit(folder)
    assert problems(folder, path)


def test_a_size_that_no_file_could_hold(folder: RunFolder) -> None:
    path = folder.shard(0, "train")
    whole = bytearray(path.read_bytes())
    info = tarfile.TarInfo(members(path)[0][0])
    info.size = 8**11 - 1
    whole[:512] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(whole)
    refit(folder)
    assert "cut short" in problems(folder, path)


def test_something_behind_the_end_of_a_shard(folder: RunFolder) -> None:
    path = folder.shard(0, "train")
    path.write_bytes(path.read_bytes() + tar_bytes([("hidden.json", b"{}")]))
    refit(folder)
    assert "does not end after its last member" in problems(folder, path)


def _shorter(data: bytes) -> bytes:
    samples, rate = audio.decode(data)
    return audio.encode_flac(samples[:-1], rate)


def _rotten(data: bytes) -> bytes:
    """Garbage in the frames behind a good header."""
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 64] = random.Random(4).randbytes(64)
    return bytes(damaged)


@pytest.mark.parametrize("track", [1, 2])
def test_a_track_that_is_shorter_than_its_timeline(folder: RunFolder, track: int) -> None:
    def change(content: Members) -> Members:
        content[track] = (content[track][0], _shorter(content[track][1]))
        return content

    path = repack(folder, change)
    reindex(folder)
    assert ".flac: " in problems(folder, path) and "samples at" in problems(folder, path)


@pytest.mark.parametrize("track", [1, 2])
def test_garbage_behind_a_good_header_is_found_by_decoding(folder: RunFolder, track: int) -> None:
    def change(content: Members) -> Members:
        content[track] = (content[track][0], _rotten(content[track][1]))
        return content

    path = repack(folder, change)
    reindex(folder)
    assert checked(folder).ok
    assert members(path)[track][0] in problems(folder, path, decode=True)


def test_garbage_in_a_kept_reject_is_found_by_decoding(folder: RunFolder) -> None:
    path = folder.reject_clips(0)
    content = members(path)
    path.write_bytes(tar_bytes([content[0], (content[1][0], _rotten(content[1][1])), content[2]]))
    refit(folder)
    assert checked(folder).ok
    assert content[1][0] in problems(folder, path, decode=True)
