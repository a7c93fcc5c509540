"""Clips of takes that were not kept: written beside the rejects, found by verify, read back, judged again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio
from pipeline.dialogue import Reject, RejectedTurn, Take
from pipeline.engine.regate import regate
from pipeline.engine.run import load_frozen
from pipeline.errors import DataError
from pipeline.plan import Unit, plan_units
from pipeline.shards.format import TakeClip
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_rejects, read_takes
from pipeline.shards.store import RunFolder, publish
from pipeline.shards.writer import UnitWriter
from tests.fakes import Silent
from tests.shards.damage import Members, checked, members, problems, refit, tar_bytes


def unit_of(folder: RunFolder, number: int = 0) -> tuple[Manifest, Unit]:
    manifest = folder.load_manifest(number, "train")
    assert manifest is not None
    return manifest, list(plan_units(load_frozen(folder)[0]))[number]


def test_they_are_those_that_the_tracks_are_not_made_of(healthy: RunFolder) -> None:
    manifest, _ = unit_of(healthy)
    takes = read_takes(healthy, manifest)
    expected = {
        reject.id: [
            (number, take.take)
            for number, turn in enumerate(encoded.sample.turns)
            for take in turn.takes
            if take.take != turn.take
        ]
        for reject, encoded in read_rejects(healthy, manifest)
        if encoded
    }
    assert {key: [(clip.turn, clip.take) for clip in clips] for key, clips in takes.items()} == expected
    assert manifest.takes == sum(map(len, expected.values())) > 0
    names = [name for name, _ in members(healthy.reject_takes(0))]
    assert names == [f"{key}.{turn:02d}-{take:02d}.flac" for key, places in expected.items() for turn, take in places]
    samples, _ = audio.decode(next(iter(takes.values()))[0].flac)
    assert np.abs(samples.astype(int)).max() > 1000  # a voice, and no silence


def test_a_unit_without_them_has_none(healthy: RunFolder) -> None:
    manifest, _ = unit_of(healthy, 1)
    assert manifest.takes == 0 and read_takes(healthy, manifest) == {}
    assert not healthy.reject_takes(1).exists()


Spoil = Callable[[Members], Members]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda content: [(content[0][0].replace(".0", ".7"), content[0][1]), *content[1:]], "is no take of"),
        (lambda content: [("en-000009-00.00-00.flac", content[0][1]), *content[1:]], "is no take of"),
        (lambda content: [*content, content[-1]], "is no take of"),
        (lambda content: [("notes.txt", b"dear"), *content], "'notes.txt' where KEY.TURN-TAKE.flac belongs"),
        (lambda content: [(content[0][0], b"no audio"), *content[1:]], "no readable audio header"),
        (lambda content: [], "holds no clip"),
    ],
    ids=["turn", "stranger", "twice", "notes", "noise", "empty"],
)
def test_verify_finds_what_does_not_belong(folder: RunFolder, spoil: Spoil, told: str) -> None:
    path = folder.reject_takes(0)
    path.write_bytes(tar_bytes(spoil(members(path))))
    refit(folder)
    assert told in problems(folder, path)


def test_verify_misses_one_that_was_taken_away(folder: RunFolder) -> None:
    path = folder.reject_takes(0)
    content = members(path)
    assert len(content) > 1
    path.write_bytes(tar_bytes(content[1:]))
    refit(folder)
    assert "counts are not those" in problems(folder, folder.manifest(0, "train"))


def test_verify_finds_a_flipped_bit_and_a_missing_file(folder: RunFolder) -> None:
    path = folder.reject_takes(0)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert "SHA-256" in problems(folder, path)
    path.unlink()
    assert "missing" in problems(folder, path)


def test_garbage_behind_a_good_header_is_found_by_decoding(folder: RunFolder) -> None:
    path = folder.reject_takes(0)
    content = members(path)
    name, data = content[0]
    rotten = data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :]
    path.write_bytes(tar_bytes([(name, rotten), *content[1:]]))
    refit(folder)
    assert checked(folder).ok
    assert name in problems(folder, path, decode=True)


def written(folder: RunFolder, root: Path, reject: Callable[[UnitWriter, str], None]) -> RunFolder:
    """Unit 1 of the run again in `root`, with nothing but what `reject` makes of each of its dialogues."""
    out = RunFolder(root)
    manifest, unit = unit_of(folder, 1)
    publish(out.text(1), folder.text(1).read_bytes())
    with UnitWriter(out, unit) as writer:
        for planned in unit.dialogues:
            reject(writer, planned.id)
        writer.commit({"text": manifest.text_digest, "speech": manifest.speech_digest, "judge": manifest.judge_digest})
    return out


def refused(key: str, takes: int) -> Reject:
    tried = tuple(
        Take(take=n, engine="e", voice="v", speed=1, seed=n, transcript="", error_rate=1.0, reason="wer", seconds=1.0)
        for n in range(takes)
    )
    turn = RejectedTurn(turn=0, spoken="Said.", transcript="", scores=(), takes=tried)
    language = "zh" if key.startswith("zh") else "en"
    return Reject(id=key, language=language, stage="speak", reason="silence", detail="", turns=(turn,))


def clip(number: int) -> bytes:
    return audio.encode_flac(np.full(1600, number, np.int16), 16000)


def test_they_are_kept_without_tracks_and_in_one_order(healthy: RunFolder, tmp_path: Path) -> None:
    """Of a dialogue of which a turn could not be spoken at all there are no tracks, but clips there are."""
    takes = [TakeClip(0, number, clip(number)) for number in range(3)]
    one = written(healthy, tmp_path / "one", lambda writer, key: writer.reject(refused(key, 3), None, takes))
    two = written(healthy, tmp_path / "two", lambda writer, key: writer.reject(refused(key, 3), None, takes[::-1]))
    assert one.reject_takes(1).read_bytes() == two.reject_takes(1).read_bytes()
    assert one.manifest(1, "train").read_bytes() == two.manifest(1, "train").read_bytes()
    manifest = one.load_manifest(1, "train")
    assert manifest is not None and manifest.takes == 12 and not one.reject_clips(1).exists()
    assert all(found == tuple(takes) for found in read_takes(one, manifest).values())


@pytest.mark.parametrize("places", [[(0, 3)], [(1, 0)], [(0, 0), (0, 0)]])
def test_a_clip_that_no_take_tells_of_is_a_bug(
    healthy: RunFolder, tmp_path: Path, places: list[tuple[int, int]]
) -> None:
    clips = [TakeClip(turn, take, clip(1)) for turn, take in places]
    with pytest.raises(ValueError, match="clips of takes"):
        written(healthy, tmp_path, lambda writer, key: writer.reject(refused(key, 3), None, clips))
    assert not list((tmp_path / "rejects").rglob("*"))


def test_judged_again_they_stay_with_what_is_refused(healthy: RunFolder, tmp_path: Path) -> None:
    before = read_takes(healthy, unit_of(healthy)[0])
    regate(healthy.root, tmp_path / "same", [], Silent())
    regate(healthy.root, tmp_path / "none", ["judge.keep=none"], Silent())
    regate(healthy.root, tmp_path / "open", ["judge.mode=score_only"], Silent())
    same, none, opened = (RunFolder(tmp_path / name) for name in ("same", "none", "open"))
    assert read_takes(same, unit_of(same)[0]) == before != {}
    for folder in (none, opened):
        assert read_takes(folder, unit_of(folder)[0]) == {} and not folder.reject_takes(0).exists()
    assert all(checked(folder, decode=True).ok for folder in (same, none, opened))


@pytest.mark.parametrize("version", [1, 3])
def test_a_manifest_of_another_version_is_told_so(folder: RunFolder, version: int) -> None:
    path = folder.manifest(0, "train")
    text = path.read_text("utf-8").replace('"version":2', f'"version":{version}')
    for content in (text, text.replace('"takes":', '"more":')):  # the same fields, and others
        path.write_text(content, "utf-8")
        with pytest.raises(DataError, match=f"is of version {version} and this one reads 2; make the run anew") as told:
            list(folder.manifests())
        assert str(told.value).startswith(f"{path}: ") and len(str(told.value).splitlines()) == 1
