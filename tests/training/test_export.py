"""The driver of an export: what is there stays, what was interrupted goes on, what is wrong is said in a line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import EngineConfig
from pipeline.engine.pool import in_order
from pipeline.engine.views import make_views
from pipeline.errors import DataError, RunFolderError, SpeechchatError, UsageError
from pipeline.shards.disk import PendingFile
from pipeline.shards.remote import place
from pipeline.shards.store import RunFolder
from pipeline.training.export import Summary, export
from pipeline.training.formats import FORMATS
from pipeline.view_sections import SHIPPED
from tests.object_store import Proxy
from tests.synthetic import make_run
from tests.training.exported import samples_of, tree

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """Nothing of ours catches it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three units of two, one a split."""
    splits = {"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3}
    return make_run(tmp_path_factory.mktemp("export") / "run", 6, 2, rejected=1, splits=splits)


@pytest.fixture
def copy(run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(run.root, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


@pytest.fixture(scope="module")
def whole(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    export(run.root, "llama-factory", out)
    return out


def test_the_summary_counts_what_is_there(run: RunFolder, tmp_path: Path) -> None:
    seen: list[Summary] = []
    summary = export(run.root, "ms-swift", tmp_path / "out", progress=seen.append)
    files = [data for name, data in tree(tmp_path / "out").items() if not name.startswith(".speechchat/")]
    assert (summary.files, summary.bytes) == (len(files), sum(map(len, files)))
    assert (summary.units, summary.added, summary.missing, summary.samples) == (3, 3, 0, 5)
    assert [(item.units, item.added) for item in seen] == [(3, 0), (3, 1), (3, 2), (3, 3)]


def test_killed_at_any_point_it_goes_on_to_the_same_bytes(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is synced before it is renamed, and its folder after: the kill comes at each of these in turn."""
    splits = ["validation", "test"]
    export(run.root, "llama-factory", tmp_path / "whole", splits)
    wanted, left = tree(tmp_path / "whole"), 0

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    monkeypatch.setattr(os, "fsync", fsync)  # and never waits for the disk
    points = 0
    for point in range(1, 1000):
        out, left = tmp_path / str(point), point
        with monkeypatch.context() as patch:
            patch.setattr(PendingFile, "abort", lambda self: None)  # who is killed cleans nothing up
            try:
                export(run.root, "llama-factory", out, splits)
                break
            except Killed:
                points = point
        export(run.root, "llama-factory", out, splits)
        assert tree(out) == wanted, f"killed at sync {point}"
        shutil.rmtree(out)
    assert points > 2 * len(wanted)


@pytest.mark.faults
def test_a_killed_process_leaves_what_the_next_one_goes_on_with(run: RunFolder, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "export", str(run.root), str(out), "--to", "llama-factory"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out / "audio").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    export(run.root, "llama-factory", out)
    assert tree(out) == tree(whole)


