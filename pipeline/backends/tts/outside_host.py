"""The other side of an engine that lives in an environment of its own (outside.py), and the frames between the two.

A frame is a line of JSON and then the samples, float32, little-endian. In a pipe its length comes first, 8 bytes.
Whatever environment this runs in has to have only what is imported here.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import struct
import threading
import traceback
from collections.abc import Sequence
from typing import IO, Any, NoReturn

import numpy as np
from pydantic import TypeAdapter

from pipeline import errors
from pipeline.backends.tts.base import Synthesizer
from pipeline.dialogue import Clip
from pipeline.speech_sections import TtsEngineConfig
from pipeline.voice import SpeechRequest, Unsaid

_REQUESTS = TypeAdapter(list[SpeechRequest])
_PROPERTIES = ("name", "rate", "languages", "kinds", "stochastic", "deterministic", "batch")


class Host:
    """The other end: holds the engine, and answers each frame with one, also where it fails."""

    def __init__(self) -> None:
        self._engine: Synthesizer | None = None

    def handle(self, frame: bytes) -> bytes:
        try:
            return self._handle(json.loads(frame))
        except Exception as error:  # noqa: BLE001  raised again where the frame came from
            known = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__), "")
            return frame_of({"error": known, "text": str(error) if known else traceback.format_exc()})

    def _handle(self, message: dict[str, Any]) -> bytes:
        if self._engine is not None:
            return _results(self._engine.synthesize(_REQUESTS.validate_python(message["requests"])))
        from pipeline.backends import build_engine

        if message["devices"] is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = message["devices"]
        engine = build_engine(message["open"], TtsEngineConfig.model_validate(message["section"]))
        told = {field: getattr(engine, field) for field in _PROPERTIES}
        self._engine = engine
        return frame_of({"engine": {key: sorted(v) if isinstance(v, frozenset) else v for key, v in told.items()}})


def frame_of(header: dict[str, Any], samples: bytes = b"") -> bytes:
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + samples


def _results(results: Sequence[Clip | Unsaid]) -> bytes:
    lines = [
        {"reason": item.reason, "detail": item.detail}
        if isinstance(item, Unsaid)
        else {"rate": item.rate, "samples": len(item.audio)}
        for item in results
    ]
    clips = [np.ascontiguousarray(item.audio, "<f4").tobytes() for item in results if isinstance(item, Clip)]
    return frame_of({"results": lines}, b"".join(clips))


def read_header(frame: bytes) -> tuple[dict[str, Any], int]:
    """What a frame says, and where its samples begin. Raises what was raised where it comes from."""
    end = frame.index(b"\n") + 1
    header = json.loads(frame[:end])
    if "error" in header:
        kind = getattr(errors, header["error"], RuntimeError) if header["error"] else RuntimeError
        raise kind(header["text"])
    return header, end


def read_clips(frame: bytes) -> list[Clip | Unsaid]:
    header, offset = read_header(frame)
    results: list[Clip | Unsaid] = []
    for item in header["results"]:
        if "reason" in item:
            results.append(Unsaid(item["reason"], item["detail"]))
        else:
            audio = np.frombuffer(frame, "<f4", item["samples"], offset)
            results.append(Clip(audio.astype(np.float32), item["rate"]))
            offset += audio.nbytes
    return results


def serve() -> NoReturn:
    """The child: frames come by its standard input and go by its standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process in its own time
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the frames
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # and none may wait for a word of the user
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        while (frame := read(asked)) is not None:
            frames.put(frame)
        os._exit(0)  # the parent is gone: what is being spoken is for nobody

    threading.Thread(target=listen, daemon=True).start()
    host = Host()
    while True:
        write(answers, host.handle(frames.get()))


def write(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(struct.pack(">Q", len(frame)))
    pipe.write(frame)
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes | None:
    """The next frame, None where the other end is closed."""
    size = pipe.read(8)
    if len(size) < 8:
        return None
    frame: bytes = pipe.read(struct.unpack(">Q", size)[0])
    return frame if len(frame) == struct.unpack(">Q", size)[0] else None
