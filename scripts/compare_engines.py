"""Speak the same sentences with each engine of a configuration, listen to them, and say how each did.

    python scripts/compare_engines.py my.yaml [--engine local|ray] [--sentences 20] [--out FOLDER] [--set key=value]

For each engine in `tts.engines` and each language that it speaks, the first voice of `cast.library` that it has says
the sentences of speakers/sentences.yaml, all in one run: in this process, or on Ray in one actor that holds all the
engines. One JSON line an engine and language: clips, faults by reason, error rate (wer, per), seconds of speech, CPU of
the process per second of it. Exit status 1 if an engine said nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline import audio
from pipeline.backends import make_recognizer, make_synthesizer, make_vad
from pipeline.backends.tts.router import Router
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip, Language
from pipeline.engine.cluster import connect
from pipeline.errors import ConfigError, SpeechchatError
from pipeline.stages.speak import Speaking
from pipeline.text.rates import error_rates
from pipeline.voice import SpeechRequest, Voice
from speakers import load_library
from speakers.sentences import sentences

RATES: dict[Language, str] = {"en": "wer", "zh": "per"}


def first_voices(config: Config) -> list[tuple[str, Language, Voice]]:
    """(engine, language, voice): the first voice of each engine for each language."""
    voices = load_library(config.cast.library).voices
    found = []
    for name in config.tts.engines:
        own = {lang: next((v for v in voices if v.engine == name and lang in v.languages), None) for lang in RATES}
        if not any(own.values()):
            raise ConfigError(f"cast.library: no voice of the engine {name!r}; add one with `engine: {name}`")
        found += [(name, language, voice) for language, voice in own.items() if voice is not None]
    return found


def compare(config: Config, count: int, out: Path | None) -> list[dict[str, Any]]:
    """One figure an engine and language. All engines are open at once."""
    with closing(make_synthesizer(config)) as router:
        return _compare(config, router, count, out)


def _compare(config: Config, router: Router, count: int, out: Path | None) -> list[dict[str, Any]]:
    speaking = Speaking(router, config, make_vad(config))
    recognizer = make_recognizer(config)
    figures = []
    for name, language, voice in first_voices(config):
        texts = sentences(language)[:count]
        requests = [SpeechRequest(text, language, voice, 0, config.tts.speeds[0], seed=0) for text in texts]
        busy, wall = time.process_time(), time.perf_counter()
        said = speaking.speak(requests, ["assistant"] * len(requests))
        busy, wall = time.process_time() - busy, time.perf_counter() - wall
        clips = [(text, clip) for text, clip in zip(texts, said, strict=True) if isinstance(clip, Clip)]
        heard = recognizer.transcribe(
            [audio.resample(clip, recognizer.rate) for _, clip in clips], [language] * len(clips)
        )
        rates = [
            error_rates(text, transcript.text, language)[RATES[language]]
            for (text, _), transcript in zip(clips, heard, strict=True)
        ]
        seconds = sum(clip.seconds for _, clip in clips)
        figures.append(
            {
                "engine": name,
                "language": language,
                "voice": voice.id,
                "sentences": len(texts),
                "clips": len(clips),
                "faults": dict(Counter(item.reason for item in said if not isinstance(item, Clip))),
                RATES[language]: round(statistics.fmean(rates), 4) if rates else None,
                "seconds": round(seconds, 2),
                "cpu_rtf": round(busy / seconds, 3) if seconds else None,
                "wall_rtf": round(wall / seconds, 3) if seconds else None,
            }
        )
        if out:
            # By the number of the sentence, so that those of two engines can be heard one after the other.
            for number, clip in enumerate(said):
                if not isinstance(clip, Clip):
                    continue
                place = out / f"{name}.{language}.{number:02d}.flac"
                place.parent.mkdir(parents=True, exist_ok=True)
                audio.write_preview(clip, place)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a preset or a YAML file with tts.engines")
    parser.add_argument("--engine", choices=("local", "ray"), help="engine.kind of the configuration if absent")
    parser.add_argument("--sentences", type=int, default=20, help="for each engine and language, at most 20")
    parser.add_argument("--out", type=Path, help="folder for the clips, on the machine that speaks")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config, options.set + [f"engine.kind={options.engine}"] * bool(options.engine))
        out = options.out and options.out.absolute()
        if config.engine.kind == "ray":
            import ray

            connect(config.engine)
            speak = ray.remote(num_cpus=config.engine.studio_cpus, max_retries=0)(compare)
            try:
                figures = ray.get(speak.remote(config, options.sentences, out))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            finally:
                ray.shutdown()
        else:
            figures = compare(config, options.sentences, out)
    except SpeechchatError as error:
        print(f"compare_engines: {error}", file=sys.stderr)
        return error.exit_code
    for figure in figures:
        print(json.dumps(figure), flush=True)
    return 0 if all(figure["clips"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
