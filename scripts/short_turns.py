"""How many of twelve turns of a few words a recogniser gets right from each voice, said one by one.

    python scripts/short_turns.py zh [--library voices.parquet] [--voices zh_f_001,zh_m_003] [--workers 2] [--set k=v]

A rate over whole sentences hides that a voice is hard to follow: what came before helps the recogniser. One JSON line a
voice: the share of clips whose rate (CER in English, PER in Mandarin) is at most 0.05, and what was heard of the
others. Then one line over all. About 25 CPU seconds a voice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline import audio
from pipeline.backends import make_recognizer, make_synthesizer, make_vad
from pipeline.backends.asr.base import Recognizer
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip, Language
from pipeline.errors import ConfigError, SpeechchatError
from pipeline.stages.speak import Speaking
from pipeline.text.rates import error_rates
from pipeline.voice import SpeechRequest, Voice
from speakers import load_library
from speakers.sentences import sentences

RATES: dict[Language, str] = {"en": "cer", "zh": "per"}
LIMIT = 0.05


@cache
def _models(settings: tuple[str, ...]) -> tuple[Config, Speaking, Recognizer]:
    """Once a process."""
    config = load_config("quickstart", list(settings))
    return config, Speaking(make_synthesizer(config), config, make_vad(config)), make_recognizer(config)


def follow(settings: tuple[str, ...], language: Language, voice: Voice) -> dict[str, Any]:
    """What was heard of a voice. Raises ConfigError, ModelError, BackendError."""
    config, speaking, recognizer = _models(settings)
    texts = sentences(language, "short")
    requests = [SpeechRequest(text, language, voice, 0, config.tts.speeds[0], seed=0) for text in texts]
    said = speaking.speak(requests, ["user"] * len(texts))
    clips = {
        text: audio.resample(clip, recognizer.rate)
        for text, clip in zip(texts, said, strict=True)
        if isinstance(clip, Clip)
    }
    wrong = {text: "" for text in texts if text not in clips}
    for careful in (False, True):  # as a run listens: once more, with care, to what was not right at once
        if clips:
            heard = recognizer.transcribe([*clips.values()], [language] * len(clips), careful=careful)
            unlike = {text: transcript.text for text, transcript in zip(clips, heard, strict=True)}
            unlike = {text: said for text, said in unlike.items() if _rate(text, said, language) > LIMIT}
            clips = {text: clips[text] for text in unlike}
    wrong |= unlike if clips else {}
    return {"voice": voice.id, "short": round(1 - len(wrong) / len(texts), 2), "wrong": wrong}


def _rate(text: str, heard: str, language: Language) -> float:
    return error_rates(text, heard, language)[RATES[language]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=sorted(RATES))
    parser.add_argument("--library", type=Path, help="the one that ships if not named")
    parser.add_argument("--voices", help="ids, with commas between; all of the language if not named")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args(argv)
    try:
        library = load_library(arguments.library, hard=True)
        if arguments.voices:
            voices = [library.voice(id) for id in arguments.voices.split(",")]
        else:
            voices = [voice for voice in library.voices if arguments.language in voice.languages]
        if not voices:
            raise ConfigError(f"--library: no voice speaks {arguments.language}; name another one")
        job = partial(follow, tuple(arguments.set), arguments.language)
        shares = []
        with multiprocessing.get_context("spawn").Pool(max(1, arguments.workers)) as pool:
            for found in pool.imap(job, voices):
                shares.append(found["short"])
                print(json.dumps(found, ensure_ascii=False), flush=True)
    except SpeechchatError as error:
        print(f"short_turns: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"voices": len(shares), "half or more": sum(share >= 0.5 for share in shares)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
