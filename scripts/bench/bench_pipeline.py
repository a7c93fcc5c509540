"""What the pipeline costs above its models: CPU seconds of the bare models beside those of a run that uses them.

    python scripts/bench/bench_pipeline.py [--dialogues 16] [--runs 1] [--engine local --engine ray]

A run of the quickstart is made in a temporary folder. Then bare processes, as many as the run had studios, load the
same models and do exactly the requests that the run's records name, every take of every dialogue: synthesize, then
transcribe and score those clips (once each, not mastered; resampling them to the models' rates is left out of the
count, and so is hearing again what did not follow the text, which then counts as the pipeline's own cost). One JSON
line a figure, medians over `runs`, in CPU seconds (user + system). ratio = value / baseline: 1 would be a pipeline that
costs nothing. For each engine:

    pipeline.ENGINE.speak    synthesis by the bare models; baseline: the stage in the run (RUN/logs/timings.jsonl)
    pipeline.ENGINE.listen   recognition and quality by the bare models; baseline: the stage in the run
    pipeline.ENGINE.busy     both; baseline: speak, listen and pack in the run. Target: at least 0.85
    pipeline.ENGINE.stages   the same without the noise between two processes: the bare process then does speak and
                             listen with the models' answers ready; baseline: both models, this, and pack in the run
    pipeline.ENGINE.total    the bare processes from start to end; baseline: the run's whole tree of processes, less the
                             LLM server, which is a bare model itself
    pipeline.ENGINE.llm      the LLM server; no baseline

The run and the bare process of the local engine are counted exactly (wait4). Ray's processes are not all waited for by
their parents, so their CPU is read every 0.2 s, the last reading of each counts: 1 s too little in all, at the most.
Another load on the machine slows shared caches and hyper-threads, and so adds to CPU seconds too: repeat when quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.audio import resample
from pipeline.backends import make_quality, make_recognizer, make_synthesizer, make_vad
from pipeline.backends.asr.base import Spellings
from pipeline.dialogue import Clip, Language, Role, Sample, SampleTurn, Score, Take, Transcript
from pipeline.engine.run import load_frozen
from pipeline.errors import SpeechchatError
from pipeline.shards.reader import read_rejects, read_unit
from pipeline.shards.stats import stage_costs
from pipeline.shards.store import RunFolder
from pipeline.stages.listen import Listener, Spoken
from pipeline.stages.speak import Speaking
from pipeline.voice import SpeechRequest
from speakers import VoiceLibrary, load_library

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 0.2
UNIT_SIZE = 8
LLM_SERVER = "pipeline.backends.llm.embedded"


@dataclass(frozen=True)
class Usage:
    """What a command cost with all its children, CPU seconds; `llm` is the part of the LLM server."""

    total: float
    llm: float
    stdout: str


class Watched:
    """A command under way, its tree of processes sampled. Leave it with `finish`."""

    def __init__(self, command: Sequence[str]):
        self._command = " ".join(command)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # Files, not pipes: nobody reads while the command works. Closed by finish.
        self._stdout, self._stderr = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "PYTHONPATH": path}
        self._process = subprocess.Popen(command, stdout=self._stdout, stderr=self._stderr, cwd=ROOT, env=environment)
        self._root = psutil.Process(self._process.pid)
        self._seconds: dict[psutil.Process, float] = {}
        self._servers: set[psutil.Process] = set()

    def finish(self) -> Usage:
        """Wait for the end. Raises SystemExit with what the command said if it failed."""
        pid = 0
        try:
            while not pid:
                self._sample()
                time.sleep(INTERVAL)
                pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        except BaseException:
            self._process.terminate()
            raise
        self._process.returncode = os.waitstatus_to_exitcode(status)
        with self._stdout, self._stderr:
            self._stdout.seek(0)
            self._stderr.seek(0)
            if self._process.returncode:
                sys.exit(f"bench_pipeline: {self._command} failed:\n{self._stderr.read().decode()}")
            stdout = self._stdout.read().decode()
        # The exact figure holds the children that were waited for, the sampled one all that were seen.
        total = max(usage.ru_utime + usage.ru_stime, sum(self._seconds.values()))
        return Usage(total, sum(self._seconds[server] for server in self._servers), stdout)

    def _sample(self) -> None:
        try:
            found = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in found:
            try:
                times = process.cpu_times()
                if process not in self._seconds and LLM_SERVER in process.cmdline():
                    self._servers.add(process)
            except psutil.Error:  # it has ended since it was listed
                continue
            self._seconds[process] = times.user + times.system


def measure(engine: str, dialogues: int, studios: int, seed: int) -> dict[str, tuple[float, float | None]]:
    """One run and the bare models on its requests: (value, baseline) by figure, CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        keys = (f"dialogues={dialogues}", f"unit_size={UNIT_SIZE}", f"seed={seed}", f"engine.studios={studios}")
        settings = [part for key in keys for part in ("--set", key)]
        command = [sys.executable, "-m", "pipeline.cli", "run", "quickstart", "--out", str(out), "--engine", engine]
        run = Watched([*command, *settings]).finish()
        costs = {stage: cost["cpu"] for stage, cost in stage_costs(RunFolder(out)).items() if "cpu" in cost}
        shares = [
            Watched([sys.executable, __file__, "--bare", str(out), "--share", f"{share}/{studios}"])
            for share in range(studios)
        ]
        usages = [share.finish() for share in shares]
    shares_cpu = [json.loads(usage.stdout) for usage in usages]
    bare = {name: sum(cpu[name] for cpu in shares_cpu) for name in shares_cpu[0]}
    models = bare["speak"] + bare["listen"]
    return {
        "speak": (bare["speak"], costs["speak"]),
        "listen": (bare["listen"], costs["listen"]),
        "busy": (models, sum(costs.values())),
        "stages": (models, models + bare["stages"] + costs["pack"]),
        "total": (sum(usage.total for usage in usages) - bare["stages"], run.total - run.llm),
        "llm": (run.llm, None),
    }


