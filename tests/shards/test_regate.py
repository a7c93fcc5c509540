"""Judging again: stored scores and clips, other limits, nothing spoken and nothing heard."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.dialogue import Reject
from pipeline.engine.regate import regate
from pipeline.engine.run import load_frozen, run
from pipeline.errors import ConfigError, DataError, RunFolderError, RunMismatchError
from pipeline.shards.format import Encoded
from pipeline.shards.reader import read_rejects, read_unit
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from tests.fakes import FakeLLM, Silent, config_file, tree
from tests.synthetic import make_run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three units of four; the first three dialogues are rejected: by the judge, for the text, by the judge."""
    return make_run(tmp_path_factory.mktemp("source") / "run", dialogues=12, unit_size=4, rejected=3)


def again(source: RunFolder, out: Path, *settings: str) -> Stats:
    """The regated run, verified clip by clip."""
    stats = regate(source.root, out, settings, Silent())
    folder = RunFolder(out)
    *_, state = verify(folder, load_frozen(folder)[0], decode=True)
    assert state.ok, state.problems
    return stats


def samples(folder: RunFolder) -> dict[str, Encoded]:
    return {item.sample.key: item for manifest in folder.manifests() for item in read_unit(folder, manifest)}


def rejects(folder: RunFolder) -> dict[str, tuple[Reject, Encoded | None]]:
    found = [item for manifest in folder.manifests() for item in read_rejects(folder, manifest)]
    return {reject.id: (reject, encoded) for reject, encoded in found}


def stats_of(folder: RunFolder) -> Stats:
    return Stats.model_validate_json(folder.stats.read_bytes())


def test_the_same_limits_give_the_same_verdicts_clips_and_totals(source: RunFolder, tmp_path: Path) -> None:
    assert again(source, tmp_path / "out") == stats_of(source)
    old, new = samples(source), samples(RunFolder(tmp_path / "out"))
    assert list(old) == list(new) and len(old) == 9
    for key, encoded in old.items():
        assert (new[key].user, new[key].assistant) == (encoded.user, encoded.assistant)
        assert new[key].sample.turns == encoded.sample.turns
    assert {key: reject for key, (reject, _) in rejects(source).items()} == {
        key: reject for key, (reject, _) in rejects(RunFolder(tmp_path / "out")).items()
    }


