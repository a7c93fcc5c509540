"""What the engine costs: models that only sleep or burn CPU stand where the real ones do (sleeping.py).

    python scripts/bench/bench_engine.py [--only use cpu writer resume] [--slots 64] [--together 8] [--units 110000]

One JSON line a figure; ratio = value / baseline, and where the baseline is an aim the name of the unit says so. Ray is
started here and stopped at the end; needs psutil (extra `dev`).

    engine.first            seconds from Ray being up to the first unit in a worker's hands, as the driver tells (at
                            most half a second late); baseline: aim, 2
    engine.first_spoken     … to its first request to a model: the worker and its imports included; baseline: as above
    engine.use.2            two studios, units of 1 s: time from a unit's first to the end of its last call of a model,
                            over the time that the studios were there, from the second unit of each until no unit waits.
                            What a unit packs after its last call counts as idle; so it is a lower bound, 1 at most;
                            baseline: aim, 0.95
    engine.use.SLOTS        SLOTS units at once, TOGETHER in a studio, units of 8 s; no studio claims a CPU
    engine.local.cpu        CPU of a dialogue in the local engine, ms; baseline: a loop over studio and units
    engine.ray.cpu          … of Ray's driver and actors; baseline: as above
    engine.ray.daemons      … of Ray's own processes (they also cost while nothing is done); no baseline
    engine.writer           units published, samples of 8 s per CPU second; baseline: a loop over tarfile
    engine.writer_hashed    the same; baseline: that loop, and one SHA-256 of each tar, which every manifest has
    engine.writer_long      engine.writer with samples of 32 s
    engine.writer_long_hashed   engine.writer_hashed with samples of 32 s
    engine.plan             seconds to plan UNITS units of 64 dialogues; baseline: aim, 20, of plan and resume together
    engine.resume           seconds from the start of `run` on such a run to its first unit, where nothing is remembered
                            of its totals; resume_cpu: CPU seconds; baseline: as above
    engine.totals           seconds of `run` on the finished run, which adds up all its indexes; no baseline
    engine.rerun            … and again, where nothing is to be done; rerun_cpu: CPU seconds; baseline: as above
    engine.*_memory         MB of each of these processes at its highest (Linux); baseline: aim, 1024
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil
import sleeping
from bench_shards import UNIT_SIZE, Bench

from pipeline.config import Config, load_config
from pipeline.engine.base import Done, Job, Pool, make_job, open_studio, open_text
from pipeline.engine.cluster import connect
from pipeline.engine.run import freeze, run
from pipeline.engine.totals import Totals
from pipeline.errors import SpeechchatError
from pipeline.plan import Unit, plan_units
from pipeline.shards.disk import sha256_file
from pipeline.shards.manifest import Manifest
from pipeline.shards.store import RunFolder
from pipeline.stages.draw import Draw
from pipeline.stages.progress import Progress
from pipeline.stages.write import TextProgress

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CALLS = 4
"""Of models, in a unit: it has two dialogues, each of which is spoken and listened to."""
TURNS = ("What is the fastest way to the station?", "Take the second street on the left, it is not far.")


def tell(name: str, value: float, unit: str, baseline: float | None = None, runs: int = 1) -> None:
    ratio = round(value / baseline, 4) if baseline else None
    rounded = None if baseline is None else round(baseline, 4)
    line = {"name": f"engine.{name}", "value": round(value, 4), "unit": unit, "baseline": rounded}
    print(json.dumps({**line, "ratio": ratio, "runs": runs}), flush=True)


class Observer:
    """Notes what the driver is told, and when. seen: at the first and at the last finished unit, what `sample` says."""

    def __init__(self, sample: Callable[[], dict[str, float]] = dict):
        self.finishes: list[float] = []
        self.handed = 0.0
        self.seen: list[dict[str, float]] = []
        self._sample = sample
        self._expected = 0

    def planned(self, config: Config, done: Done) -> None:
        self._expected = config.dialogues // config.unit_size

    def writing(self, dialogues: int) -> None: ...
    def wrote(self, unit: int, seconds: float) -> None: ...
    def written(self, progress: TextProgress) -> None: ...
    def compared(self, done: int, total: int) -> None: ...
    def progress(self, studios: list[Progress]) -> None: ...

    def workers(self, writers: Pool, studios: Pool) -> None:
        if not self.handed and writers.units + studios.units:
            self.handed = time.time()

    def finished(self, manifest: Manifest, progress: Progress) -> None:
        self.finishes.append(time.time())
        if len(self.finishes) in (1, self._expected):
            self.seen.append(self._sample())

    def trouble(self, message: str) -> None:
        raise RuntimeError(message)


def configure(root: Path, units: int, unit_size: int, *settings: str) -> Config:
    """A run on sleeping models, whose text is there and has only to be taken."""
    rows = root / "rows.jsonl"
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), TURNS, strict=True)]
    rows.write_text(json.dumps({"messages": messages}) + "\n")
    lines = [
        f"dialogues={units * unit_size}",
        f"unit_size={unit_size}",
        "languages={en: 1}",
        "splits={train: 1}",
        f"sources={{rows: {{kind: dialogues, data: {json.dumps(str(rows))}, license: CC0-1.0, laps: 100000000}}}}",
        "text.converse.mode=none",
        "tts.engines={kokoro: {kind: 'sleeping:build_tts'}}",
        "asr.engine=sleeping:build_asr",
        "quality.engine=none",
        "judge={mode: score_only}",
        "audio.trim=level",
        "engine.writers=1",
    ]
    return load_config("quickstart", [*lines, *settings])


def use(root: Path, name: str, studios: int, together: int, seconds: float, waves: int) -> None:
    """The share of their time that slots spend in stages. A unit has two dialogues and sleeps for about `seconds`."""
    sleeping.settle(root / "calls", speak=seconds * 0.3, listen=seconds * 0.2)
    slots = studios * together
    units = (waves + 2) * slots
    keys = {"studios": studios, "studio_cpus": 0.001, "studio_units": together}
    config = configure(root, units, 2, *(f"engine.{key}={value}" for key, value in keys.items()))
    observer = Observer()
    began = time.time()
    run(config, root / name, observer)
    calls = sleeping.calls(root / "calls")
    if len(calls) != CALLS * units:
        raise RuntimeError(f"{len(calls)} calls of models in {units} units: something was done twice")
    if name == "2":
        tell("first", min(observer.handed, calls[0].start) - began, "s, baseline is the aim", 2.0)
        tell("first_spoken", calls[0].start - began, "s, baseline is the aim", 2.0)
    by_studio: dict[int, list[float]] = {}
    by_thread: dict[tuple[int, int], list[sleeping.Call]] = {}
    for call in calls:
        by_studio.setdefault(call.pid, []).append(call.start)
        by_thread.setdefault((call.pid, call.thread), []).append(call)
    # The first units of a studio are its start-up: what is imported late, and tables that are made at first use.
    start = max(starts[CALLS * together] for starts in by_studio.values())
    end = observer.finishes[units - slots - 1]
    # A thread has one unit after the other, so these spans of a slot never overlap.
    spans = [
        (own[place].start, own[place + CALLS - 1].end)
        for own in by_thread.values()
        for place in range(0, len(own), CALLS)
    ]
    share = sum(max(0.0, min(last, end) - max(first, start)) for first, last in spans) / (slots * (end - start))
    tell(f"use.{name}", share, "share, baseline is the aim", 0.95)


def plain_loop(job: Job) -> float:
    """CPU seconds a dialogue of the stages without an engine, the first unit left out."""
    drawing = Draw(job.config, job.folder)

    async def loop() -> float:
        studio, held = open_studio(job)
        async with open_text(job) as text:
            with held:
                for unit in plan_units(job.config):
                    if unit.number == 1:
                        before = time.process_time()
                    drawing.ensure(unit)
                    await text.run(unit)
                    studio.run(unit)
                return time.process_time() - before

    return asyncio.run(loop()) / (job.config.dialogues - job.config.unit_size)


def tree_cpu() -> dict[str, float]:
    """CPU seconds of the driver with the actors, and of Ray's other processes."""
    found = {"ours": time.process_time(), "daemons": 0.0}
    for process in psutil.Process().children(recursive=True):
        try:
            times, title = process.cpu_times(), "".join(process.cmdline()[:1])
        except psutil.Error:  # it has ended since it was listed
            continue
        found["ours" if title.startswith("ray::") else "daemons"] += times.user + times.system
    return found


