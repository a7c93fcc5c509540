"""Hearing a voice without a run."""

from __future__ import annotations

from pathlib import Path

from pipeline import audio, backends
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.shards.disk import storage_errors
from pipeline.stages.speak import Speaking
from pipeline.text.checks import unspeakable
from pipeline.text.verbalize import verbalize
from pipeline.voice import SpeechRequest, Unsaid
from speakers import load_library


def say(voice_id: str, text: str, out: Path, config: Config | None = None) -> float:
    """Speak `text` with a voice of the library into `out`, mastered as an agent's turn; returns seconds.

    config: whose library and engines to use; the shipped ones if None. Raises ConfigError for an unknown voice, a text
    that cannot be spoken in its language, or an unknown file ending.
    """
    config = config or Config()
    voice = load_library(config.cast.library, hard=True).voice(voice_id)
    if voice.engine not in config.tts.engines:
        raise ConfigError(
            f"voice {voice_id!r} is of the engine {voice.engine!r}, which tts.engines does not have: "
            "name a configuration that has it with --config"
        )
    language = voice.languages[0]
    spoken = verbalize(text, language)
    fault = unspeakable(spoken, language)
    if fault:
        raise ConfigError(f"voice {voice_id!r} speaks {language} and cannot say {text!r} ({fault})")
    request = SpeechRequest(spoken, language, voice, take=0, speed=1.0, seed=0)
    speaking = Speaking(backends.make_synthesizer(config, [voice.engine]), config, backends.make_vad(config))
    [clip] = speaking.speak([request], ["assistant"])
    if isinstance(clip, Unsaid):
        raise ConfigError(f"voice {voice_id!r} cannot say {text!r} ({clip.reason}: {clip.detail})")
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        audio.write_preview(clip, out)
    return clip.seconds
