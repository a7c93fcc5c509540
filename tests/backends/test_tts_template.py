"""What reaches a speech server of a voice: the template of its requests."""

from __future__ import annotations

import base64
import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backends.tts.http import Http, build, models
from pipeline.dialogue import Clip
from pipeline.errors import ConfigError
from pipeline.voice import Unsaid, Voice
from tests.speech_server import Answer, ask, encode, pcm, section, served, speak, speech_server, voice

pytestmark = pytest.mark.embedded


CLONED = {
    "model": "{model}",
    "input": "{text}",
    "voice": "",
    "references": [{"audio": "{voice.clip_uri}", "text": "{voice.clip_text}"}],
    "ref_audio": "{voice.clip_base64}",
    "seed": "{seed}",
    "language": "{language.name} ({language})",
    "note": "{{{voice.id}, {voice.gender}}}",
    "stream": False,
}


def clone(name: str, path: Path, said: str = "What I said.", sha256: str | None = None) -> Voice:
    checksum = hashlib.sha256(path.read_bytes()).hexdigest() if sha256 is None else sha256
    return voice(name, clip=str(path), clip_text=said, clip_sha256=checksum)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "ann.wav"
    path.write_bytes(encode(speak("What I said."), "wav")[0])
    return path


def test_a_reference_clip_and_its_text_reach_the_server(clip: Path) -> None:
    ann, data = clone("ann", clip), clip.read_bytes()
    with served(body=CLONED, takes=["clip"]) as (server, engine):
        assert engine.kinds == {"clip"}
        assert isinstance(engine.synthesize([ask("Yes.", ann)])[0], Clip)
        clip.unlink()  # read once
        assert isinstance(engine.synthesize([ask("Hello there.", ann)])[0], Clip)
    encoded = base64.b64encode(data).decode()
    assert server.seen[0] == {
        "model": "hibari",
        "input": "Yes.",
        "voice": "",
        "references": [{"audio": f"data:audio/wav;base64,{encoded}", "text": "What I said."}],
        "ref_audio": encoded,
        "seed": 7,
        "language": "English (en)",
        "note": "{ann, female}",
        "stream": False,
    }


def test_a_reference_clip_is_uploaded_where_the_template_says_a_file(clip: Path) -> None:
    """As CosyVoice's own server takes it; its answer is PCM with the rate in a header of its own."""
    body = {"tts_text": "{text}", "prompt_text": "{voice.clip_text}", "prompt_wav": "{voice.clip_file}"}

    def script(number: int, fields: dict[str, Any]) -> Answer:
        return Answer(200, speak("Yes.").tobytes(), {"X-Custom-Header-sampleRate": "24000"})

    with speech_server(script) as server:
        url = server.url.removesuffix("/v1")
        changed = section(url, path="/inference_zero_shot", body=body, takes=["clip"])
        with closing(Http(changed, backoff=0.01)) as engine:
            [said] = engine.synthesize([ask("你好, Ann.", clone("ann", clip))])
    assert np.array_equal(pcm(said), speak("Yes."))
    assert server.paths == ["/inference_zero_shot"]
    assert server.seen == [{"tts_text": "你好, Ann.", "prompt_text": "What I said.", "prompt_wav": clip.read_bytes()}]


def test_voices_that_the_template_cannot_show_harm_no_neighbour(clip: Path) -> None:
    gone = voice("gone", clip=str(clip.with_name("gone.wav")), clip_text="Hm.", clip_sha256="0" * 64)
    others = [clone("ann", clip), gone, clone("bob", clip, sha256="0" * 64), clone("cy", clip, said=""), voice("dee")]
    with served(body=CLONED, takes=["clip"]) as (server, engine):
        said = engine.synthesize([ask("Yes.", other) for other in others])
    assert isinstance(said[0], Clip)
    unsaid = [item for item in said if isinstance(item, Unsaid)]
    assert [item.reason for item in unsaid] == ["voice"] * 4
    names = [item.detail.partition(":")[0] for item in unsaid]
    assert names == [f"voice '{name}'" for name in ["gone", "bob", "cy", "dee"]]
    assert "gone.wav: No such file" in unsaid[0].detail
    assert "ann.wav is not the one of its recipe (SHA-256)" in unsaid[1].detail
    assert "clip_text" in unsaid[2].detail
    assert "kind clip, this is one of name" in unsaid[3].detail
    assert len(server.seen) == 1


