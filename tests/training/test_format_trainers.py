"""Exports read by the trainers' own readers, which live in an environment of their own (make test-trainers).

The tests run here; NeMo 3.0.0, and sphn, which reads the audio for moshi-finetune, run in the environment that
SPEECHCHAT_TRAINERS names, .venv-trainers if it names none.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from pipeline.shards.store import RunFolder
from pipeline.training.export import export
from tests.training.units import samples, tracks

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Path(os.environ.get("SPEECHCHAT_TRAINERS", ROOT / ".venv-trainers")).absolute()

pytestmark = pytest.mark.trainers

FRAME, BOS, EOS = 0.08, 1, 2
SECONDS = 2.0


def read(script: str, *arguments: object, answer: Path) -> Any:
    """The JSON that a script of this folder writes to the file of its last argument."""
    command = [ENVIRONMENT / "bin" / "python", "-m", f"tests.training.{script}", *map(str, arguments), answer]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(answer.read_bytes())


def digest(pcm: np.ndarray) -> str:
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


@pytest.mark.parametrize("tar_mb", [0, 256])
def test_nemo_has_each_turns_clip_and_text(timed_run: RunFolder, tmp_path: Path, tar_mb: int) -> None:
    export(timed_run.root, "nemo", tmp_path / "out", ["validation"], {"tar_mb": tar_mb})
    expected = []
    for encoded in samples(timed_run, "validation"):
        user, _ = tracks(encoded)
        turns = [
            {"role": "user", "sha256": digest(user[round(turn.start * 16000) : round(turn.end * 16000)])}
            if turn.role == "user"
            else {"role": "assistant", "text": turn.spoken}
            for turn in encoded.sample.turns
        ]
        expected.append({"id": encoded.sample.key, "turns": turns})
    found = read("read_nemo", "nemo", tmp_path / "out" / "validation", answer=tmp_path / "answer.json")
    assert len(expected) == 4
    assert found["in order"] == expected
    assert found["shuffled"] != expected
    assert sorted(found["shuffled"], key=expected.index) == expected


def test_nemos_duplex_dataset_has_both_channels_and_the_text_at_its_frames(
    timed_run: RunFolder, tmp_path: Path
) -> None:
    export(timed_run.root, "lhotse", tmp_path / "out", ["validation"])
    expected = samples(timed_run, "validation")
    batch = read("read_nemo", "lhotse", tmp_path / "out" / "validation" / "000", answer=tmp_path / "answer.json")
    assert batch["ids"] == [encoded.sample.key for encoded in expected]
    for place, encoded in enumerate(expected):
        user, assistant = tracks(encoded)
        assert (batch["source"][place], batch["target"][place]) == (digest(user), digest(assistant))
        said = [turn.spoken for turn in encoded.sample.turns if turn.role == "assistant"]
        assert batch["texts"][place] == " ".join(said)
        for role, side in (("user", "source"), ("assistant", "target")):
            tokens = batch["tokens"][side][place]
            for turn in encoded.sample.turns:
                if turn.role == role:
                    first, last = (round(time / FRAME) for time in (turn.start, turn.end))
                    assert BOS in tokens[first - 1 : first + 2]
                    assert EOS in tokens[last - 1 : last + 2]


def test_sphn_finds_every_piece_with_moshi_at_the_left(timed_run: RunFolder, tmp_path: Path) -> None:
    export(timed_run.root, "moshi", tmp_path / "out", ["validation"])
    jsonl = tmp_path / "out" / "validation" / "dialogues.jsonl"
    found = read("read_moshi", jsonl, SECONDS, answer=tmp_path / "answer.json")
    rows = [json.loads(line) for line in jsonl.read_text("utf-8").splitlines()]
    expected = []
    for row, encoded in zip(rows, samples(timed_run, "validation"), strict=True):
        path = jsonl.parent / row["path"]
        _, assistant = tracks(encoded)
        stereo, rate = sf.read(path, dtype="int16")
        assert (stereo[:, 0] == assistant).all()
        for first in range(0, len(stereo), int(SECONDS * rate)):
            piece = stereo[first : first + int(SECONDS * rate)]
            sums = [digest(piece[:, side]) for side in (0, 1)]
            expected.append({"path": str(path), "start": first / rate, "sha256": sums})
            assert path.with_suffix(".json").is_file()
    assert found == expected
