"""The voices of a library, served by HTTP, as an engine of kind http hears them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from pipeline.backends.tts.http import Http
from pipeline.voice import Unsaid
from scripts.serve_voices import VoiceServer
from tests.speech_server import ask, pcm, section, voice

pytestmark = pytest.mark.embedded

LIBRARY = """
defaults: {engine: hibari, license: Apache-2.0, gender: female, languages: [en], accent: us}
voices:
  - {id: ann, recipe: {name: heart}}
  - {id: deep, recipe: {name: heart, shift: -3}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VoiceServer]:
    library = tmp_path_factory.mktemp("voices") / "voices.yaml"
    library.write_text(LIBRARY)
    settings = [f"cast.library={library}", "tts.engines={hibari: {kind: hibari}}"]
    server = VoiceServer("quickstart", settings, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_voice_of_the_library_is_heard_as_its_engine_speaks_it(server: VoiceServer) -> None:
    body = {"input": "{text}", "voice": "{voice.id}", "speed": "{speed}"}
    with closing(Http(section(f"http://127.0.0.1:{server.server_port}/v1", body=body))) as engine:
        said = engine.synthesize([ask("Hello there.", voice(name), speed=1.1) for name in ("ann", "deep", "bob")])
    own = [server.library.voice(name) for name in ("ann", "deep")]
    heard = server.engines.synthesize([ask("Hello there.", other, speed=1.1) for other in own])
    assert [np.array_equal(pcm(a), pcm(b)) for a, b in zip(said[:2], heard, strict=True)] == [True, True]
    assert not np.array_equal(pcm(said[0]), pcm(said[1]))
    unknown = said[2]
    assert isinstance(unknown, Unsaid)
    assert "(400): there is no voice 'bob'" in unknown.detail


def test_what_cannot_be_said_is_refused_with_the_reason(server: VoiceServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    body = {"input": "{text}", "voice": "{voice.id}", "speed": "{speed}"}
    with closing(Http(section(url, body=body))) as engine:
        said = engine.synthesize(
            [ask("…", voice("ann")), ask("Yes.", voice("ann"), speed=9.0), ask("Yes.", voice("ann"))]
        )
    refused = [item.detail for item in said if isinstance(item, Unsaid)]
    assert len(refused) == 2
    assert "(422): empty: " in refused[0]
    assert "(422): speed: " in refused[1]
