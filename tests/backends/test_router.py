"""Each request goes to the engine of its voice, in batches of like length, at the voice's own speed and pitch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backends.tts.router import Router, spoken_speed
from pipeline.dialogue import Clip, Language
from pipeline.errors import BackendError, EndpointError
from pipeline.voice import Recipe, SpeechRequest, Unsaid, Voice, VoiceKind

RATE = 16000


def voice(engine: str, id: str = "v", languages: tuple[Language, ...] = ("en",), **recipe: float) -> Voice:
    return Voice(
        id=id,
        gender="female",
        languages=languages,
        engine=engine,
        license="CC0-1.0",
        recipe=Recipe(name="one", **recipe),
    )


def ask(text: str, who: Voice, language: Language = "en", speed: float = 1.0) -> SpeechRequest:
    return SpeechRequest(text, language, who, 0, speed, 0)


class Engine:
    """A tone of 220 Hz, as long as its text and its speed say; keeps the batches that it was asked for."""

    rate = RATE
    languages: frozenset[Language] = frozenset({"en"})
    kinds: frozenset[VoiceKind] = frozenset({"name"})
    stochastic = False
    deterministic = True

    def __init__(self, name: str = "engine", batch: int = 1, slowness: float = 0.0):
        self.name = name
        self.batch = batch
        self.batches: list[list[str]] = []
        self.slowness = slowness
        self.inside = self.most = 0

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.batches.append([request.text for request in requests])
        time.sleep(self.slowness)
        self.inside -= 1
        if any("bug" in request.text for request in requests):
            raise ValueError("a bug")
        if any("refuse" in request.text for request in requests):
            raise BackendError("it is one of\nthese")
        if any("down" in request.text for request in requests):
            raise EndpointError("nobody is there")
        return [self._say(request) for request in requests]

    @staticmethod
    def _say(request: SpeechRequest) -> Clip | Unsaid:
        if "§" in request.text:
            return Unsaid("symbols", "§")
        seconds = len(request.text) * 0.1 / request.speed
        time = np.arange(round(seconds * RATE)) / RATE
        return Clip((0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32), RATE)


def pitch(clip: Clip) -> float:
    """Hz of the strongest component."""
    spectrum = np.abs(np.fft.rfft(clip.audio * np.hanning(len(clip.audio))))
    return float(np.argmax(spectrum)) * clip.rate / len(clip.audio)


def lengths(results: Sequence[Clip | Unsaid]) -> list[int]:
    return [round(item.seconds * 10) if isinstance(item, Clip) else -1 for item in results]


def test_each_voice_is_spoken_by_its_engine_and_results_keep_their_places() -> None:
    left, right = Engine("left"), Engine("right")
    router = Router({"l": left, "r": right})
    texts = ["a" * 7, "b" * 3, "c" * 9, "d" * 5]
    said = router.synthesize([ask(text, voice("lr"[place % 2])) for place, text in enumerate(texts)])
    assert lengths(said) == [7, 3, 9, 5]
    assert [text for batch in left.batches for text in batch] == ["a" * 7, "c" * 9]
    assert [text for batch in right.batches for text in batch] == ["b" * 3, "d" * 5]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.sampled_from([0, 1, 3, 50]))
def test_any_batch_gives_the_same_results(sizes: list[int], batch: int) -> None:
    engine = Engine(batch=batch)
    said = Router({"e": engine}).synthesize([ask("x" * size, voice("e")) for size in sizes])
    assert lengths(said) == sizes
    assert max(map(len, engine.batches)) <= (batch or len(sizes))


def test_batches_hold_texts_of_like_length() -> None:
    engine = Engine(batch=2)
    Router({"e": engine}).synthesize([ask("x" * size, voice("e")) for size in (2, 30, 3, 29)])
    assert [[len(text) for text in batch] for batch in engine.batches] == [[3, 2], [30, 29]]


def test_a_server_is_given_the_longest_first() -> None:
    engine = Engine(batch=0)
    Router({"e": engine}).synthesize([ask("x" * size, voice("e")) for size in (2, 30, 3)])
    assert [[len(text) for text in batch] for batch in engine.batches] == [[30, 3, 2]]


def test_requests_of_several_threads_share_batches() -> None:
    engine = Engine(batch=8, slowness=0.05)
    router = Router({"e": engine})
    found: dict[int, list[int]] = {}

    def unit(number: int) -> None:
        for size in (number + 1, number + 11):
            found.setdefault(number, []).extend(lengths(router.synthesize([ask("x" * size, voice("e"))] * 2)))

    threads = [threading.Thread(target=unit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number + 1] * 2 + [number + 11] * 2 for number in range(4)}
    assert engine.most == 1  # a model in this process is called by one thread at a time
    assert max(map(len, engine.batches)) > 2


def test_what_ends_a_run_reaches_every_thread_that_waited() -> None:
    engine = Engine(batch=8, slowness=0.05)
    router = Router({"e": engine})
    failed: list[str] = []

    def unit(text: str) -> None:
        try:
            router.synthesize([ask(text, voice("e"))])
        except EndpointError:
            failed.append(text)

    threads = [threading.Thread(target=unit, args=(text,)) for text in ("first", "down", "beside")]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # the second and the third wait while the first is spoken
    for thread in threads:
        thread.join()
    assert sorted(failed) == ["beside", "down"]


def test_a_bug_is_met_by_the_thread_whose_text_it_is() -> None:
    router = Router({"e": Engine(batch=8, slowness=0.05)})
    met: dict[str, object] = {}

    def unit(text: str) -> None:
        try:
            [met[text]] = lengths(router.synthesize([ask(text, voice("e"))]))
        except ValueError as error:
            met[text] = str(error)

    threads = [threading.Thread(target=unit, args=(text,)) for text in ("first", "bug", "beside")]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # the second and the third wait while the first is spoken
    for thread in threads:
        thread.join()
    assert met == {"first": 5, "bug": "a bug", "beside": 6}


def test_a_request_that_an_engine_gives_up_on_harms_no_neighbour() -> None:
    said = Router({"e": Engine(batch=4)}).synthesize(
        [ask(text, voice("e")) for text in ("one", "refuse", "three", "§")]
    )
    assert lengths(said) == [3, -1, 5, -1]
    assert said[1] == Unsaid("refused", "it is one of these") and said[3] == Unsaid("symbols", "§")


@pytest.mark.parametrize(
    ("request_", "reason", "part"),
    [
        (ask("hello", voice("nobody")), "voice", "tts.engines has no 'nobody'"),
        (ask("你好", voice("e", languages=("zh",)), "zh"), "voice", "engine does not speak zh"),
        (ask("你好", voice("e"), "zh"), "voice", "voice 'v' does not speak zh"),
        (ask(" \n", voice("e")), "empty", "empty"),
        (
            ask("hello", voice("e").model_copy(update={"recipe": Recipe(timbre={"a": 1})})),
            "voice",
            "makes no voice of a styles",
        ),
    ],
)
def test_what_no_engine_can_say_is_told_unasked(request_: SpeechRequest, reason: str, part: str) -> None:
    engine = Engine()
    [said] = Router({"e": engine}).synthesize([request_])
    assert isinstance(said, Unsaid) and said.reason == reason and part in said.detail
    assert engine.batches == []
    told = Router({"e": engine}).unfit(request_.voice, request_.language)
    assert told == (said.detail if reason == "voice" else "")


def test_what_an_engine_calls_its_section_is_named() -> None:
    class Star(Engine):
        @staticmethod
        def _say(request: SpeechRequest) -> Clip | Unsaid:
            return Unsaid("refused", "tts.engines.* failed")

    assert Router({"e": Star()}).synthesize([ask("a", voice("e"))]) == [Unsaid("refused", "tts.engines.e failed")]


@pytest.mark.parametrize("shift", [-4.0, -1.5, 2.0, 4.0])
def test_a_shift_moves_the_pitch_and_keeps_the_tempo(shift: float) -> None:
    router = Router({"e": Engine()})
    [plain, shifted] = router.synthesize([ask("x" * 20, voice("e")), ask("x" * 20, voice("e", shift=shift))])
    assert isinstance(plain, Clip) and isinstance(shifted, Clip)
    assert shifted.rate == plain.rate and shifted.seconds == pytest.approx(plain.seconds, rel=0.01)
    assert pitch(shifted) / pitch(plain) == pytest.approx(2 ** (shift / 12), rel=0.02)


def test_the_speeds_of_take_and_voice_multiply_within_what_engines_take() -> None:
    router = Router({"e": Engine()})
    slow, fast = voice("e", speed=0.8), voice("e", speed=2.0)
    said = router.synthesize([ask("x" * 8, slow), ask("x" * 8, slow, speed=0.5), ask("x" * 8, fast, speed=2.0)])
    assert lengths(said) == [10, 16, 4]
    # A length is judged by the speed that came out, not by the one that no engine takes.
    assert spoken_speed(ask("x", slow, speed=0.5)) == pytest.approx(0.5)
    assert spoken_speed(ask("x", voice("e", speed=1.26, shift=-4.0), speed=2.0)) == pytest.approx(2 * 2 ** (-4 / 12))


class Held(Engine):
    """Holds something that is to be closed, and may fail to be."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault, self.closed = fault, 0

    def close(self) -> None:
        self.closed += 1
        if self.fault:
            raise OSError(self.fault)


def test_all_that_can_be_closed_is_closed() -> None:
    first, broken, last = Held(), Held("no way"), Held()
    router = Router({"a": first, "plain": Engine(), "b": broken, "c": last})
    with pytest.raises(OSError, match="no way"):
        router.close()
    assert (first.closed, broken.closed, last.closed) == (1, 1, 1)
