"""Files behind a web server are read as those of a disk, whatever the server does."""

from __future__ import annotations

import base64
import io
import multiprocessing
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError, SpeechchatError, StorageError, UsageError
from pipeline.shards import http
from pipeline.shards.remote import place, read_ranges, reading_place, size_of, whole
from tests.web_server import Server, web_server

DATA = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(http, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv(http.TOKEN, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with web_server() as found:
        found.files["/a.bin"] = DATA
        yield found


@pytest.fixture
def path(server: Server) -> Path:
    return reading_place(f"{server.url}/a.bin")


def once(harm: int | str) -> Callable[[int], int | str | None]:
    return lambda number: harm if number == 1 else None


# ---- paths ----


def test_a_path_behind_a_server_behaves_as_one_of_a_disk() -> None:
    root = reading_place("https://host:8080/data/demo/")
    path = root / "train" / "train-00000-of-00001.tar"
    assert str(path) == "https://host:8080/data/demo/train/train-00000-of-00001.tar"
    assert (path.name, path.suffix, path.parent.name) == ("train-00000-of-00001.tar", ".tar", "train")
    assert str(path.with_suffix(".parquet")).endswith("/train/train-00000-of-00001.parquet")
    assert root / "train/train-00000-of-00001.tar" == path != reading_place(str(path).replace("https", "http"))
    again = pickle.loads(pickle.dumps(path))
    assert again == path and hash(again) == hash(path) and str(again) == str(path)
    assert reading_place(str(path)) == path and reading_place(path) is path
    assert path.relative_to(root).as_posix() == "train/train-00000-of-00001.tar"
    assert reading_place("runs/demo") == Path("runs/demo") and reading_place("s3://b/run") == place("s3://b/run")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://me:secret@host/run", "no credentials or options in a URL"),
        ("https://host/run?token=secret", "no credentials or options in a URL"),
        ("https:///run", "name a host"),
        ("https://:8000/run", "name a host"),
        ("https://[::1/run", "name a host"),
        ("https://host:99999/run", "name a host"),
        ("ftp://host/run", "a run lives in a folder"),
    ],
)
def test_a_url_that_names_no_place(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        reading_place(url)
    assert "secret" not in str(caught.value)


def test_nobody_writes_behind_a_server() -> None:
    with pytest.raises(UsageError, match="a run lives in a folder"):
        place("https://host/run")
    with pytest.raises(ValueError, match="'rb'"):
        reading_place("https://host/run").open("wb")


# ---- reading ----


def test_what_is_read_is_what_is_there(server: Server, path: Path) -> None:
    assert path.read_bytes() == DATA and path.stat().st_size == len(DATA)
    assert path.is_file() and not path.with_name("b.bin").is_file()
    with path.open("rb", buffering=10_000) as file:
        assert size_of(path, file) == len(DATA)
        assert file.read(7) == DATA[:7] and file.seek(50_000) == 50_000 and file.read() == DATA[50_000:]
        assert file.seek(-3, io.SEEK_END) == len(DATA) - 3 and file.read(9) == DATA[-3:] and file.read(9) == b""
    assert (
        max(int(b) - int(a) for _, _, asked, _ in server.asked for a, b in re.findall(r"(\d+)-(\d+)", asked)) < 52_400
    )
    with pytest.raises(FileNotFoundError, match=r"b\.bin"):
        path.with_name("b.bin").read_bytes()


def test_a_table_is_read(server: Server) -> None:
    table = pa.table({"key": ["a", "b"]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    server.files["/t.parquet"] = sink.getvalue()
    assert pq.read_table(whole(reading_place(f"{server.url}/t.parquet"))).equals(table)


def test_ranges_come_in_order_and_neighbours_together(server: Server, path: Path) -> None:
    ranges = [(0, 10), (512, 100), (1000, 0), (1024, 5), (90_000, 300), (40_000, 1), (40_000, 9), (102_399, 1)]
    assert list(read_ranges(path, ranges)) == [DATA[at : at + size] for at, size in ranges]
    assert sorted(asked for _, _, asked, _ in server.asked) == sorted(
        ["bytes=0-1028", "bytes=90000-90299", "bytes=40000-40000", "bytes=40000-40008", "bytes=102399-102399"]
    )
    assert list(read_ranges(path, [])) == []


def test_many_ranges_share_few_connections(server: Server, path: Path) -> None:
    ranges = [(number * 10_000, 100) for number in range(10)] * 10
    assert list(read_ranges(path, ranges)) == [DATA[at : at + size] for at, size in ranges]
    assert len(server.asked) == 100 and server.connections <= 2 * http.AT_ONCE
    before = server.connections
    assert next(read_ranges(path, ranges[:1])) == DATA[:100] and server.connections == before


def test_threads_and_forks_do_not_mix_answers(server: Server, path: Path) -> None:
    path.read_bytes()
    places = [number * 1000 for number in range(40)]

    def read(at: int) -> bytes:
        return next(iter(read_ranges(path, [(at, 700)])))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, places)) == [DATA[at : at + 700] for at in places]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=lambda at=at: queue.put((at, read(at)))) for at in places[:3]]
    for child in children:
        child.start()
    mine = [read(at) for at in places]
    for child in children:
        child.join(30)
    assert sorted(queue.get() for _ in children) == [(at, DATA[at : at + 700]) for at in places[:3]]
    assert mine == [DATA[at : at + 700] for at in places]


