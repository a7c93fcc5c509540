"""What speaking costs: RTF beside the bare model, threads against processes, batches against single requests.

    python scripts/bench/bench_tts.py [--runs 3] [--engine NAME --set tts.engines.NAME.kind=... --library voices.yaml]

Without --engine: kokoro and hibari. One JSON line a figure, medians over `runs` rounds after one that warms up; every
round has texts of its own, so that no phonemes are remembered from the last one. Both sides of a comparison are
measured in every round, one right after the other; CPU is that of this process, wall is the clock's. A `ratio` above
1 is in favour of the value; RTF is seconds of work for a second of speech.

    tts.NAME.rtf.cpu       through the engine's own door. kokoro: baseline is the bare onnxruntime session, fed with the
    tts.NAME.rtf.wall      same phonemes; ratio = baseline / value (1: nothing is lost around the model)
    tts.kokoro.g2p.LANG    CPU ms to read a text again; baseline: for the first time; ratio = baseline / value
    tts.NAME.batch         seconds of speech a second, the round's requests at once; baseline: one by one
    tts.kokoro.processes   with --processes, alone: the same of two processes with one thread; baseline: of one with two
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backends import build_engine
from pipeline.backends.onnx import open_session
from pipeline.backends.tts.base import Synthesizer
from pipeline.backends.tts.kokoro import Kokoro
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip, Language
from pipeline.errors import BackendError, ConfigError, SpeechchatError
from pipeline.models import locate
from pipeline.voice import SpeechRequest, Unsaid, Voice
from speakers import load_library

# Two a round and language.
SENTENCES: dict[Language, tuple[str, ...]] = {
    "en": (
        "Rice is often served in round bowls.",
        "Could you tell me how far the moon is from here?",
        "Glue the sheet to the dark blue background.",
        "I would rather stay at home and read a good book tonight.",
        "It is easy to tell the depth of a well.",
        "These days a chicken leg is a rare dish.",
        "The box was thrown beside the parked truck.",
        "My grandmother planted these apple trees sixty years ago.",
        "Four hours of steady work faced us.",
        "Please remind me to call the dentist tomorrow morning.",
        "A large size in stockings is hard to sell.",
        "She opened the window because the room was too warm.",
    ),
    "zh": (
        "今天的天气非常好，我们一起去公园散步吧。",
        "请问去火车站怎么走？",
        "我最喜欢的水果是苹果和香蕉。",
        "他每天早上六点起床，然后去学校上课。",
        "人工智能是计算机科学的一个分支。",
        "如果你有时间，我想请你喝一杯咖啡。",
        "图书馆星期天下午五点关门。",
        "这本书我已经看了三遍，还想再看。",
        "妈妈做的饭比饭店的好吃多了。",
        "明天早上请你提醒我打电话。",
        "房间里太热了，所以她打开了窗户。",
        "这条河从山上一直流到大海。",
    ),
}
A_ROUND = 2
EMBEDDED: dict[str, dict[Language, dict[str, Any]]] = {
    "kokoro": {"en": {"timbre": {"af_heart": 1}}, "zh": {"timbre": {"zf_xiaoxiao": 1}}},
    "hibari": {"en": {"name": "heart"}},
}


@dataclass(frozen=True)
class Spent:
    """What a task took: CPU seconds of this process, seconds of the clock, seconds of speech that came of it."""

    cpu: float
    wall: float
    speech: float


def spent(task: Callable[[], float]) -> Spent:
    """task returns seconds of speech."""
    wall, cpu = time.perf_counter(), time.process_time()
    speech = task()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall, speech)


def seconds(said: Sequence[Clip | Unsaid]) -> float:
    for result in said:
        if isinstance(result, Unsaid):
            raise BackendError(f"a sentence was not said ({result.reason}: {result.detail})")
    return sum(clip.seconds for clip in said if isinstance(clip, Clip))


def voices(config: Config, name: str, kind: str) -> dict[Language, Voice]:
    """A voice of the engine for each language that it has one for."""
    if kind in EMBEDDED:
        base = {"id": "bench", "gender": "female", "engine": name, "license": "Apache-2.0"}
        return {
            language: Voice.model_validate({**base, "languages": [language], "recipe": recipe})
            for language, recipe in EMBEDDED[kind].items()
        }
    found = [voice for voice in load_library(config.cast.library).voices if voice.engine == name]
    if not found:
        raise ConfigError(f"--library: no voice of the engine {name!r}; name a library that has one")
    return {language: voice for language in SENTENCES for voice in found if language in voice.languages}


def requests(speakers: dict[Language, Voice], number: int) -> list[SpeechRequest]:
    """Those of a round."""
    return [
        SpeechRequest(SENTENCES[language][place % len(SENTENCES[language])], language, voice, 0, 1.0, 0)
        for language, voice in speakers.items()
        for place in range(number * A_ROUND, (number + 1) * A_ROUND)
    ]


class Bench:
    """One engine, its voices, and beside Kokoro a bare session of its model."""

    def __init__(self, config: Config, name: str):
        section = config.tts.engines[name]
        self.name = name
        self.engine: Synthesizer = build_engine(name, section)
        self.speakers = voices(config, name, section.kind)
        if isinstance(self.engine, Kokoro):
            self.session = open_session(locate("kokoro", section.model_path) / "kokoro.onnx", section.threads)

    def round(self, number: int) -> dict[str, Spent]:
        asked = requests(self.speakers, number % (len(SENTENCES["en"]) // A_ROUND))
        found: dict[str, Spent] = {}
        if isinstance(self.engine, Kokoro):
            found |= self._reading(self.engine, asked)
        found["door"] = spent(lambda: seconds([self.engine.synthesize([one])[0] for one in asked]))
        if isinstance(self.engine, Kokoro):
            feeds = self._feeds(self.engine, asked)
            found["bare"] = spent(
                lambda: sum(self.session.run(None, feed)[0].size for feed in feeds) / self.engine.rate
            )
        found["batch"] = spent(lambda: seconds(self.engine.synthesize(asked)))
        return found

    @staticmethod
    def _reading(engine: Kokoro, asked: Sequence[SpeechRequest]) -> dict[str, Spent]:
        """By language, of phonemes that are new to the engine (their texts end otherwise), then of the same again."""
        found = {}
        for language in dict.fromkeys(request.language for request in asked):
            texts = [request.text + "!" for request in asked if request.language == language]

            def read(texts: list[str] = texts, language: Language = language) -> float:
                for text in texts:
                    engine.utterances(text, language, "")
                return float(len(texts))

            found[f"new.{language}"], found[f"again.{language}"] = spent(read), spent(read)
        return found

    @staticmethod
    def _feeds(engine: Kokoro, asked: Sequence[SpeechRequest]) -> list[dict[str, Any]]:
        feeds = []
        for request in asked:
            utterances = engine.utterances(request.text, request.language, request.voice.accent)
            if isinstance(utterances, Unsaid):
                raise BackendError(f"a sentence was not read ({utterances.reason}: {utterances.detail})")
            feeds += [engine.feed(item.tokens, request.voice.recipe, request.speed) for item in utterances]
        return feeds

    def report(self, rounds: Sequence[dict[str, Spent]]) -> None:
        door = [found["door"] for found in rounds]
        bare = [found.get("bare") for found in rounds]
        for clock in ("cpu", "wall"):
            figure(
                f"tts.{self.name}.rtf.{clock}",
                "s/s",
                [getattr(item, clock) / item.speech for item in door],
                [getattr(item, clock) / item.speech for item in bare if item],
                better="less",
            )
        for language in self.speakers:
            new, again = ([found.get(f"{kind}.{language}") for found in rounds] for kind in ("new", "again"))
            figure(
                f"tts.{self.name}.g2p.{language}",
                "cpu_ms/text",
                [1000 * item.cpu / item.speech for item in again if item],
                [1000 * item.cpu / item.speech for item in new if item],
                better="less",
            )
        batch = [found["batch"].speech / found["batch"].wall for found in rounds]
        figure(f"tts.{self.name}.batch", "s/s", batch, [item.speech / item.wall for item in door])


def figure(name: str, unit: str, values: Sequence[float], baselines: Sequence[float], better: str = "more") -> None:
    """One line, of medians; the ratio is that of each round. Nothing where nothing was measured."""
    if not values:
        return
    pairs = [(b, v) if better == "less" else (v, b) for v, b in zip(values, baselines, strict=False)]
    line = {
        "name": name,
        "value": round(statistics.median(values), 4),
        "unit": unit,
        "baseline": round(statistics.median(baselines), 4) if baselines else None,
        "ratio": round(statistics.median(top / max(bottom, 1e-9) for top, bottom in pairs), 4) if pairs else None,
        "runs": len(values),
    }
    print(json.dumps(line), flush=True)


# ---- processes ----------------------------------------------------------------------------------------------------


def work(name: str, threads: int, runs: int, start: Any, done: Any) -> None:
    """A process of its own: speaks every round when all are ready, and tells how many seconds it spoke."""
    config = load_config("quickstart", [f"tts.engines.{name}.threads={threads}"])
    bench = Bench(config, name)
    bench.engine.synthesize(requests(bench.speakers, 0)[:1])
    for number in range(runs):
        start.wait()
        done.put(seconds(bench.engine.synthesize(requests(bench.speakers, number))))


def throughput(name: str, processes: int, threads: int, runs: int) -> list[float]:
    """Seconds of speech a second of the clock, of each round."""
    context = multiprocessing.get_context("spawn")
    start, done = context.Barrier(processes + 1), context.Queue()
    workers = [context.Process(target=work, args=(name, threads, runs, start, done)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = []
    for _ in range(runs):
        start.wait(timeout=600)
        begun = time.perf_counter()
        speech = sum(done.get(timeout=600) for _ in workers)
        found.append(speech / (time.perf_counter() - begun))
    for worker in workers:
        worker.join()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, choices=range(1, 7), metavar="1-6")
    parser.add_argument("--engine", help="a name in tts.engines; kokoro and hibari if absent")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration of the engine")
    parser.add_argument("--library", type=Path, help="a library that has voices of the engine")
    parser.add_argument("--processes", action="store_true", help="two processes against two threads, kokoro")
    options = parser.parse_args(arguments)
    try:
        own = [f"cast.library={options.library}"] if options.library else []
        config = load_config(
            "quickstart", [f"tts.engines.{kind}.kind={kind}" for kind in EMBEDDED] + [*options.set, *own]
        )
        if options.processes:
            locate("kokoro")  # what is missing is told here and not by the processes
            two, one = (throughput("kokoro", count, 3 - count, options.runs) for count in (2, 1))
            figure("tts.kokoro.processes", "s/s", two, one)
            return 0
        for name in [options.engine] if options.engine else list(EMBEDDED):
            if name not in config.tts.engines:
                raise ConfigError(f"--engine {name}: tts.engines has {', '.join(config.tts.engines)}; name it by --set")
            bench = Bench(config, name)
            bench.round(options.runs)
            bench.report([bench.round(number) for number in range(options.runs)])
    except SpeechchatError as error:
        print(f"bench_tts: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
