"""Totals against what the samples and rejects of a run say one by one."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from pipeline.engine.run import load_frozen
from pipeline.errors import DataError
from pipeline.shards.reader import read_rejects, read_samples, read_unit
from pipeline.shards.stats import Stats, efficiency, run_stats, stage_costs
from pipeline.shards.store import RunFolder
from pipeline.shards.yields import VoiceYield, Yield, wilson, worst


def stats_of(folder: RunFolder) -> Stats:
    return run_stats(folder, load_frozen(folder)[0])


def test_yields_are_those_of_the_takes(healthy: RunFolder) -> None:
    turns: Counter[str] = Counter()
    first: Counter[str] = Counter()
    dialogues: Counter[str] = Counter()
    for manifest in healthy.manifests():
        parts = [(item.sample, item.sample.language) for item in read_unit(healthy, manifest)]
        parts += [(reject, reject.language) for reject, _ in read_rejects(healthy, manifest)]  # type: ignore[misc]
        for dialogue, language in parts:
            dialogues[language] += 1
            spoken = [turn for turn in dialogue.turns if turn.takes]
            dialogues["kokoro"] += bool(spoken)
            for name in (language, "kokoro"):
                turns[name] += len(spoken)
                first[name] += sum(not turn.takes[0].reason for turn in spoken)
    stats = stats_of(healthy)
    found = {item.name: item for item in (*stats.by_language, *stats.by_engine)}
    assert set(found) == {"en", "zh", "kokoro"} and 0 < first["en"] < turns["en"]
    for name, item in found.items():
        assert (item.dialogues, item.turns, item.first) == (dialogues[name], turns[name], first[name])
    assert found["kokoro"].accepted == stats.accepted == found["en"].accepted + found["zh"].accepted
    assert sum(item.turns for item in stats.lengths) == turns["kokoro"]
    assert sum(item.passed for item in stats.lengths) == found["kokoro"].passed > found["kokoro"].first
    assert sum(item.turns for item in stats.refusals) == turns["kokoro"] - first["kokoro"]


def test_repairs_are_told(healthy: RunFolder) -> None:
    [again] = stats_of(healthy).repairs
    turns = [
        turn.takes
        for manifest in healthy.manifests()
        for item in read_samples(healthy, manifest)
        for turn in item.turns
    ]
    for manifest in healthy.manifests():
        turns += [turn.takes for item, _ in read_rejects(healthy, manifest) for turn in item.turns]
    takes = [take for tried in turns for take in tried[1:]]
    assert (again.rung, again.takes) == ("again", len(takes)) and again.turns > again.saved > 0
    assert again.seconds == pytest.approx(sum(take.seconds for take in takes), abs=0.002)


def test_samples_without_their_tracks_are_the_same(healthy: RunFolder) -> None:
    for manifest in healthy.manifests():
        assert list(read_samples(healthy, manifest)) == [item.sample for item in read_unit(healthy, manifest)]


@pytest.mark.parametrize("name", ["shard", "index"])
def test_samples_of_a_damaged_unit_are_one_line(folder: RunFolder, name: str) -> None:
    manifest = folder.load_manifest(1, "train")
    assert manifest is not None
    getattr(folder, name)(1, "train").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"not readable with its index: .*speechchat verify") as told:
        list(read_samples(folder, manifest))
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # Wilson's score interval, as R's prop.test(correct = FALSE) gives it.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0)],
)
def test_wilson(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson(hits, trials) == pytest.approx((low, high), abs=1e-4)


def test_the_worst_voices_are_those_that_fail_most_surely() -> None:
    def voice(name: str, turns: int, first: int) -> Yield:
        return Yield(name=name, dialogues=1, accepted=1, turns=turns, first=first, passed=turns)

    found = worst(
        [voice("few", 4, 0), voice("well", 50, 50), voice("luckless", 5, 3), voice("bad", 40, 24), voice("so", 40, 36)]
    )
    assert [item.name for item in found] == ["bad", "luckless", "so"]  # as many of both pass, but of one it is known
    assert isinstance(found[0], VoiceYield) and found[0].low < 0.6 < found[0].high < found[1].high
    assert len(worst([voice(f"v{number:02d}", 9, 8) for number in range(30)])) == 10


def test_what_was_kept_for_a_cpu_hour_is_of_the_units_in_the_log(folder: RunFolder) -> None:
    assert efficiency(folder).per_cpu_hour is None and stage_costs(folder) == {}
    lines = [
        {"unit": 1, "stages": {"write": {"wall": 7.0}}},
        {"unit": 1, "stages": {"speak": {"wall": 9.0, "cpu": 4.0, "audio": 3.0}, "listen": {"wall": 9.0, "cpu": 6.0}}},
    ]
    folder.timings.parent.mkdir(exist_ok=True)
    folder.timings.write_text('{"unit": 0, "stages": {"spe\n' + "".join(f"{json.dumps(line)}\n" for line in lines))
    manifest = folder.load_manifest(1, "train")
    assert manifest is not None
    found = efficiency(folder)
    assert (found.units, found.cpu_hours) == (1, round(10 / 3600, 6))
    assert found.per_cpu_hour == pytest.approx(manifest.seconds / 10, rel=1e-5)  # and not of unit 0, whose line is torn
    assert stage_costs(folder)["speak"] == {"wall": 9.0, "cpu": 4.0, "audio": 3.0}
    assert (found.gpu_hours, found.per_gpu_hour) == (0, None)


def test_what_was_kept_for_a_gpu_hour_is_of_the_share_that_a_studio_held(folder: RunFolder) -> None:
    stages = {"speak": {"wall": 18.0, "held": 9.0}, "listen": {"wall": 3.0, "held": 3.0}, "write": {"wall": 5.0}}
    folder.timings.parent.mkdir(exist_ok=True)
    folder.timings.write_text(json.dumps({"unit": 1, "gpus": 0.25, "stages": stages}))
    manifest = folder.load_manifest(1, "train")
    assert manifest is not None
    found = efficiency(folder)
    assert found.gpu_hours == round(3 / 3600, 6)
    assert found.per_gpu_hour == pytest.approx(manifest.seconds / 3, rel=1e-5)


def test_the_totals_of_nothing(folder: RunFolder) -> None:
    for path in folder.root.glob("shards/*/*/*.json"):
        path.unlink()
    stats = stats_of(folder)
    assert (stats.planned, stats.by_language, stats.by_engine, stats.worst_voices, stats.repairs) == (0, (), (), (), ())
