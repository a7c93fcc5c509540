"""Lhotse Shar, read back by lhotse."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pipeline.dialogue import Split
from pipeline.shards.store import RunFolder
from pipeline.training.export import export
from pipeline.training.formats.lhotse import Lhotse, Options
from tests.training.units import changed, contents, samples, tracks, write

lhotse = pytest.importorskip("lhotse", reason="the [train] extra is not installed")


def cuts(folder: Path) -> Any:
    return lhotse.CutSet.from_shar(in_dir=folder)


@pytest.fixture(scope="module")
def out(timed_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lhotse") / "out"
    export(timed_run.root, "lhotse", out)
    return out


@pytest.mark.parametrize("split", ["train", "validation"])
def test_both_channels_are_the_tracks_to_the_sample(timed_run: RunFolder, out: Path, split: Split) -> None:
    expected = samples(timed_run, split)
    read = list(cuts(out / split / "000"))
    assert [cut.id for cut in read] == [encoded.sample.key for encoded in expected]
    for cut, encoded in zip(read, expected, strict=True):
        lhotse.validate(cut, read_data=True)
        user, assistant = tracks(encoded)
        assert (cut.sampling_rate, cut.target_audio.sampling_rate) == (16000, 24000)
        assert np.array_equal(cut.load_audio(), user[None] / np.float32(32768))
        assert np.array_equal(cut.load_target_audio(), assistant[None] / np.float32(32768))
        assert cut.duration == cut.target_audio.duration == pytest.approx(encoded.sample.duration)


@pytest.mark.parametrize("split", get_args(Split)[:2])
def test_a_supervision_is_a_turn_and_lies_inside_its_cut(timed_run: RunFolder, out: Path, split: Split) -> None:
    for cut, encoded in zip(cuts(out / split / "000"), samples(timed_run, split), strict=True):
        speakers = {"user": "user", "assistant": "agent"}
        assert [(item.speaker, item.text, item.language) for item in cut.supervisions] == [
            (speakers[turn.role], turn.spoken, encoded.sample.language) for turn in encoded.sample.turns
        ]
        for item, turn in zip(cut.supervisions, encoded.sample.turns, strict=True):
            assert (item.start, item.end) == pytest.approx((turn.start, turn.end), abs=1e-5)
            assert 0 <= item.start < item.end <= cut.duration
            channel = cut.load_audio() if item.speaker == "user" else cut.load_target_audio()
            rate = cut.sampling_rate if item.speaker == "user" else cut.target_audio.sampling_rate
            assert np.abs(channel[0, round(item.start * rate) : round(item.end * rate)]).max() > 0.05


def test_each_manifest_is_one_that_lhotse_would_write(out: Path) -> None:
    lines = [
        line for path in out.rglob("cuts.*") for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    ]
    assert lines
    for line in lines:
        assert lhotse.serialization.deserialize_item(json.loads(line)).to_dict() == json.loads(line)


def test_it_says_where_a_dialogue_is_from_and_what_the_system_prompt_is(timed_run: RunFolder, tmp_path: Path) -> None:
    encoded = changed(samples(timed_run, "train")[0], system="Be brief.")
    write(tmp_path, Lhotse(Options(text="written")).unit(0, "train", iter([encoded])))
    (cut,) = cuts(tmp_path / "train" / "000")
    assert cut.system_prompt == "Be brief."
    assert (cut.source, cut.row, cut.license) == ("synthetic", encoded.sample.source.row, "CC0-1.0")
    assert cut.synthetic is True
    assert [item.text for item in cut.supervisions] == [turn.written for turn in encoded.sample.turns]


def test_the_same_run_gives_the_same_bytes_at_another_time(
    timed_run: RunFolder, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    export(timed_run.root, "lhotse", tmp_path / "again")
    assert dict(contents(tmp_path / "again")) == dict(contents(out))
