"""Rules on what was heard: the same verdict as the judge's, and a search that finds what separates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.config import JudgeConfig, load_config
from pipeline.dialogue import Language, Score
from pipeline.engine.gate_calibrate import write_rule
from pipeline.engine.gate_figures import area, curve, figures, share
from pipeline.engine.gate_measure import Case, Opinion
from pipeline.engine.gate_page import words, write_page
from pipeline.engine.gate_rules import Gate, Rule, Table, fit, rule_of
from pipeline.errors import UsageError
from pipeline.stages.judge import verdict
from pipeline.text.rates import error_rates
from tests.engine.gate_modem import EN

WORDS = [word for line in EN for word in line.split() if len(word) > 3]


def opinion(text: str, doubt: float | None = None, surprise: float | None = None, language: float = 0.9) -> Opinion:
    return Opinion(
        text=text,
        logprob=-0.3,
        no_speech=0.01,
        compression_ratio=1.0,
        language=language,
        recognizer="ear",
        doubt=doubt,
        surprise=surprise,
    )


def case(
    item: int,
    kind: str,
    heard: Sequence[Opinion],
    *,
    text: str = "",
    voice: str = "",
    pace: float = 1.0,
    fault: str = "",
    language: Language = "en",
) -> Case:
    return Case(
        key=f"{item}{kind}",
        bench="b",
        item=f"en-{item}#0",
        kind=kind,
        language=language,
        role="user",
        voice=voice or f"v{item % 7}",
        texts=(text or sentence(item),),
        said="",
        clip="",
        what="",
        speed=1.0,
        seconds=2.0,
        fault=fault,
        opinions=() if fault else tuple(heard),
        scores=() if fault else (Score(name="pace", value=pace), Score(name="chars_per_second", value=10.0)),
    )


def sentence(item: int) -> str:
    return f"{EN[item % len(EN)]} number {item}"


def without(text: str, place: int) -> str:
    parts = text.split()
    return " ".join(parts[:place] + parts[place + 1 :])


def corpus(count: int = 60) -> list[Case]:
    """Good clips heard well, every tenth with a slip of the ear that is taken back on the second hearing; clips with a
    word missing; clips at another pace; silent ones."""
    cases = []
    for item in range(count):
        text = sentence(item)
        slip = [opinion(text.replace("number", "numbers"))] if item % 10 == 0 else []
        cases.append(case(item, "good", [*slip, opinion(text)], pace=0.9 + 0.2 * (item % 5) / 4))
        cases.append(case(item, "dropped", [opinion(without(text, 2)), opinion(without(text, 2))]))
        cases.append(case(item, "fast", [opinion(text)], pace=1.55))
        cases.append(case(item, "silence", [], fault="silence"))
    return cases


def test_a_rule_says_what_the_judge_says() -> None:
    """On random scores of one hearing, with every kind of gate and an appeal."""
    draw = random.Random(1)
    cases, said = [], []
    judge = JudgeConfig(
        limits={"en": {"cer": 0.1, "gap": 3, "pace": 1.2}},
        floors={"en": {"language": 0.5, "pace": 0.8}},
        appeal={"en": {"doubt": 2.0, "surprise": 3.0}},
    )
    for item in range(200):
        text = sentence(item)
        heard = text if draw.random() < 0.3 else without(text, draw.randrange(6)).replace("e", draw.choice("ea"), 1)
        likely = (draw.uniform(0, 4), draw.uniform(0, 6)) if heard != text and draw.random() < 0.8 else (None, None)
        one = opinion(heard, *likely, language=draw.random())
        cases.append(case(item, "good", [one], pace=draw.uniform(0.6, 1.4)))
        scores = {**error_rates(text, heard, "en"), **one.model_dump(exclude={"text", "recognizer"}, exclude_none=True)}
        scores |= {score.name: score.value for score in cases[-1].scores}
        said.append(verdict(scores, "en", judge) == "")
    passes = Table(cases).passes(rule_of(judge, "en"))
    assert passes.tolist() == said and 10 < sum(said) < 190


def test_the_best_of_several_hearings_decides() -> None:
    text = sentence(1)
    table = Table(
        [
            case(1, "good", [opinion(without(text, 1)), opinion(text)]),
            case(1, "good", [opinion(without(text, 1)), opinion(without(text, 2))]),
            # Neither hearing passes both gates, though each gate is passed by one.
            case(1, "good", [opinion(text, language=0.1), opinion(without(text, 1), language=0.9)]),
            case(1, "good", [], fault="length"),
        ]
    )
    rule = Rule((Gate("cer", "limit", 0.02), Gate("language", "floor", 0.5)))
    assert table.passes(rule).tolist() == [True, False, False, False]
    assert table.refused_by(rule) == ["", "cer", "together", "faults"]


def test_the_search_finds_what_separates() -> None:
    cases = corpus()
    table = Table(cases)
    rule = fit(table)
    assert {gate.name for gate in rule.gates} & {"cer", "wer", "gap", "dropped"} and rule.section("limit")[
        "pace"
    ] < 1.55
    passes = table.passes(rule)
    assert passes[table.of["good"]].all() and not passes[~table.of["good"]].any()


def test_the_search_keeps_to_its_budget() -> None:
    """Where a third of the good clips sounds just like the bad ones, no gate is drawn between them."""
    cases = [
        case(item, kind, [opinion(without(sentence(item), 2))])
        if kind == "dropped" or item % 3 == 0
        else case(item, kind, [opinion(sentence(item))])
        for item in range(60)
        for kind in ("good", "dropped")
    ]
    table = Table(cases)
    assert table.passes(fit(table))[table.of["good"]].all()


def test_an_appeal_is_found_where_it_helps() -> None:
    """The ear mishears every second good clip as badly as a bad one, but finds the text likely."""
    cases = []
    for item in range(60):
        wrong = without(sentence(item), 2)
        cases.append(case(item, "good", [opinion(wrong, 0.5, 0.8)] if item % 2 else [opinion(sentence(item))]))
        cases.append(case(item, "dropped", [opinion(wrong, 9.0, 8.0)]))
    table = Table(cases)
    rule = fit(table)
    assert dict(rule.appeal).keys() == {"doubt", "surprise", "longer"}
    passes = table.passes(rule)
    assert passes[table.of["good"]].all() and not passes[table.of["dropped"]].any()


def test_the_curve_of_a_kind_that_is_not_there() -> None:
    refused, caught = curve(Table(corpus(10)), "cer", "limit", ("cut",))
    assert set(caught) == {1.0} and len(refused) == len(caught)
    assert share(0, 0) == {"hits": 0, "count": 0, "share": 0.0, "low": 0.0, "high": 1.0}


def test_figures_where_all_good_clips_of_a_side_are_faulty() -> None:
    cases = [
        case(item, "good", [opinion(sentence(item))], voice=voice, fault="length" * (voice == "a"))
        for item, voice in enumerate("ab" * 10)
    ]
    english = figures(cases, JudgeConfig(), {})["languages"]["en"]
    assert sorted(english["current"][side]["refused"]["share"] for side in ("fit", "held")) == [0, 1]
    assert all(score["refused"]["count"] == 0 for score in english["scores"].values())


def test_no_gate_on_what_a_run_would_have_heard_again() -> None:
    """The first hearing is perfect, so that nobody was asked again, whatever its own numbers are."""
    cases = [
        case(item, kind, [opinion(sentence(item), language=language)])
        for item in range(40)
        for kind, language in (("good", 0.9), ("dropped", 0.1))
    ]
    assert fit(Table(cases)).gates == ()
    for limits, bound in (({"wer": 0.1}, ["wer"]), ({"cer": 0.1}, [])):
        found = figures(cases, JudgeConfig(limits={"en": limits}), {})
        assert found["languages"]["en"]["current"]["upper_bound"] == bound
        [proposed, current] = words(found)
        assert "upper bound" not in proposed and ("upper bound" in current) is bool(bound)


def test_the_rule_is_written_so_that_no_default_is_left(tmp_path: Path) -> None:
    cases = [
        item if item.kind != "dropped" else item.model_copy(update={"opinions": (opinion(item.texts[0]),)})
        for item in corpus()
    ]
    found, path = figures(cases, JudgeConfig(), {}), tmp_path / "rule.yaml"
    write_rule(found, path)
    proposed = found["languages"]["en"]["proposed"]
    judge = load_config(str(path)).judge
    assert judge.limits["en"] == proposed["limits"] and "wer" not in judge.limits["en"]
    assert judge.floors == {"en": {}} and judge.appeal == {"en": {}}
    assert yaml.safe_load(path.read_text("utf-8"))["judge"]["min_mos"] is None
    path.unlink()
    for nothing in (figures(cases[:4], JudgeConfig(), {}), figures(cases[::4], JudgeConfig(), {})):
        with pytest.raises(UsageError, match=r"--write .*rule\.yaml: no gate could be fitted"):
            write_rule(nothing, path)
    assert not path.exists()


def test_a_share_has_the_interval_of_clopper_and_pearson() -> None:
    assert share(0, 300) == {"hits": 0, "count": 300, "share": 0.0, "low": 0.0, "high": pytest.approx(0.0122, abs=1e-4)}
    found = share(5, 100)
    assert (found["low"], found["high"]) == (pytest.approx(0.0164, abs=1e-3), pytest.approx(0.1128, abs=1e-3))


def test_the_area_under_a_curve() -> None:
    good, bad = np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0])
    assert area(good, bad) == pytest.approx((2.5 + 3) / 6)


def test_figures_are_of_clips_that_fitted_nothing() -> None:
    found = figures(corpus(), JudgeConfig(), {"en": {2: 3, 4: 1}})
    english = found["languages"]["en"]
    assert english["clips"]["fit"]["good"] + english["clips"]["held"]["good"] == 60
    held = english["proposed"]["held"]
    assert held["refused"]["hits"] == 0 and held["refused"]["count"] == english["clips"]["held"]["good"]
    assert {kind: item["share"] for kind, item in held["caught"].items()} == {"dropped": 1, "fast": 1, "silence": 1}
    assert held["reasons"]["silence"] == {"faults": english["clips"]["held"]["silence"]}
    # The shipped WER of 0.1 passes a slip of one word in ten, and no pace.
    current = english["current"]["all"]
    assert current["caught"]["fast"]["share"] == 0 and current["caught"]["dropped"]["share"] == 1
    assert {row["kind"] for row in english["current"]["wrong"]} == {"fast"}
    by_itself = english["scores"]["cer ≤"]
    assert by_itself["caught"]["dropped"]["share"] == 1 and by_itself["area"]["dropped"] == 1
    assert by_itself["area"]["fast"] == 0.5


def test_whole_dialogues_are_refused_more_often() -> None:
    text = sentence(1)
    cases = [
        case(item, "good", [opinion(text if item % 10 else "nothing of it")], text=text, voice=f"v{item}")
        for item in range(40)
    ]
    cases = [item.model_copy(update={"texts": (f"{text} {number}",)}) for number, item in enumerate(cases)]
    judge = JudgeConfig(limits={"en": {"wer": 0.5}})
    judged = figures(cases, judge, {"en": {4: 10}})["languages"]["en"]["current"]["all"]
    assert judged["refused"]["share"] == 0.1
    assert judged["dialogues"] == {"turns": 4.0, "refused": round(1 - 0.9**4, 4), "passing_beside": round(0.9**3, 4)}


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    cases = corpus()
    found = figures(cases, JudgeConfig(), {"en": {2: 3}})
    write_page(tmp_path, found, {"en": Table(cases)})
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "://" not in page and "dropped" in page and "Mandarin" not in page
    assert (tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG") == ('src="roc.png"' in page)
    [line, other, _] = words(found)
    assert line.startswith("English, proposed rule") and "dropped 100.0% (target 95%)" in line and "fast 0.0%" in other
    assert words(figures(cases[:4], JudgeConfig(), {}))[0].startswith("English: the good clips are of one voice")
