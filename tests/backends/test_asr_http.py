"""Recognition over HTTP, asked of a real server on loopback that listens with the embedded Whisper."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from pipeline.backends.asr.faster_whisper import FasterWhisper
from pipeline.backends.asr.http import Http, models
from pipeline.dialogue import Clip, Language
from pipeline.errors import BackendError, ConfigError, EndpointError
from pipeline.listening_sections import RecognizerConfig
from tests.backends.asr_clips import english, mandarin
from tests.speech_server import Answer, Script, SpeechServer, fails, speech_server

pytestmark = pytest.mark.embedded

TEXTS = ("We could walk in the park.", "Hello there.", "It is nice to see you again after all these years.")
JSON = {"Content-Type": "application/json"}
_lock = threading.Lock()


@pytest.fixture(scope="module")
def whisper() -> FasterWhisper:
    return FasterWhisper(RecognizerConfig(device="cpu", words=True))


def received(fields: dict[str, Any]) -> tuple[np.ndarray, int]:
    """The file of a request."""
    audio, rate = sf.read(io.BytesIO(fields["file"]), dtype="float32")
    return audio, rate


def hears(whisper: FasterWhisper, fields: dict[str, Any]) -> Answer:
    """What OpenAI's endpoint answers, with what Whisper hears in the file that was sent."""
    audio, rate = received(fields)
    with _lock:
        [heard] = whisper.transcribe([Clip(audio, rate)], [fields["language"]])
    answer: dict[str, Any] = {"text": heard.text}
    if fields["response_format"] == "verbose_json":
        names = {"avg_logprob": "logprob", "no_speech_prob": "no_speech", "compression_ratio": "compression_ratio"}
        segment = {name: getattr(heard, field) for name, field in names.items()}
        answer |= {"task": "transcribe", "segments": [{**segment, "tokens": [1, 2, 3], "text": heard.text}]}
        if "timestamp_granularities[]" in fields:
            answer["words"] = [{"word": word.text, "start": word.start, "end": word.end} for word in heard.words]
    return Answer(200, json.dumps(answer).encode(), JSON)


def section(url: str, **changes: Any) -> RecognizerConfig:
    fields = {"engine": "http", "base_url": url, "model": "whisper-1", "license": "MIT", "retries": 2, "timeout": 20}
    return RecognizerConfig.model_validate(fields | changes)


@contextmanager
def served(script: Script, **changes: Any) -> Iterator[tuple[SpeechServer, Http]]:
    """A server, and a recogniser over it that does not wait long before it tries again."""
    with speech_server(script) as server, closing(Http(section(server.url, **changes), backoff=0.01)) as engine:
        yield server, engine


def test_what_the_server_hears_comes_in_order(whisper: FasterWhisper) -> None:
    clips = [english(text) for text in TEXTS]
    languages: list[Language] = ["en", "en", "en", "zh", "zh"]
    with served(lambda number, fields: hears(whisper, fields), words=True) as (server, engine):
        heard = engine.transcribe([*clips, mandarin(), Clip(np.zeros(0, np.float32), 16000)], languages)
    assert tuple(item.text for item in heard[:3]) == TEXTS
    assert "散步" in heard[3].text and heard[4].text == ""
    sent = {len(audio): (audio, rate) for audio, rate in (received(fields) for fields in server.seen)}
    audio, rate = sent[len(clips[0].audio)]
    assert rate == 16000 and np.abs(audio - clips[0].audio).max() < 1e-4  # the file has 16 bits
    [here] = whisper.transcribe([Clip(audio, rate)], ["en"])
    assert heard[0].logprob == pytest.approx(here.logprob)
    assert heard[0].compression_ratio == here.compression_ratio and 0 < heard[0].no_speech < 0.5
    assert [word.text for word in heard[0].words] == TEXTS[0].split()
    assert {item.recognizer for item in heard} == {"whisper-1"}
    assert server.paths == ["/v1/audio/transcriptions"] * 4
    assert {(fields["model"], fields["temperature"]) for fields in server.seen} == {("whisper-1", "0")}