def test_a_finished_export_is_left_as_it_is(run: RunFolder, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert export(run.root, "llama-factory", whole).added == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_what_was_lost_is_made_again(run: RunFolder, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    clip = next((tmp_path / "out").rglob("*.wav"))
    clip.unlink()
    (tmp_path / "out/train.jsonl").unlink()
    assert export(run.root, "llama-factory", tmp_path / "out").added == 1
    assert tree(tmp_path / "out") == tree(whole)


def test_a_run_that_grows(run: RunFolder, copy: RunFolder, whole: Path, tmp_path: Path) -> None:
    """Units that are not finished are counted; when they are, they are added, and the joint files made again."""
    late = [manifest for manifest in run.manifests() if manifest.unit != 1]
    for manifest in late:
        copy.manifest(manifest.unit, manifest.split).unlink()
    first = export(copy.root, "llama-factory", tmp_path / "out")
    assert (first.units, first.missing, first.added) == (1, 2, 1)
    done = CliRunner().invoke(app, ["export", str(copy.root), str(tmp_path / "out"), "--to", "llama-factory"])
    assert done.exit_code == 0
    assert "2 units of the plan are not finished" in done.stderr
    for manifest in late:
        path = copy.manifest(manifest.unit, manifest.split)
        shutil.copyfile(run.manifest(manifest.unit, manifest.split), path)
    second = export(copy.root, "llama-factory", tmp_path / "out")
    assert (second.units, second.missing, second.added) == (3, 0, 2)
    assert tree(tmp_path / "out") == tree(whole)


def test_a_longer_plan_is_the_same_run(copy: RunFolder, tmp_path: Path) -> None:
    export(copy.root, "ms-swift", tmp_path / "out")
    plan = yaml.safe_load(copy.config.read_text("utf-8"))
    copy.config.write_text(yaml.safe_dump({**plan, "dialogues": plan["dialogues"] + 4}), "utf-8")
    assert export(copy.root, "ms-swift", tmp_path / "out").missing == 2


def test_splits(run: RunFolder, tmp_path: Path) -> None:
    export(run.root, "ms-swift", tmp_path / "out", ["test", "train"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".speechchat",
        "audio",
        "test.jsonl",
        "train.jsonl",
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path, columns=["key", "channel"]).to_pylist()


def test_a_view_is_a_run(copy: RunFolder, tmp_path: Path) -> None:
    class Quiet:
        def began(self, name: str, units: int, finished: int) -> None: ...
        def finished(self, manifest: object) -> None: ...
        def trouble(self, message: str) -> None:
            raise AssertionError(message)

    make_views(copy.root, {"phone": SHIPPED["phone"]}, EngineConfig(kind="local", studios=1), Quiet())
    view = RunFolder(copy.root / "views" / "phone")
    summary = export(view.root, "hf", tmp_path / "out")
    assert summary.samples == len(list(samples_of(copy)))
    rows = [row for path in sorted((tmp_path / "out").glob("data/*/*/*.parquet")) for row in read_rows(path)]
    channels = {sample.key: sample.model_dump(mode="json")["channel"] for sample, *_ in samples_of(view)}
    assert {row["key"]: row["channel"] for row in rows} == channels and all(channels.values())
    with pytest.raises(UsageError, match="of another run than"):
        export(copy.root, "hf", tmp_path / "out")


def damaged(copy: RunFolder, name: bytes) -> Path:
    """A bit of the payload of a member is flipped."""
    shard = next(copy.root.glob("shards/train/*/*.tar"))
    data = bytearray(shard.read_bytes())
    data[data.index(name) + 512 + 700] ^= 1
    shard.write_bytes(data)
    return shard


@pytest.mark.parametrize("member", ["json", "user.flac", "assistant.flac"])
def test_a_damaged_shard_is_named(copy: RunFolder, tmp_path: Path, member: str) -> None:
    name = f"{next(samples_of(copy, 'train'))[0].key}.{member}"
    shard = damaged(copy, name.encode())
    with pytest.raises(DataError) as raised:
        export(copy.root, "hf", tmp_path / "out")
    assert str(shard) in str(raised.value)
    assert name in str(raised.value)


def test_a_shard_that_is_cut_or_gone(copy: RunFolder, tmp_path: Path) -> None:
    shard = next(copy.root.glob("shards/train/*/*.tar"))
    shard.write_bytes(shard.read_bytes()[:-20_000])
    with pytest.raises(DataError, match=r"cut short|does not end"):
        export(copy.root, "hf", tmp_path / "out")
    shard.unlink()
    with pytest.raises(DataError, match=r"unit-\d+\.tar: this file is missing"):
        export(copy.root, "hf", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"format": "ms_swfit"}, "did you mean 'ms-swift'"),
        ({"splits": ["trian"]}, "did you mean 'train'"),
        ({"options": {"txt": "written"}}, "--set txt: no option of the format ms-swift; did you mean 'text'"),
        ({"options": {"text": "loud"}}, "--set text: "),
        ({"options": {"rate": "fast"}}, "--set rate: "),
        ({"options": {"rate": 0}}, "--set rate: "),
        ({"format": "slam-omni", "options": {"rate": 0}}, "--set rate: "),
        ({"format": "llama-omni", "options": {"units": "nowhere.jsonl"}}, "nowhere.jsonl: there is no such file"),
        ({"out": "s3://bucket/out"}, "a folder of this machine"),
    ],
)
def test_what_cannot_be_done(run: RunFolder, tmp_path: Path, arguments: dict, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        export(**{"run": run.root, "format": "ms-swift", "out": tmp_path / "out", **arguments})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"format": "hf"}, "in the format llama-factory, not hf"),
        ({"splits": ["test"]}, "of the splits train, validation, test, not test"),
        ({"options": {"rate": 8000}}, "with rate=16000"),
    ],
)
def test_a_folder_that_holds_another_export(run: RunFolder, whole: Path, arguments: dict, said: str) -> None:
    before = tree(whole)
    with pytest.raises(UsageError) as raised:
        export(**{"run": run.root, "format": "llama-factory", "out": whole, **arguments})
    assert said in str(raised.value)
    assert tree(whole) == before


