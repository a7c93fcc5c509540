"""Serve the voices of a library by HTTP, as OpenAI's /v1/audio/speech does (always as WAV), from a configuration.

    python scripts/serve_voices.py quickstart --port 8880
    curl http://127.0.0.1:8880/v1/audio/speech -o hello.wav -d '{"input": "Hello there.", "voice": "af_heart"}'

A voice goes by its id in `cast.library` (`speechchat voices` lists them). An engine of kind http on another machine
reaches them with `voice: "{voice.id}"` in its body. Whoever reaches the port may speak: there is no key, no encryption.
"""

from __future__ import annotations

import io
import json
import re
import sys
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated

import typer
from pydantic import BaseModel, Field, ValidationError

from pipeline import audio
from pipeline.backends import make_synthesizer
from pipeline.config import load_config
from pipeline.dialogue import Clip, Language
from pipeline.errors import ConfigError, SpeechchatError
from pipeline.voice import SpeechRequest, Unsaid
from speakers import load_library

_HAN = re.compile(r"[\u4e00-\u9fff]")


class Asked(BaseModel):
    """The body of a request. language: if null, the first of the voice, or zh where the text holds Han characters."""

    input: str
    voice: str
    speed: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    language: Language | None = None
    seed: int = 0


class VoiceServer(ThreadingHTTPServer):
    """Each request waits in a thread of its own; the engines put together what several of them ask."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, config: str, settings: list[str], host: str, port: int):
        loaded = load_config(config, settings)
        self.library = load_library(loaded.cast.library, hard=True)
        self.engines = make_synthesizer(loaded)
        super().__init__((host, port), _Handler)

    def speak(self, asked: Asked) -> Clip | Unsaid:
        """Raises ConfigError for an unknown voice."""
        voice = self.library.voice(asked.voice)
        spoken: Language = "zh" if "zh" in voice.languages and _HAN.search(asked.input) else voice.languages[0]
        request = SpeechRequest(asked.input, asked.language or spoken, voice, 0, asked.speed, asked.seed)
        return self.engines.synthesize([request])[0]


class _Handler(BaseHTTPRequestHandler):
    server: VoiceServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            asked = Asked.model_validate_json(data)
            said = self.server.speak(asked)
        except ValidationError as error:
            return self._fail(422, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
        except SpeechchatError as error:
            return self._fail(400 if isinstance(error, ConfigError) else 503, str(error))
        if isinstance(said, Unsaid):
            return self._fail(422, f"{said.reason}: {said.detail}")
        self._send(200, "audio/wav", _wav(said))

    def _fail(self, status: int, message: str) -> None:
        self._send(status, "application/json", json.dumps({"error": {"message": message}}).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _wav(clip: Clip) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, clip.rate, 0, "NONE", ""))
        out.writeframes(audio.to_pcm(clip.audio).tobytes())
    return file.getvalue()


def main(
    config: Annotated[str, typer.Argument(help="a preset or a file")] = "quickstart",
    host: str = "127.0.0.1",
    port: int = 8880,
    set_: Annotated[list[str], typer.Option("--set", help="KEY=VALUE of the configuration")] = [],  # noqa: B006
) -> None:
    """Serve until Ctrl-C."""
    server = VoiceServer(config, set_, host, port)
    print(f"{len(server.library.voices)} voices at http://{host}:{server.server_port}/v1/audio/speech", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    try:
        typer.run(main)
    except SpeechchatError as error:
        print(f"serve_voices: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
