"""A release holds exactly what the run holds, and its readers find it with nothing but their own tools."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.config import EngineConfig
from pipeline.dialogue import Sample
from pipeline.engine.run import load_frozen
from pipeline.engine.views import make_views
from pipeline.errors import DataError, UsageError
from pipeline.shards.disk import sha256_file
from pipeline.shards.format import MEMBERS
from pipeline.shards.index import INDEX_SCHEMA
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_unit
from pipeline.shards.release_list import Release, parse_release, read_release
from pipeline.shards.remote import read_ranges, reading_place, whole
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder
from pipeline.training.release import release
from pipeline.training.release_card import size_category
from pipeline.training.stream import DialogueStream
from pipeline.view_sections import SHIPPED
from tests.synthetic import make_run
from tests.web_server import web_server

SIZE = 500_000  # two units or so


def released(folder: RunFolder, out: Path, size: int = SIZE, **options: Any) -> Release:
    return release(folder, *load_frozen(folder), out, size, **options)


class Unseen:
    """A ViewObserver that shows nothing."""

    def began(self, name: str, units: int, finished: int) -> None:
        pass

    def finished(self, manifest: Manifest) -> None:
        pass

    def trouble(self, message: str) -> None:
        raise AssertionError(message)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Six units of train and two of test."""
    root = tmp_path_factory.mktemp("made") / "run"
    return make_run(root, dialogues=16, unit_size=2, rejected=3, splits={"train": 3, "test": 1})


