"""Which words are lost, in what the recogniser really wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.dialogue import Disfluency, Language, Reject
from pipeline.engine import worst_words
from pipeline.engine.run import load_frozen
from pipeline.engine.stats_tables import look, show_stats
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_reject_list
from pipeline.shards.stats import run_stats
from pipeline.shards.store import RunFolder
from tests.synthetic import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "run", dialogues=8, unit_size=2, rejected=3)


@pytest.mark.parametrize(
    ("language", "text", "transcript", "said", "lost"),
    [
        ("en", "The river is deep.", "the liver is deep", {"river", "deep"}, {"river"}),
        ("en", "The river is deep.", "", {"river", "deep"}, {"river", "deep"}),
        ("en", "It costs $5.", "It cost five dollars.", {"costs", "$5"}, {"costs"}),
        (
            "zh",
            "今天晴，很适合散步。",
            "今天请，很适合散步",
            {"今天", "晴", "很", "适合", "散步"},
            set(),
        ),  # of the same sound
        ("zh", "今天晴，很适合散步。", "今天晴很是散步", {"今天", "晴", "很", "适合", "散步"}, {"适合"}),
        ("zh", "喜欢茶的。", "喜欢茶", {"喜欢", "茶"}, set()),
    ],
)
def test_words(language: Language, text: str, transcript: str, said: set[str], lost: set[str]) -> None:
    found = dict(worst_words.words(text, transcript, language))
    assert set(found) == said and {word for word, hit in found.items() if not hit} == lost


def test_the_words_of_a_run(run: RunFolder) -> None:
    report = worst_words.worst_words(run)
    found = {(item.language, item.word): (item.lost, item.said) for item in report.words}
    # "river" is misheard at every first take; "sea" of those that are lost whatever is done.
    assert found["en", "river"] == (2, 2) and found["en", "sea"] == (2, 2)
    assert ("en", "shells") not in found and ("en", "she") not in found
    assert report.units == 4 and all(item.lost > 1 for item in report.words)
    assert Counter(item.language for item in report.words)["en"] == 2


def test_a_stumble_is_no_word_to_be_found(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbling(folder: RunFolder, manifest: Manifest) -> Iterator[Reject]:
        """As if "sea" had been a stumble wherever it was said."""
        for reject in read_reject_list(folder, manifest):
            turns = []
            for turn in reject.turns:
                start = turn.spoken.find("sea ")
                found = (Disfluency(start=start, end=start + 4, kind="restart"),) if start >= 0 else ()
                turns.append(turn.model_copy(update={"disfluencies": found}))
            yield reject.model_copy(update={"turns": tuple(turns)})

    monkeypatch.setattr(worst_words, "read_reject_list", stumbling)
    found = {(item.language, item.word) for item in worst_words.worst_words(run).words}
    assert ("en", "river") in found and ("en", "sea") not in found


def test_of_a_long_run_some_units_are_looked_through(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst_words, "DIALOGUES", 4)
    report = worst_words.worst_words(run)
    assert report.units == 2 and 0 < report.turns < 20


def test_the_tables_tell_what_the_totals_say(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = load_frozen(run)
    stats = run_stats(run, config)
    show_stats(stats, look(run, config))
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    english = next(item for item in stats.by_language if item.name == "en")
    assert any(line[:3] == ["en", str(english.accepted), "of"] for line in lines)
    [again] = stats.repairs
    row = next(line for line in lines if line[:1] == ["again"])
    assert row[1:3] == [str(again.turns), str(again.saved)] and row[4] == str(again.takes)
    assert "river 2 of 2" in shown and "not known: no unit was spoken on this machine" in shown
    assert "score_only" not in shown


def test_without_gates_the_tables_say_that_yields_mean_nothing(
    tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.engine.regate import regate
    from tests.fakes import Silent

    stats = regate(run.root, tmp_path / "open", ["judge.mode=score_only"], Silent())
    folder = RunFolder(tmp_path / "open")
    show_stats(stats, look(folder, load_frozen(folder)[0]))
    assert "judge.mode is score_only" in capsys.readouterr().out
    assert stats.rejected == {"filter: url": 1}
