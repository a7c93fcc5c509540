"""On a store: an object comes to exist whole or not at all, once, and by one driver."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import DataError, RunFolderError, StorageError, UsageError
from pipeline.shards import lease, objects, remote
from pipeline.shards.lease import Lease
from pipeline.shards.parts import PartLog
from pipeline.shards.remote import place, read_ranges
from pipeline.shards.store import RunFolder, publish
from tests.object_store import Proxy, Request


@pytest.fixture
def root(store: Proxy, request: pytest.FixtureRequest) -> Any:
    return place(f"s3://bucket/{request.node.name}")


def first(method: str, harm: Any) -> Callable[[Request], Any]:
    """Harm to the first request of a method."""
    met: list[Request] = []

    def choose(request: Request) -> Any:
        if request.method == method:
            met.append(request)
        return harm if met == [request] else ""

    return choose


# ---- paths ----


def test_a_path_on_a_store_behaves_as_one_of_a_disk() -> None:
    root: Any = place("s3://bucket/runs/demo/")
    path = RunFolder(root).shard(7, "train")
    assert str(path) == "s3://bucket/runs/demo/shards/train/000/unit-000007.tar"
    assert (path.name, path.suffix, path.parent.name) == ("unit-000007.tar", ".tar", "000")
    assert RunFolder(root).relative(path) == "shards/train/000/unit-000007.tar"
    again = pickle.loads(pickle.dumps(path))
    assert again == path and hash(again) == hash(path) and str(again) == str(path)
    assert place(str(path)) == path and place(path) is path
    assert root / path.relative_to(root) == path and path.is_relative_to(root)
    assert place("runs/demo") == Path("runs/demo") and isinstance(place("runs/demo"), Path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://key:se/cret@bucket/run", "no credentials or options in a URL"),
        ("s3://bucket/run?secret=secret", "no credentials or options in a URL"),
        ("gs://bucket/run", "exactly once cannot be promised"),
        ("s3://bucket", "name a bucket and a path in it"),
        ("s3:///run", "name a bucket and a path in it"),
    ],
)
def test_a_url_that_names_no_place_for_a_run(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        place(url)
    assert "cret" not in str(caught.value)


def test_what_is_listed(root: Any) -> None:
    for name in ("a", "b/one.json", "b/two.txt", "b/c/one.json", "d/one.json"):
        (root / name).write_text(name)
    assert [path.relative_to(root).parts for path, _ in root.walk_files()] == [
        ("a",),
        ("b", "c", "one.json"),
        ("b", "one.json"),
        ("b", "two.txt"),
        ("d", "one.json"),
    ]
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", "d"]
    assert sorted(map(str, root.glob("*/*.json"))) == [f"{root}/b/one.json", f"{root}/d/one.json"]
    assert len(list(root.rglob("*.json"))) == 3
    assert (root / "b").is_dir() and not (root / "b").exists() and not (root / "e").is_dir()


def test_ranges_are_those_of_a_disk(root: Any) -> None:
    path = root / "a.tar"
    path.write_bytes(bytes(range(100)))
    ranges = [(90, 10), (5, 0), (0, 3)]
    assert list(read_ranges(path, ranges)) == [bytes(range(90, 100)), b"", b"\0\1\2"]
    assert list(read_ranges(path, [(5, 0)])) == [b""]
    with pytest.raises(DataError, match=r"a\.tar: ends before what its index names: cut short"):
        list(read_ranges(path, [(100, 5)]))


def test_the_mark_of_an_empty_folder_is_no_file(root: Any) -> None:
    """Consoles put one where somebody makes a folder."""
    for key in (f"{root.key}/", f"{root.key}/shards/"):
        root.call("put_object", Key=key, Body=b"")
    assert not root.is_dir() and not list(root.walk_files()) and not list((root / "shards").iterdir())
    (root / "shards" / "a").write_text("")
    assert [path.name for path in root.rglob("*")] == [path.name for path in root.glob("*/*")] == ["a"]


# ---- publishing ----


@pytest.mark.parametrize("size", [0, 10_000, 25_000])
def test_publish_makes_the_whole_object(root: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The largest goes up in parts."""
    monkeypatch.setattr(objects, "PART", 10_000)
    data = os.urandom(size)
    assert publish(root / "a.bin", data) == (size, hashlib.sha256(data).hexdigest())
    assert (root / "a.bin").read_bytes() == data
    with (root / "a.bin").open("rb") as file:
        assert file.read() == data