# ---- servers that fail ----


@pytest.mark.parametrize("harm", [429, 500, 502, 503, 504, "cut", "drop"])
def test_what_is_in_passing_is_tried_again(server: Server, path: Path, harm: int | str) -> None:
    for read, expected in (
        (path.read_bytes, DATA),
        (lambda: list(read_ranges(path, [(100, 5000)])), [DATA[100:5100]]),
    ):
        server.asked.clear()
        server.harm = once(harm)
        assert read() == expected and len(server.asked) == 2


def test_every_third_request_fails(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSES", (0.0,) * 20)
    harms = ("cut", 503, "drop", 500)
    server.harm = lambda number: harms[number // 3 % 4] if number % 3 == 0 else None
    ranges = [(number * 5000, 4000) for number in reversed(range(20))]  # no neighbours
    assert list(read_ranges(path, ranges)) == [DATA[at : at + size] for at, size in ranges]
    assert len(server.asked) >= 28


@pytest.mark.parametrize(("harm", "why"), [(503, "503"), ("cut", "again and again"), ("drop", "again and again")])
def test_a_server_that_always_fails_ends_with_a_line(server: Server, path: Path, harm: int | str, why: str) -> None:
    server.harm = lambda number: harm
    with pytest.raises(StorageError, match=why) as caught:
        list(read_ranges(path, [(0, 100)]))
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("change", "ranges", "error", "why"),
    [
        ({"ranges": False}, [(10, 100)], StorageError, "ignores Range requests"),
        ({"ranges": False}, [(0, 100)], StorageError, "ignores Range requests"),
        ({"harm": lambda number: "short"}, [(0, 100)], DataError, "gave 50 bytes .* where 100 from byte 0"),
        ({}, [(len(DATA) - 10, 20)], DataError, "gave 10 bytes .* where 20 .* cut short"),
        ({}, [(len(DATA), 20)], DataError, "ends before byte 102400"),
        ({"files": {}}, [(0, 100)], FileNotFoundError, "a.bin"),
        ({"harm": lambda number: 403}, [(0, 100)], StorageError, f"403.*{http.TOKEN}.*netrc.*never in the URL"),
        ({"harm": lambda number: 405}, [(0, 100)], StorageError, "answers 405"),
    ],
)
def test_an_answer_that_no_trying_helps(
    server: Server, path: Path, change: dict[str, Any], ranges: Any, error: type[Exception], why: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(error, match=why) as caught:
        list(read_ranges(path, ranges))
    assert len(server.asked) == 1 and str(path) in str(caught.value)
    assert not isinstance(caught.value, SpeechchatError) or len(str(caught.value).splitlines()) == 1


def test_all_of_a_file_may_come_at_once(server: Server, path: Path) -> None:
    """What a server that ignores ranges gives is then the same."""
    server.ranges = False
    assert list(read_ranges(path, [(0, len(DATA))])) == [DATA]


# ---- credentials ----


def test_credentials_come_from_the_environment(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.password = "Bearer hush"
    with pytest.raises(StorageError, match="401"):
        path.read_bytes()
    monkeypatch.setenv(http.TOKEN, "hush")
    assert path.read_bytes() == DATA
    monkeypatch.delenv(http.TOKEN)
    server.password = f"Basic {base64.b64encode(b'me:hush').decode()}"
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    assert path.read_bytes() == DATA
    assert "hush" not in repr(path) + pickle.dumps(path).decode("latin-1")


def test_a_token_does_not_follow_to_another_host(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hubs send readers on to where the bytes lie."""
    monkeypatch.setenv(http.TOKEN, "hush")
    server.files["/b.bin"] = DATA[::-1]
    server.moved["/a.bin"] = f"http://localhost:{server.server_port}/b.bin"
    assert list(read_ranges(path, [(0, 50)])) == [DATA[::-1][:50]]
    assert [(name, asked, who) for _, name, asked, who in server.asked] == [
        ("/a.bin", "bytes=0-49", "Bearer hush"),
        ("/b.bin", "bytes=0-49", ""),
    ]


def test_a_token_is_not_sent_in_the_open() -> None:
    for url, sent in (("http://host/a", False), ("https://host/a", True), ("http://127.0.0.1:80/a", True)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(http.TOKEN, "hush")
            assert (http._token(http.http_place(url)) is not None) == sent
