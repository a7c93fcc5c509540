"""The synthetic run is a real run: whole, verified, and the same every time."""

from __future__ import annotations

from pathlib import Path

from pipeline.engine.run import load_frozen
from pipeline.shards.reader import read_rejects
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import Verification, verify
from tests.synthetic import make_run


def _verified(folder: RunFolder) -> Verification:
    return list(verify(folder, load_frozen(folder)[0], decode=True))[-1]


def _bytes(folder: RunFolder) -> dict[str, bytes]:
    files = (path for path in folder.root.rglob("*") if path.is_file() and folder.logs not in path.parents)
    return {folder.relative(path): path.read_bytes() for path in files}


def test_verifies_with_every_clip_decoded(tmp_path: Path) -> None:
    state = _verified(make_run(tmp_path / "run"))
    assert state.ok, state.problems
    assert (state.units, state.samples) == (2, 3)


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    assert _bytes(first) == _bytes(second)
    assert "stats.json" in _bytes(first)


def test_accepted_rejected_retaken(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=8, unit_size=4, rejected=3, splits={"train": 1, "test": 1})
    assert _verified(folder).ok
    stats = Stats.model_validate_json(folder.stats.read_bytes())
    assert (stats.planned, stats.accepted) == (8, 5)
    assert stats.rejected == {"judge: wer": 2, "filter: url": 1}
    assert stats.splits == {"test": 1, "train": 4}
    assert stats.retaken_turns == 2
    assert stats.llm_turns == 2
    rejects = [item for manifest in folder.manifests() for item in read_rejects(folder, manifest)]
    assert [(reject.stage, encoded is not None) for reject, encoded in rejects] == [
        ("judge", True),
        ("filter", False),
        ("judge", True),
    ]


def test_nothing_accepted_in_a_unit(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=2, unit_size=1, languages=("zh",), rejected=1, keep="none")
    assert _verified(folder).ok
    assert not folder.shard(0, "train").exists()
    assert not folder.reject_clips(0).exists()
    assert folder.shard(1, "train").exists()