def test_the_same_limits_give_the_same_tars(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    """Of a run whose digests are its own, not a byte of any shard is another."""
    config = load_config(str(config_file(tmp_path / "run.yaml", llm.base_url, corpus)), ["engine.kind=local"])
    run(config, tmp_path / "run", Silent())
    again(RunFolder(tmp_path / "run"), tmp_path / "out")
    assert _tars(tmp_path / "run") == _tars(tmp_path / "out") != {}


def _tars(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.tar")}


def test_tighter_limits_reject_with_a_reason_and_keep_the_clips(source: RunFolder, tmp_path: Path) -> None:
    before = {key: min(_mos(item)) for key, item in samples(source).items()}
    limit = sorted(before.values())[4]
    assert min(before.values()) < limit <= max(before.values())
    stats = again(source, tmp_path / "out", f"judge.min_mos={limit}")
    out = RunFolder(tmp_path / "out")
    expected = {key for key, value in before.items() if value < limit}
    assert set(samples(out)) == set(before) - expected
    assert stats.accepted == len(before) - len(expected) and stats.rejected["judge: mos"] >= len(expected)
    assert stats.planned == stats.accepted + sum(stats.rejected.values()) == 12
    for key in expected:
        reject, encoded = rejects(out)[key]
        assert (reject.stage, reject.reason, reject.clips) == ("judge", "mos", True)
        assert f"limit {limit}" in reject.detail
        assert encoded is not None and encoded.user == samples(source)[key].user
        assert "mos" in {take.reason for turn in encoded.sample.turns for take in turn.takes if take.take == turn.take}


def test_floors_refuse_what_lies_below_them(source: RunFolder, tmp_path: Path) -> None:
    before = {key: item for key, item in samples(source).items() if item.sample.language == "en"}
    floor = sorted(min(_mos(item)) for item in before.values())[2]
    again(source, tmp_path / "out", f"judge.floors.en={{mos_ovr: {floor}}}")
    out = RunFolder(tmp_path / "out")
    expected = {key for key, item in before.items() if min(_mos(item)) < floor}
    assert expected and {key for key, (reject, _) in rejects(out).items() if reject.reason == "mos_ovr"} == expected
    assert set(before) - expected <= set(samples(out))


def test_score_only_takes_back_all_that_was_heard(source: RunFolder, tmp_path: Path) -> None:
    stats = again(source, tmp_path / "out", "judge.mode=score_only")
    assert stats.rejected == {"filter: url": 1} and stats.accepted == 11
    back = set(samples(RunFolder(tmp_path / "out"))) - set(samples(source))
    assert back == {key for key, (_, encoded) in rejects(source).items() if encoded}


def test_a_gate_on_what_the_run_did_not_measure_is_refused(source: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"judge\.floors\.en\.similarity needs a speaker encoder: quality\.speaker is none"
    ):
        regate(source.root, tmp_path / "out", ["judge.floors.en={similarity: 0.5}"], Silent())
    assert not list((tmp_path / "out").rglob("*.json"))


def _mos(item: Encoded) -> list[float]:
    return [score.value for turn in item.sample.turns for score in turn.scores if score.name == "mos_ovr"]


def test_looser_limits_bring_kept_rejects_back(source: RunFolder, tmp_path: Path) -> None:
    stats = again(source, tmp_path / "out", "judge.limits.en={wer: 9}", "judge.limits.zh={cer: 9}")
    assert stats.rejected == {"filter: url": 1} and stats.accepted == 11
    back = set(samples(RunFolder(tmp_path / "out"))) - set(samples(source))
    assert len(back) == 2
    for key in back:
        old = rejects(source)[key][1]
        new = samples(RunFolder(tmp_path / "out"))[key]
        assert old is not None and (new.user, new.assistant) == (old.user, old.assistant)
        assert {take.reason for turn in new.sample.turns for take in turn.takes if take.take == turn.take} == {""}


def test_there_and_back_again(source: RunFolder, tmp_path: Path) -> None:
    """What a tighter limit rejected, the old one accepts with the same clips; the way is recorded in the digest."""
    again(source, tmp_path / "tight", "judge.min_mos=5")
    assert samples(RunFolder(tmp_path / "tight")) == {}
    again(RunFolder(tmp_path / "tight"), tmp_path / "back", "judge.min_mos=null")
    old, new = samples(source), samples(RunFolder(tmp_path / "back"))
    assert {key: (item.user, item.assistant) for key, item in old.items()} == {
        key: (item.user, item.assistant) for key, item in new.items()
    }


def test_without_kept_clips_nothing_comes_back(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", rejected=1, keep="none")
    stats = again(source, tmp_path / "out", "judge.limits.en={wer: 9}")
    assert stats.rejected == stats_of(source).rejected == {"judge: wer": 1}


@pytest.mark.parametrize(
    "setting", ["tts.speeds=[1]", "dialogues=4", "seed=1", "judge", "engine.kind=ray", "nojudge.keep=all"]
)
def test_only_the_judge_may_change(source: RunFolder, tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"regate changes only judge\.\*|write it as key=value"):
        regate(source.root, tmp_path / "out", [setting], Silent())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "setting",
    ["judge.limits.en.wre=1", "judge.floors.zh.similarty=1", "judge.keep=most", "judge.min_mos=9", "judge.limit=1"],
)
def test_a_bad_judge_is_named(source: RunFolder, tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"judge"):
        regate(source.root, tmp_path / "out", [setting], Silent())
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run")
    source.manifest(1, "train").unlink()
    with pytest.raises(DataError, match=r"unit 1 is not finished; finish the run before it is regated"):
        regate(source.root, tmp_path / "out", [], Silent())


def test_the_folder_must_be_another(source: RunFolder, tmp_path: Path) -> None:
    before = tree(source.root)
    with pytest.raises(RunFolderError, match="needs a folder of its own"):
        regate(source.root, source.root / ".." / "run", ["judge.min_mos=5"], Silent())
    assert tree(source.root) == before
    with pytest.raises(RunFolderError, match=r"holds no config\.yaml"):
        regate(tmp_path, tmp_path / "out", [], Silent())


def test_other_limits_in_the_same_folder_are_refused(source: RunFolder, tmp_path: Path) -> None:
    again(source, tmp_path / "out", "judge.min_mos=3")
    before = tree(tmp_path / "out")
    with pytest.raises(RunMismatchError, match=r"judge\.min_mos is 3(\.0)? there and 2(\.0)? here"):
        regate(source.root, tmp_path / "out", ["judge.min_mos=2"], Silent())
    assert tree(tmp_path / "out") == before


def test_a_folder_with_other_things_is_left_alone(source: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.tmp").write_text("dear")
    with pytest.raises(RunFolderError, match="holds no run"):
        regate(source.root, tmp_path / "home", [], Silent())
    assert tree(tmp_path / "home") == {"letter.tmp": b"dear"}


class Stop(Silent):
    """Ends the work when a unit is finished."""

    def finished(self, manifest: Any, progress: object) -> None:
        super().finished(manifest, progress)
        raise KeyboardInterrupt


def test_it_goes_on_where_it_was(source: RunFolder, tmp_path: Path) -> None:
    again(source, tmp_path / "whole", "judge.min_mos=3")
    out, first = tmp_path / "out", Stop()
    with pytest.raises(KeyboardInterrupt):
        regate(source.root, out, ["judge.min_mos=3"], first)
    assert first.units == [0]
    (out / "shards" / "train" / "000" / "unit-000001.tar.tmp").write_bytes(b"half")
    observer = Silent()
    regate(source.root, out, ["judge.min_mos=3"], observer)
    assert observer.units == [1, 2]
    assert tree(out) == tree(tmp_path / "whole")
    last = Silent()
    regate(source.root, out, ["judge.min_mos=3"], last)
    assert last.units == [] and tree(out) == tree(tmp_path / "whole")


def test_nothing_is_spoken_or_heard(source: RunFolder, tmp_path: Path) -> None:
    """It works where no engine that the run names exists and where nothing can be asked or played."""
    text = source.config.read_text("utf-8")
    blind = tmp_path / "blind"
    blind.mkdir()
    for path in source.root.iterdir():
        if path != source.config:
            (blind / path.name).symlink_to(path)
    for name in ("kind: kokoro", "engine: faster-whisper", "engine: dnsmos"):
        assert name in text
        text = text.replace(name, f"{name.partition(':')[0]}: nobody.has:this")
    (blind / "config.yaml").write_text(text, "utf-8")
    missing = ["onnxruntime", "faster_whisper", "hibari", "misaki", "speechmos", "xllamacpp", "openai", "ray"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}));"  # importing any of them fails now
        "from pipeline.cli import main; main()"
    )
    words = ["regate", str(blind), "--out", str(tmp_path / "out"), "--set", "judge.min_mos=3"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    regate(source.root, tmp_path / "seeing", ["judge.min_mos=3"], Silent())
    assert _tars(tmp_path / "out") == _tars(tmp_path / "seeing") != {}


def test_a_run_into_a_regated_folder_is_refused(tmp_path: Path, llm: FakeLLM, corpus: Path) -> None:
    path = config_file(tmp_path / "run.yaml", llm.base_url, corpus)
    run(load_config(str(path), ["engine.kind=local"]), tmp_path / "run", Silent())
    again(RunFolder(tmp_path / "run"), tmp_path / "out", "judge.limits.en={wer: 0.5}")
    before = tree(tmp_path / "out")
    for settings in ([], ["judge.limits.en={wer: 0.5}"], ["judge.limits.en={wer: 0.5}", "dialogues=16"]):
        with pytest.raises(
            RunMismatchError, match=r"regated_from is .* there and '' here.*Choose another --out"
        ) as told:
            run(load_config(str(path), ["engine.kind=local", *settings]), tmp_path / "out", Silent())
        assert len(str(told.value).splitlines()) == 1 and "speechchat regate" not in str(told.value)
    again_itself = ["engine.kind=local", f"sources.corpus.data={corpus}", f"writer.base_url={llm.base_url}"]
    frozen = str(tmp_path / "out" / "config.yaml")
    run(load_config(frozen, again_itself), tmp_path / "out", Silent())  # it is finished: nothing happens
    with pytest.raises(RunMismatchError, match="a regated run does not grow"):
        run(load_config(frozen, [*again_itself, "dialogues=16"]), tmp_path / "out", Silent())
    assert tree(tmp_path / "out") == before


def test_a_damaged_run_is_not_regated(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    shard = next((folder.root / "shards").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"SHA-256.*speechchat verify"):
        again(folder, tmp_path / "out", "judge.limits.en={wer: 0.5}")
    assert not list((tmp_path / "out").rglob("*.tar"))
