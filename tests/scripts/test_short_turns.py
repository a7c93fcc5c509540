"""scripts/short_turns.py on the embedded models: a voice that is followed, one that is not, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.short_turns import main
from speakers.sentences import sentences


@pytest.mark.embedded
def test_a_plain_voice_is_followed_and_a_strange_one_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["zh", "--voices", "zm_yunxi,zh_f_008", "--workers", "2"]) == 0
    *found, total = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert [row["voice"] for row in found] == ["zm_yunxi", "zh_f_008"]
    assert found[0]["short"] > 0.75 > 0.5 > found[1]["short"]
    for row in found:
        assert row["wrong"].keys() <= set(sentences("zh", "short"))
        assert row["short"] == round(1 - len(row["wrong"]) / 12, 2)
    assert total == {"voices": 2, "half or more": 1}


def test_an_unknown_voice_is_refused_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["zh", "--voices", "zh_f_999"]) == 2
    assert "zh_f_999" in capfd.readouterr().err


def test_a_library_without_the_language_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "voices: [{id: a, gender: female, languages: [en], accent: us, engine: kokoro, license: Apache-2.0, "
        "recipe: {timbre: {af_heart: 1}}}]",
        "utf-8",
    )
    assert main(["zh", "--library", str(path)]) == 2
    assert "no voice speaks zh" in capfd.readouterr().err
