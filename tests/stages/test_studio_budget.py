"""The studio on fakes: what a dialogue may spend on repair, and what is kept of one that ends without a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RepairConfig
from pipeline.errors import BackendError
from pipeline.shards.reader import read_rejects, read_takes
from pipeline.voice import SpeechRequest
from tests.stages.parrot import Booth
from tests.stages.test_studio import GOOD, REPLY, samples

NUMBERED = [[f"{GOOD} Number {word}.", REPLY] for word in ("one", "two", "three", "four")]


def slow_only(request: SpeechRequest) -> bool:
    return request.text.startswith("The weather") and request.speed > 0.8


@pytest.mark.parametrize(
    ("share", "lines", "accepted", "takes"),
    [
        (1.0, NUMBERED, [0, 1, 2, 3], [3, 3, 3, 3]),  # two takes for two turns are just enough
        (0.5, NUMBERED, [], [2, 2, 2, 2]),  # one each
        (0.5, [["Fine.", REPLY], *NUMBERED], [0, 1], [1, 3, 2, 2, 2]),  # what the first one left is for the second
    ],
)
def test_a_dialogue_has_takes_of_its_own_and_what_is_left_over(
    tmp_path: Path, share: float, lines: list[list[str]], accepted: list[int], takes: list[int]
) -> None:
    repair = {"ladder": ["again", "slow"], "share": share}
    booth = Booth(tmp_path, *lines, mishears=slow_only, repair=repair)
    manifest, progress = booth.run()
    kept = {sample.key: sample.turns[0].takes for sample in samples(booth)}
    kept |= {reject.id: reject.turns[0].takes for reject, _ in read_rejects(booth.folder, manifest)}
    keys = [dialogue.plan.id for dialogue in booth.dialogues]
    assert [sample.key for sample in samples(booth)] == [keys[place] for place in accepted]
    assert [len(kept[key]) for key in keys] == takes
    assert sum(count.takes for count in progress.repairs.values()) == sum(takes) - len(takes)


def test_the_hopeless_take_nothing_from_those_after_them(tmp_path: Path) -> None:
    lines = [["Hopeless.", REPLY]] * 4 + NUMBERED
    booth = Booth(
        tmp_path,
        *lines,
        mishears=lambda request: request.text == "Hopeless." or slow_only(request),
        repair={"share": RepairConfig().share},
    )
    booth.run()
    assert [sample.key for sample in samples(booth)] == [dialogue.plan.id for dialogue in booth.dialogues[4:]]


def test_two_speakers_who_both_change_never_get_the_same_voice(tmp_path: Path) -> None:
    three = {"en": ["af_heart", "af_bella", "af_nova"]}
    for seed in range(8):
        heard: set[str] = set()

        def first_voices(request: SpeechRequest, heard: set[str] = heard) -> bool:
            heard.add(request.voice.id)
            return len(heard) <= 2  # the two that begin are never understood

        booth = Booth(
            tmp_path / str(seed),
            [GOOD, REPLY],
            mishears=first_voices,
            repair={"ladder": ["voice"]},
            cast={"agents": three, "users": three, "disjoint": False},
            seed=seed,
        )
        booth.run()
        for sample in samples(booth):
            assert len({voice.id for voice in sample.voices}) == 2


def test_what_was_heard_of_a_dialogue_without_a_sample_is_kept(tmp_path: Path) -> None:
    booth = Booth(
        tmp_path,
        [GOOD, "Never said."],
        refuses=lambda request: "refused" if request.text == "Never said." else "",
        repair={"ladder": ["again"]},
    )
    manifest, _ = booth.run()
    assert manifest.accepted == 0
    found = [(take.turn, take.take) for takes in read_takes(booth.folder, manifest).values() for take in takes]
    assert found == [(0, 0)]


def test_a_recogniser_that_gives_up_leaves_what_was_made(tmp_path: Path) -> None:
    booth = Booth(tmp_path, [GOOD, REPLY], mishears=lambda request: request.speed == 1, repair={"ladder": ["again"]})
    listen, calls = booth.studio.listener.listen, []

    def broken(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) > 1:
            raise BackendError("ear: no answer")
        return listen(*args, **more)

    booth.studio.listener.listen = broken  # type: ignore[method-assign]
    manifest, _ = booth.run()
    [(reject, _)] = list(read_rejects(booth.folder, manifest))
    assert (reject.stage, reject.reason, reject.detail) == ("listen", "backend", "ear: no answer")
    assert [len(turn.takes) for turn in reject.turns] == [1, 1]
    assert sum(map(len, read_takes(booth.folder, manifest).values())) == 2
