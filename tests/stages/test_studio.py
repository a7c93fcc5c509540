"""The studio on fakes that can be heard: which rung saves what, at what cost, and that nothing depends on company."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline.dialogue import Dialogue, Repair, Sample, Take, Turn
from pipeline.shards.reader import read_rejects, read_takes, read_tar
from pipeline.stages.progress import Cost
from pipeline.stages.recording import Budget, Recording
from pipeline.voice import SpeechRequest, Voice
from speakers import VoiceLibrary, load_library
from tests.fakes import tree
from tests.stages.parrot import Booth

GOOD = "The weather is fine today, so we walk along the river."
REPLY = "That is a lovely plan, my dear old friend."
TWO: dict[str, Any] = {"tts": {"engines": {"kokoro": {}, "other": {}}}}


def samples(booth: Booth) -> list[Sample]:
    path = booth.folder.shard(0, "train")
    return [item.sample for item in read_tar(path)] if path.exists() else []


def rungs(takes: Sequence[Take]) -> list[str]:
    return [take.repair for take in takes]


def acronym(request: SpeechRequest) -> bool:
    return "NASA" in request.text


def two_libraries() -> VoiceLibrary:
    """The shipped voices, and each of them once more by another engine."""
    voices = [load_library().voice(id) for id in ("af_heart", "am_michael", "af_bella", "am_adam")]
    others = [voice.model_copy(update={"id": f"{voice.id}_2", "engine": "other"}) for voice in voices]
    return VoiceLibrary((*voices, *others))


SAVES: list[tuple[Repair, str, Callable[[SpeechRequest], bool]]] = [
    ("again", GOOD, lambda request: request.speed == 1),
    ("slow", GOOD, lambda request: request.speed > 0.8),
    ("spell", "NASA flies to the moon.", acronym),
    ("split", GOOD, lambda request: len(request.text) > 40),
]


@pytest.mark.parametrize(("rung", "text", "mishears"), SAVES)
def test_each_rung_saves_what_those_before_it_do_not(
    tmp_path: Path, rung: Repair, text: str, mishears: Callable[[SpeechRequest], bool]
) -> None:
    booth = Booth(tmp_path, [text, REPLY], mishears=lambda request: request.text != REPLY and mishears(request))
    manifest, progress = booth.run()
    [sample] = samples(booth)
    turn, reply = sample.turns
    ladder = ["", *booth.config.repair.ladder]
    # In order, without those that would ask for the same again (a text without an acronym has nothing to spell out).
    tried = [step for step in ladder[: ladder.index(rung) + 1] if step != "spell" or rung == "spell"]
    assert rungs(turn.takes) == tried and turn.take == len(tried) - 1
    assert [bool(take.reason) for take in turn.takes] == [True] * (len(tried) - 1) + [False]
    assert (turn.spoken, turn.error_rate) == (text, 0)
    assert rungs(reply.takes) == [""]  # what was good was spoken once
    assert manifest.retaken_turns == progress.repaired == progress.repairs[rung].saved == 1
    assert {name: count.takes for name, count in progress.repairs.items()} == dict.fromkeys(tried[1:], 1)
    # Without the rung the dialogue is lost: it is this one that saves it.
    left = [step for step in ladder[1:] if step not in (rung, "voice", "engine")]
    without = Booth(
        tmp_path / "without",
        [text, REPLY],
        mishears=lambda request: request.text != REPLY and mishears(request),
        repair={"ladder": left if rung != "again" else []},
    )
    assert without.run()[0].accepted == 0


def test_a_take_says_what_was_asked_for(tmp_path: Path) -> None:
    text = "NASA flies to the moon, they say, every other year."
    hard = {"NASA flies", "N A S A flies"}
    booth = Booth(
        tmp_path,
        [text, REPLY],
        mishears=lambda request: any(words in request.text for words in hard) and len(request.text) > 30,
        repair={"ladder": ["spell", "split"]},
    )
    booth.run()
    [sample] = samples(booth)
    plain, spell, split = sample.turns[0].takes
    assert (plain.text, spell.text) == ("", "N A S A flies to the moon, they say, every other year.")
    assert split.text == "NASA flies to the moon, | they say, every other year."
    assert all(take.recognizer == "ear" and take.seconds > 1 for take in (plain, spell, split))
    assert plain.error_rate > 0 and not split.error_rate
    # Both clauses were asked for side by side, as one take.
    assert [request.text for request in booth.asked if request.take == 2] == split.text.split(" | ")
    assert len({request.seed for request in booth.asked}) == len(booth.asked)


def test_another_voice_speaks_all_turns_of_its_speaker(tmp_path: Path) -> None:
    lines = [GOOD, REPLY, "And then we shall have a cup of tea.", "With milk and sugar, if you like it so."]
    booth = Booth(tmp_path, lines)
    user, assistant = booth.voices()
    booth.ear.mishears = lambda request: request.voice == user and request.text in GOOD
    booth.run()
    [sample] = samples(booth)
    new = {turn.voice for turn in sample.turns if turn.role == "user"}
    assert len(new) == 1 and new.isdisjoint({user.id, assistant.id})
    assert rungs(sample.turns[2].takes) == ["", "voice"] and not any(take.reason for take in sample.turns[2].takes)
    assert rungs(sample.turns[0].takes)[-1] == "voice"
    assert [take.voice for take in sample.turns[2].takes] == [user.id, *new]
    assert {turn.voice for turn in sample.turns if turn.role == "assistant"} == {assistant.id}
    assert {rungs(turn.takes)[-1] for turn in sample.turns if turn.role == "assistant"} == {""}
    # The sample says who spoke, not who was to speak.
    [spoke] = [voice for voice in sample.voices if voice.role == "user"]
    found = load_library().voice(spoke.id)
    assert (spoke.id, spoke.gender) == (*new, user.gender) and found.split == user.split and "en" in found.languages


def test_a_voice_that_is_no_better_leaves_the_rest_of_the_ladder_to_the_turns(tmp_path: Path) -> None:
    """The new voice is misheard in a turn that had passed: that one goes up its own ladder, with the new voice."""
    lines = [GOOD, REPLY, "And then we shall have a cup of tea.", "With milk and sugar, if you like it so."]
    booth = Booth(tmp_path, lines)
    user, _ = booth.voices()

    def mishears(request: SpeechRequest) -> bool:
        if request.voice == user:
            return request.text == lines[0] or "walk along" in request.text
        return request.text == lines[2] and request.speed > 0.9

    booth.ear.mishears = mishears
    booth.run()
    [sample] = samples(booth)
    assert rungs(sample.turns[2].takes) == ["", "voice", "again"]
    assert sample.turns[2].takes[2].voice == sample.turns[0].voice != user.id


def test_another_engine_comes_last(tmp_path: Path) -> None:
    users = {"en": ["af_bella", "am_adam", "af_bella_2", "am_adam_2"]}
    booth = Booth(tmp_path, [GOOD, REPLY], library=two_libraries(), cast={"users": users}, **TWO)
    user, assistant = booth.voices()
    booth.ear.mishears = lambda request: request.text in GOOD and request.voice.engine == user.engine
    booth.run()
    [sample] = samples(booth)
    takes = sample.turns[0].takes
    # There is no second voice of that engine and gender, so that rung is passed over.
    assert rungs(takes) == ["", "again", "slow", "split", "engine"]
    assert {take.engine for take in takes[:-1]} == {user.engine} != {takes[-1].engine}
    assert [voice.engine for voice in sample.voices] == [takes[-1].engine, assistant.engine]


def test_without_another_voice_or_engine_the_rungs_are_passed_over(tmp_path: Path) -> None:
    users = {"users": {"en": ["af_bella"]}}
    booth = Booth(tmp_path, [GOOD, REPLY], mishears=lambda request: request.voice.id == "af_bella", cast=users)
    manifest, _ = booth.run()
    [(reject, _)] = read_rejects(booth.folder, manifest)
    assert rungs(reject.turns[0].takes) == ["", "again", "slow", "split"]


class Thesaurus:
    """A rephraser that knows one other way to say a thing."""

    def __init__(self, **words: str):
        self._words = words
        self.asked: list[tuple[str, int]] = []

    def rephrase(self, dialogue: Dialogue, number: int) -> Turn | None:
        self.asked.append((dialogue.plan.id, number))
        old = dialogue.turns[number]
        for word, other in self._words.items():
            if word in old.spoken:
                text = old.spoken.replace(word, other)
                return old.model_copy(update={"written": text, "spoken": text, "author": "llm"})
        return None


def test_other_words_save_what_cannot_be_said(tmp_path: Path) -> None:
    words = Thesaurus(weather="sky")
    booth = Booth(
        tmp_path,
        [GOOD, REPLY],
        mishears=lambda request: "weather" in request.text,
        rephraser=words,
        repair={"ladder": ["again", "rephrase"]},
    )
    booth.run()
    [sample] = samples(booth)
    turn = sample.turns[0]
    assert rungs(turn.takes) == ["", "again", "rephrase"] and len(words.asked) == 1
    assert turn.spoken == turn.written == GOOD.replace("weather", "sky") and turn.author == "llm"
    # What was asked for before is another text than the turn's now.
    assert [take.text for take in turn.takes] == [GOOD, GOOD, ""]


def test_words_that_do_not_help_are_not_kept(tmp_path: Path) -> None:
    booth = Booth(
        tmp_path,
        [GOOD, REPLY],
        mishears=lambda request: request.text != REPLY,
        rephraser=Thesaurus(weather="sky"),
        repair={"ladder": ["rephrase"]},
    )
    manifest, _ = booth.run()
    [(reject, encoded)] = read_rejects(booth.folder, manifest)
    assert encoded is not None and encoded.sample.turns[0].spoken == GOOD
    assert [take.text for take in reject.turns[0].takes] == ["", GOOD.replace("weather", "sky")]


@pytest.mark.parametrize(
    ("text", "refuses", "expected"),
    [
        ("It is cold ☃ out there.", lambda request: "symbols" * ("☃" in request.text), ["", "spell"]),
        (GOOD, lambda request: "too_long" * (len(request.text) > 40), ["", "split"]),
        (GOOD, lambda request: "silence" * (request.take == 0), ["", "again"]),
    ],
)
def test_what_an_engine_refuses_is_repaired_where_that_helps(
    tmp_path: Path, text: str, refuses: Callable[[SpeechRequest], str], expected: list[str]
) -> None:
    booth = Booth(
        tmp_path, [GOOD[:-1] + " now.", text], refuses=lambda r: refuses(r) if r.text != GOOD[:-1] + " now." else ""
    )
    # A text by hand may hold what the rules of the text refuse, so the studio is asked below them.
    recorded = _record(booth)
    assert recorded is not None
    assert rungs(recorded) == expected and not recorded[-1].reason
    assert recorded[0].seconds == 0 and recorded[0].reason in ("symbols", "too_long", "silence")


def _record(booth: Booth) -> Sequence[Take]:
    """The takes of the second turn of the first dialogue."""
    studio = booth.studio
    return (
        Recording(
            booth.dialogues[0],
            booth.config,
            studio.casting,
            studio.speaking,
            studio.listener,
            None,
            Budget(9),
            lambda stage: nullcontext(Cost()),
        )
        .run()
        .takes[1]
    )


def test_nothing_that_can_be_said_is_a_reject_with_all_that_was_tried(tmp_path: Path) -> None:
    lost: dict[str, Any] = {"ladder": ["again", "slow"]}
    booth = Booth(tmp_path, [GOOD, REPLY], refuses=lambda request: "refused" * (request.text == GOOD), repair=lost)
    manifest, _ = booth.run()
    assert manifest.rejected == {"speak: refused": 1}
    [(reject, encoded)] = read_rejects(booth.folder, manifest)
    assert encoded is None and "will not say" in reject.detail and reject.detail.startswith("turn 0")
    assert {take.reason for take in reject.turns[0].takes} == {"refused"} and len(reject.turns[0].takes) == 3
    assert not reject.turns[1].takes[0].reason and reject.turns[1].transcript == REPLY


def test_clips_of_failed_takes_are_kept_beside_a_reject(tmp_path: Path) -> None:
    hopeless: dict[str, Any] = {
        "mishears": lambda request: request.text == GOOD,
        "repair": {"ladder": ["again", "slow"]},
    }
    booth = Booth(tmp_path / "all", [GOOD, REPLY], **hopeless)
    manifest, _ = booth.run()
    [(reject, encoded)] = read_rejects(booth.folder, manifest)
    clips = read_takes(booth.folder, manifest)[reject.id]
    assert encoded is not None
    kept = encoded.sample.turns[0].take
    assert {(clip.turn, clip.take) for clip in clips} == {(0, take) for take in range(3) if take != kept}
    assert all(clip.flac.startswith(b"fLaC") for clip in clips)
    none = Booth(tmp_path / "none", [GOOD, REPLY], **hopeless, judge={"keep": "none"})
    assert read_takes(none.folder, none.run()[0]) == {}


def test_a_turn_that_is_lost_costs_no_more(tmp_path: Path) -> None:
    """Its neighbour, which could be saved, is not repaired any more."""
    booth = Booth(
        tmp_path,
        ["Yes.", GOOD],
        mishears=lambda request: request.text == "Yes." or (request.text == GOOD and request.speed > 0.8),
        repair={"ladder": ["again", "slow"], "takes": 2},
        tts={"speeds": [1.0, 0.9]},
    )
    manifest, _ = booth.run()
    [(reject, _)] = read_rejects(booth.folder, manifest)
    assert [rungs(turn.takes) for turn in reject.turns] == [["", "again"], ["", "again"]]


def test_score_only_repairs_nothing(tmp_path: Path) -> None:
    booth = Booth(tmp_path, [GOOD, REPLY], mishears=lambda request: True, judge={"mode": "score_only"})
    manifest, progress = booth.run()
    assert manifest.accepted == 1 and progress.repairs == {} and len(booth.asked) == 2


LINES = [[GOOD, REPLY], ["NASA flies to the moon.", "It does, and you may watch it."], ["Hopeless.", REPLY]]


def hard(request: SpeechRequest) -> bool:
    return acronym(request) or request.text == "Hopeless." or (request.text == GOOD and request.speed == 1)


def test_a_dialogue_does_not_depend_on_company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on whether the unit is made at once or after a killed try, as every draw is from the dialogue's own seed."""
    together = Booth(tmp_path / "together", *LINES, mishears=hard)
    together.run()
    again = Booth(tmp_path / "again", *LINES, mishears=hard)
    speak, calls = again.studio.speaking.speak, itertools.count(1)

    def dies(*args: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return speak(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(again.studio.speaking, "speak", dies)
        again.run()
    again.run()
    assert tree(tmp_path / "again") == tree(tmp_path / "together")
    # Alone in its unit: the same takes.
    [first, *_] = samples(together)
    assert first.turns[0].takes == _first_takes(tmp_path / "one", first)


def _first_takes(root: Path, sample: Sample) -> tuple[Take, ...]:
    booth = Booth(root, [GOOD, REPLY], mishears=hard, dialogues=1, unit_size=1)
    assert booth.dialogues[0].plan.id == sample.key
    booth.run()
    return samples(booth)[0].turns[0].takes


def test_an_engine_with_chance_says_it_again_as_it_was(tmp_path: Path) -> None:
    booth = Booth(
        tmp_path, [GOOD, REPLY], mishears=lambda request: request.take == 0 and request.text == GOOD, stochastic=True
    )
    booth.run()
    first, second = samples(booth)[0].turns[0].takes
    assert (first.speed, second.speed) == (1, 1) and first.seed != second.seed


def _voice_ids(voices: Sequence[Voice]) -> set[str]:
    return {voice.id for voice in voices}


def test_who_stands_in_is_of_the_same_kind(tmp_path: Path) -> None:
    booth = Booth(tmp_path, *[[GOOD, REPLY]] * 8)
    for plan in booth.unit.dialogues:
        cast = booth.casting.cast(plan)
        tried: list[Voice] = [cast.user]
        for _ in range(3):
            found = booth.casting.another(plan, cast.recast("user", tried[-1]), "user", tried)
            assert found is not None and found.id not in _voice_ids([*tried, cast.assistant])
            assert (found.gender, found.engine, found.split) == (cast.user.gender, cast.user.engine, plan.split)
            tried.append(found)
        assert booth.casting.another(plan, cast, "user", [cast.user], engine=True) is None
        stand_in = Booth(tmp_path, [GOOD, REPLY]).casting.another(plan, cast, "user", [cast.user])
        assert stand_in == booth.casting.another(plan, cast, "user", [cast.user])  # whatever was asked before
        # Each gender has one agent, so that one of the other stands in, and after that nobody.
        other = booth.casting.another(plan, cast, "assistant", [cast.assistant])
        assert other is not None and other.gender != cast.assistant.gender
        assert booth.casting.another(plan, cast, "assistant", [cast.assistant, other]) is None
