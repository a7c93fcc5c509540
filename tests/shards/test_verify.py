"""verify finds every kind of damage, names the file, and raises nothing whatever it finds."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.engine.run import load_frozen
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from tests.shards.damage import checked, problems, refit, reindex, repack


@pytest.mark.parametrize("decode", [False, True])
def test_a_healthy_run_has_no_problem(healthy: RunFolder, decode: bool) -> None:
    state = checked(healthy, decode)
    assert state.ok
    assert (state.units, state.samples, state.missing) == (2, 6, [])
    total = sum(path.stat().st_size for top in ("dialogues", "rejects") for path in (healthy.root / top).rglob("*.*"))
    total += sum(path.stat().st_size for path in (healthy.root / "shards").rglob("*.*") if path.suffix != ".json")
    assert state.bytes == total
    assert state.seconds == pytest.approx(sum(manifest.seconds for manifest in healthy.manifests()))


def test_the_helpers_of_these_tests_do_no_damage(folder: RunFolder, healthy: RunFolder) -> None:
    repack(folder, lambda content: content)
    reindex(folder)
    assert checked(folder, decode=True).ok
    assert folder.shard(0, "train").read_bytes() == healthy.shard(0, "train").read_bytes()
    assert folder.index(0, "train").read_bytes() == healthy.index(0, "train").read_bytes()
    assert folder.manifest(0, "train").read_bytes() == healthy.manifest(0, "train").read_bytes()


def _cuts(size: int) -> list[int]:
    blocks = list(range(0, size, 512))
    draw = random.Random(1)
    return sorted({*blocks[:4], *draw.sample(blocks, 24), *blocks[-22:], *draw.sample(range(size), 10), size - 1})


@pytest.mark.parametrize("fitted", [False, True], ids=["as published", "with a manifest that fits"])
def test_a_cut_shard_is_found_wherever_it_was_cut(folder: RunFolder, fitted: bool) -> None:
    path = folder.shard(0, "train")
    whole = path.read_bytes()
    for size in _cuts(len(whole)):
        path.write_bytes(whole[:size])
        if fitted:
            refit(folder)
        assert problems(folder, path), size
        if not fitted:
            assert "cut short" in problems(folder, path)


def _regions(folder: RunFolder) -> Iterator[tuple[str, int, int]]:
    """Every byte of a shard belongs to one: (name, first, end)."""
    path = folder.shard(0, "train")
    with tarfile.open(path) as tar:
        for info in tar:
            yield "header", info.offset, info.offset_data
            yield info.name.partition(".")[2], info.offset_data, info.offset_data + info.size
            yield "padding", info.offset_data + info.size, info.offset_data + -(-info.size // 512) * 512
            end = info.offset_data + -(-info.size // 512) * 512
    yield "end", end, path.stat().st_size


def test_a_flipped_bit_is_found_wherever_it_lies(folder: RunFolder) -> None:
    path, draw = folder.shard(0, "train"), random.Random(2)
    whole = path.read_bytes()
    regions = [item for item in _regions(folder) if item[1] < item[2]]
    assert {name for name, _, _ in regions} == {
        "header",
        "json",
        "user.flac",
        "assistant.flac",
        "padding",
        "end",
    }
    assert sum(last - first for _, first, last in regions) == len(whole)
    for _, first, last in regions * 4:
        damaged = bytearray(whole)
        damaged[draw.randrange(first, last)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        assert "SHA-256" in problems(folder, path)


def test_a_flipped_bit_in_any_other_published_file_is_found(folder: RunFolder) -> None:
    draw = random.Random(3)
    for manifest in list(folder.manifests()):
        for fact in manifest.files:
            path = folder.root / fact.path
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            assert "SHA-256" in problems(folder, path)
            path.write_bytes(whole)
    assert checked(folder).ok


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"version": 1}', "\xff"])
def test_a_manifest_that_is_none(folder: RunFolder, text: str) -> None:
    folder.manifest(1, "train").write_bytes(text.encode("latin-1"))
    assert "not a manifest" in problems(folder, folder.manifest(1, "train"))


def test_a_unit_without_its_manifest_is_missing(folder: RunFolder) -> None:
    folder.manifest(1, "train").unlink()
    state = checked(folder)
    assert state.missing == [1] and not state.ok
    assert any(line.startswith(f"{folder.shard(1, 'train')}: no manifest names this file") for line in state.problems)


def test_every_missing_file_is_named(folder: RunFolder) -> None:
    for manifest in list(folder.manifests()):
        for fact in manifest.files:
            path = folder.root / fact.path
            data = path.read_bytes()
            path.unlink()
            assert "missing" in problems(folder, path)
            path.mkdir()  # what stands in its place is not it
            assert "missing" in problems(folder, path)
            path.rmdir()
            path.write_bytes(data)


def test_rejects_that_say_another_thing_than_their_clips(folder: RunFolder) -> None:
    path = folder.rejects(0)
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0].replace('"clips":true', '"clips":false'), *lines[1:]]) + "\n", "utf-8")
    refit(folder)
    assert "which clips were kept" in problems(folder, path)


@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"{}\n", b"not json\n"])
@pytest.mark.parametrize("place", ["rejects", "text"])
def test_lists_that_are_none(folder: RunFolder, place: str, data: bytes) -> None:
    path = folder.rejects(0) if place == "rejects" else folder.text(0)
    path.write_bytes(data)
    refit(folder)
    assert "not " in problems(folder, path)


@pytest.mark.parametrize("number", range(4))
def test_a_text_line_that_was_dropped(folder: RunFolder, number: int) -> None:
    path = folder.text(0)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    assert len(lines) == 4
    path.write_text("".join(lines[:number] + lines[number + 1 :]), "utf-8")
    assert "cut short" in problems(folder, path)
    refit(folder)
    assert "does not hold exactly the planned dialogues" in problems(folder, path)


def test_a_reject_that_was_dropped(folder: RunFolder) -> None:
    path = folder.rejects(0)
    path.write_text(path.read_text("utf-8").splitlines(keepends=True)[0], "utf-8")
    refit(folder)
    assert "planned dialogues are not exactly" in problems(folder, folder.manifest(0, "train"))


@pytest.mark.parametrize(
    "name",
    [
        "shards/train/000/unit-000007.tar",
        "shards/notes.txt",
        "rejects/000/x.tar",
        "dialogues/000/x.jsonl.tmp",
    ],
)
def test_a_foreign_file(folder: RunFolder, name: str) -> None:
    (folder.root / name).write_bytes(b"x")
    assert "no manifest names this file" in problems(folder, folder.root / name)
    (folder.root / name).unlink()
    (folder.root / name).symlink_to("nowhere")
    assert "no manifest names this file" in problems(folder, folder.root / name)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_makes_verify_raise(folder: RunFolder, healthy: RunFolder, data: st.DataObject) -> None:
    names = sorted(healthy.relative(path) for path in healthy.root.rglob("*") if path.is_file())
    name = data.draw(
        st.sampled_from([name for name in names if name.split("/")[0] in ("shards", "rejects", "dialogues")])
    )
    path = folder.root / name
    whole = (healthy.root / name).read_bytes()
    # Mostly where headers and footers are: they decide what is read next.
    at = data.draw(st.one_of(st.integers(0, min(2048, len(whole))), st.integers(0, len(whole))))
    new, width = data.draw(st.binary(max_size=80)), data.draw(st.sampled_from([0, 1, 80, 10**9]))
    damaged = whole[:at] + new + whole[at + (width or len(new)) :]
    path.write_bytes(damaged)
    try:
        found = checked(folder, decode=True).problems
        is_manifest = name.startswith("shards") and name.endswith(".json")
        assert (damaged == whole) == (not found) or is_manifest
        unit = int(path.name.partition(".")[0].removeprefix("unit-"))
        if not is_manifest:
            refit(folder, unit)
            checked(folder, decode=True)
    finally:
        path.write_bytes(whole)
        for unit in (0, 1):
            folder.manifest(unit, "train").write_bytes(healthy.manifest(unit, "train").read_bytes())


def test_totals_that_lie_are_found(folder: RunFolder) -> None:
    text = folder.stats.read_text("utf-8")
    folder.stats.write_text(text.replace('"accepted": 6', '"accepted": 999'), "utf-8")
    assert "is not what the units add up to" in problems(folder, folder.stats)
    folder.stats.write_text(text, "utf-8")
    folder.card.unlink()
    assert "missing" in problems(folder, folder.card)


def test_a_unit_of_another_configuration_is_found(healthy: RunFolder) -> None:
    config, frozen = load_frozen(healthy)
    *_, state = verify(healthy, config, digests=frozen.digests)
    assert state.ok
    *_, state = verify(healthy, config, digests={**frozen.digests, "speech": "f" * 16})
    assert [problem.endswith(f"another configuration than {healthy.config}") for problem in state.problems] == [
        True,
        True,
    ]
