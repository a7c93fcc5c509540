"""NeMo's ShareGPT-WebDataset by its written rule: what `NeMoMultimodalConversationShareGPTWebdatasetAdapter` in
`nemo/collections/common/data/lhotse/text_adapters.py` (NeMo 3.0.0) does, without NeMo.

test_format_trainers.py reads with NeMo itself.
"""

from __future__ import annotations

import json
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline import audio
from pipeline.dialogue import Clip, Split
from pipeline.errors import UsageError
from pipeline.shards.store import RunFolder
from pipeline.training.export import export
from pipeline.training.formats.base import Part
from pipeline.training.formats.nemo import Nemo, Options
from tests.training.units import changed, contents, samples, tracks, write


class Read(NamedTuple):
    row: dict[str, Any]
    flac: bytes

    def stretch(self, turn: int) -> np.ndarray:
        pcm, rate = audio.decode(self.flac)
        said = self.row["conversations"][turn]
        first = round(said["offset"] * rate)
        return pcm[first : first + round(said["duration"] * rate)]


def read(folder: Path) -> list[Read]:
    """All samples of a `data_dir`, in order: members in pairs, which of them is the .json does not matter."""
    found = []
    for shard in json.loads((folder / "wids-meta.json").read_bytes())["shardlist"]:
        before = len(found)
        with tarfile.open(folder / shard["url"], "r:") as tar:
            members = (member for member in tar if member.isreg())
            for pair in zip(members, members, strict=True):
                row, sound = sorted(pair, key=lambda member: not member.name.endswith(".json"))
                assert Path(row.name).stem == Path(sound.name).stem
                data = [tar.extractfile(member).read() for member in (row, sound)]  # type: ignore[union-attr]
                found.append(Read(json.loads(data[0]), data[1]))
        assert len(found) - before == shard["nsamples"]
    return found


def read_by_index(folder: Path) -> list[str]:
    """Keys, found by the offsets beside each tar: little-endian, the size of the tar at the end."""
    keys = []
    for path in sorted(folder.rglob("*.tar")):
        numbers = path.with_name(path.name + ".idx").read_bytes()
        *offsets, size = struct.unpack(f"<{len(numbers) // 8}Q", numbers)
        assert size == path.stat().st_size
        for offset in offsets:
            header = path.read_bytes()[offset : offset + 512]
            keys.append(Path(tarfile.TarInfo.frombuf(header, "utf-8", "strict").name).stem)
    return keys


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("tar_mb", [0, 256])
def test_a_user_turn_is_a_stretch_of_the_track_and_an_answer_is_text(
    timed_run: RunFolder, tmp_path: Path, split: Split, tar_mb: int
) -> None:
    export(timed_run.root, "nemo", tmp_path / "out", [split], {"tar_mb": tar_mb})
    found, expected = read(tmp_path / "out" / split), samples(timed_run, split)
    assert [item.row["id"] for item in found] == [encoded.sample.key for encoded in expected]
    assert read_by_index(tmp_path / "out" / split) == [encoded.sample.key for encoded in expected]
    for item, encoded in zip(found, expected, strict=True):
        track = tracks(encoded)[0]
        assert item.flac == encoded.user
        for number, (said, turn) in enumerate(zip(item.row["conversations"], encoded.sample.turns, strict=True)):
            if turn.role == "user":
                assert (said["from"], said["value"]) == ("human", "<sound>")
                assert np.array_equal(item.stretch(number), track[round(turn.start * 16000) : round(turn.end * 16000)])
            else:
                assert said == {"from": "gpt", "value": turn.spoken}


def test_tars_are_joined_until_they_have_the_size(timed_run: RunFolder, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 400_000).astype(np.int16)
    big = replace(samples(timed_run, "train")[0], user=audio.encode_flac(noise, 16000))
    assert 0.5e6 < len(big.user) < 1e6
    keys = [f"en-{unit:06d}-00" for unit in range(5)]
    made = Nemo(Options(tar_mb=1))
    parts = [
        Part(unit, "train", 1, write(tmp_path, made.unit(unit, "train", iter([changed(big, key=key)]))))
        for unit, key in enumerate(keys)
    ]
    write(tmp_path, made.finish(tmp_path, parts))
    found = read(tmp_path / "train")
    assert [item.row["id"] for item in found] == read_by_index(tmp_path / "train") == keys
    assert {item.flac for item in found} == {big.user}
    listed = json.loads((tmp_path / "train" / "wids-meta.json").read_bytes())["shardlist"]
    assert [shard["nsamples"] for shard in listed] == [2, 2, 1]


def test_answers_may_be_speech_too(timed_run: RunFolder, tmp_path: Path) -> None:
    export(timed_run.root, "nemo", tmp_path / "out", ["train"], {"answers": "speech", "text": "written"})
    for item, encoded in zip(read(tmp_path / "out" / "train"), samples(timed_run, "train"), strict=True):
        user, assistant = tracks(encoded)
        answers = audio.to_pcm(audio.resample(Clip(audio.from_pcm(assistant), 24000), 16000).audio)
        for number, (said, turn) in enumerate(zip(item.row["conversations"], encoded.sample.turns, strict=True)):
            track = user if turn.role == "user" else answers
            first, last = round(turn.start * 16000), round(turn.end * 16000)
            assert np.array_equal(item.stretch(number), track[first:last])
            assert said["value"] == ("<sound>" if turn.role == "user" else f"{turn.written}\n<sound>")


def test_a_system_prompt_stands_before_the_first_sound(timed_run: RunFolder, tmp_path: Path) -> None:
    encoded = changed(samples(timed_run, "train")[0], system="Be brief.")
    write(tmp_path, Nemo(Options(tar_mb=0)).unit(0, "train", iter([encoded])))
    with tarfile.open(tmp_path / "train" / "000" / "unit-000000.tar") as tar:
        row = json.load(tar.extractfile(f"{encoded.sample.key}.json"))  # type: ignore[arg-type]
    values = [said["value"] for said in row["conversations"] if said["from"] == "human"]
    assert values == ["Be brief.\n<sound>", *["<sound>"] * (len(values) - 1)]
    assert (row["license"], row["synthetic"]) == ("CC0-1.0", True)


@pytest.mark.parametrize("tag", ["<sound>", "<speech>"])
def test_a_text_that_nemo_would_take_for_audio_is_refused(timed_run: RunFolder, tmp_path: Path, tag: str) -> None:
    encoded = samples(timed_run, "train")[0]
    turns = tuple(turn.model_copy(update={"spoken": f"The tag {tag}."}) for turn in encoded.sample.turns)
    with pytest.raises(UsageError, match=f"{encoded.sample.key}: a text holds '{tag}'"):
        write(tmp_path, Nemo(Options()).unit(0, "train", iter([changed(encoded, turns=turns)])))


def test_the_same_run_gives_the_same_bytes(timed_run: RunFolder, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(timed_run.root, "nemo", tmp_path / name)
    assert dict(contents(tmp_path / "one")) == dict(contents(tmp_path / "two"))
    assert len(dict(contents(tmp_path / "one"))) == 6