def test_a_model_without_verbose_answers_is_asked_for_plain_ones(whisper: FasterWhisper) -> None:
    def script(number: int, fields: dict[str, Any]) -> Answer:
        verbose = fields["response_format"] == "verbose_json"
        return fails(400, "response_format 'verbose_json' is not compatible") if verbose else hears(whisper, fields)

    with served(script, concurrency=1) as (server, engine):
        heard = engine.transcribe([english(TEXTS[0]), english(TEXTS[1])], ["en", "en"])
        heard += engine.transcribe([english(TEXTS[1])], ["en"])
    assert [item.text for item in heard] == [TEXTS[0], TEXTS[1], TEXTS[1]]
    assert (heard[0].logprob, heard[0].words) == (0.0, ()) and 0.5 < heard[0].compression_ratio < 1
    assert [fields["response_format"] for fields in server.seen][-1] == "json"


def test_what_a_server_does_not_know_is_measured_here_or_left_out() -> None:
    """The answers of vLLM, which has null for what it does not work out, and of servers with placeholders."""
    text = "We could walk in the park. We could walk in the park."
    plain: dict[str, Any] = {"text": text}
    unknown: dict[str, Any] = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 1.5,
        "temperature": 0.0,
        "text": text,
        "tokens": None,
    }
    null = {"avg_logprob": None, "compression_ratio": None, "no_speech_prob": None}
    placeholders = {"avg_logprob": -1.0, "compression_ratio": -1.0, "no_speech_prob": -1.0}
    endless = {"avg_logprob": float("-inf"), "compression_ratio": float("nan"), "no_speech_prob": float("inf")}
    times: list[dict[str, Any]] = [
        {"start": None, "end": None},
        {"start": 0.2, "end": 0.5},
        {"start": 0.5, "end": -1.0},
        {"end": 1.0},
    ]
    words = [{"word": word, **time} for word, time in zip(("We", "could", "walk", "in"), times, strict=True)]
    known = {"avg_logprob": -0.5, "compression_ratio": 1.5, "no_speech_prob": 0.25, "tokens": [1, 2]}
    answers: list[dict[str, Any]] = [
        plain,
        {**plain, "duration": "1.5", "language": "en", "words": None, "segments": None, "language_probability": None},
        *({**plain, "words": words, "segments": [unknown | missing]} for missing in (null, placeholders, endless)),
        {**plain, "segments": [unknown | null, unknown | known, unknown | placeholders | {"compression_ratio": 0.0}]},
    ]

    def script(number: int, fields: dict[str, Any]) -> Answer:
        return Answer(200, json.dumps(answers[len(server.seen) - 1]).encode(), JSON)

    with served(script, words=True, retries=0, concurrency=1) as (server, engine):
        bare, empty, *rest, mixed = [engine.transcribe([english(TEXTS[0])], ["en"])[0] for _ in answers]
    assert (bare.text, bare.logprob, bare.no_speech, bare.language) == (text, 0.0, 0.0, None)
    assert bare.compression_ratio > 1 and empty == bare
    for heard in rest:
        assert replace(heard, words=()) == bare
        assert [(word.text, word.start, word.end) for word in heard.words] == [("could", 0.2, 0.5)]
    assert (mixed.logprob, mixed.no_speech) == (-0.5, 0.25)
    assert mixed.compression_ratio == max(1.5, bare.compression_ratio)


def test_it_listens_no_otherwise_with_care(whisper: FasterWhisper) -> None:
    with served(lambda number, fields: hears(whisper, fields)) as (server, engine):
        hasty = engine.transcribe([english(TEXTS[1])], ["en"])
        assert engine.transcribe([english(TEXTS[1])], ["en"], True, [lambda heard: [TEXTS[0]]]) == hasty
        assert not engine.careful
    assert server.seen[0] == server.seen[1]


def test_half_of_the_requests_fail_and_every_clip_is_heard(whisper: FasterWhisper) -> None:
    faults = [
        fails(500),
        Answer(act="reset"),
        fails(429, "slow down", {"Retry-After": "0.01"}),
        Answer(200, b"{}", JSON),
        Answer(200, b'{"text": "We co', JSON),
        Answer(200, b'{"text": "a", "segments": [{"avg_logprob": "x"}]}', JSON),
    ]

    def script(number: int, fields: dict[str, Any]) -> Answer:
        return faults.pop() if number % 2 and faults else hears(whisper, fields)

    with served(script, concurrency=1, retries=3) as (server, engine):
        heard = engine.transcribe([english(text) for text in TEXTS * 2], ["en"] * 6)
    assert tuple(item.text for item in heard) == TEXTS * 2
    assert len(server.seen) == 12 and not faults