@pytest.fixture(scope="module")
def made(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("released") / "out"
    released(run, out)
    return out


def samples(folder: RunFolder, split: str) -> dict[str, bytes]:
    """Members of the run by name, in order."""
    return {
        f"{encoded.sample.key}.{suffix}": data
        for manifest in folder.manifests()
        if manifest.split == split
        for encoded in read_unit(folder, manifest)
        for suffix, data in encoded.members()
    }


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def unpacked(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                file = tar.extractfile(info)
                assert file is not None
                yield info.name, file.read()


# ---- what is in it ----


@pytest.mark.parametrize("split", ["train", "test"])
def test_shards_hold_every_member_of_the_run_once_and_in_order(run: RunFolder, made: Path, split: str) -> None:
    tars = sorted((made / split).glob("*.tar"))
    assert list(unpacked(tars)) == list(samples(run, split).items())
    assert [path.name for path in tars] == [f"{split}-{n:05d}-of-{len(tars):05d}.tar" for n in range(len(tars))]
    for path in tars:
        listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        assert listed.stderr == "" and len(listed.stdout.split()) % 3 == 0


def test_shards_are_joined_up_to_the_size(run: RunFolder, made: Path, tmp_path: Path) -> None:
    largest = max(path.stat().st_size for path in run.root.glob("shards/*/*/*.tar"))
    sizes = [path.stat().st_size for path in sorted((made / "train").glob("*.tar"))]
    assert 1 < len(sizes) < 6 and max(sizes) <= SIZE and min(sizes[:-1]) > SIZE - largest
    whole = released(run, tmp_path / "whole", 10**9)
    assert [shard.tar.path for shard in whole.shards] == [
        f"{split}/{split}-00000-of-00001.tar" for split in whole.splits
    ]
    single = released(run, tmp_path / "single", 1)
    assert [shard.units for shard in single.shards] == [1] * len(single.shards) and len(single.shards) > 4
    for folder in (tmp_path / "whole", tmp_path / "single"):
        assert list(unpacked(sorted((folder / "train").glob("*.tar")))) == list(samples(run, "train").items())


def test_the_index_finds_each_member_in_the_joined_tar(run: RunFolder, made: Path) -> None:
    expected = samples(run, "train") | samples(run, "test")
    tables = []
    for path in sorted(made.glob("*/*.parquet")):
        tables.append(pq.read_table(path))
        tar = path.with_suffix(".tar").read_bytes()
        for row in tables[-1].to_pylist():
            for name, suffix in (("json", "json"), ("user", "user.flac"), ("assistant", "assistant.flac")):
                start = row[f"{name}_offset"]
                assert tar[start : start + row[f"{name}_size"]] == expected.pop(f"{row['key']}.{suffix}")
    assert expected == {}
    own = [pq.read_table(path) for path in sorted(run.root.glob("shards/*/*/*.parquet"))]
    moved = [name for name in INDEX_SCHEMA.names if name.endswith("_offset") and not name.startswith("turn_")]
    assert all(table.schema.equals(INDEX_SCHEMA) for table in tables)
    assert pa.concat_tables(tables).drop_columns(moved).equals(pa.concat_tables(own).drop_columns(moved))


def test_the_list_says_what_lies_there(run: RunFolder, made: Path) -> None:
    listed = read_release(str(made))
    totals = Stats.model_validate_json((made / "stats.json").read_bytes())
    assert totals == Stats.model_validate_json(run.stats.read_bytes())
    assert (listed.samples, listed.splits, listed.view) == (13, ("train", "test"), "") and totals.accepted == 13
    assert abs(listed.seconds / 3600 - totals.hours) < 1e-6 and (listed.user_rate, listed.assistant_rate) == (
        16000,
        24000,
    )
    for shard in listed.shards:
        for fact in (shard.tar, shard.index):
            assert (made / fact.path).stat().st_size == fact.bytes and sha256_file(made / fact.path) == fact.sha256
        beside = json.loads((made / shard.tar.path).with_suffix(".json").read_text())
        assert beside == shard.model_dump(mode="json")
        keys = pq.read_table(made / shard.index.path)["key"].to_pylist()
        assert shard.samples == len(keys) == sum(shard.languages.values())
        assert {(use.kind, use.license, use.consent) for use in shard.terms} == {
            ("text", "CC0-1.0", ""),
            ("voices", "Apache-2.0", "synthetic"),
        }


def test_checksums_cover_every_file(made: Path, tmp_path: Path) -> None:
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=made, check=True)
    named = {line.split()[1] for line in (made / "SHA256SUMS").read_text().splitlines()}
    assert named == set(files(made)) - {"SHA256SUMS"}
    copy = shutil.copytree(made, tmp_path / "copy")
    path = next(copy.glob("train/*.tar"))
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert subprocess.run(["sha256sum", "-c", "--status", "SHA256SUMS"], cwd=copy).returncode == 1


def test_nothing_of_the_machine_gets_into_it(run: RunFolder, tmp_path: Path) -> None:
    """Neither where the run lies, nor its configuration, logs, replies and rejects."""
    copy = RunFolder(shutil.copytree(run.root, tmp_path / "elsewhere"))
    frozen = yaml.safe_load(copy.config.read_text())
    frozen["writer"]["extra_body"] = {"api_key": "hunter2"}
    copy.config.write_text(yaml.safe_dump(frozen))
    copy.timings.parent.mkdir(exist_ok=True)
    copy.timings.write_text("hunter2")
    released(copy, tmp_path / "out")
    content = files(tmp_path / "out")
    names = {"README.md", "LICENSES.md", "SHA256SUMS", "stats.json", "release.json"}
    assert {name for name in content if "/" not in name} == names
    assert {name.split("/")[0] for name in content} == names | {"train", "test"}
    for secret in (b"hunter2", str(tmp_path).encode(), b"elsewhere"):
        assert [name for name, data in content.items() if secret in data] == []


# ---- its readers ----


def test_datasets_reads_it(run: RunFolder, made: Path) -> None:
    """By the card of the folder, and by nothing but the shards."""
    import datasets

    head = yaml.safe_load((made / "README.md").read_text().split("---\n")[1])
    features = datasets.Features._from_yaml_list(head["dataset_info"]["features"])
    assert features["user.flac"] == datasets.Audio(sampling_rate=16000)
    plain = dict.fromkeys(("user.flac", "assistant.flac"), datasets.Value("binary"))
    expected = samples(run, "train")
    rows = list(
        datasets.load_dataset(
            str(made), split="train", streaming=True, features=datasets.Features({**features, **plain})
        )
    )
    assert [row["__key__"] for row in rows] == [name[:-5] for name in expected if name.endswith(".json")]
    for row in rows:
        key = row["__key__"]
        assert Sample.model_validate(row["json"]) == Sample.model_validate_json(expected[f"{key}.json"])
        assert all(row[suffix] == expected[f"{key}.{suffix}"] for suffix in plain)
    kinds = {"__key__": "string", "__url__": "string", **dict.fromkeys(("json", *plain), "binary")}
    raw = datasets.load_dataset(
        "webdataset",
        data_files={"test": str(made / "test" / "*.tar")},
        split="test",
        streaming=True,
        features=datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()}),
    )
    read = {f"{row['__key__']}.{suffix}": row[suffix] for row in raw for suffix in plain}
    assert read == {name: data for name, data in samples(run, "test").items() if name.endswith("flac")}


def test_webdataset_reads_it(run: RunFolder, made: Path) -> None:
    import webdataset

    shards = sorted(map(str, made.glob("train/*.tar")))
    read = {
        f"{item['__key__']}.{suffix}": item[suffix]
        for item in webdataset.WebDataset(shards, shardshuffle=False)
        for suffix in ("json", "user.flac", "assistant.flac")
    }
    assert read == samples(run, "train")


