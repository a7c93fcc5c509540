"""Tars of ours are those that `tarfile` would make, byte for byte."""

from __future__ import annotations

import io
import string
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.shards.disk import PendingFile
from pipeline.shards.format import MODE, Member, TarWriter, tar_header

names = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=100)


def info(name: str, size: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.mode = size, MODE
    return made


@given(names, st.integers(0, 8**11 - 1))
@example("n" * 100, 8**11 - 1)
@example("en-000000-00.json", 0)
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    assert tar_header(name.encode(), size) == info(name, size).tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [(b"n" * 101, 1), ("é.json".encode(), 1), (b"large", 8**11)])
def test_what_a_header_does_not_hold(name: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="no tar header holds"):
        tar_header(name, size)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(names, st.binary(max_size=3000) | st.sampled_from([bytes(512), bytes(9216)]), max_size=25))
def test_a_tar_is_that_of_tarfile(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    pending = PendingFile(tmp_path_factory.mktemp("tar") / "a.tar")
    writer, expected = TarWriter(pending), io.BytesIO()
    members = [writer.add_file(name, data) for name, data in files.items()]
    writer.close()
    pending.commit()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            tar.addfile(info(name, len(data)), io.BytesIO(data))
    made = Path(pending.path).read_bytes()
    assert made == expected.getvalue()
    for member, (name, data) in zip(members, files.items(), strict=True):
        assert member == Member(name, member.offset, len(data), zlib.crc32(data))
        assert made[member.offset : member.offset + member.size] == data
