"""The figures of an audit, from embeddings whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.dialogue import Language
from pipeline.engine.voice_figures import figures
from pipeline.engine.voice_measure import Measured
from pipeline.engine.voice_plan import Limits, Plan
from pipeline.engine.voice_words import words
from pipeline.voice import Recipe, Voice
from speakers import VoiceLibrary


def at(degrees: float) -> np.ndarray:
    """An embedding in a plane: voices are as alike as their angles are near."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def voice(id: str, shift: float = 0.0, language: Language = "en") -> Voice:
    recipe = Recipe(timbre=((id, 1.0),), shift=shift)
    return Voice(id=id, gender="female", languages=(language,), engine="any", license="CC0-1.0", recipe=recipe)


def measured(id: str, embed: float, check: float | None = None, more: float | None = None, wer: float = 0) -> Measured:
    given = {"embed": embed, "check": check, "more": more}
    embeddings = {use: at(angle) for use, angle in given.items() if angle is not None}
    return Measured(id, "", ("embed",), (), "", {"wer": wer}, 3.0 + wer, 0.05, 200.0, embeddings)


def plan(
    sample: Sequence[str], selected: Sequence[str] = (), base: Sequence[str] = (), within: Sequence[str] = ()
) -> Plan:
    return Plan(frozenset(sample), frozenset(selected), frozenset(base), frozenset(within))


# cos 20° = 0.94, cos 30° = 0.87, cos 35° = 0.82, cos 40° = 0.77
ITEMS = {
    item.id: item
    for item in (
        measured("a", 0, check=0),
        measured("b", 40, check=40),
        measured("c", 80, check=50),  # near b over the other sentences
        measured("s", 20, more=21),
        measured("t", 21, more=20),
        measured("u", 150, more=150),
        measured("deaf", 250, wer=0.5),
    )
}
VOICES = [voice(id, shift=id == "u") for id in ITEMS]
LIBRARY = VoiceLibrary((*VOICES, *(voice(f"rest{number}") for number in range(93))))
PLAN = plan(["s", "t", "u", "deaf"], selected=["a", "b", "c"], base=["a"], within=["s", "t", "u"])
FOUND = figures(LIBRARY, PLAN, Limits(), ITEMS)
ENGLISH = FOUND.summary["languages"]["en"]


def test_sets_are_of_voices_that_pass() -> None:
    """All that pass lie at 0, 20, 21, 40, 80 and 150 degrees."""
    assert ENGLISH["distinct"]["0.85"] == {"sample": 2, "base": 1, "all": 4, "selected": 2}
    everybody = figures(LIBRARY, PLAN, Limits(error=1), ITEMS).summary["languages"]["en"]
    assert everybody["distinct"]["0.85"] == {"sample": 3, "base": 1, "all": 5, "selected": 2}


def test_a_claim_holds_over_both_sets_of_sentences() -> None:
    apart = ITEMS | {"c": measured("c", 80, check=80)}
    assert figures(LIBRARY, PLAN, Limits(), apart).summary["languages"]["en"]["distinct"]["0.85"]["selected"] == 3
    strict = ITEMS | {"b": measured("b", 36, check=40), "c": measured("c", 80, check=80)}
    sizes = figures(LIBRARY, PLAN, Limits(), strict).summary["languages"]["en"]["distinct"]
    assert sizes["0.85"]["selected"] == 3 and sizes["0.8"]["selected"] == 2


def test_coverage_is_the_share_near_a_selected_voice() -> None:
    cover = ENGLISH["coverage"]
    assert (cover["covered"], cover["share"]) == (2, 0.5)
    assert cover["at_least"] == pytest.approx(0.0976, abs=1e-4) and cover["at_most"] == pytest.approx(0.9024, abs=1e-4)
    assert FOUND.voices["t"]["nearest_selected"] == "b" and FOUND.voices["u"]["nearest_selected"] == "c"
    itself = figures(LIBRARY, plan(["a"], selected=["a", "u"]), Limits(), ITEMS).summary["languages"]["en"]["coverage"]
    assert itself["covered"] == 1
    assert figures(LIBRARY, plan(["s"]), Limits(), ITEMS).summary["languages"]["en"]["coverage"] is None


def test_a_voice_is_no_neighbour_of_itself() -> None:
    assert FOUND.voices["s"]["nearest"] == "t" and FOUND.voices["a"]["nearest"] == "s"
    assert FOUND.voices["s"]["nearest_cosine"] == pytest.approx(np.cos(np.radians(1)), abs=1e-4)
    assert "nearest_base" not in FOUND.voices["a"] and FOUND.voices["u"]["nearest_base"] == "a"


def test_near_copies_are_named() -> None:
    copies = ENGLISH["near_copies"]
    assert copies["cosine"] == pytest.approx(np.cos(np.radians(1)), abs=1e-4)
    assert (copies["pairs"], copies["of"], copies["named"]) == (1, 6, [["s", "t", 0.9998]])
    assert copies["expected_a_voice"] == pytest.approx(99 / 6, abs=0.05)
    assert copies["at_most"] > 1 / 6


def test_same_or_not_is_told_by_other_sentences() -> None:
    """s and t are nearer to each other than to themselves; u is always told from both."""
    assert ENGLISH["within"]["count"] == 3 and ENGLISH["within"]["median"] == pytest.approx(0.9998, abs=1e-4)
    assert ENGLISH["same_voice"]["rate"] == pytest.approx(0.5)  # two of three, two of six
    told = figures(LIBRARY, PLAN, Limits(), ITEMS | {"t": measured("t", 300, more=301)})
    assert told.summary["languages"]["en"]["same_voice"]["rate"] == 0


def test_shares_and_balance() -> None:
    summary = FOUND.summary
    assert summary["passed"]["passed"] == 3 and summary["passed"]["reasons"] == {"wer": 1}
    assert summary["passed"]["at_least"] == pytest.approx(0.2486, abs=1e-4)
    assert summary["passed_selected"]["passed"] == 3 and FOUND.voices["deaf"]["reasons"] == ["wer 0.500"]
    assert summary["library"]["balance"]["cell"] == {"en female train": 100}
    shifts = {row["value"]: row for row in summary["scores"] if row["by"] == "shift"}
    assert {name: row["voices"] for name, row in shifts.items()} == {"-1 to +1 st": 3, "+1 to +3 st": 1}
    assert shifts["-1 to +1 st"]["wer"] == pytest.approx(0.1667, abs=1e-4)


def test_languages_are_kept_apart() -> None:
    """One direction, two languages: nobody is anybody's neighbour."""
    library = VoiceLibrary((voice("one"), voice("two", language="zh")))
    items = {id: measured(id, 10) for id in ("one", "two")}
    found = figures(library, plan(["one", "two"]), Limits(), items)
    assert found.voices == {"one": {"reasons": []}, "two": {"reasons": []}}
    assert found.summary["languages"]["zh"]["nearest"] is None
    assert found.summary["languages"]["zh"]["near_copies"] is None


def test_the_words_say_the_figures() -> None:
    said = "\n".join(words(FOUND.summary))
    assert "3 of 4 voices drawn at random pass" in said and "of the library's 100, 24.9% at least" in said
    assert "Of 3 selected voices 3 pass" in said
    assert "4 of the measured voices that pass are mutually distinct at cosine < 0.85" in said
    assert "50.0% of the sample lie within cosine 0.85 of a selected voice" in said
    assert "1 of 6 pairs of the sample are as alike as a voice is to itself" in said
