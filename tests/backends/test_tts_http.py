"""Speech over HTTP, asked of a real server on loopback that speaks with a real model."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from pipeline.backends.tts.http import Http, models
from pipeline.dialogue import Clip
from pipeline.errors import ConfigError, EndpointError
from pipeline.voice import Unsaid
from tests.speech_server import (
    RATE,
    Answer,
    ask,
    encode,
    fails,
    pcm,
    says,
    section,
    served,
    speak,
    speech_server,
    voice,
)

pytestmark = pytest.mark.embedded

TEXTS = ("Hello there.", "It is nice to see you again after all these years.", "Yes.", "We could walk in the park.")


def envelope(samples: np.ndarray) -> np.ndarray:
    """Loudness of each 50 ms."""
    frames = samples[: len(samples) // 1200 * 1200].reshape(-1, 1200) / 32768
    return np.sqrt((frames**2).mean(axis=1))


def test_clips_come_in_order_as_they_were_spoken() -> None:
    with served() as (server, engine):
        said = engine.synthesize([ask(text, speed=1.25) for text in TEXTS])
    for text, clip in zip(TEXTS, said, strict=True):
        assert np.array_equal(pcm(clip), speak(text, 1.25))
    assert server.paths == ["/v1/audio/speech"] * 4
    by_text = {fields["input"]: fields for fields in server.seen}
    expected = {"model": "hibari", "voice": "heart", "response_format": "wav", "speed": 1.25}
    assert by_text == {text: {"input": text, **expected} for text in TEXTS}


@pytest.mark.parametrize("act", ["send", "chunks"])
@pytest.mark.parametrize("kind", ["wav", "endless-wav", "flac", "endless-flac", "mp3", "opus", "pcm", "json"])
def test_every_format_is_understood(kind: str, act: Any) -> None:
    text = TEXTS[0]
    with served(lambda number, fields: says(fields, kind, act), retries=0) as (_, engine):
        heard = pcm(engine.synthesize([ask(text)])[0])
    said = speak(text)
    if kind in ("mp3", "opus"):
        assert abs(len(heard) - len(said)) < 0.01 * RATE
        assert np.corrcoef(envelope(heard), envelope(said))[0, 1] > 0.98
    else:
        assert np.array_equal(heard, said)


def zero_length(data: bytes) -> bytes:
    return data[:4] + bytes(4) + data[8:40] + bytes(4) + data[44:]


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (lambda low: encode(low, "wav", 12000)[0], {"Content-Type": "audio/wav"}),
        (lambda low: zero_length(encode(low, "wav", 12000)[0]), {}),
        (lambda low: encode(low, "wav", 12000)[0], {"Content-Type": "application/octet-stream"}),
        (lambda low: encode(np.stack([low, low], axis=1), "wav", 12000)[0], {"Content-Type": "audio/x-wav"}),
        (lambda low: low.tobytes(), {"Content-Type": "audio/pcm; rate=12000"}),
        (lambda low: low.tobytes(), {"Content-Type": "audio/L16;codec=pcm;rate=12000"}),
        (lambda low: low.repeat(2).tobytes(), {"Content-Type": "audio/L16; rate=12000; channels=2"}),
        (lambda low: low.tobytes(), {"X-Custom-Header-sampleRate": "12000"}),
    ],
    ids=["wav", "zero-length", "octets", "stereo", "pcm", "L16", "L16 stereo", "CosyVoice"],
)
def test_other_rates_and_channels_are_made_mono_at_the_rate_of_the_engine(data: Any, headers: dict[str, str]) -> None:
    import soxr

    text = TEXTS[1]
    low = soxr.resample(speak(text), RATE, 12000)
    with served(lambda number, fields: Answer(200, data(low), headers), retries=0) as (_, engine):
        heard = pcm(engine.synthesize([ask(text)])[0])
    assert abs(len(heard) - len(speak(text))) <= 2
    assert np.corrcoef(heard[: 2 * len(low) - 2], soxr.resample(low, 12000, RATE)[: 2 * len(low) - 2])[0, 1] > 0.99


def test_pcm_of_which_nothing_is_said_has_the_rate_of_the_engine() -> None:
    with served(lambda number, fields: Answer(200, speak(fields["input"]).tobytes())) as (_, engine):
        assert np.array_equal(pcm(engine.synthesize([ask(TEXTS[0])])[0]), speak(TEXTS[0]))


@pytest.mark.parametrize("callers", [1, 3])
def test_as_many_are_in_flight_as_configured_for_all_callers_together(callers: int) -> None:
    barrier = threading.Barrier(4)

    def script(number: int, fields: dict[str, Any]) -> Answer:
        barrier.wait(10)  # nobody gets an answer before four have asked
        return says(fields)

    with served(script, concurrency=4) as (server, engine):
        results: dict[int, list[Clip | Unsaid]] = {}

        def call(caller: int) -> None:
            results[caller] = engine.synthesize([ask(text) for text in TEXTS])

        threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.most_parallel == 4
    for caller in range(callers):
        assert [len(pcm(clip)) for clip in results[caller]] == [len(speak(text)) for text in TEXTS]


PAGE = Answer(200, b"<html><body>Bad <b>gateway</b></body></html>", {"Content-Type": "text/html; charset=utf-8"})
WAV = encode(speak("Yes."), "wav")[0]
PASSING = {
    "500": fails(500),
    "503": fails(503, "loading", {"Retry-After": "0.01"}),
    "429": fails(429, "slow down", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "reset": Answer(act="reset"),
    "cut": Answer(200, WAV, {"Content-Type": "audio/wav"}, "cut"),
    "cut before it was sent": Answer(200, WAV[:2000], {"Content-Type": "audio/wav"}),
    "cut flac": Answer(200, encode(speak("Yes."), "flac")[0][:3000], {"Content-Type": "audio/flac"}),
    "cut endless flac": Answer(200, encode(speak("Yes."), "endless-flac")[0][:3000], {"Content-Type": "audio/flac"}),
    "cut mp3": Answer(200, encode(speak("Yes."), "mp3")[0][:1500], {"Content-Type": "audio/mpeg"}),
    "cut pcm": Answer(200, bytes(4801), {"Content-Type": "audio/pcm"}),
    "empty": Answer(200, b"", {"Content-Type": "audio/wav"}),
    "no sample": Answer(200, WAV[:40] + bytes(4), {"Content-Type": "audio/wav"}),
    "no wav": Answer(200, b"\0" * 4000, {"Content-Type": "audio/wav"}),
    "json": Answer(200, b'{"error": {"message": "out of memory"}}', {"Content-Type": "application/json"}),
    "broken json": Answer(200, b'{"audio": "UklGR', {"Content-Type": "application/json"}),
}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(answer: Answer) -> None:
    with served(lambda number, fields: answer if number == 1 else says(fields)) as (server, engine):
        assert np.array_equal(pcm(engine.synthesize([ask("Yes.")])[0]), speak("Yes."))
    assert len(server.seen) == 2
    assert server.seen[0] == server.seen[1]


def test_a_page_of_a_gateway_is_tried_again_where_others_were_served() -> None:
    with served(lambda number, fields: PAGE if number == 2 else says(fields), concurrency=1) as (server, engine):
        said = engine.synthesize([ask("Yes."), ask("Hello there.")])
    assert [len(pcm(clip)) for clip in said] == [len(speak("Yes.")), len(speak("Hello there."))]
    assert len(server.seen) == 3


def test_a_request_that_hangs_is_given_up_and_tried_again() -> None:
    def script(number: int, fields: dict[str, Any]) -> Answer:
        return Answer(act="hang") if number == 1 else says(fields)

    with served(script, timeout=0.5) as (server, engine):
        assert isinstance(engine.synthesize([ask("Yes.")])[0], Clip)
    assert len(server.seen) == 2


def test_a_server_that_is_only_busy_uses_up_no_try() -> None:
    """Each time that one request is turned away, another one was served meanwhile."""
    came, turned_away = threading.Semaphore(0), threading.Semaphore(0)
    busy: list[int] = []

    def script(number: int, fields: dict[str, Any]) -> Answer:
        if fields["input"] != "Yes." or len(busy) == 3:
            return says(fields)
        busy.append(number)
        came.release()
        assert turned_away.acquire(timeout=10)
        return fails(503 if len(busy) % 2 else 429, "busy")

    results: list[Clip | Unsaid] = []
    with served(script, retries=0) as (_, engine):
        thread = threading.Thread(target=lambda: results.extend(engine.synthesize([ask("Yes.")])))
        thread.start()
        for _ in range(3):
            assert came.acquire(timeout=10)
            assert isinstance(engine.synthesize([ask("Hello there.")])[0], Clip)
            turned_away.release()
        thread.join()
    assert len(busy) == 3
    assert np.array_equal(pcm(results[0]), speak("Yes."))


def test_a_refused_request_harms_no_neighbour() -> None:
    def script(number: int, fields: dict[str, Any]) -> Answer:
        if fields["input"] == TEXTS[1]:
            return fails(422, "text holds what I do not say")
        return fails(404, "no voice ghost here") if fields["voice"] == "ghost" else says(fields)

    with served(script, retries=3) as (server, engine):
        said = engine.synthesize([ask(TEXTS[0]), ask(TEXTS[1]), ask(TEXTS[2], voice("ghost")), ask(TEXTS[3])])
    assert len(server.seen) == 4
    assert [isinstance(item, Clip) for item in said] == [True, False, False, True]
    refused, ghost = said[1], said[2]
    assert isinstance(refused, Unsaid) and isinstance(ghost, Unsaid)
    assert (refused.reason, ghost.reason) == ("refused", "refused")
    assert "(422): text holds what I do not say" in refused.detail
    assert "no voice ghost here" in ghost.detail


@pytest.mark.parametrize("poison", [fails(500, "index out of range"), PASSING["no wav"], PASSING["reset"]])
def test_a_request_that_the_server_stumbles_over_is_told_from_a_dead_server(poison: Answer) -> None:
    """Alone in its batch: whether the server is well is asked with a word in a voice that was served before."""

    def script(number: int, fields: dict[str, Any]) -> Answer:
        return poison if fields["voice"] == "bad" else says(fields)

    with served(script, retries=1) as (server, engine):
        assert isinstance(engine.synthesize([ask(TEXTS[0], voice("good"))])[0], Clip)
        [said] = engine.synthesize([ask(TEXTS[1], voice("bad"))])
    assert isinstance(said, Unsaid)
    assert said.reason == "refused"
    assert [(fields["input"], fields["voice"]) for fields in server.seen[1:]] == [
        (TEXTS[1], "bad"),
        (TEXTS[1], "bad"),
        ("Hello.", "good"),
    ]


def test_a_server_that_always_fails_ends_the_run() -> None:
    with served(lambda number, fields: fails(500, "out of memory"), retries=1) as (server, engine):
        with pytest.raises(EndpointError, match=r"out of memory.*'Hello\.' either") as caught:
            engine.synthesize([ask(text) for text in TEXTS])
        assert server.url in str(caught.value)


def test_a_server_that_dies_in_the_middle_loses_nothing() -> None:
    def script(number: int, fields: dict[str, Any]) -> Answer:
        return Answer(act="die") if number == 3 else says(fields)

    with served(script, concurrency=2) as (server, engine):
        with pytest.raises(EndpointError, match=r"base_url=http://127.0.0.1:\d+/v1 does not answer.*: start it"):
            engine.synthesize([ask(text) for text in TEXTS])
        with speech_server(port=server.server_port) as again:
            said = engine.synthesize([ask(text) for text in TEXTS])
    assert [np.array_equal(pcm(clip), speak(text)) for clip, text in zip(said, TEXTS, strict=True)] == [True] * 4
    assert len(again.seen) == 4


def test_a_server_that_refuses_the_key_is_not_asked_for_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICES_KEY", "sk-very-secret")
    refused = r"\(401\): set VOICES_KEY \(the key in it was refused\)"
    with (
        served(lambda number, fields: fails(401), concurrency=1, key="VOICES_KEY") as (server, engine),
        pytest.raises(EndpointError, match=refused) as caught,
    ):
        engine.synthesize([ask(text) for text in TEXTS])
    assert set(server.keys) == {"Bearer sk-very-secret"}
    assert len(server.keys) < len(TEXTS)
    assert "sk-very-secret" not in str(caught.value)


def test_the_key_is_not_repeated_after_a_server_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICES_KEY", "sk-very-secret")
    page = Answer(200, b'{"detail": "sk-very-secret has no credit"}', {"Content-Type": "application/json"})

    def script(number: int, fields: dict[str, Any]) -> Answer:
        bad = {"Yes.": fails(400, "sk-very-secret has no credit"), TEXTS[0]: page}
        return bad.get(fields["input"]) or says(fields)

    with served(script, key="VOICES_KEY", retries=0) as (_, engine):
        said = engine.synthesize([ask("Yes."), ask(TEXTS[0]), ask(TEXTS[1])])
    details = [item.detail for item in said if isinstance(item, Unsaid)]
    assert len(details) == 2
    assert all("*** has no credit" in detail and "very-secret" not in detail for detail in details)


def test_what_is_refused_does_not_say_where_the_server_is() -> None:
    """It is published with the rejects."""
    with served(lambda number, fields: fails(400, "no such voice"), retries=0) as (_, engine):
        [said] = engine.synthesize([ask("Yes.")])
    assert said == Unsaid("refused", "tts.engines.* failed a request (400): no such voice")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base_url": None}, r"base_url=None is no address"),
        ({"base_url": "htp://ann:hunter2@there/v1"}, r"base_url='there/v1' is no address"),
        ({"body": {"input": "{txt}"}}, r"body: unknown placeholder {txt}; did you mean {text}"),
        ({"model": ""}, r"model: name the model"),
    ],
)
def test_what_no_request_can_be_made_of_is_told_before_a_run_pays_for_a_text(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=rf"tts\.engines\.\*\.{told}") as caught:
        models(section("http://127.0.0.1:1/v1", **changes))
    assert "hunter2" not in str(caught.value)


def test_a_password_in_the_address_is_not_shown() -> None:
    with served(lambda number, fields: fails(500), retries=0) as (server, _):
        url = server.url.replace("//", "//ann:hunter2@")
        with closing(Http(section(url, retries=0))) as engine, pytest.raises(EndpointError) as caught:
            engine.synthesize([ask("Yes.")])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fails(404, "model hibari is not loaded"), r"no model 'hibari' \(404\): model hibari is not loaded; check"),
        (fails(405, "Method Not Allowed"), r"has no /audio/speech or no model.*check base_url, path"),
        (PAGE, r"text/html where a clip should be: Bad gateway; check base_url and path"),
        (fails(402, "no credit"), "serves no more on this account"),
        (fails(429, "tomorrow", {"Retry-After": "3600"}), "left alone for 3600 s"),
    ],
    ids=["model", "method", "page", "credit", "tomorrow"],
)
def test_what_no_other_request_would_pass_ends_the_run_at_once(answer: Answer, message: str) -> None:
    with (
        served(lambda number, fields: answer, retries=5) as (server, engine),
        pytest.raises(EndpointError, match=message),
    ):
        engine.synthesize([ask("Yes.")])
    assert len(server.seen) == 1


def test_a_server_that_refuses_all_that_it_was_ever_asked_ends_the_run() -> None:
    """A body that does not suit it would else reject every dialogue."""
    with served(lambda number, fields: fails(422, "field prompt is missing")) as (_, engine):
        few = engine.synthesize([ask(text) for text in TEXTS])
        assert [isinstance(item, Unsaid) for item in few] == [True] * 4
        with pytest.raises(EndpointError, match=r"field prompt is missing.*none of 8 requests: check body"):
            engine.synthesize([ask(text) for text in TEXTS])