def test_one_clip_that_is_refused_is_its_own_fault(whisper: FasterWhisper) -> None:
    def script(number: int, fields: dict[str, Any]) -> Answer:
        return fails(400, "too short") if fields["language"] == "zh" else hears(whisper, fields)

    with served(script) as (_, engine):
        with pytest.raises(BackendError, match=r"failed a request \(400\): too short") as caught:
            engine.transcribe([mandarin()], ["zh"])
        assert not caught.value.retryable
        assert engine.transcribe([english(TEXTS[1])], ["en"])[0].text == TEXTS[1]


def test_one_clip_that_the_server_stumbles_over_is_not_the_end_of_it(whisper: FasterWhisper) -> None:
    def script(number: int, fields: dict[str, Any]) -> Answer:
        return fails(500, "out of memory") if fields["language"] == "zh" else hears(whisper, fields)

    with served(script, retries=1) as (_, engine):
        assert engine.transcribe([english(TEXTS[1])], ["en"])[0].text == TEXTS[1]
        with pytest.raises(BackendError, match="out of memory") as caught:
            engine.transcribe([mandarin()], ["zh"])
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fails(500, "no GPU"), r"^asr\.base_url=http://127\.0\.0\.1:\d+/v1 failed a request \(500\): no GPU"),
        (fails(401), r"refuses the request \(401\): set A_KEY_OF_MINE \(the key in it was refused\)$"),
        (fails(404), r"has no /audio/transcriptions or no model 'whisper-1' \(404\): no; check asr\.base_url"),
        (
            Answer(200, b"<html>Hello</html>", {"Content-Type": "text/html"}),
            r"sent no transcript: .*check asr\.base_url",
        ),
        (Answer(act="die"), r"does not answer \(.*\): start it, or set asr\.base_url"),
    ],
    ids=["500", "key", "404", "a page", "gone"],
)
def test_a_server_that_serves_nobody_ends_the_run(
    answer: Answer, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY_OF_MINE", "sk-secret")
    with (
        served(lambda number, fields: answer, retries=1, key="A_KEY_OF_MINE") as (server, engine),
        pytest.raises(EndpointError, match=message) as caught,
    ):
        engine.transcribe([english(TEXTS[1])], ["en"])
    assert "sk-secret" not in str(caught.value) and server.keys[0] == "Bearer sk-secret"


def test_a_server_that_refuses_everything_is_found_out() -> None:
    with served(lambda number, fields: fails(422, "unknown field")) as (_, engine):
        for _ in range(7):
            with pytest.raises(BackendError):
                engine.transcribe([english(TEXTS[1])], ["en"])
        with pytest.raises(EndpointError, match=r"it served none of 8 requests: check asr\.model and asr\.base_url"):
            engine.transcribe([english(TEXTS[1])], ["en"])


def test_as_many_are_in_flight_as_configured(whisper: FasterWhisper) -> None:
    barrier = threading.Barrier(3)

    def script(number: int, fields: dict[str, Any]) -> Answer:
        barrier.wait(10)  # nobody gets an answer before three have asked
        return Answer(200, json.dumps({"text": "yes"}).encode(), JSON)

    with served(script, concurrency=3) as (server, engine):
        heard = engine.transcribe([english(TEXTS[1])] * 6, ["en"] * 6)
    assert [item.text for item in heard] == ["yes"] * 6 and server.most_parallel == 3


def test_sections_that_no_server_can_be_asked_with() -> None:
    for key, wrong in (("model", ""), ("license", ""), ("base_url", None), ("base_url", "me:secret@host/v1")):
        with pytest.raises(ConfigError, match=rf"^asr\.{key}") as caught:
            models(section("http://127.0.0.1:1/v1", **{key: wrong}))
        assert "secret" not in str(caught.value)
    with served(lambda number, fields: fails(500)) as (_, engine), pytest.raises(ValueError, match="wants 16000 Hz"):
        engine.transcribe([Clip(np.zeros(100, np.float32), 8000)], ["en"])
