"""Damaging a run on purpose, down to where only one thing can tell, and asking verify about it."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.dialogue import Sample
from pipeline.engine.run import load_frozen
from pipeline.plan import plan_units
from pipeline.shards.disk import sha256_file
from pipeline.shards.format import Encoded, Member
from pipeline.shards.index import index_bytes, index_row
from pipeline.shards.reader import read_rejects
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import Verification, verify
from pipeline.shards.writer import summarize

Members = list[tuple[str, bytes]]


def checked(folder: RunFolder, decode: bool = False) -> Verification:
    """The end of a verification; each problem is one line that names a file of the run."""
    *_, state = verify(folder, load_frozen(folder)[0], decode)
    for problem in state.problems:
        assert problem.startswith(f"{folder.root}/") and len(problem.splitlines()) == 1
    assert state.ok == (not state.problems and not state.missing)
    return state


def problems(folder: RunFolder, path: Path, decode: bool = False) -> str:
    """What is said of `path`, of which something must be said."""
    found = [line for line in checked(folder, decode).problems if line.startswith(f"{path}: ")]
    assert found, checked(folder, decode).problems
    return "\n".join(found)


def refit(folder: RunFolder, unit: int = 0, /, **changes: Any) -> None:
    """The manifest of a unit made to fit the files as they are: only their inside can tell now."""
    manifest = folder.load_manifest(unit, "train")
    assert manifest is not None
    facts = tuple(
        fact.model_copy(update={"bytes": path.stat().st_size, "sha256": sha256_file(path)})
        for fact in manifest.files
        for path in [folder.root / fact.path]
    )
    text = manifest.model_copy(update={"files": facts, **changes}).model_dump_json()
    folder.manifest(unit, "train").write_text(text + "\n")


def members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def tar_bytes(content: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def repack(folder: RunFolder, change: Callable[[Members], Members], unit: int = 0) -> Path:
    """The shard of a unit with other members, and a manifest that fits."""
    path = folder.shard(unit, "train")
    path.write_bytes(tar_bytes(change(members(path))))
    refit(folder, unit)
    return path


def reindex(folder: RunFolder, unit: int = 0) -> None:
    """Index and counts made to fit the shard too, so that only the plan and the tracks can tell."""
    shard, planned = folder.shard(unit, "train"), list(plan_units(load_frozen(folder)[0]))[unit]
    manifest = folder.load_manifest(unit, "train")
    assert manifest is not None
    found = _samples(shard)
    folder.index(unit, "train").write_bytes(index_bytes([index_row(item, where) for item, where in found]))
    digests = {"text": manifest.text_digest, "speech": manifest.speech_digest, "judge": manifest.judge_digest}
    rejects = [reject for reject, _ in read_rejects(folder, manifest)]
    samples = [item.sample for item, _ in found]
    folder.manifest(unit, "train").write_text(
        summarize(planned, samples, rejects, manifest.takes, digests, manifest.files).model_dump_json() + "\n"
    )
    refit(folder, unit)


def _samples(path: Path) -> list[tuple[Encoded, Any]]:
    found = []
    with tarfile.open(path) as tar:
        infos = list(tar)
        for first in range(0, len(infos), 3):
            group = infos[first : first + 3]
            data = [tar.extractfile(info).read() for info in group]  # type: ignore[union-attr]
            where = tuple(
                Member(info.name, info.offset_data, info.size, zlib.crc32(part))
                for info, part in zip(group, data, strict=True)
            )
            found.append((Encoded(Sample.model_validate_json(data[0]), data[1], data[2]), where))
    return found