@dataclass
class Replay:
    """A synthesizer, recogniser or judge of quality that has its answers ready: what is left is the pipeline."""

    rate: int
    answers: Sequence[Any]
    name: str = "replay"
    stochastic: bool = False
    deterministic: bool = True
    careful: bool = False

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip]:
        return list(self.answers)

    # A clip that is trimmed to nothing is not asked about, so that fewer answers may be wanted.
    def transcribe(
        self,
        clips: Sequence[Clip],
        languages: Sequence[Language],
        careful: bool = False,
        texts: Sequence[Spellings] | None = None,
    ) -> list[Transcript]:
        return list(self.answers[: len(clips)])

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        return list(self.answers[: len(clips)])


def bare_models(run: Path, share: int, shares: int) -> dict[str, float]:
    """CPU seconds of this process by kind of work, for every `shares`-th unit of the run from `share` on."""
    folder = RunFolder(run).require()
    config = load_frozen(folder)[0]
    library = load_library(config.cast.library)
    batches = list(recorded_batches(folder, library, share, shares))
    tts, asr, quality, vad = make_synthesizer(config), make_recognizer(config), make_quality(config), make_vad(config)
    assert quality is not None  # the quickstart has one
    cpu = {"speak": 0.0, "listen": 0.0, "stages": 0.0}
    for roles, requests in batches:
        languages = [request.language for request in requests]
        with _counted(cpu, "speak"):
            clips = [clip for clip in tts.synthesize(requests) if isinstance(clip, Clip)]
        heard, scored = [resample(clip, asr.rate) for clip in clips], [resample(clip, quality.rate) for clip in clips]
        with _counted(cpu, "listen"):
            transcripts = asr.transcribe(heard, languages)
            scores = quality.score(scored)
        models = Replay(0, clips), Replay(asr.rate, transcripts), Replay(quality.rate, scores)
        with _counted(cpu, "stages"):
            said = Speaking(models[0], config, vad).speak(requests, roles)
            spoken = [
                Spoken(clip, (request.text,), role, request.voice.rate * request.speed, request.voice.id)
                for clip, request, role in zip(said, requests, roles, strict=True)
                if isinstance(clip, Clip)
            ]
            Listener(config, models[1], quality=models[2]).listen(spoken, languages[0])
    return cpu


@contextmanager
def _counted(cpu: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    cpu[name] += time.process_time() - start


def recorded_batches(
    folder: RunFolder, library: VoiceLibrary, share: int, shares: int
) -> Iterator[tuple[list[Role], list[SpeechRequest]]]:
    """The requests as the run made them, with their roles: by unit, by dialogue (accepted or rejected), by take."""
    for manifest in folder.manifests():
        if manifest.unit % shares == share:
            rejected = [encoded.sample for _, encoded in read_rejects(folder, manifest) if encoded]
            for sample in [*(encoded.sample for encoded in read_unit(folder, manifest)), *rejected]:
                for number in range(max(len(turn.takes) for turn in sample.turns)):
                    turns = [turn for turn in sample.turns if len(turn.takes) > number]
                    yield (
                        [turn.role for turn in turns],
                        [_request(sample, turn, turn.takes[number], library) for turn in turns],
                    )


def _request(sample: Sample, turn: SampleTurn, take: Take, library: VoiceLibrary) -> SpeechRequest:
    return SpeechRequest(turn.spoken, sample.language, library.voice(take.voice), take.take, take.speed, take.seed)


def report(engine: str, measured: Sequence[dict[str, tuple[float, float | None]]]) -> None:
    for name in measured[0]:
        value = statistics.median(figures[name][0] for figures in measured)
        baselines = [base for figures in measured if (base := figures[name][1]) is not None]
        baseline = statistics.median(baselines) if baselines else None
        line = {
            "name": f"pipeline.{engine}.{name}",
            "value": round(value, 3),
            "unit": "cpu_s",
            "baseline": None if baseline is None else round(baseline, 3),
            "ratio": round(value / baseline, 4) if baseline else None,
            "runs": len(measured),
        }
        print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=16, help=f"of each run, a multiple of {UNIT_SIZE}")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--engine", action="append", choices=["local", "ray"], help="both if absent; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bare", type=Path, metavar="RUN", help=argparse.SUPPRESS)
    parser.add_argument("--share", default="0/1", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.bare:
            share, shares = map(int, options.share.split("/"))
            print(json.dumps(bare_models(options.bare, share, shares)))
            return 0
        engines = options.engine or ["local", "ray"]
        # One process works on all units in turn, or as many as there are CPUs or units work side by side.
        side_by_side = max(1, min(os.cpu_count() or 1, options.dialogues // UNIT_SIZE))
        studios = {"local": 1, "ray": side_by_side}
        measured: dict[str, list[dict[str, tuple[float, float | None]]]] = {engine: [] for engine in engines}
        for _ in range(options.runs):
            for engine in engines:
                measured[engine].append(measure(engine, options.dialogues, studios[engine], options.seed))
        for engine in engines:
            report(engine, measured[engine])
    except SpeechchatError as error:
        print(f"bench_pipeline: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