def test_a_folder_that_holds_something_else(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"is not empty \('thesis.txt' is in it\)"):
        export(run.root, "hf", tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        export(run.root, "hf", tmp_path / "thesis.txt")
    assert tree(tmp_path) == {"thesis.txt": b"mine"}


def test_a_folder_in_the_run(copy: RunFolder) -> None:
    """What `verify` does not know there it calls a problem."""
    before = tree(copy.root)
    with pytest.raises(UsageError, match="lies in the run itself"):
        export(copy.root, "hf", copy.root / "shards" / "hf")
    assert tree(copy.root) == before


def test_a_file_that_somebody_edited_is_not_overwritten(run: RunFolder, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    edited = tmp_path / "out/train.jsonl"
    edited.write_text("mine")
    with pytest.raises(UsageError, match=r"train.jsonl: 4 bytes where \d+ were written"):
        export(run.root, "llama-factory", tmp_path / "out")
    assert edited.read_text() == "mine"


def test_nor_when_the_run_has_grown_or_a_file_beside_it_is_lost(copy: RunFolder, tmp_path: Path) -> None:
    out, last = tmp_path / "out", list(copy.manifests())[-1]
    manifest = copy.manifest(last.unit, last.split)
    data = manifest.read_bytes()
    manifest.unlink()
    export(copy.root, "hf", out)
    manifest.write_bytes(data)
    (out / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"README.md: 4 bytes where \d+ were written"):
        export(copy.root, "hf", out)
    assert (out / "README.md").read_text() == "mine"
    (out / "README.md").unlink()
    unit = sorted(out.glob("data/*/*/*.parquet"))[0]
    facts = next(out.glob(f".speechchat/facts/*/{unit.stem}.json"))
    unit.unlink()
    facts.write_text("mine")
    with pytest.raises(UsageError, match=r"unit-\d+.json: 4 bytes where \d+ were written"):
        export(copy.root, "hf", out)
    assert facts.read_text() == "mine"


def test_runs_that_are_none(copy: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"holds no config\.yaml"):
        export(tmp_path, "hf", tmp_path / "out")
    for path in copy.root.glob("shards/*/*/*.json"):
        path.unlink()
    with pytest.raises(UsageError, match="no unit of split train, validation, test is finished"):
        export(copy.root, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_unit_that_was_made_anew_is_not_mixed_in(copy: RunFolder, tmp_path: Path) -> None:
    export(copy.root, "hf", tmp_path / "out")
    manifest = next(copy.manifests())
    shard = next(
        item.sha256 for item in manifest.files if item.path.startswith("shards/") and item.path.endswith(".tar")
    )
    path = copy.manifest(manifest.unit, manifest.split)
    path.write_text(path.read_text("utf-8").replace(shard, "0" * 64), "utf-8")
    with pytest.raises(UsageError, match="unit 0 was made from another shard"):
        export(copy.root, "hf", tmp_path / "out")


def test_two_at_once(run: RunFolder, tmp_path: Path) -> None:
    """The second is refused while the first is at work."""
    said: list[str] = []

    def second(summary: Summary) -> None:
        try:
            export(run.root, "hf", tmp_path / "out")
        except SpeechchatError as error:
            said.append(str(error))

    export(run.root, "hf", tmp_path / "out", progress=second)
    assert len(said) == 4
    assert all("another export is writing to this folder" in line for line in said)


def test_the_command_says_what_is_missing(run: RunFolder, tmp_path: Path) -> None:
    command = [
        "export",
        str(run.root),
        str(tmp_path / "out"),
        "--to",
        "llama-omni",
        "--split",
        "train",
        "--set",
        "version=1",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "no `tgt_units`" in done.stderr
    assert (tmp_path / "out/train.json").is_file()
    assert "it was finished already" in CliRunner().invoke(app, command).stdout
    assert all(name in CliRunner().invoke(app, ["export", "--help"]).stdout for name in FORMATS)


def test_a_run_on_a_store(store: Proxy, run: RunFolder, whole: Path, tmp_path: Path) -> None:
    for name, data in tree(run.root).items():
        place(f"s3://bucket/run/{name}").write_bytes(data)
    for name, each in (("here", map), ("processes", partial(in_order, workers=2))):
        export("s3://bucket/run", "llama-factory", tmp_path / name, each=each)
        assert tree(tmp_path / name) == tree(whole)