def cpu(root: Path, units: int, runs: int) -> None:
    """Milliseconds a dialogue: the plain loop beside both engines, in turn."""
    sums = dict.fromkeys(("loop", "local", "ours", "daemons"), 0.0)
    for turn in range(runs):
        sleeping.settle(root / "calls", burn=0.005)
        config = configure(root, units, UNIT_SIZE, "engine.studios=1")
        dialogues = config.dialogues - config.unit_size
        job = make_job(config, root / f"loop{turn}")
        freeze(job)
        sums["loop"] += plain_loop(job)
        for kind in ("local", "ray"):
            observer = Observer(tree_cpu)
            own = config.model_copy(update={"engine": config.engine.model_copy(update={"kind": kind})})
            run(own, root / f"{kind}{turn}", observer)
            first, last = observer.seen
            if kind == "local":
                sums["local"] += (last["ours"] - first["ours"]) / dialogues
            else:
                for name in first:
                    sums[name] += (last[name] - first[name]) / dialogues
    mean = {name: value / runs * 1000 for name, value in sums.items()}
    tell("local.cpu", mean["local"], "cpu_ms/dialogue", mean["loop"], runs)
    tell("ray.cpu", mean["ours"], "cpu_ms/dialogue", mean["loop"], runs)
    tell("ray.daemons", mean["daemons"], "cpu_ms/dialogue", runs=runs)