def test_embeddings_and_mixes_keep_their_types() -> None:
    with served(body={"input": "{text}", "speaker": "{voice.embedding}"}, takes=["embedding"]) as (server, engine):
        assert isinstance(engine.synthesize([ask("Yes.", voice("e", embedding=[0.5, -1.0]))])[0], Clip)
    assert server.seen == [{"input": "Yes.", "speaker": [0.5, -1.0]}]
    body = {"input": "{text}", "voice": "{voice.mix}", "weights": "{voice.timbre}"}
    mixed = {"am_adam": -0.25, "af_heart": 1.25}
    with served(body=body, takes=["styles"]) as (server, engine):
        said = engine.synthesize(
            [ask("Yes.", voice("m", timbre=mixed)), ask("Yes.", voice("p", timbre=mixed, prosody={"af_sky": 1}))]
        )
    assert server.seen == [{"input": "Yes.", "voice": "af_heart(1.25)-am_adam(0.25)", "weights": mixed}]
    assert isinstance(said[1], Unsaid)
    assert (said[1].reason, said[1].detail) == ("voice", "voice 'p': its recipe has a prosody of its own")


def test_a_speed_is_not_dropped_where_the_body_has_none() -> None:
    with served(body={"input": "{text}", "voice": "{voice.name}"}) as (server, engine):
        said = engine.synthesize([ask("Yes."), ask("Yes.", speed=0.88)])
    assert isinstance(said[0], Clip)
    assert isinstance(said[1], Unsaid)
    assert said[1].detail == "hibari cannot speak at 0.88: its body holds no {speed}"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"body": {"input": "{txet}", "voice": "{voice.id}"}},
            r"body: unknown placeholder \{txet\}; did you mean \{text\}",
        ),
        ({"body": {"a": "{text}", "b": [{"c": "{voice.nam}"}]}}, r"unknown placeholder \{voice.nam\}.*\{voice.name\}"),
        (
            {"body": {"input": "{text", "voice": "{voice.id}"}},
            "body: .*a brace that is no placeholder is written twice",
        ),
        ({"body": {"input": "{text:>9}", "voice": "{voice.id}"}}, "only its name may stand in the braces"),
        ({"body": {"input": "Hello.", "voice": "{voice.id}"}}, r"no value holds \{text\}"),
        ({"body": {"input": "{text}"}}, r"all voices would sound alike: .*\{voice.id\} or \{voice.name\}"),
        ({"takes": ["clip"]}, r"only voices of the kind name have a \{voice.name\}, and takes names clip"),
        ({"takes": ["name", "clip"]}, "takes names clip: give each kind of voice an engine of its own"),
        ({"takes": ["clip"], "body": {"i": "{text}", "t": "{voice.clip_text}"}}, "all voices would sound alike"),
        ({"takes": ["clip"], "body": {"i": "{text}", "c": "x{voice.clip_file}"}}, "must be a value of its own"),
        ({"takes": ["clip"], "body": {"i": "{text}", "c": ["{voice.clip_file}"]}}, "is a field of the form"),
        ({"takes": ["clip"], "body": {"i": ["{text}"], "c": "{voice.clip_file}"}}, r"body\.i: an upload"),
        ({"takes": ["embedding"], "body": {"i": "{text}", "e": "<{voice.embedding}>"}}, "must be a value of its own"),
        ({"base_url": None}, r"base_url=None is no address like http://"),
        ({"base_url": "127.0.0.1:8000/v1"}, "base_url='127.0.0.1:8000/v1' is no address"),
        ({"model": ""}, "model: name the model of what is served"),
        ({"license": ""}, "license: name the license of what is served"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_asked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^tts\.engines\.\*\..*{message}|^tts\.engines\.\*\.{message}"):
        build(section("http://127.0.0.1:9/v1").model_copy(update=changes))


def test_voices_may_go_by_their_ids_whatever_their_kind(clip: Path) -> None:
    body = {"input": "{text}", "voice": "{voice.id}", "speed": "{speed}"}
    with served(body=body, takes=["name", "clip"]) as (server, engine):
        engine.synthesize([ask("Yes.", voice("ann")), ask("Yes.", clone("bob", clip))])
    assert sorted(fields["voice"] for fields in server.seen) == ["ann", "bob"]


def test_the_model_and_its_licence_are_named_without_a_request() -> None:
    [use] = models(section("http://127.0.0.1:9/v1"))
    assert (use.role, use.name, use.sha256, use.license) == ("tts", "hibari", "", "Apache-2.0")
    with pytest.raises(ConfigError, match="license"):
        models(section("http://127.0.0.1:9/v1", license=""))
