"""Whatever is damaged of a finished run: repair takes it out, and the run's own command makes exactly that again."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.engine import mending
from pipeline.engine.run import load_frozen
from pipeline.engine.run import run as run_here
from pipeline.shards.store import RunFolder
from tests.command_line import CommandLine, refused
from tests.fakes import FakeLLM, Silent, config_file, llm_server, tree, write_corpus
from tests.shards.damage import members, refit, tar_bytes

pytestmark = pytest.mark.faults

LINES = ["Shall we take a walk?", "Do not stumble.", "This is hopeless.", "Where is the old bridge?"]


class Ground:
    """A finished run of four units with every kind of file, and a copy of it to damage."""

    def __init__(self, root: Path, llm: FakeLLM):
        self.config = config_file(
            root / "run.yaml",
            llm.base_url,
            write_corpus(root / "corpus", LINES),
            judge__keep="all",
            dedup__enabled=True,
            engine__kind="local",
        )
        self.llm = llm
        self.undisturbed = RunFolder(root / "undisturbed")
        self.run(self.undisturbed)
        self.tree = tree(self.undisturbed.root)

    def run(self, folder: RunFolder) -> None:
        run_here(load_config(str(self.config)), folder.root, Silent())


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with llm_server() as llm:
        yield Ground(tmp_path_factory.mktemp("ground"), llm)


@pytest.fixture
def folder(ground: Ground, tmp_path: Path) -> RunFolder:
    shutil.copytree(ground.undisturbed.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def first(folder: RunFolder, pattern: str) -> Path:
    return min(folder.root.glob(pattern))


FILES = {
    "shard": "shards/*/*/*.tar",
    "index": "shards/*/*/*.parquet",
    "list of rejects": "rejects/*/unit-??????.jsonl",
    "kept clips": "rejects/*/unit-??????.tar",
    "kept takes": "rejects/*/*.takes.tar",
    "text": "dialogues/*/*.jsonl",
}
PLAIN = {"manifest": "shards/*/*/*.json", "rows": "sources/*/*.jsonl", "verdicts": "dedup/*/*.jsonl"}


def garble(path: Path) -> None:
    path.write_bytes(b"{" + path.read_bytes()[1:].replace(b'"', b"'", 1))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[(name, flip) for name in FILES],
        *[(name, garble) for name in PLAIN],
        ("shard", Path.unlink),
        ("text", Path.unlink),
        ("totals", garble),
        ("card", Path.unlink),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_was_taken_out_is_made_again(
    speechchat: CommandLine, ground: Ground, folder: RunFolder, name: str, damage: Callable[[Path], None]
) -> None:
    patterns = {**FILES, **PLAIN, "totals": "stats.json", "card": "README.md"}
    path = first(folder, patterns[name])
    before = len(ground.llm.requests)
    damage(path)
    assert speechchat("verify", folder.root).status == 1
    told = speechchat("repair", folder.root, "--dry-run")
    damaged = tree(folder.root)
    done = speechchat("repair", folder.root)
    assert done.status == 0 and f"{path}: " in done.out, done
    assert f"speechchat run CONFIG --out {folder.root}" in done.out
    # The dry run said the same, and did nothing.
    gone = set(damaged) - set(tree(folder.root))
    assert damaged.items() >= tree(folder.root).items()
    assert told.out.replace(" would be removed", " removed").replace(" would be moved", " moved") == done.out
    assert told.status == int(bool(gone))
    assert {line.partition(": ")[0] for line in done.out.splitlines() if "removed" in line.split(": ")[-1]} >= {
        str(folder.root / item) for item in gone if not item.startswith("dialogues/")
    }
    ground.run(folder)
    assert tree(folder.root) == ground.tree
    assert speechchat("verify", folder.root, "--decode").status == 0
    assert len(ground.llm.requests) == before  # nothing is paid twice


def test_a_whole_run_is_left_as_it_is(speechchat: CommandLine, ground: Ground, folder: RunFolder) -> None:
    done = speechchat("repair", folder.root, "--decode")
    assert done.status == 0 and done.out == "nothing is damaged, 4 units are whole\n"
    assert tree(folder.root) == ground.tree


def test_a_clip_that_only_decoding_finds_damaged(speechchat: CommandLine, ground: Ground, folder: RunFolder) -> None:
    path = first(folder, "rejects/*/unit-??????.tar")
    unit = int(path.stem.removeprefix("unit-"))
    content = members(path)
    data = bytearray(content[1][1])
    data[len(data) // 2] ^= 1
    content[1] = (content[1][0], bytes(data))
    path.write_bytes(tar_bytes(content))
    refit(folder, unit)
    assert "nothing is damaged" in speechchat("repair", folder.root).out
    assert f"{path}: {content[1][0]}: not decodable" in speechchat("repair", folder.root, "--decode").out
    ground.run(folder)
    assert tree(folder.root) == ground.tree


def test_files_of_others_are_named_and_stay_unless_asked_for(
    speechchat: CommandLine, ground: Ground, folder: RunFolder
) -> None:
    strangers = [folder.root / "shards/train/000/unit-000099.tar", folder.root / "dialogues/notes.txt"]
    for path in strangers:
        path.write_bytes(b"mine")
    done = speechchat("repair", folder.root)
    assert done.status == 0 and all(path.exists() for path in strangers)
    assert all(f"{path}: no manifest names this file" in done.out for path in strangers)
    done = speechchat("repair", folder.root, "--foreign", "--json")
    assert json.loads(done.out)["removed"] == sorted(map(str, strangers), reverse=True)
    assert tree(folder.root) == ground.tree


def test_a_text_that_is_taken_out_is_kept_beside(speechchat: CommandLine, ground: Ground, folder: RunFolder) -> None:
    """Somebody may have edited it."""
    path = folder.text(2)
    edited = path.read_bytes() + b"{"
    path.write_bytes(edited)
    assert f"{path}: moved to logs/damaged" in speechchat("repair", folder.root).out
    assert not path.exists()
    assert (folder.logs / "damaged" / path.name).read_bytes() == edited


@pytest.mark.parametrize("removals", [1, 2, 3, 6])
def test_a_kill_on_the_way_leaves_no_manifest_without_its_files(
    ground: Ground, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    """After so many files that were taken out; the next repair and the next run make the same of what is left."""
    text = folder.text(0).read_bytes()
    assert b"Very well" in text
    folder.text(0).write_bytes(text.replace(b"Very well", b"Vary well"))  # only its manifest can tell
    flip(max(folder.root.glob(FILES["shard"])))
    config, frozen = load_frozen(folder)
    before = tree(folder.root)

    class Killed(BaseException):
        pass

    def stop(times: list[int], function: Callable[..., Path | None], *arguments: Path) -> Path | None:
        times[0] -= 1
        if times[0] < 0:
            raise Killed
        return function(*arguments)

    left = [removals]
    unlink, replace = Path.unlink, Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path: stop(left, unlink, path))
        patch.setattr(Path, "replace", lambda path, other: stop(left, replace, path, other))
        patch.setattr(RunFolder, "sweep", lambda folder: None)
        with pytest.raises(Killed):
            mending.repair(folder, config, frozen.digests, workers=1)
    assert len(before) - len(tree(folder.root)) == removals
    for manifest in folder.manifests():
        lost = [fact.path for fact in manifest.files if not (folder.root / fact.path).exists()]
        assert all(path.startswith("dialogues/") for path in lost)
    mending.repair(folder, config, frozen.digests, workers=1)
    ground.run(folder)
    assert tree(folder.root) == ground.tree


def test_a_run_whose_configuration_is_another_is_left_alone(
    speechchat: CommandLine, ground: Ground, folder: RunFolder
) -> None:
    text = folder.config.read_text("utf-8")
    assert "unit_size: 2" in text
    folder.config.write_text(text.replace("unit_size: 2", "unit_size: 4"), "utf-8")
    damaged = tree(folder.root)
    refused(speechchat("repair", folder.root), 1, str(folder.config), "nothing was removed: put it back")
    assert tree(folder.root) == damaged


def test_a_file_that_the_system_refuses_is_left_alone(
    speechchat: CommandLine, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so that the refusal is put where files are opened; what is refused may be whole."""
    flip(first(folder, FILES["index"]))
    path = max(folder.root.glob(FILES["shard"]))
    damaged, opened = tree(folder.root), Path.open

    def refuse(self: Path, *words: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        refused(speechchat("repair", folder.root), 4, f"{path}: not readable: Permission denied; nothing was removed")
    assert tree(folder.root) == damaged


def test_a_run_that_somebody_writes_to_is_left_alone(speechchat: CommandLine, folder: RunFolder) -> None:
    flip(first(folder, FILES["shard"]))
    damaged = tree(folder.root)
    with folder.driver_lock():
        refused(speechchat("repair", folder.root), 2, "another speechchat run is writing to this folder")
        assert speechchat("repair", folder.root, "--dry-run").status == 1
    assert tree(folder.root) == damaged