def test_turns_are_those_of_the_run(run: RunFolder, made: Path, tmp_path: Path) -> None:
    own, joined = (
        list(DialogueStream(place, "test", each="turn", shuffle=0, cache=tmp_path)) for place in (run.root, made)
    )
    assert len(own) == len(joined) > 4
    for one, other in zip(own, joined, strict=True):
        assert (one.key, one.turn, one.text, one.rate) == (other.key, other.turn, other.text, other.rate)
        assert one.audio.tobytes() == other.audio.tobytes()


def test_a_view_is_released_like_a_run(run: RunFolder, tmp_path: Path) -> None:
    source = RunFolder(shutil.copytree(run.root, tmp_path / "run"))
    make_views(source.root, {"speed": SHIPPED["speed"]}, EngineConfig(kind="local", studios=1), Unseen())
    view = RunFolder(source.root / "views" / "speed")
    listed = released(view, tmp_path / "out")
    assert listed.view == "speed" and listed.samples == 13
    assert "## The view `speed`" in (tmp_path / "out" / "README.md").read_text()
    got = dict(unpacked(sorted((tmp_path / "out" / "train").glob("*.tar"))))
    assert got == samples(view, "train") != samples(run, "train")


def test_it_is_read_through_a_web_server(run: RunFolder, made: Path) -> None:
    """Where nothing can be listed: from the list to the index, from there to the members."""
    with web_server() as server:
        server.files = {f"/data/{name}": data for name, data in files(made).items()}
        root = reading_place(f"{server.url}/data")
        listed = read_release(f"{server.url}/data/")
        assert listed == read_release(made)
        found: dict[str, bytes] = {}
        for shard in listed.of("train"):
            rows = pq.read_table(whole(root / shard.index.path)).to_pylist()
            names = [f"{row['key']}.{suffix}" for row in rows for suffix in MEMBERS]
            places = ("json", "user", "assistant")
            ranges = [(row[f"{name}_offset"], row[f"{name}_size"]) for row in rows for name in places]
            found |= zip(names, read_ranges(root / shard.tar.path, ranges), strict=True)
    assert found == samples(run, "train")


def test_it_is_streamed_through_a_web_server(made: Path, tmp_path: Path) -> None:
    """As from a disk, and a stream that was stopped there goes on here; a shard that is cut is passed over."""
    with web_server() as server:
        server.files = {f"/data/{name}": data for name, data in files(made).items()}
        url = f"{server.url}/data"
        stream = DialogueStream(url, decode=False, cache=tmp_path)
        found = [item.key for item in islice(stream, 3)]
        here = DialogueStream(made, decode=False, cache=tmp_path)
        here.load_state_dict(stream.state_dict())
        found += [item.key for item in here]
        assert found == [item.key for item in DialogueStream(made, decode=False, cache=tmp_path)]
        tar = next(name for name in server.files if name.endswith(".tar") and "/train/" in name)
        server.files[tar] = server.files[tar][:-2000]
        with pytest.raises(DataError, match=r"\.tar: "):
            list(DialogueStream(url, decode=False, cache=tmp_path))
        stream = DialogueStream(url, decode=False, damage="skip", cache=tmp_path)
        assert len(list(stream)) == len(found) - stream.skipped < len(found)


# ---- the list by itself ----


def test_a_list_that_is_none(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no release\.json"):
        read_release(tmp_path)
    data = (made / "release.json").read_text()
    name = read_release(made).shards[0].tar.path
    for text, why in (
        (data[:-40], "not a list of a release"),
        ("[1]", "not a list of a release"),
        (data.replace('"version": 1', '"version": 2', 1), "of version 2 and this version of speechchat reads 1"),
        (data.replace(name, "../secret.tar", 1), "no path below the release"),
        (data.replace(name, "/etc/passwd", 1), "no path below the release"),
        (data.replace(name, "https://host/a.tar", 1), "no path below the release"),
    ):
        with pytest.raises(DataError, match=why) as caught:
            parse_release(tmp_path / "release.json", text.encode())
        assert str(caught.value).startswith(f"{tmp_path / 'release.json'}: ")


def test_categories_are_those_of_hubs() -> None:
    sizes = (0, 999, 1000, 9999, 10_000, 1_500_000, 10**9, 2 * 10**12)
    assert [size_category(size) for size in sizes] == [
        *("n<1K", "n<1K", "1K<n<10K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "1B<n<10B", "n>1T")
    ]