@pytest.mark.parametrize("size", [100, 25_000])
def test_publish_never_overwrites(root: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(objects, "PART", 10_000)
    publish(root / "a.bin", b"first")
    with pytest.raises(FileExistsError):
        publish(root / "a.bin", bytes(size))
    assert (root / "a.bin").read_bytes() == b"first"
    assert "Uploads" not in root.call("list_multipart_uploads")
    publish(root / "a.bin", b"first")  # the same again is what a lost answer looks like
    publish(root / "a.bin", b"second", replace=True)
    assert (root / "a.bin").read_bytes() == b"second"


@pytest.mark.parametrize("harm", ["lost", "cut", "500", "503", "409"])
def test_a_put_is_tried_again(store: Proxy, root: Any, harm: str) -> None:
    store.harm = first("PUT", harm)
    publish(root / "a.bin", b"data" * 50_000)
    assert store.harmed == 1 and (root / "a.bin").read_bytes() == b"data" * 50_000


def test_a_put_that_is_always_in_conflict_ends_with_a_line(
    store: Proxy, root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=lambda seconds: None))
    store.harm = lambda request: "409" if request.method == "PUT" else ""
    for put in (publish, lambda path, data: PartLog(path).append(data), lambda path, _: Lease(path).take()):
        with pytest.raises(StorageError, match="again and again"):
            put(root / "a.bin", b"data")


