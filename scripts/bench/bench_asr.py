"""What listening costs: short windows against full ones, and both against bare faster-whisper, on the same clips.

    python scripts/bench/bench_asr.py [RUN] [--clips 16] [--runs 3] [--set asr.beam=5]

The clips are turns of the run in the folder RUN, or ten sentences a language of one embedded voice each. One JSON line
a figure, medians over `runs` rounds after one that warms up; all sides are measured in every round, one right after the
other. CPU is that of this process, per clip. A `ratio` above 1 is in favour of the value.

    asr.cpu                in a short window, and again with care what does not follow its text; baseline: all with care
    asr.rate               clips a CPU second with care, one by one; baseline: WhisperModel.transcribe in a loop. The
                           same encoder and decoder at work: 1 is that nothing is lost around the model
    asr.verdicts.KIND      share of clips on which `asr.cpu` and its baseline agree whether they follow their text.
                           KIND: clean; cut, after three quarters; noise, at 5 dB
    asr.forgiven.KIND      share that the full window alone would refuse, and `asr.cpu` passes
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from pipeline.audio import resample
from pipeline.backends import make_recognizer, make_synthesizer
from pipeline.backends.asr.base import Recognizer
from pipeline.backends.asr.faster_whisper import FasterWhisper
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip, Language, Transcript
from pipeline.errors import ConfigError, DataError, SpeechchatError
from pipeline.shards.format import Encoded
from pipeline.shards.reader import read_rejects, read_unit
from pipeline.shards.store import RunFolder
from pipeline.text.rates import error_rates
from pipeline.voice import SpeechRequest
from speakers import load_library
from speakers.sentences import sentences

RATE = {"en": "cer", "zh": "per"}
LIMIT = 0.05
"""Of RATE: above, a clip does not follow its text. The gate that separates best with this model."""


@dataclass(frozen=True)
class Said:
    text: str
    language: Language
    clip: Clip

    def followed(self, heard: Transcript) -> bool:
        return error_rates(self.text, heard.text, self.language)[RATE[self.language]] <= LIMIT


def from_run(folder: Path, count: int, rate: int) -> list[Said]:
    """Turns of a run, accepted or not, as many of each language as there are, spread over the run."""
    run = RunFolder(folder)
    found: dict[Language, list[Said]] = {"en": [], "zh": []}
    for manifest in run.manifests():
        kept = [item for _, item in read_rejects(run, manifest) if item is not None]
        for item in [*read_unit(run, manifest), *kept]:
            found[item.sample.language] += turns(item, rate)
    if not any(found.values()):
        raise DataError(f"{folder}: a run without a clip; name one that has spoken")
    return [said for part in found.values() for said in part[:: max(1, 2 * len(part) // count)][: count // 2]]


def turns(item: Encoded, rate: int) -> list[Said]:
    tracks = {"user": sf.read(io.BytesIO(item.user), dtype="float32")}
    tracks["assistant"] = sf.read(io.BytesIO(item.assistant), dtype="float32")
    made = []
    for turn in item.sample.turns:
        audio, found = tracks[turn.role]
        clip = Clip(audio[int(turn.start * found) : int(turn.end * found)], found)
        made.append(Said(turn.spoken, item.sample.language, resample(clip, rate)))
    return made


def spoken(config: Config, count: int, rate: int) -> list[Said]:
    """Sentences of the embedded voices."""
    library = [voice for voice in load_library(config.cast.library).voices if voice.engine == "kokoro"]
    languages: tuple[Language, ...] = ("en", "zh")
    requests = [
        SpeechRequest(text, language, next(voice for voice in library if language in voice.languages), 0, 1.0, 7)
        for language in languages
        for text in sentences(language)[: count // 2]
    ]
    said = zip(requests, make_synthesizer(config, ["kokoro"]).synthesize(requests), strict=True)
    return [Said(one.text, one.language, resample(clip, rate)) for one, clip in said if isinstance(clip, Clip)]


def spoiled(said: Sequence[Said], kind: str) -> list[Said]:
    chance = np.random.default_rng(0)
    made = []
    for item in said:
        audio = item.clip.audio
        if kind == "cut":
            audio = audio[: len(audio) * 3 // 4]
        elif kind == "noise":
            noise = chance.standard_normal(len(audio)) * np.sqrt(np.mean(audio**2) / 10**0.5)
            audio = (audio + noise).astype(np.float32)
        made.append(Said(item.text, item.language, Clip(audio, item.clip.rate)))
    return made


def hear(recognizer: Recognizer, said: Sequence[Said], careful: bool) -> list[bool]:
    heard = recognizer.transcribe([item.clip for item in said], [item.language for item in said], careful)
    return [item.followed(one) for item, one in zip(said, heard, strict=True)]


def as_a_run_does(recognizer: Recognizer, said: Sequence[Said]) -> list[bool]:
    """Again with care for what does not follow its text."""
    good = hear(recognizer, said, careful=False)
    bad = [number for number, one in enumerate(good) if not one]
    for number, one in zip(bad, hear(recognizer, [said[number] for number in bad], careful=True), strict=True):
        good[number] = one
    return good


def bare(model: Any, beam: int, said: Sequence[Said]) -> None:
    for item in said:
        segments, _ = model.transcribe(
            item.clip.audio,
            language=item.language,
            beam_size=beam,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        list(segments)


def cpu(work: Callable[[], object], clips: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) / clips


def figure(name: str, unit: str, values: Sequence[float], baselines: Sequence[float], less: bool = False) -> None:
    """One line, of medians; the ratio is the median of those of each round. less: is better."""
    ratios = [(b / v if less else v / b) for v, b in zip(values, baselines, strict=False)]
    line = {
        "name": name,
        "value": round(statistics.median(values), 4),
        "unit": unit,
        "baseline": round(statistics.median(baselines), 4) if baselines else None,
        "ratio": round(statistics.median(ratios), 4) if ratios else None,
        "runs": len(values),
    }
    print(json.dumps(line), flush=True)


def measure(config: Config, said: Sequence[Said], recognizer: FasterWhisper, runs: int) -> None:
    count = len(said)
    rounds = []
    for _ in range(runs + 1):
        ours = cpu(lambda: as_a_run_does(recognizer, said), count)
        full = cpu(lambda: hear(recognizer, said, careful=True), count)
        loop = cpu(lambda: bare(recognizer.bare, config.asr.beam, said), count)
        rounds.append((ours, full, loop))
    ours_, full_, loop_ = zip(*rounds[1:], strict=True)
    figure("asr.cpu", "CPU s/clip", ours_, full_, less=True)
    figure("asr.rate", "clips/CPU s", [1 / item for item in full_], [1 / item for item in loop_])
    for kind in ("clean", "cut", "noise"):
        clips = spoiled(said, kind)
        mine, theirs = as_a_run_does(recognizer, clips), hear(recognizer, clips, careful=True)
        pairs = list(zip(mine, theirs, strict=True))
        figure(f"asr.verdicts.{kind}", "share", [sum(a == b for a, b in pairs) / count], [])
        figure(f"asr.forgiven.{kind}", "share", [sum(a and not b for a, b in pairs) / count], [])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run; the embedded voices if absent")
    parser.add_argument("--clips", type=int, default=16, help="half of them of each language")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration")
    options = parser.parse_args(arguments)
    try:
        config = load_config("quickstart", options.set)
        recognizer = make_recognizer(config)
        if not isinstance(recognizer, FasterWhisper):
            raise ConfigError("asr.engine: this compares faster-whisper with itself; leave the default")
        rate = recognizer.rate
        said = from_run(options.run, options.clips, rate) if options.run else spoken(config, options.clips, rate)
        measure(config, said, recognizer, options.runs)
    except SpeechchatError as error:
        print(f"bench_asr: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
