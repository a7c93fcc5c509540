"""Making and hearing what a gate is calibrated on: known good and known bad clips, kept as they come."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.dialogue import Clip
from pipeline.engine.gate_calibrate import Request, heard, heard_before, settle
from pipeline.engine.gate_plan import KINDS
from pipeline.engine.gate_sounds import cut, hiss, noisy, overdriven
from pipeline.engine.gate_store import latest, read_cases
from pipeline.errors import DataError
from pipeline.text.rates import error_rates
from tests.command_line import CommandLine, refused
from tests.engine.gate_modem import EN, HERE, LOG, SETTINGS, rows, write_run

MADE = set(KINDS) - {"voice"}


def quiet(done: int, count: int, cpu: float) -> None:
    pass


def hear(run: Path, out: Path, *settings: str, good: int = 2, kinds: tuple[str, ...] = ()) -> list[Any]:
    request = Request(run, out, good, 0, 1, None, (*SETTINGS, *settings), kinds)
    return heard(request, settle(request), quiet)


def log(path: Path) -> Counter[str]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return Counter(line.split()[0] for line in lines)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("gate") / "run").root


@pytest.fixture(scope="module")
def done(run: Path) -> Path:
    out = run.parent / "out"
    hear(run, out)
    return out


@pytest.mark.embedded
def test_each_kind_is_wrong_in_its_own_way(done: Path) -> None:
    cases = latest(done / "heard.jsonl")
    assert Counter((case.language, case.kind) for case in cases) == {
        (language, kind): 2 for language in ("en", "zh") for kind in MADE if (language, kind) != ("en", "tone")
    }
    good = {case.item: case for case in cases if case.kind == "good"}
    for case in cases:
        text, speech = case.texts[0], good[case.item]
        best = min((error_rates(text, item.text, case.language)["cer"] for item in case.opinions), default=1.0)
        if case.kind == "good":
            assert best == 0 and case.fault == "" and {score.name for score in case.scores} >= {"pace", "mos_ovr"}
        elif case.kind == "clipped":
            assert case.fault == "clipping" and not case.opinions
        elif case.kind == "silence":
            assert case.fault == "silence" or best == 1
        elif case.kind == "swapped":
            assert text != speech.texts[0] and case.said == speech.said and best > 0.3
        elif case.kind in ("dropped", "doubled", "substituted", "tone", "foreign"):
            assert case.said != text and case.what and (best > 0 or case.fault)
        elif case.kind == "cut":
            assert 0.59 < case.seconds / speech.seconds < 0.85 and best > 0.15
        elif case.kind in ("slow", "fast"):
            assert case.fault == "length" or abs(case.seconds / speech.seconds - 1) > 0.25
        elif case.kind in ("overdriven", "noise20"):
            assert best == 0 and case.seconds == pytest.approx(speech.seconds, abs=0.1)


@pytest.mark.embedded
def test_who_does_not_hear_it_at_once_is_asked_again(done: Path) -> None:
    """Only what is not perfect, so that every later rule finds all that it would ask."""
    cases = [case for case in latest(done / "heard.jsonl") if case.opinions]
    for case in cases:
        metric = "cer" if case.language == "en" else "per"
        first = error_rates(case.texts[0], case.opinions[0].text, case.language)[metric]
        assert len(case.opinions) == (1 if first == 0 else 2)
        assert (case.opinions[-1].doubt is not None) == (len(case.opinions) == 2)
    assert {len(case.opinions) for case in cases} == {1, 2}
    assert {opinion.recognizer for case in cases for opinion in case.opinions} == {"ear"}


@pytest.mark.embedded
def test_an_appeal_of_the_configuration_changes_nothing_that_is_heard(run: Path, tmp_path: Path) -> None:
    second = f"asr.second={{engine: '{HERE}:build_asr', license: MIT}}"
    appeal = "judge.appeal={en: {doubt: 9, surprise: 9}, zh: {doubt: 9, surprise: 9}}"
    plain = hear(run, tmp_path / "plain", second, good=1, kinds=("dropped",))
    assert hear(run, tmp_path / "eased", second, appeal, good=1, kinds=("dropped",)) == plain
    assert {len(case.opinions) for case in plain if case.kind == "dropped"} == {3}


@pytest.mark.embedded
def test_only_what_is_planned_is_reckoned(run: Path, done: Path) -> None:
    def before(good: int, *settings: str) -> tuple[list[Any], list[str]]:
        said: list[str] = []
        request = Request(run, done, good, 0, 1, None, (*SETTINGS, *settings), ("dropped", "cut"))
        return heard_before(request, settle(request), said.append), said

    everything = latest(done / "heard.jsonl")
    both, said = before(2)
    assert {case.key for case in both} == {case.key for case in everything if case.kind in ("good", "dropped", "cut")}
    fewer, less_said = before(1)
    assert Counter(case.kind for case in fewer) == {"good": 2, "dropped": 2, "cut": 2} and said == less_said == []
    more, [missing] = before(3)
    assert {case.key for case in more} == {case.key for case in both}
    assert "heard.jsonl: 6 of 18 clips" in missing
    others, [none] = before(2, "asr.beam=3")
    assert others == everything and "of the 12 clips that are planned none" in none and "66 clips" in none


def test_an_empty_file_is_one_line(run: Path, tmp_path: Path, speechchat: CommandLine) -> None:
    (tmp_path / "heard.jsonl").touch()
    told = speechchat("gate", "calibrate", run, "--out", tmp_path, "--only", "evaluate")
    refused(told, 1, "heard.jsonl: nothing was heard yet", "--only evaluate")


@pytest.mark.embedded
def test_nothing_is_done_twice(run: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, out = tmp_path / "log", tmp_path / "out"
    monkeypatch.setenv(LOG, str(first))
    hear(run, out)
    whole = (out / "heard.jsonl").read_bytes()
    assert whole == (done / "heard.jsonl").read_bytes()
    said = log(first)["say"]
    texts = [line.split(" ", 1)[1] for line in first.read_text("utf-8").splitlines() if line.startswith("say")]
    assert len(set(texts)) == said  # each text once, whatever is made of its clip
    monkeypatch.setenv(LOG, str(tmp_path / "again"))
    hear(run, out)
    assert not (tmp_path / "again").exists() and (out / "heard.jsonl").read_bytes() == whole
    # A line that was lost in a kill: its clip is heard again, from what was spoken.
    lines = whole.splitlines(keepends=True)
    (out / "heard.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:50])
    hear(run, out)
    assert (out / "heard.jsonl").read_bytes() == whole
    assert log(tmp_path / "again")["say"] == 0 < log(tmp_path / "again")["hear"] <= 2
    # Other ears hear all again, and nothing is spoken.
    monkeypatch.setenv(LOG, str(tmp_path / "other"))
    cases = hear(run, out, "asr.beam=2")
    assert log(tmp_path / "other")["say"] == 0 and len(latest(out / "heard.jsonl")) == len(cases) == len(lines)
    assert len(read_cases(out / "heard.jsonl")) == 2 * len(lines)


@pytest.mark.embedded
def test_more_clips_begin_with_the_fewer(
    run: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    few = hear(run, out, good=1, kinds=("dropped", "swapped"))
    assert Counter(case.kind for case in few) == {"good": 2, "dropped": 2, "swapped": 2}
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    more = hear(run, out, good=2, kinds=("dropped", "swapped"))
    assert {case.key for case in few} <= {case.key for case in more}
    voices = {case.voice for case in more}
    assert len(voices) > 1 and voices <= {
        "af_bella",
        "am_adam",
        "af_heart",
        "am_michael",
        "zm_yunjian",
        "zf_xiaoxiao",
        "zm_yunxi",
    }


@pytest.mark.embedded
def test_a_bug_keeps_what_was_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", ["the broken bridge is closed", *EN[1:4]]).root
    with pytest.raises(ValueError, match="a bug in the engine"):
        hear(run, tmp_path / "out", good=4)
    kept = rows(tmp_path / "out")
    assert 0 < len(kept) < 4 * 33 and not any("broken" in row["texts"][0] for row in kept)


@pytest.mark.embedded
def test_an_interruption_keeps_what_was_heard(run: Path, done: Path, tmp_path: Path) -> None:
    request = Request(run, tmp_path, 2, 0, 1, None, SETTINGS)

    def stop(done: int, count: int, cpu: float) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heard(request, settle(request), stop)
    kept = read_cases(tmp_path / "heard.jsonl")
    assert kept == [case for case in latest(done / "heard.jsonl") if case.item == kept[0].item]


@pytest.mark.embedded
def test_what_was_heard_becomes_a_rule(run: Path, done: Path, tmp_path: Path, speechchat: CommandLine) -> None:
    out, rule = tmp_path / "out", tmp_path / "rule.yaml"
    out.mkdir()
    (out / "heard.jsonl").write_bytes((done / "heard.jsonl").read_bytes())
    told = speechchat("gate", "calibrate", run, "--out", out, "--only", "evaluate", "--write", rule)
    assert told.status == 0 and str(out / "index.html") in told.out, told
    assert "English: the good clips are of one voice" in told.out and "Mandarin, proposed rule" in told.out
    figures = json.loads((out / "figures.json").read_bytes())
    [(language, found)] = figures["languages"].items()
    judge = load_config(str(rule)).judge
    assert language == "zh" and judge.limits["zh"] == found["proposed"]["limits"] != {}
    caught = found["proposed"]["held"]["caught"]
    assert caught["swapped"]["share"] == caught["clipped"]["share"] == 1 and caught["noise20"]["count"] == 1


@pytest.mark.embedded
def test_a_clip_that_does_not_come_out_is_a_fault(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["the mute swan sleeps", *EN[1:4]]).root
    cases = hear(run, tmp_path / "out", good=4, kinds=("dropped", "noise5"))
    mute = [case for case in cases if case.texts[0].startswith("the mute")]
    assert {case.fault for case in mute if case.kind in ("good", "noise5")} == {"refused"}


@pytest.mark.embedded
def test_processes_hear_as_one_does(run: Path, done: Path, tmp_path: Path, speechchat: CommandLine) -> None:
    words = [part for setting in SETTINGS for part in ("--set", setting)]
    options = ("--good", 2, "--workers", 2, "--only", "hear")
    told = speechchat("gate", "calibrate", run, "--out", tmp_path / "out", *options, *words)
    assert told.status == 0, told
    assert (tmp_path / "out" / "heard.jsonl").read_bytes() == (done / "heard.jsonl").read_bytes()
    assert "66 of 66 clips" in told.err and "CPU s a clip" in told.err


def test_bad_input_is_one_line(run: Path, tmp_path: Path, speechchat: CommandLine) -> None:
    out = tmp_path / "out"
    refused(speechchat("gate", "calibrate", tmp_path, "--out", out), 2, "config.yaml", "run")
    refused(speechchat("gate", "calibrate", run, "--out", out, "--only", "fit"), 2, "--only fit", "hear")
    refused(speechchat("gate", "calibrate", run, "--out", out, "--kinds", "droped"), 2, "'droped'", "dropped")
    refused(speechchat("gate", "calibrate", run, "--out", out, "--only", "evaluate"), 1, "heard.jsonl", "--only")
    refused(speechchat("gate", "calibrate", run, "--out", out, "--set", "asr.baem=2"), 2, "asr.baem", "beam")
    refused(speechchat("gate", "calibrate", run, "--out", out, "--set", "languages={en: 1}"), 2, "--set languages")
    empty = write_run(tmp_path / "empty")
    empty.text(0).rename(tmp_path / "away")
    for path in (empty.root / "dialogues").rglob("*.jsonl"):
        path.unlink()
    refused(speechchat("gate", "calibrate", empty.root, "--out", out), 2, "no text", "--until write")
    assert not out.exists()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "heard.jsonl"
    path.write_text('{"key": 1}\n')
    with pytest.raises(DataError, match=r"heard\.jsonl: line 1: key: .*remove"):
        read_cases(path)


def tone(seconds: float = 1.0, rate: int = 16000) -> Clip:
    return Clip((0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32), rate)


def test_a_cut_ends_softly() -> None:
    clip = cut(tone(), 0.3)
    assert clip.seconds == pytest.approx(0.7, abs=1e-3) and clip.audio[-1] == 0
    assert np.abs(clip.audio[-400:-200]).max() > 0.49 and np.array_equal(clip.audio[:10000], tone().audio[:10000])


@pytest.mark.parametrize("colour", ["white", "pink"])
@pytest.mark.parametrize("snr", [20.0, 0.0])
def test_noise_is_as_loud_as_it_says(snr: float, colour: str) -> None:
    clip = noisy(tone(), snr, colour, 1)
    level = float(clip.audio @ tone().audio / (tone().audio @ tone().audio))  # of the speech in the mix
    noise = clip.audio - level * tone().audio
    found = 10 * np.log10(np.mean((level * tone().audio) ** 2) / np.mean(noise**2))
    assert found == pytest.approx(snr, abs=0.5) and np.abs(clip.audio).max() < 1


def test_overdriven_is_found_by_its_level_only_where_it_is_at_full_scale() -> None:
    loud, low = overdriven(tone(), False), overdriven(tone(), True)
    assert np.mean(np.abs(loud.audio) >= 32767 / 32768) > 0.5
    assert np.abs(low.audio).max() == pytest.approx(10 ** (-6 / 20), abs=1e-3)


def test_hiss_has_its_level() -> None:
    clip = hiss(2.0, -40.0, 16000, 1)
    assert clip.seconds == 2 and 20 * np.log10(np.sqrt(np.mean(clip.audio**2))) == pytest.approx(-40, abs=0.2)
