"""Estimates: the arithmetic by hand, what a pilot says, what follows from what, and bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.engine.estimate import Cluster, Estimate, estimate
from pipeline.engine.run import load_frozen
from pipeline.errors import UsageError
from pipeline.shards.stats import run_stats
from pipeline.shards.store import RunFolder
from pipeline.stages.replies import ReplyJournal
from tests.command_line import CommandLine, refused
from tests.synthetic import make_run

# 1,000 planned, 800 spoken, 400 accepted; 28,800 s are recorded, 14,400 s are kept, 21,600 s are synthesised.
ROUND = {
    "text_yield": 0.8,
    "speech_yield": 0.5,
    "seconds_per_dialogue": 36,
    "speech_share": 0.5,
    "first_take_failure": 0.25,
    "repairs": 2,
    "requests": 2,
    "prompt_tokens": 400,
    "reply_tokens": 120,
    "attempts": 1.5,
    "request_cpu": 0.6,
    "token_cpu": 0,
    "token_gpu": 0.02,
    "latency": 0.04,
    "speak_cpu": 1,
    "speak_gpu": 0.5,
    "listen_cpu": 0.5,
    "listen_gpu": 0.25,
    "pack_cpu": 0.1,
    "shard_bytes_per_second": 1000,
    "record_bytes_per_dialogue": 100,
    "reject_clips": 2,
    "dedup_per_second": 1,
    "driver_bytes": 1000,
    "driver_bytes_per_unit": 10,
    "dedup_bytes_per_dialogue": 5,
    "utilisation": 0.5,
    "driver_memory": 14000,
    "disk_bytes_per_second": 4266.666667,
    "folder_entries": 600,
    "repository_files": 500,
}
CLUSTER = Cluster(10, 2)


def config(**more: Any) -> Config:
    content: dict[str, Any] = {
        "dialogues": 1000,
        "unit_size": 10,
        "writer": {"base_url": "http://127.0.0.1:1/v1", "model": "m", "concurrency": 25},
        "dedup": {"enabled": True},
        "judge": {"keep": "sample"},
        "engine": {"writers": 2},
    }
    return Config.model_validate(content | more)


def by_hand(cluster: Cluster | None = CLUSTER, prices: tuple[str, ...] = (), **changes: float) -> Estimate:
    given = [f"{key}={value}" for key, value in (ROUND | changes).items()]
    return estimate(config(), cluster, given=given, prices=prices)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_what_the_hand_computes() -> None:
    found = by_hand(prices=("gpu_hour=2", "cpu_hour=0.1"))
    assert {item.key for item in found.assumptions} == set(ROUND)
    expected = {
        "units": 100,
        "dialogues accepted": 400,
        "audio": 4,
        "speech of all takes": 6,
        "bytes of shards": 14.4e6,
        "bytes of records": 100e3,
        "bytes of rejects": 2.88e6,
        "requests": 3000,
        "prompt tokens": 600e3,
        "reply tokens": 180e3,
        "CPU write": 0.5,
        "CPU speak": 6,
        "CPU listen": 3,
        "CPU pack": 0.8,
        "CPU": 10.3,
        "GPU write": 1,
        "GPU speak": 3,
        "GPU listen": 1.5,
        "GPU": 5.5,
        "price of gpu_hour": 11,
        "price of cpu_hour": 1.03,
        "money": 12.03,
        "wall of the text": 1,  # 1 GPU hour on 2 half-used GPUs
        "wall of the barrier": 1000 / 3600,
        "wall of the speech": 4.5,
        "wall": 5.5 + 1000 / 3600,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    with pytest.raises(KeyError):
        found["weight"]


def test_what_breaks_first_comes_first_with_its_share() -> None:
    shares = {item.name: item.share for item in by_hand().limits}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares == pytest.approx(
        {
            "files of the shards": (100 + 200 * (1 - 0.6**10)) / 500,
            "entries in a folder": 300 / 600,
            "disk bytes a second": 0.5,  # twice 17.28 MB in 4.5 h
            "LLM tokens a second": 0.5,  # 180,000 in an hour; two GPUs bear 100 a second
            "memory of the driver": 7000 / 14000,
            "requests in flight": 2 / 50,  # 50 tokens a second × 0.04 s, 2 writers × 25
        }
    )


def test_files_are_those_of_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=6, unit_size=2, rejected=0)
    its, _ = load_frozen(folder)
    made = sum(1 for name in ("shards", "dialogues", "rejects") for _ in (folder.root / name).rglob("unit-*"))
    found = estimate(its, given=["text_yield=1", "speech_yield=1"])
    assert made == 3 * 4
    assert found["files"] == made + 3 + 3  # the rows of sources and the replies of an LLM, which this run has not
    assert estimate(its, given=["text_yield=0"])["files"] == 3 * (1 + 1 + 1 + 1 + 1)


def test_who_pays_by_the_token_pays_no_gpu_for_the_llm() -> None:
    found = by_hand(prices=("token_million=10", "gpu_hour=2"))
    assert (found["GPU write"], found["price of token_million"]) == (0, pytest.approx(7.8))
    assert found["money"] == pytest.approx(7.8 + 2 * 4.5)
    listed = config(writer={"base_url": "http://127.0.0.1:1/v1", "model": "m", "prices": {"m": (1, 10)}})
    found = estimate(listed, given=[f"{key}={value}" for key, value in ROUND.items()])
    assert found["money"] == found["price of token_million"] == pytest.approx(0.6 + 1.8)
    assert "money" not in {item.name for item in by_hand().figures}


def test_the_slowest_part_makes_the_wall_time() -> None:
    assert by_hand(latency=4)["wall of the text"] == pytest.approx(180e3 * 4 / 50 / 3600)
    assert by_hand(speak_gpu=0, listen_gpu=0)["wall of the speech"] == pytest.approx(9.8 / 5)
    given = [f"{key}={value}" for key, value in ROUND.items()]
    for claims, places in (({"studio_gpus": 0.5}, 4), ({"studios": 3, "studio_gpus": 0.5}, 3), ({"studios": 1}, 1)):
        claimed = estimate(config(engine={"studio_cpus": 0.5, **claims}), CLUSTER, given=given)
        assert claimed["wall of the speech"] == pytest.approx(9.8 / (places * 0.5 * 0.5))
    together = estimate(config(dedup={}), CLUSTER, given=given)
    assert together["wall"] == pytest.approx(max(10.3 / 5, 5.5 / 1))


def test_without_a_cluster_or_its_gpus_nothing_is_said_of_time() -> None:
    for cluster, says in ((None, "--cpus"), (Cluster(10), "5.5 GPU hours need --gpus")):
        found = by_hand(cluster)
        assert not [item for item in found.figures if item.group == "wall"] and found["GPU"] == pytest.approx(5.5)
        assert "disk bytes a second" not in {item.name for item in found.limits}
        assert any(says in note for note in found.notes)
    claimed = estimate(config(engine={"studio_gpus": 0.5}), Cluster(10), given=["token_gpu=0"])
    assert any("engine.studio_gpus=0.5 need --gpus" in note for note in claimed.notes)


# ---- what follows from what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(set(ROUND) - {"utilisation", "speech_yield", "text_yield"}))
def test_every_assumption_moves_something_and_costs_never_fall(key: str) -> None:
    prices = ("gpu_hour=1", "cpu_hour=1")
    before = by_hand(prices=prices)
    more = by_hand(
        prices=prices, **{key: min(1.0, ROUND[key] * 1.1) if key == "speech_share" else ROUND[key] * 1.1 + 0.1}
    )
    assert (more.figures, more.limits) != (before.figures, before.limits)
    if "per_second" not in key:
        assert all(more[item.name] >= item.value for item in before.figures)


def test_more_machines_are_faster_and_better_texts_cost_more_speech() -> None:
    walls = [by_hand(Cluster(10 * n, 2 * n))["wall"] for n in (1, 2, 4)]
    assert walls == sorted(walls, reverse=True) and len(set(walls)) == 3
    hours = [by_hand(text_yield=share)["CPU speak"] for share in (0, 0.5, 1)]
    assert hours == sorted(set(hours)) and hours[0] == 0
    wasted, kept = by_hand(speech_yield=0.1), by_hand(speech_yield=0.9)
    assert wasted["CPU speak"] == kept["CPU speak"] and wasted["audio"] < kept["audio"]
    assert wasted["bytes of rejects"] > kept["bytes of rejects"]


def test_the_models_of_a_configuration_choose_the_rates() -> None:
    def rates(**more: Any) -> dict[str, float]:
        return {item.key: item.value for item in estimate(config(**more)).assumptions}

    embedded, large = rates(), rates(asr={"model": "large-v3-turbo"})
    assert embedded["listen_gpu"] == 0 < large["listen_gpu"] and embedded["speak_gpu"] == 0 < embedded["speak_cpu"]
    half = rates(asr={"by_language": {"zh": {"model": "large-v3-turbo"}}})
    assert half["listen_gpu"] == pytest.approx(large["listen_gpu"] / 2)
    served = rates(tts={"engines": {"a": {"kind": "http", "base_url": "http://127.0.0.1:1", "license": "MIT"}}})
    assert served["speak_gpu"] > 0
    assert rates(writer={})["token_gpu"] == 0 < embedded["token_gpu"]
    assert rates(text={"converse": {"mode": "none"}})["reply_tokens"] == 0
    reviewed = rates(text={"review": {"enabled": True}})
    assert reviewed["requests"] == embedded["requests"] + 1 and reviewed["prompt_tokens"] > embedded["prompt_tokens"]


def test_a_plan_of_any_length_is_estimated_without_a_walk() -> None:
    huge = config(dialogues=64 * 10**12, unit_size=64)
    assert estimate(huge)["units"] == 10**12


# ---- a pilot ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """12 dialogues, 2 rejected (one for its text), with a log of costs and the journal of an LLM."""
    folder = make_run(tmp_path_factory.mktemp("estimate") / "run", dialogues=12, unit_size=4, rejected=2)
    folder.logs.mkdir(exist_ok=True)
    stages = {
        "speak": {"wall": 9.0, "held": 8.0, "cpu": 6.0, "audio": 12.0},
        "listen": {"wall": 9.0, "held": 4.0, "cpu": 3.0, "audio": 12.0},
    }
    lines = [{"unit": unit, "stages": {"write": {"wall": 1.0}}} for unit in range(3)]
    lines += [{"unit": unit, "stages": stages} for unit in range(3)]
    folder.timings.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reply = {"text": "a", "finish": "stop", "model": "m", "endpoint": "", "prompt_tokens": 90, "completion_tokens": 12}
    with ReplyJournal(folder.replies(0), writer=None) as journal:  # type: ignore[arg-type]  # nobody is asked
        for number in range(8):
            journal.append({"key": str(number), "step": "converse", "dialogue": "en-000000-00", **reply, "cost": 0.0})
    return folder


def test_a_pilot_says_of_itself_what_it_was(pilot: RunFolder) -> None:
    its, _ = load_frozen(pilot)
    stats = run_stats(pilot, its)
    found = estimate(its, pilot=pilot.root)
    assert found["dialogues accepted"] == pytest.approx(stats.accepted) and stats.accepted == 10
    assert found["audio"] == pytest.approx(stats.hours)
    shards = sum(path.stat().st_size for path in (pilot.root / "shards").rglob("*.tar"))
    clips = sum(path.stat().st_size for path in (pilot.root / "rejects").rglob("*.tar"))
    everything = sum(path.stat().st_size for path in pilot.root.rglob("*") if path.is_file())
    sizes = [found[f"bytes of {name}"] for name in ("shards", "rejects", "records")]
    assert sizes == pytest.approx([shards, clips, everything - shards - clips]) and clips > 0
    tokens = [found[name] for name in ("requests", "prompt tokens", "reply tokens")]
    assert tokens == pytest.approx([8, 720, 96])
    rates = {item.key: item for item in found.assumptions}
    assert (rates["speak_cpu"].value, rates["listen_cpu"].value) == (0.5, 0.25)
    assert rates["text_yield"].value == pytest.approx(11 / 12)
    turns, first = (sum(getattr(item, name) for item in stats.lengths) for name in ("turns", "first"))
    takes = 1 + rates["first_take_failure"].value * rates["repairs"].value
    assert takes == pytest.approx((turns + sum(item.takes for item in stats.repairs)) / turns) and first < turns
    assert {rates[key].basis for key in ("speak_cpu", "repairs", "requests", "reject_clips")} == {"pilot"}
    assert not [note for note in found.notes if "configuration" in note or "no log" in note]


def test_a_larger_run_scales_and_what_differs_is_named(pilot: RunFolder) -> None:
    its, _ = load_frozen(pilot)
    small = estimate(its, pilot=pilot.root)
    large = its.model_copy(update={"dialogues": 1200, "asr": its.asr.model_copy(update={"beam": 5})})
    found = estimate(large, pilot=pilot.root, given=["speak_cpu=2"])
    assert found["audio"] == pytest.approx(100 * small["audio"])
    assert found["CPU speak"] == pytest.approx(400 * small["CPU speak"])  # 2 s given, 0.5 s measured
    assert any("of another configuration: asr.beam differ" in note for note in found.notes)
    held = its.model_copy(update={"engine": its.engine.model_copy(update={"studio_gpus": 0.25})})
    assert estimate(held, pilot=pilot.root)["GPU speak"] == pytest.approx(small["speech of all takes"] * 8 / 12 / 4)


def test_a_pilot_without_a_log_leaves_the_shipped_rates(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=4, unit_size=2, rejected=0)
    its, _ = load_frozen(folder)
    found, plain = estimate(its, pilot=folder.root), estimate(its)
    bases = {item.key: item.basis for item in found.assumptions}
    assert (
        bases["seconds_per_dialogue"] == "pilot" and bases["speak_cpu"] == "measured" and bases["requests"] != "pilot"
    )
    assert found["audio"] != plain["audio"] and any("no log of costs" in note for note in found.notes)


def test_a_pilot_that_keeps_a_sample_of_its_rejects_speaks_for_all_of_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=24, unit_size=12, rejected=22, keep="sample")
    clips = sum(path.stat().st_size for path in (folder.root / "rejects").rglob("*.tar"))
    its, _ = load_frozen(folder)
    everything = its.model_copy(update={"judge": its.judge.model_copy(update={"keep": "all"})})
    assert clips and estimate(its, pilot=folder.root)["bytes of rejects"] == pytest.approx(clips)
    assert estimate(everything, pilot=folder.root)["bytes of rejects"] == pytest.approx(10 * clips)
    silent = make_run(tmp_path / "silent", dialogues=4, unit_size=4, keep="none")
    rates = estimate(its, pilot=silent.root).assumptions
    assert [item.basis for item in rates if item.key == "reject_clips"] == ["measured"]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_reference_recipe_is_estimated_without_models_or_voices(speechchat: CommandLine) -> None:
    done = speechchat("plan", "ke-speechchat")
    assert done.status == 0 and "7,000,000 dialogues in 109,375 units of 64" in done.out
    assert "3,500,000 en, 3,500,000 zh" in done.out
    words = ("plan", "ke-speechchat", "--estimate", "--cpus", "2000", "--gpus", "64", "--price", "gpu_hour=2.5")
    done = speechchat(*words)
    assert done.status == 0 and "\x1b" not in done.out
    for part in ("files of the shards", "requests in flight", "not measured", "arXiv 2412.01078", "GPU hours × 2.5"):
        assert part in done.out
    assert "CosyVoice" not in done.out  # a rate that this recipe does not use
    answer = json.loads(speechchat(*words, "--json").out)
    assert Estimate.model_validate(answer["estimate"])["units"] == answer["units"] == 109375
    assert answer["splits"]["train"] == pytest.approx(0.9 * 109375)
    assert json.loads(speechchat("plan", "quickstart", "--json").out)["estimate"] is None


def test_the_reference_recipe_hears_each_language_with_a_recogniser_of_its_own() -> None:
    recipe = load_config("ke-speechchat")
    assert recipe.asr.model == "large-v3-turbo" and recipe.asr.by_language["zh"].model_path is not None
    assert recipe.cast.library is not None and recipe.text.rewrite.enabled and recipe.text.style.enabled
    found = estimate(recipe, Cluster(2000, 64))
    in_flight = next(item for item in found.limits if item.name == "requests in flight")
    assert in_flight.share < 1  # its writers keep such a cluster busy


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--assume", "speak_cpus=1"), ("--assume 'speak_cpus=1'", "did you mean 'speak_cpu'?", "listen_gpu")),
        (("--assume", "speak_cpu"), ("--assume 'speak_cpu'", "write it as key=number")),
        (("--assume", "speak_cpu=fast"), ("--assume 'speak_cpu=fast'", "'fast' is no number from 0 on")),
        (("--assume", "speak_cpu=-1"), ("'-1' is no number from 0 on",)),
        (("--assume", "speak_cpu=inf"), ("'inf' is no number from 0 on",)),
        (("--assume", "text_yield=90"), ("--assume text_yield=90", "a share, from 0 to 1")),
        (("--assume", "utilisation=0"), ("--assume utilisation=0", "above 0")),
        (("--price", "gpu=2"), ("--price 'gpu=2'", "did you mean 'gpu_hour'?", "token_million")),
        (("--price", "gpu_hour=cheap"), ("--price 'gpu_hour=cheap'", "is no number")),
        (("--cpus", "0"), ("--cpus 0", "above 0")),
        (("--cpus", "8", "--gpus", "-1"), ("--gpus -1", "from 0 on")),
        (("--gpus", "8"), ("--gpus alone is no cluster", "--cpus")),
        (("--pilot", "/nowhere/run"), ("/nowhere/run is not a folder", "speechchat run")),
    ],
    ids=lambda item: " ".join(item) if item[0].startswith("--") else "",
)
def test_bad_input_is_one_line(speechchat: CommandLine, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(speechchat("plan", "quickstart", "--estimate", *words), 2, *parts)


def test_what_belongs_to_an_estimate_is_not_taken_in_silence(speechchat: CommandLine) -> None:
    refused(speechchat("plan", "quickstart", "--cpus", "8"), 2, "--cpus belongs to an estimate", "--estimate")
    refused(speechchat("plan", "quickstrat"), 2, "did you mean 'quickstart'?")


def test_a_pilot_of_which_nothing_came_is_refused(speechchat: CommandLine, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", dialogues=2, unit_size=2, rejected=2)
    words = ("plan", "quickstart", "--estimate", "--pilot", folder.root)
    refused(speechchat(*words), 2, f"--pilot {folder.root}", "finish it first")
    (folder.root / "config.yaml").unlink()
    refused(speechchat(*words), 2, "holds no config.yaml")
    with pytest.raises(UsageError):
        estimate(config(), pilot=folder.root)