def writer(samples: int, runs: int) -> None:
    """Publishing beside the least that makes a tar of the same members, and the least that knows its SHA-256."""
    for name, bench in (("writer", Bench(samples)), ("writer_long", Bench(samples // 2, seconds=7.7))):
        rounds = []
        for _ in range(runs + 1):
            with tempfile.TemporaryDirectory() as folder:  # gone after each: a full page cache costs the next one
                rounds.append(_publish(bench, Path(folder)))
        # In the first of them is what is imported at first use.
        ours, bare, hashed = (statistics.median(times) / len(bench.encoded) for times in zip(*rounds[1:], strict=True))
        tell(name, 1 / ours, "samples/cpu_s", 1 / bare, runs)
        tell(f"{name}_hashed", 1 / ours, "samples/cpu_s", 1 / hashed, runs)


def _publish(bench: Bench, root: Path) -> tuple[float, float, float]:
    """CPU seconds: publishing, the bare tars, and those with their SHA-256."""
    folder, tars = bench.prepare(root / "run"), root / "bare"
    tars.mkdir()
    start = time.process_time()
    bench.write(folder)
    written = time.process_time()
    paths = [_bare_tar(bench, unit, tars) for unit in bench.units]
    made = time.process_time()
    for path in paths:
        sha256_file(path)
    return written - start, made - written, time.process_time() - written


def _bare_tar(bench: Bench, unit: Unit, folder: Path) -> Path:
    path = folder / f"{unit.number}.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for plan in unit.dialogues:
            for suffix, data in bench.encoded[plan.id].members():
                info = tarfile.TarInfo(f"{plan.id}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def large_config(root: Path, units: int) -> Config:
    sleeping.settle(root / "calls")
    return configure(root, units, UNIT_SIZE, "engine.kind=local")


def grow(root: Path, units: int) -> None:
    """A finished run of many units: each has a manifest of its own; text, shard and index are those of the first."""
    small = Bench(UNIT_SIZE)
    first = small.prepare(root / "small")
    small.write(first)
    [manifest] = first.manifests()
    config = large_config(root, units)
    folder = RunFolder(root / "large")
    freeze(make_job(config, folder.root))
    text = manifest.model_dump_json() + "\n"
    for unit in plan_units(config):
        for place in (folder.text, folder.rows):
            _link(first.text(0), place(unit.number), unit.number)
        for path in (RunFolder.shard, RunFolder.index):
            _link(path(first, 0, "train"), path(folder, unit.number, "train"), unit.number)
        name = folder.manifest(unit.number, "train")
        name.write_text(text.replace('"unit":0,', f'"unit":{unit.number},', 1).replace("000/unit-000000", name.stem))


def _link(source: Path, path: Path, number: int) -> None:
    """A hard link; a file may have 65,000 of them on some disks, so each thousand has a source of its own."""
    if number % 1000 == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
    else:
        os.link(path.with_name(path.name.replace(f"{number:06d}", f"{number - number % 1000:06d}")), path)


def resume(root: Path, units: int) -> None:
    """Make the large run, and take it up in processes of their own, whose time and memory are counted."""
    grow(root, units)
    for part in ("resume", "totals", "rerun"):
        command = [sys.executable, __file__, "--take-up", part, str(root), "--units", str(units)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures: dict[str, float] = json.loads(done.stdout)
        memory = figures.pop("memory")
        for name, seconds in figures.items():
            tell(name, seconds, "s" if part == "totals" else "s, baseline is the aim", None if part == "totals" else 20)
        tell(f"{part}_memory", memory, "MB, baseline is the aim", 1024)


def take_up(part: str, root: Path, units: int) -> dict[str, float]:
    """Seconds and CPU seconds. resume: what `run` does with a run of which nothing is remembered, until it has a unit
    to hand out, as if the last one were missing; totals, rerun: all that it does with a finished one, at first and then
    again."""
    config, folder, figures = large_config(root, units), RunFolder(root / "large"), {}
    if part == "resume":
        began = time.perf_counter()
        count = sum(1 for _ in plan_units(config))
        figures["plan"] = time.perf_counter() - began
    began, before = time.perf_counter(), time.process_time()
    if part == "resume":
        job = make_job(config, folder.root)
        with folder.driver_lock():
            folder.sweep()
            freeze(job)
            totals = Totals(folder, config)
            found = totals.begin().units
            Draw(config, folder).mend()
            left = [unit.number for unit in plan_units(config) if unit.number not in totals.finished]
        if count != units or left:
            raise RuntimeError(f"{count} units were planned and {len(left)} are left of {units}")
    else:
        found = run(config, folder.root, Observer()).units_finished
    figures |= {part: time.perf_counter() - began, f"{part}_cpu": time.process_time() - before}
    if found != units:
        raise RuntimeError(f"{found} of {units} units were found again")
    # Not ru_maxrss, which a process takes over from the one that started it.
    memory = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024
    return {**figures, "memory": memory}


def measure(options: argparse.Namespace, root: Path) -> None:
    import ray

    only: Iterable[str] = options.only
    if "writer" in only:
        writer(options.samples, options.runs)
    if "resume" in only:
        resume(root, options.units)
    if "use" in only or "cpu" in only:
        sleeping.settle(root / "calls")  # Ray's workers find the folder in the variable that is set here
        connect(load_config("quickstart").engine)
        try:
            if "use" in only:
                use(root, "2", 2, 1, 1.0, options.waves)
                if options.slots:
                    use(root, str(options.slots), options.slots // options.together, options.together, 8.0, 2)
            if "cpu" in only:
                cpu(root, options.cpu_units, options.runs)
        finally:
            ray.shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["use", "cpu", "writer", "resume"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--slots", type=int, default=64, help="simulated units at once; 0: leave them out")
    parser.add_argument("--together", type=int, default=8, help="of them in a studio, which is a process")
    parser.add_argument("--waves", type=int, default=10, help="units of each of two studios")
    parser.add_argument("--units", type=int, default=110_000, help="of the run that is taken up; a few GB of disk")
    parser.add_argument("--cpu-units", type=int, default=6)
    parser.add_argument("--samples", type=int, default=256, help=f"for the writer, a multiple of {UNIT_SIZE}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--take-up", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    # The workers find `sleeping` and the package where this process has them.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(HERE), os.environ.get("PYTHONPATH")]))
    try:
        if options.take_up:
            part, folder = options.take_up
            print(json.dumps(take_up(part, Path(folder), options.units)))
            return 0
        with tempfile.TemporaryDirectory() as folder:
            measure(options, Path(folder))
    except SpeechchatError as error:
        print(f"bench_engine: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
