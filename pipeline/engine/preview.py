"""Hearing a voice without a run."""

from __future__ import annotations

from pathlib import Path

from pipeline import audio, backends
from pipeline.config import Config
from pipeline.dialogue import SpeechRequest
from pipeline.errors import ConfigError
from pipeline.shards.store import storage_errors
from pipeline.text.checks import unspeakable
from pipeline.text.verbalize import verbalize
from speakers import load_library


def say(voice_id: str, text: str, out: Path) -> float:
    """Speak `text` with a voice of the library into `out`, mastered as an agent's turn; returns seconds.

    Raises ConfigError for an unknown voice, a text that cannot be spoken in its language, or an unknown file ending.
    """
    config, library = Config(), load_library()
    voice = library.voice(voice_id)
    language = voice.languages[0]
    kind = out.suffix[1:].upper()
    if kind not in ("FLAC", "WAV", "MP3", "OGG"):
        raise ConfigError(f"--out {out}: end the name in .flac, .wav, .mp3 or .ogg")
    spoken = verbalize(text, language)
    fault = unspeakable(spoken, language)
    if fault:
        raise ConfigError(f"voice {voice_id!r} speaks {language} and cannot say {text!r} ({fault})")
    request = SpeechRequest(text=spoken, language=language, voice=voice_id, take=0, speed=1.0, seed=0)
    [clip] = backends.make_synthesizer(config, library).synthesize([request])
    clip = audio.master(clip, "assistant", config.audio)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("wb") as file:
            audio.save(clip, file, kind)
    return clip.seconds
