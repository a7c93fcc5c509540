"""What streaming to a trainer costs, beside webdataset, datasets and lhotse on the same samples.

    python scripts/bench/bench_stream.py [RUN] [--samples 256] [--runs 5] [--only raw decoded turns first resume]

Without RUN the samples are synthetic: dialogues of about 31 s, as those of Ke-SpeechChat are on average, in tracks
that FLAC packs as it does speech. All sides run in one process and in every round, one after the other, with their
modules imported and the files in memory; so their ratio says what each costs, and not what the disk does. One JSON line
a figure, medians over the rounds, CPU user + system of this process; a ratio above 1 is in favour of the value:

    stream.raw.CHECK.OTHER       samples a CPU second, nothing decoded, the checksums of the tar headers compared
                                 (headers), or those of every payload too; OTHER does not compare the latter
    stream.decoded.OTHER         samples a CPU second, record and tracks decoded, every checksum compared; soundfile:
                                 both tracks, from memory, and nothing else
    stream.turns.OTHER           turns a CPU second, of the last turn of every dialogue; whole: the dialogue decoded and
                                 sliced; seek: soundfile reads it out of the FLAC in memory
    stream.first.CACHE.OTHER     seconds from nothing to the first sample, with the joined index to be made (cold), or
                                 in the cache
    stream.resume.KIND           only if asked for: seconds from nothing to the first item in the middle of an epoch of
                                 RUN, or of --epoch dialogues in units of 64, in a process of its own; KIND: plain;
                                 batches, of 300 s; baseline: the joined index is to be made
    stream.resume.rss.KIND       MB: peak memory of that process; baseline: as above
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import rivals
import soundfile as sf
from samples import UNIT, Maker, long_run

from pipeline import audio
from pipeline.errors import SpeechchatError
from pipeline.shards.format import Encoded
from pipeline.shards.index import turn_span
from pipeline.shards.reader import read_tar
from pipeline.training import order
from pipeline.training.catalog import list_shards
from pipeline.training.items import Batches
from pipeline.training.reading import DialogueExample
from pipeline.training.stream import DialogueStream

PARTS = ("raw", "decoded", "turns", "first", "resume")
LAST_TURN = pc.field("turn") == pc.field("turns") - 1
SHUFFLE = 4096
SHORT: dict[str, Any] = {"turns": (2, 4), "seconds": (1.0, 3.0)}
KINDS: dict[str, dict[str, Any]] = {"plain": {}, "batches": {"batches": Batches(budget=300.0)}}

Task = Callable[[], object]


class Bench:
    """The streams of a run and of the rivals, each as a task that goes through all samples once."""

    def __init__(self, run: Path, scratch: Path):
        self.run = run
        self._cache = scratch / "cache"
        self.shards = [shard.path for shard in list_shards(run, "train")]
        self.items = [list(read_tar(path)) for path in self.shards]
        self.samples = sum(map(len, self.items))
        self._shar = scratch / "shar"
        rivals.make_shar(self._shar, self.items)

    def stream(self, **options: Any) -> DialogueStream:
        return DialogueStream(self.run, shuffle=0, rank=0, ranks=1, cache=self._cache, **options)

    def drain(self, items: Iterable[object]) -> None:
        found = sum(1 for _ in items)
        if found != self.samples:
            raise RuntimeError(f"{found} items streamed where there are {self.samples}")

    def raw(self) -> dict[str, Task]:
        ours: dict[str, Task] = {}
        for check in ("headers", "payload"):
            stream = self.stream(decode=False, check=check)
            ours[check] = functools.partial(self.drain, stream)
        return ours | {
            "webdataset": lambda: self.drain(rivals.webdataset(self.shards)),
            "datasets": lambda: self.drain(rivals.datasets(self.shards)),
            "lhotse": lambda: self.drain(rivals.lhotse(self._shar)),
        }

    def decoded(self) -> dict[str, Task]:
        stream = self.stream()
        return {
            "ours": lambda: self.drain(stream),
            "soundfile": lambda: self.drain(
                [rivals.bare(item.user), rivals.bare(item.assistant)] for item in self._all()
            ),
            "webdataset": lambda: self.drain(rivals.webdataset_decoded(self.shards)),
            "lhotse": lambda: self.drain(rivals.lhotse_decoded(self._shar)),
        }

    def turns(self) -> dict[str, Task]:
        ours, whole = self.stream(each="turn", turns=LAST_TURN), self.stream()
        return {
            "ours": lambda: self.drain(ours),
            "whole": lambda: self.drain(map(_slice, whole)),
            "seek": lambda: self.drain(map(_seek, self._all())),
        }

    def first(self) -> dict[str, Task]:
        def cold() -> None:
            shutil.rmtree(self._cache, ignore_errors=True)
            next(iter(self.stream(decode=False)))

        return {
            "cold": cold,
            "cached": lambda: next(iter(self.stream(decode=False))),
            "webdataset": lambda: next(rivals.webdataset(self.shards)),
            "datasets": lambda: next(rivals.datasets(self.shards)),
            "lhotse": lambda: next(rivals.lhotse(self._shar)),
        }

    def _all(self) -> Iterator[Encoded]:
        return itertools.chain.from_iterable(self.items)


def _slice(item: DialogueExample) -> np.ndarray:
    """The last turn out of the whole track."""
    turn, rate = item.sample.turns[-1], item.sample.assistant_rate
    return audio.from_pcm(item.assistant[slice(*turn_span(turn.start, turn.end, rate))])


def _seek(item: Encoded) -> np.ndarray:
    """The last turn, by soundfile's own means."""
    turn = item.sample.turns[-1]
    with sf.SoundFile(io.BytesIO(item.assistant if turn.role == "assistant" else item.user)) as file:
        start, end = turn_span(turn.start, turn.end, file.samplerate)
        file.seek(start)
        return file.read(end - start, dtype="int16")


