"""Moshi by its written rule: README.md, `finetune/data/dataset.py` and `finetune/data/interleaver.py` of
kyutai-labs/moshi-finetune, which is in no registry. test_format_trainers.py reads the JSONL with its audio
reader, sphn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from pipeline import audio
from pipeline.dialogue import Clip, Split
from pipeline.errors import UsageError
from pipeline.shards.store import RunFolder
from pipeline.training.export import export
from pipeline.training.formats.moshi import Moshi, Options
from tests.synthetic import make_run
from tests.training.units import changed, contents, samples, tracks, write


def rows(out: Path, split: Split) -> Iterator[tuple[dict[str, Any], Path, dict[str, Any]]]:
    """(row of the JSONL, its audio, what is beside it), as the reader finds them."""
    for line in (out / split / "dialogues.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        path = out / split / row["path"]
        yield row, path, json.loads(path.with_suffix(".json").read_text("utf-8"))


@pytest.fixture(scope="module")
def out(timed_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("moshi") / "out"
    export(timed_run.root, "moshi", out)
    return out


@pytest.mark.parametrize("split", ["train", "validation"])
def test_left_is_the_assistant_and_right_the_user(timed_run: RunFolder, out: Path, split: Split) -> None:
    expected = samples(timed_run, split)
    found = list(rows(out, split))
    assert [path.stem for _, path, _ in found] == [encoded.sample.key for encoded in expected]
    for (row, path, _), encoded in zip(found, expected, strict=True):
        user, assistant = tracks(encoded)
        pcm, rate = sf.read(path, dtype="int16")
        assert rate == 24000
        assert np.array_equal(pcm[:, 0], assistant)
        assert np.array_equal(pcm[:, 1], audio.to_pcm(audio.resample(Clip(audio.from_pcm(user), 16000), 24000).audio))
        assert row["duration"] == len(pcm) / rate == pytest.approx(encoded.sample.duration)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_words_are_those_of_the_assistants_text_in_its_turns(timed_run: RunFolder, out: Path, split: Split) -> None:
    for (_, _, beside), encoded in zip(rows(out, split), samples(timed_run, split), strict=True):
        words = beside["alignments"]
        turns = [turn for turn in encoded.sample.turns if turn.role == "assistant"]
        text = "".join(turn.spoken for turn in turns)
        assert "".join(word for word, _, _ in words).replace(" ", "") == text.replace(" ", "")
        assert {speaker for _, _, speaker in words} == {"SPEAKER_MAIN"}
        starts = [start for _, (start, _), _ in words]
        assert starts == sorted(starts)
        for _, (start, end), _ in words:
            assert start < end
            assert any(turn.start <= start and end <= turn.end + 1e-3 for turn in turns)
        assert beside["license"] == "CC0-1.0"


def test_a_word_that_was_heard_has_the_time_at_which_it_was_heard(timed_run: RunFolder, out: Path) -> None:
    seen = 0
    for (_, _, beside), encoded in zip(rows(out, "validation"), samples(timed_run, "validation"), strict=True):
        if encoded.sample.language == "en":
            heard = [word for turn in encoded.sample.turns if turn.role == "assistant" for word in turn.words]
            assert [word for word, _, _ in beside["alignments"]] == [word.text for word in heard]
            for (_, span, _), word in zip(beside["alignments"], heard, strict=True):
                assert span == pytest.approx((word.start, word.end), abs=1e-3)
                seen += 1
    assert seen > 10


def test_without_word_times_it_refuses_and_names_both_ways_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dialogues=2, unit_size=2, languages=("en",), rejected=0)
    with pytest.raises(UsageError, match=r"asr\.words is false.*--set asr\.words=true.*--set times=even"):
        export(run.root, "moshi", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    summary = export(run.root, "moshi", tmp_path / "out", options={"times": "even"})
    (note,) = summary.notes
    assert note in (tmp_path / "out" / "README.md").read_text("utf-8")
    for (_, _, beside), encoded in zip(rows(tmp_path / "out", "train"), samples(run, "train"), strict=True):
        turn = encoded.sample.turns[1]
        words = [(word, span) for word, span, _ in beside["alignments"] if span[1] <= turn.end + 1e-3]
        assert words[0][1][0] == pytest.approx(turn.start, abs=1e-3)
        assert words[-1][1][1] == pytest.approx(turn.end, abs=1e-3)
        letters = [sum(map(str.isalnum, word)) for word, _ in words]
        pace = [(end - start) / count for (_, (start, end)), count in zip(words, letters, strict=True)]
        assert pace == pytest.approx([(turn.end - turn.start) / sum(letters)] * len(pace), abs=2e-3)
        assert all(one[1][1] == pytest.approx(two[1][0], abs=2e-3) for one, two in pairwise(words))


def test_a_turn_whose_words_have_no_times_is_named(timed_run: RunFolder, tmp_path: Path) -> None:
    encoded = samples(timed_run, "train")[0]
    turns = tuple(turn.model_copy(update={"words": ()}) for turn in encoded.sample.turns)
    with pytest.raises(UsageError, match=f"{encoded.sample.key}: .* no word times for turn 2; give --set times=even"):
        write(tmp_path, Moshi(Options()).unit(0, "train", iter([changed(encoded, turns=turns)])))


def test_the_same_run_gives_the_same_bytes(timed_run: RunFolder, out: Path, tmp_path: Path) -> None:
    export(timed_run.root, "moshi", tmp_path / "again")
    assert dict(contents(tmp_path / "again")) == dict(contents(out))
