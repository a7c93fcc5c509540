"""The ladder on the models that ship: a turn that they get wrong at first, and a rung that saves it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from pipeline import backends
from pipeline.config import load_config
from pipeline.dialogue import PlannedDialogue
from pipeline.stages.cast import Casting
from pipeline.stages.listen import Listener
from pipeline.stages.progress import Cost
from pipeline.stages.recording import Budget, Recording
from pipeline.stages.speak import Speaking
from speakers import load_library
from tests.stages.parrot import dialogue

LINES = ["Does he teach at the school?", "He works for the IAEA."]


@pytest.mark.embedded
def test_an_acronym_that_is_read_as_a_word_is_saved_letter_by_letter() -> None:
    settings = ["languages={en: 1}", "cast.agents.en=[af_heart]", "repair.ladder=[spell]", "audio.trim=level"]
    config = load_config("quickstart", [*settings, "judge={limits: {en: {wer: 0.1}}}"])
    plan = PlannedDialogue(
        id="en-000000-00", unit=0, index=0, ordinal=0, split="train", language="en", seed=config.seed
    )
    recording = Recording(
        dialogue(plan, LINES),
        config,
        Casting(config, load_library()),
        Speaking(backends.make_synthesizer(config), config, None),
        Listener(config, backends.make_recognizer(config)),
        None,
        Budget(9),
        lambda stage: nullcontext(Cost()),
    )
    recorded = recording.run()
    first, second = recorded.takes[1]
    assert (first.repair, first.reason, first.text) == ("", "wer", "") and "IAEA" not in first.transcript
    assert (second.repair, second.reason, second.text) == ("spell", "", "He works for the I A E A.")
    assert second.transcript.rstrip(".") == "He works for the IAEA" and second.error_rate == 0
    kept = recorded.turns[1]
    assert kept is not None and kept.kept.take == 1
