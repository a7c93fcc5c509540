"""What is remembered of a run's totals never says anything else than its files do."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.engine.run import load_frozen, write_totals
from pipeline.engine.totals import Totals
from pipeline.errors import DataError
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_reject_list
from pipeline.shards.stats import Stats, run_stats, stats_of
from pipeline.shards.store import RunFolder
from pipeline.shards.sums import Sums
from tests.synthetic import make_run

UNITS = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("made") / "run", dialogues=2 * UNITS, unit_size=2, rejected=3)


@pytest.fixture
def folder(made: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(made.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def config_of(folder: RunFolder) -> Config:
    return load_frozen(folder)[0]


def manifest_of(folder: RunFolder, unit: int) -> Path:
    return folder.manifest(unit, "train")


def look(folder: RunFolder) -> tuple[set[int], int, int, int, float]:
    totals = Totals(folder, config_of(folder))
    done = totals.begin()
    return totals.finished, done.units, done.planned, done.accepted, round(done.seconds, 6)


def summed(folder: RunFolder) -> tuple[set[int], int, int, int, float]:
    """What `look` has to find, from the manifests."""
    found = list(folder.manifests())
    planned, accepted = sum(item.planned for item in found), sum(item.accepted for item in found)
    return {item.unit for item in found}, len(found), planned, accepted, round(sum(item.seconds for item in found), 6)


def remove_sources_of_totals(folder: RunFolder) -> None:
    for path in [*folder.root.glob("shards/*/*/*.parquet"), *folder.root.glob("rejects/*/*.jsonl")]:
        path.unlink()


def test_what_was_added_up_is_not_read_again(folder: RunFolder) -> None:
    config = config_of(folder)
    before, looked = run_stats(folder, config), look(folder)
    assert before.voices and before.rejected and looked == summed(folder)
    remove_sources_of_totals(folder)
    with pytest.raises(DataError):
        run_stats(folder, config)
    assert write_totals(folder, config) == before
    assert look(folder) == looked


def test_a_new_unit_is_added_to_what_is_remembered(folder: RunFolder) -> None:
    config, last = config_of(folder), manifest_of(folder, UNITS - 1)
    data, whole = last.read_bytes(), run_stats(folder, config)
    index = folder.index(UNITS - 1, "train").read_bytes()
    last.unlink()
    folder.totals.unlink()
    assert write_totals(folder, config).units_finished == UNITS - 1
    remove_sources_of_totals(folder)
    folder.index(UNITS - 1, "train").write_bytes(index)
    totals = Totals(folder, config)
    assert totals.begin().units == UNITS - 1 and totals.finished == set(range(UNITS - 1))
    last.write_bytes(data)  # as a worker does while the driver is at work
    assert totals.stats() == whole and totals.finished == set(range(UNITS))
    assert totals.stats() == whole
    assert write_totals(folder, config) == whole


def test_a_unit_that_is_made_again_is_not_added_twice(folder: RunFolder) -> None:
    config, path = config_of(folder), manifest_of(folder, 1)
    whole, data = run_stats(folder, config), path.read_bytes()
    path.unlink()
    totals = Totals(folder, config)
    done = totals.begin()
    assert 1 not in totals.finished and (done.units, done.planned) == (UNITS - 1, 2 * (UNITS - 1))
    assert look(folder) == summed(folder)
    path.write_bytes(data)
    remove_sources_of_totals(folder)
    assert totals.stats() == whole


def test_another_manifest_is_seen(folder: RunFolder) -> None:
    config, path = config_of(folder), manifest_of(folder, 2)
    before = run_stats(folder, config)
    path.write_text(path.read_text().replace('"llm_turns":', '"llm_turns":1', 1))
    found = write_totals(folder, config)
    assert found == run_stats(folder, config) and found.llm_turns > before.llm_turns
    assert Stats.model_validate_json(folder.stats.read_bytes()) == found


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"", lambda data: data.replace(b"{", b"[", 1)]
)
def test_a_damaged_manifest_is_found_though_all_is_remembered(
    folder: RunFolder, damage: Callable[[bytes], bytes]
) -> None:
    path = manifest_of(folder, 3)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"unit-000003\.json: not a manifest"):
        look(folder)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 257))
@settings(max_examples=20)
def test_a_damaged_memory_says_nothing(made: RunFolder, place: float, change: int) -> None:
    """change: of the byte at `place`, by 1 … 255; or the file ends there, or is not there."""
    data, config = made.totals.read_bytes(), config_of(made)
    damaged = bytearray(data)
    damaged[int(place * len(data))] = (damaged[int(place * len(data))] + max(1, change)) % 256
    try:
        if change == 257:
            made.totals.unlink()
        else:
            made.totals.write_bytes(data[: int(place * len(data))] if change == 256 else damaged)
        assert look(made) == summed(made)
        assert Totals(made, config).stats() == run_stats(made, config)
    finally:
        made.totals.write_bytes(data)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, UNITS - 1), st.sampled_from(["make", "make", "remove", "alter"])), max_size=9))
def test_whatever_became_of_units_between_two_sessions(made: RunFolder, events: list[tuple[int, str]]) -> None:
    """Units are made, taken out or replaced, and the totals asked for after each; some of it in one session."""
    config = config_of(made)
    whole = {unit: manifest_of(made, unit).read_bytes() for unit in range(UNITS)}
    remembered = made.totals.read_bytes()
    try:
        for place, (unit, what) in enumerate(events):
            totals = Totals(made, config)
            assert look(made) == summed(made)
            if place % 2:
                totals.begin()
            path = manifest_of(made, unit)
            if what == "make" and not path.exists():
                path.write_bytes(whole[unit])
            elif what != "make" and not place % 2:  # nobody does that while a driver has the lock
                path.unlink(missing_ok=True)
                if what == "alter":
                    path.write_bytes(whole[unit].replace(b'"retaken_turns":', b'"retaken_turns":1', 1))
            assert totals.stats() == run_stats(made, config)
    finally:
        for unit, data in whole.items():
            manifest_of(made, unit).write_bytes(data)
        made.totals.write_bytes(remembered)


def manifests(folder: RunFolder) -> list[Manifest]:
    return list(folder.manifests())


@given(st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_sums_hang_on_no_order_and_survive_the_disk(made: RunFolder, chance: random.Random) -> None:
    shuffled, config = manifests(made), config_of(made)
    chance.shuffle(shuffled)
    sums = Sums()
    for manifest in shuffled[:2]:
        sums.add(made, [manifest])
    sums = Sums(sums.rows())
    for manifest in shuffled[2:]:
        sums.add(made, [manifest])
    assert stats_of(sums, config) == run_stats(made, config)


def test_sums_are_those_of_the_manifests(made: RunFolder) -> None:
    found, stats = manifests(made), run_stats(made, config_of(made))
    assert stats.hours == pytest.approx(sum(item.seconds for item in found) / 3600, abs=1e-6)
    assert stats.planned == sum(item.planned for item in found) == 2 * UNITS
    [mean] = [rate for rate in stats.error_rates if (rate.language, rate.metric) == ("en", "wer")]
    rates = [rate for item in found for rate in item.error_rates if (rate.language, rate.metric) == ("en", "wer")]
    assert mean.turns == sum(rate.turns for rate in rates)
    assert mean.mean == pytest.approx(sum(rate.total for rate in rates) / mean.turns, abs=1e-6)
    assert sum(stats.voices.values()) == 2 * stats.accepted
    kokoro = next(item for item in stats.by_engine if item.name == "kokoro")
    spoken = sum(any(turn.takes for turn in reject.turns) for item in found for reject in read_reject_list(made, item))
    assert kokoro.dialogues == stats.accepted + spoken and kokoro.accepted == stats.accepted