def test_an_upload_that_fails_leaves_no_parts(store: Proxy, root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART", 10_000)
    store.harm = lambda request: "403" if "partNumber=2" in request.query else ""
    with pytest.raises(StorageError, match="denies"):
        publish(root / "a.bin", os.urandom(25_000))
    assert not (root / "a.bin").exists() and "Uploads" not in root.call("list_multipart_uploads")


def test_sweep_ends_the_uploads_of_a_killed_process(root: Any) -> None:
    root.call("create_multipart_upload", Key=f"{root.key}/shards/a.tar")
    others = ["another-run/a.tar", f"{root.key}/views/phone/shards/a.tar"]  # a view may be made meanwhile
    uploads = {key: root.call("create_multipart_upload", Key=key)["UploadId"] for key in others}
    RunFolder(root).sweep()
    assert {item["Key"]: item["UploadId"] for item in root.call("list_multipart_uploads")["Uploads"]} == uploads
    for key, upload in uploads.items():
        root.call("abort_multipart_upload", Key=key, UploadId=upload)


def test_what_the_store_gives_back_wrong_is_not_published(store: Proxy, root: Any) -> None:
    def damage(request: Request) -> None:
        if request.method == "PUT" and not damaged:
            damaged.append(request)
            (root / "a.bin").write_bytes(b"dAta")

    damaged: list[Request] = []
    store.after = damage
    with pytest.raises(StorageError, match="what the store gives back is not what was put"):
        publish(root / "a.bin", b"data")


# ---- what interrupted tries leave ----


def test_a_late_worker_cannot_publish_what_was_discarded(root: Any) -> None:
    folder = RunFolder(root)
    late = folder.discard(0, "train")
    assert late == ""  # nothing was there
    publish(folder.shard(0, "train"), b"of the late one")
    claim = folder.discard(0, "train")  # by the worker of the next driver
    assert not folder.shard(0, "train").exists()
    assert folder.load_manifest(0, "train") is None and not folder.has(0, "train")
    with pytest.raises(FileExistsError):
        publish(folder.manifest(0, "train"), b"of the late one" * 10, claim=late)
    publish(folder.shard(0, "train"), b"of the next one")
    publish(folder.manifest(0, "train"), b"of the next one" * 10, claim=claim)
    assert folder.manifest(0, "train").read_bytes() == b"of the next one" * 10
    with pytest.raises(FileExistsError, match="never removed"):
        folder.discard(0, "train")
    assert folder.shard(0, "train").read_bytes() == b"of the next one"


def test_the_last_claim_counts(root: Any) -> None:
    folder = RunFolder(root)
    publish(folder.shard(0, "train"), b"left")
    first_claim = folder.discard(0, "train")
    publish(folder.shard(0, "train"), b"one")
    second_claim = folder.discard(0, "train")
    with pytest.raises(FileExistsError):
        publish(folder.manifest(0, "train"), b"one" * 100, claim=first_claim)
    publish(folder.manifest(0, "train"), b"two" * 100, claim=second_claim)
    assert folder.manifest(0, "train").read_bytes() == b"two" * 100


def test_a_claim_that_was_copied_to_a_disk_is_no_manifest(root: Any, tmp_path: Path) -> None:
    folder, here = RunFolder(root), RunFolder(tmp_path)
    publish(folder.shard(0, "train"), b"left")
    folder.discard(0, "train")
    publish(here.manifest(0, "train"), folder.manifest(0, "train").read_bytes())
    assert here.load_manifest(0, "train") is None and not here.has(0, "train")
    here.discard(0, "train")
    publish(here.manifest(0, "train"), b"one" * 100)
    assert here.has(0, "train")


def test_a_claim_whose_answer_is_lost_is_known_again(store: Proxy, root: Any) -> None:
    folder = RunFolder(root)
    publish(folder.shard(0, "train"), b"left")
    store.harm = first("PUT", "lost")
    claim = folder.discard(0, "train")
    assert store.harmed == 1
    publish(folder.manifest(0, "train"), b"one" * 100, claim=claim)


def test_manifests_are_asked_for_and_not_listed(root: Any, store: Proxy) -> None:
    folder = RunFolder(root)
    publish(folder.shard(0, "train"), b"left")
    folder.discard(0, "train")
    config = Config.model_construct(dialogues=0)
    store.seen.clear()
    assert list(folder.manifests(config)) == []
    assert all("list-type" not in request.query for request in store.seen)
    assert list(folder.manifests()) == []  # a claim is none


# ---- one driver ----


def test_a_second_driver_is_refused(root: Any) -> None:
    one = Lease(root / "lease", renew=0.05)
    one.take()
    with pytest.raises(RunFolderError, match="another speechchat run is writing"):
        Lease(root / "lease", renew=0.5).take()
    one.release()
    two = Lease(root / "lease", renew=100)
    two.take()  # at once, as it was given back
    two.release()


def test_a_driver_that_is_silent_is_replaced_and_ends_when_it_wakes_up(root: Any) -> None:
    asleep, other = Lease(root / "lease", renew=1.5), Lease(root / "lease", renew=0.1)
    asleep.take()
    other.take()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(30)
    assert asleep.lost and not other.lost
    asleep.release()  # not its own any more
    with pytest.raises(RunFolderError):
        Lease(root / "lease", renew=0.5).take()
    other.release()


def test_a_driver_knows_its_own_lease_again_when_the_store_was_away(store: Proxy, root: Any) -> None:
    """A renewal arrived, and neither its answer nor those of all further tries came."""
    harms: list[Any] = ["lost", "403"]
    one = Lease(root / "lease", renew=0.05)
    one.take()
    store.harm = lambda request: harms.pop(0) if harms and request.method == "PUT" else ""
    with contextlib.suppress(KeyboardInterrupt):  # what one that takes itself for another raises here
        while harms or len(store.seen) < 30:
            time.sleep(0.05)
    assert not one.lost and not harms and store.harmed == 2
    one.release()
    assert b'"released": true' in (root / "lease").read_bytes()


def test_a_driver_that_is_taken_over_ends_with_a_line(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.05)
    with pytest.raises(RunFolderError, match="has taken this one over"), RunFolder(root).driver_lock():
        for _ in range(300):  # this server may let a renewal through that it had begun with before
            (root / "logs" / "driver.lease").write_text("somebody else")
            time.sleep(0.1)


def test_a_store_that_overwrites_is_refused(store: Proxy, root: Any) -> None:
    store.blind = True
    with pytest.raises(RunFolderError, match="exactly once cannot be promised"), RunFolder(root).driver_lock():
        pass


# ---- errors ----


def test_a_missing_bucket(store: Proxy) -> None:
    with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
        RunFolder(place("s3://no-such-bucket/run")).require()


def test_an_endpoint_that_is_not_there(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    remote.forget_clients()
    try:
        with pytest.raises(StorageError, match=r"the store failed .*onnect"):
            RunFolder(root).require()
    finally:
        remote.forget_clients()


def test_a_store_that_fails_while_an_object_is_read(store: Proxy, root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the object that is damaged: whoever repairs must not take it for that."""
    monkeypatch.setattr(remote, "CONFIG", remote.ONCE)
    publish(root / "a.tar", bytes(204_800))
    with (root / "a.tar").open("rb", block=1000) as file:
        assert file.read(100) == bytes(100)
        store.harm = lambda request: "500" if request.method == "GET" else ""
        with pytest.raises(StorageError, match="the store failed"):
            file.read()


def test_denied_access(store: Proxy, root: Any) -> None:
    store.harm = lambda request: "403"
    with pytest.raises(StorageError, match="denies these credentials access") as caught:
        RunFolder(root).require()
    assert store.environment["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_a_run_that_is_not_there(root: Any) -> None:
    with pytest.raises(RunFolderError, match="speechchat run PRESET --out s3://bucket"):
        RunFolder(root).require()


def test_without_credentials(root: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    remote.forget_clients()
    try:
        with pytest.raises(StorageError, match="no credentials"):
            RunFolder(root).require()
    finally:
        remote.forget_clients()


def test_without_the_package(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *rest: Any, **more: Any) -> Any:
        if name == "s3fs":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UsageError, match=r"pip install 'speechchat\[s3\]'"):
        RunFolder(root).require()