def rounds(tasks: dict[str, Task], runs: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each task in each round, after one round that imports and opens what the others find."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(runs + 1):
        for name, task in tasks.items():
            start = clock()
            task()
            if number:
                taken[name].append(clock() - start)
    return taken


def measure(bench: Bench, part: str, runs: int) -> None:
    tasks: dict[str, Task] = getattr(bench, part)()
    ours = {"raw": ("headers", "payload"), "first": ("cold", "cached")}.get(part, ("ours",))
    seconds = rounds(tasks, runs, time.perf_counter if part == "first" else time.process_time)
    for mine, other in itertools.product(ours, [name for name in tasks if name not in ours]):
        name = f"stream.{part}.{mine}.{other}".replace(".ours", "")
        if part == "first":
            figure(name, "s", seconds[mine], seconds[other], less=True)
        else:
            unit = "turns/cpu_s" if part == "turns" else "samples/cpu_s"
            rates = [[bench.samples / taken for taken in seconds[key]] for key in (mine, other)]
            figure(name, unit, rates[0], rates[1])


def figure(name: str, unit: str, values: Sequence[float], baselines: Sequence[float], less: bool = False) -> None:
    """One line, of medians; the ratio is the median of those of each round. less: is better."""
    ratios = [(b / v if less else v / b) for v, b in zip(values, baselines, strict=True)]
    line = {
        "name": name,
        "value": round(statistics.median(values), 4),
        "unit": unit,
        "baseline": round(statistics.median(baselines), 4),
        "ratio": round(statistics.median(ratios), 4),
        "runs": len(values),
    }
    print(json.dumps(line), flush=True)


def resume(root: Path, scratch: Path, runs: int) -> None:
    cache = scratch / "cache"
    for kind, options in KINDS.items():
        stream = _long(root, cache, options)
        path = scratch / f"{kind}.json"
        path.write_text(json.dumps(stream.state_dict(taken=len(stream) // 2)))
        del stream
        taken: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
        for _ in range(runs):
            shutil.rmtree(cache, ignore_errors=True)
            for found in taken.values():
                command = [sys.executable, __file__, "--resume", kind, str(root), str(cache), str(path)]
                found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        warm, cold = ({name: [one[name] for one in taken[key]] for name in taken[key][0]} for key in ("cached", "cold"))
        figure(f"stream.resume.{kind}", "s", warm["seconds"], cold["seconds"], less=True)
        figure(f"stream.resume.rss.{kind}", "MB", warm["peak"], cold["peak"], less=True)


def make_long(root: Path, dialogues: int) -> Path:
    """A run that stops in the middle of an epoch in shards that are real ones."""
    places, middle = order.shuffled(np.arange(dialogues) // UNIT, SHUFFLE, 0, 0), dialogues // 2
    near = places[max(middle - SHUFFLE, 0) : middle + SHUFFLE]
    return long_run(root, dialogues, frozenset((near // UNIT).tolist())).root


def _long(root: Path, cache: Path, options: dict[str, Any]) -> DialogueStream:
    return DialogueStream(root, decode=False, shuffle=SHUFFLE, rank=0, ranks=1, cache=cache, **options)


def resume_here(kind: str, root: Path, cache: Path, state: Path) -> None:
    """Print the wall seconds to the first item, and the peak in MB."""
    saved, start = json.loads(state.read_text()), time.perf_counter()
    stream = _long(root, cache, KINDS[kind])
    stream.load_state_dict(saved)
    next(iter(stream))
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": _peak()}))


def _peak() -> float:
    """MB. What getrusage says is of the parent too, where that was larger."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run, of which the split train is read")
    parser.add_argument("--samples", type=int, default=256, help=f"a multiple of {UNIT}")
    parser.add_argument("--short", action="store_true", help="dialogues of 2 to 4 turns and about 7 s")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--epoch", type=int, default=1_000_000, help=f"a multiple of {UNIT}")
    parser.add_argument("--resume", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    try:
        if options.resume:
            resume_here(options.resume[0], *map(Path, options.resume[1:]))
            return 0
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            made = scratch / "run"
            if parts := [part for part in options.only if part != "resume"]:
                run = options.run or Maker(options.samples, **SHORT if options.short else {}).run(made).root
                bench = Bench(run, scratch)
                for part in parts:
                    measure(bench, part, options.runs)
            if "resume" in options.only:
                resume(options.run or make_long(scratch / "long", options.epoch), scratch, options.runs)
    except SpeechchatError as error:
        print(f"bench_stream: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
