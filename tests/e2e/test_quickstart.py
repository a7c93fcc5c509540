"""The main job on the real embedded models: what the README promises of it, a kill, and every reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import DialogueStream, Sample
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder
from pipeline.text.rates import error_rates

pytestmark = pytest.mark.embedded


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", *words]


def speechchat(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=500)


def stats(out: Path) -> dict[str, Any]:
    return dict(json.loads(speechchat("stats", str(out), "--json").stdout))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("e2e") / "run"
    done = speechchat("run", "quickstart", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout and "RTF speak" in done.stdout and "WER en" in done.stdout
    return out


def test_the_run_verifies_with_every_clip_decoded(quickstart: Path) -> None:
    done = speechchat("verify", str(quickstart), "--decode", "--json")
    state = json.loads(done.stdout)
    assert done.returncode == 0 and state["ok"] and state["units"] == 2
    assert state["samples"] >= 12


def test_the_speech_is_what_the_text_says(quickstart: Path, tmp_path: Path) -> None:
    """Heard by a recogniser of the test's own, from what a trainer gets."""
    from pipeline import backends
    from pipeline.audio import resample
    from pipeline.config import Config
    from pipeline.dialogue import Clip

    turns = list(DialogueStream(quickstart, each="turn", shuffle=0, cache=tmp_path))[::3]
    assert {turn.language for turn in turns} == {"en", "zh"} and {turn.loss for turn in turns} == {True, False}
    clips = [resample(Clip(turn.audio, turn.rate), 16000) for turn in turns]
    heard = backends.make_recognizer(Config()).transcribe(clips, [turn.language for turn in turns])
    for turn, transcript in zip(turns, heard, strict=True):
        rates = error_rates(turn.text, transcript.text, turn.language)
        assert rates["per" if turn.language == "zh" else "wer"] <= 0.2, (turn.text, transcript.text)


def test_the_llm_wrote_some_of_it_and_it_is_said_who_wrote_what(quickstart: Path) -> None:
    lines = [line for path in (quickstart / "dialogues").rglob("*.jsonl") for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    turns = [turn for record in records if record["dialogue"] for turn in record["dialogue"]["turns"]]
    assert {turn["author"] for turn in turns if turn["role"] == "user"} == {"source"}
    assert any(turn["author"] == "llm" for turn in turns)
    assert all(record["dialogue"]["source"]["license"] for record in records if record["dialogue"])


def test_tar_webdataset_and_datasets_find_the_same_samples(quickstart: Path) -> None:
    import datasets
    import webdataset

    shards = sorted(str(path) for path in (quickstart / "shards" / "train").rglob("*.tar"))
    by_tar: dict[str, dict[str, bytes]] = {}
    for shard in shards:
        listing = subprocess.run(["tar", "tf", shard], capture_output=True, text=True, check=True).stdout.split()
        with tarfile.open(shard) as tar:
            assert tar.getnames() == listing
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                by_tar.setdefault(key, {})[suffix] = file.read()
    by_webdataset = {
        item["__key__"]: {name: item[name] for name in ("json", "user.flac", "assistant.flac")}
        for item in webdataset.WebDataset(shards, shardshuffle=False)
    }
    assert by_webdataset == by_tar
    features = datasets.Features(
        {
            "__key__": datasets.Value("string"),
            "__url__": datasets.Value("string"),
            "json": datasets.Value("binary"),
            "user.flac": datasets.Value("binary"),
            "assistant.flac": datasets.Value("binary"),
        }
    )
    streamed = datasets.load_dataset(
        "webdataset", data_files={"train": shards}, split="train", streaming=True, features=features
    )
    assert {row["__key__"]: row["user.flac"] for row in streamed} == {
        key: members["user.flac"] for key, members in by_tar.items()
    }
    for members in by_tar.values():
        Sample.model_validate_json(members["json"])


def test_the_demo_keeps_what_it_promises(quickstart: Path) -> None:
    totals = stats(quickstart)
    assert totals["planned"] == 16 == totals["accepted"] + sum(totals["rejected"].values())
    assert totals["accepted"] >= 12 and min(totals["languages"].values()) >= 5
    assert totals["llm_turns"] >= 4
    assert len(totals["voices"]) >= 12
    folder = RunFolder(quickstart)
    samples = [encoded.sample for manifest in folder.manifests() for encoded in read_unit(folder, manifest)]
    assert all(2 <= len(sample.turns) <= 4 and sample.duration <= 12.5 for sample in samples)
    assert {turn.role for sample in samples for turn in sample.turns if turn.author == "llm"} == {"assistant"}


def test_a_tighter_gate_judges_the_same_clips(quickstart: Path, tmp_path: Path) -> None:
    out = tmp_path / "strict"
    done = speechchat("regate", str(quickstart), "--out", str(out), "--set", "judge.limits.zh.cer=0.01")
    assert done.returncode == 0, done.stderr
    before, after = stats(quickstart), stats(out)
    assert (
        after["languages"].get("zh", 0) < before["languages"]["zh"]
        and after["languages"]["en"] == before["languages"]["en"]
    )
    assert after["planned"] == 16 == after["accepted"] + sum(after["rejected"].values())
    clips: dict[str, bytes] = {}
    for folder in (RunFolder(quickstart), RunFolder(out)):
        for manifest in folder.manifests():
            for encoded in read_unit(folder, manifest):
                assert clips.setdefault(encoded.sample.key, encoded.user) == encoded.user
    assert speechchat("verify", str(out), "--decode").returncode == 0
    assert not (out / "logs" / "timings.jsonl").exists()


def spoken(out: Path) -> dict[str, tuple[Any, ...]]:
    """Every sample of a run with its tracks, by key, but for the digest that the size of a unit reaches."""
    folder, found = RunFolder(out), {}
    for manifest in folder.manifests():
        for encoded in read_unit(folder, manifest):
            sample = encoded.sample.model_dump()
            del sample["provenance"]["text_digest"]
            found[encoded.sample.key] = (sample, encoded.user, encoded.assistant)
    return found


def test_killed_at_any_moment_it_ends_with_the_same_bytes(quickstart: Path, tmp_path: Path) -> None:
    """The driver is killed in text and in speech, with everything that it started still running; then the other engine
    ends the run. It is the beginning of the longer one: what it wrote and spoke must be there byte for byte."""
    out = tmp_path / "killed"
    folder = RunFolder(out)
    words = command("run", "quickstart", "--out", str(out), "--set", "dialogues=4", "--set", "unit_size=4")
    moments = [
        lambda: folder.replies(0).exists() and folder.replies(0).stat().st_size > 0,
        lambda: folder.crash_journal(0).exists() and folder.text(0).exists(),
    ]
    for moment in moments:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while not moment() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(folder.manifests())
    done = subprocess.run([*words, "--engine", "local"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    texts, all_texts = (RunFolder(root).text(0).read_bytes().splitlines() for root in (out, quickstart))
    assert len(texts) == 4 and texts == all_texts[:4]
    made, whole = spoken(out), spoken(quickstart)
    first = {f"{language}-000000-{index:02d}" for language in ("en", "zh") for index in range(4)}
    assert made and made == {key: sample for key, sample in whole.items() if key in first}
