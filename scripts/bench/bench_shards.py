"""What shards cost: samples per CPU second for writing and verifying, beside the least that could do it. (What
streaming costs: bench_stream.py.)

    python scripts/bench/bench_shards.py [--samples 512] [--runs 5]

The samples are synthetic: dialogues of four turns and 8 s, their audio made beforehand, in units of 64. Everything is
done once in each of `runs` rounds, in a temporary folder. One JSON line a figure, medians over the rounds, in samples
per CPU second (user + system, of this process or of sha256sum); ratio = value / baseline:

    shards.write           units published (tar, index, manifest; hashed, synced, read back); baseline: webdataset's
                           TarWriter, which only writes the tar
    shards.verify          the checks of `speechchat verify` in one process; baseline: sha256sum on the same files
    shards.verify_share    the same; baseline: the hashing alone, by the library that verify uses (OpenSSL), which where
                           the CPU has instructions for it takes a fraction of what an older sha256sum does
    shards.verify_decode   those of `speechchat verify --decode`; baseline: sha256sum and soundfile on every track
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import webdataset as wds

from pipeline.config import Config
from pipeline.dialogue import (
    Clip,
    Dialogue,
    PlannedDialogue,
    Role,
    Score,
    Source,
    Take,
    TextLine,
    Transcript,
    Turn,
)
from pipeline.engine.base import Job
from pipeline.engine.run import freeze, write_totals
from pipeline.engine.verifying import verify_run
from pipeline.errors import SpeechchatError
from pipeline.plan import plan_units
from pipeline.shards.disk import sha256_file
from pipeline.shards.store import RunFolder, publish
from pipeline.shards.writer import UnitWriter
from pipeline.stages.cast import Casting
from pipeline.stages.listen import Hearing
from pipeline.stages.pack import KeptTake, Origin, SpokenTurn, pack
from speakers import load_library

UNIT_SIZE = 64
VARIANTS = 16
"""Tracks that differ; the records all do."""
TEXTS: dict[Role, str] = {
    "user": "What is the fastest way to the station?",
    "assistant": "Take the second street on the left, it is five minutes on foot.",
}


METRICS = ("wer", "cer", "logprob", "no_speech", "compression_ratio", "mos_sig", "mos_bak", "mos_ovr")
ROLES: tuple[Role, ...] = ("user", "assistant", "user", "assistant")


class Bench:
    """A synthetic run of `samples` dialogues in memory, and what can be done with it on disk. seconds: of a turn."""

    def __init__(self, samples: int, seconds: float = 1.7):
        self.seconds_of_turn = seconds
        self.config = Config(dialogues=samples, unit_size=UNIT_SIZE, languages={"en": 1}, splits={"train": 1})
        self.origin = Origin("bench", dict.fromkeys(("text", "speech", "judge"), "0" * 16), ())
        self.units = list(plan_units(self.config))
        casting = Casting(self.config, load_library())
        spoken = [[self._speak(number, role) for role in ROLES] for number in range(VARIANTS)]
        self.dialogues = {plan.id: _dialogue(plan) for unit in self.units for plan in unit.dialogues}
        self.encoded = {
            key: pack(item, casting.cast(item.plan), spoken[item.plan.ordinal % VARIANTS], self.origin, self.config)
            for key, item in self.dialogues.items()
        }

    def _speak(self, seed: int, role: Role) -> SpokenTurn:
        """A turn of a pulsing tone in noise, which FLAC packs about as tightly as speech."""
        rate = self.config.audio.user_rate if role == "user" else self.config.audio.assistant_rate
        seconds = np.arange(int(self.seconds_of_turn * rate)) / rate
        noise = np.random.default_rng(seed).standard_normal(len(seconds))
        tone = np.sin(2 * np.pi * (110 + 7 * seed) * seconds) * np.sin(np.pi * 4 * seconds) ** 2
        clip = Clip((0.2 * tone + 0.003 * noise).astype(np.float32), rate)
        scores = tuple(Score(name=name, value=0.125) for name in METRICS)
        said = {"engine": "kokoro", "voice": "bench", "speed": 1.0, "seed": seed, "transcript": TEXTS[role]}
        take = Take(take=0, **said, error_rate=0.125, reason="", seconds=self.seconds_of_turn)
        return SpokenTurn(KeptTake(clip, Hearing(Transcript(TEXTS[role], -0.2, 0.01, 1.1), scores), 0), (take,))

    def prepare(self, root: Path) -> RunFolder:
        """A run of which all is there but the speech."""
        folder = RunFolder(root)
        freeze(Job(self.config, root, self.origin))
        for unit in self.units:
            lines = [
                TextLine(plan=plan, dialogue=self.dialogues[plan.id], reject=None, failed=()).model_dump_json() + "\n"
                for plan in unit.dialogues
            ]
            publish(folder.text(unit.number), "".join(lines).encode())
        return folder

    def write(self, folder: RunFolder) -> None:
        for unit in self.units:
            with UnitWriter(folder, unit) as writer:
                for plan in unit.dialogues:
                    writer.accept(self.encoded[plan.id])
                writer.commit(self.origin.digests)

    def write_bare(self, folder: Path) -> None:
        for unit in self.units:
            with wds.TarWriter(str(folder / f"{unit.number:06d}.tar")) as tar:
                for plan in unit.dialogues:
                    tar.write({"__key__": plan.id, **dict(self.encoded[plan.id].members())})

    def verify(self, folder: RunFolder, decode: bool) -> None:
        *_, state = verify_run(folder, self.config, decode, self.origin.digests, workers=1)
        if not state.ok or state.samples != len(self.encoded):
            raise RuntimeError(f"the bench made a run that does not verify: {state}")

    def decode_bare(self) -> None:
        for item in self.encoded.values():
            for data in (item.user, item.assistant):
                sf.read(io.BytesIO(data), dtype="int16")

    def seconds(self, root: Path) -> dict[str, float]:
        """One round, CPU seconds by task."""
        folder = self.prepare(root / "run")
        bare = root / "bare"
        bare.mkdir()
        cpu = {"write": _cpu(lambda: self.write(folder)), "write_bare": _cpu(lambda: self.write_bare(bare))}
        write_totals(folder, self.config)
        files = [str(folder.root / fact.path) for manifest in folder.manifests() for fact in manifest.files]
        tasks: dict[str, Callable[[], object]] = {
            "verify": lambda: self.verify(folder, decode=False),
            "verify_decode": lambda: self.verify(folder, decode=True),
            "sha256sum": lambda: subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL),
            "hash": lambda: [sha256_file(Path(name)) for name in files],
            "soundfile": self.decode_bare,
        }
        return cpu | {name: _cpu(task) for name, task in tasks.items()}


def _dialogue(plan: PlannedDialogue) -> Dialogue:
    turns = tuple(Turn(role=role, written=TEXTS[role], spoken=TEXTS[role], author="source") for role in ROLES)
    return Dialogue(plan=plan, system="", source=Source(name="bench", license="CC0-1.0", row=plan.id), turns=turns)


def _cpu(task: Callable[[], object]) -> float:
    """CPU seconds of a task, with the processes that it waits for."""
    before = _used()
    task()
    return _used() - before


def _used() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def report(samples: int, rounds: Sequence[dict[str, float]]) -> None:
    median = {name: statistics.median(seconds[name] for seconds in rounds) for name in rounds[0]}
    median["hash_and_decode"] = median["sha256sum"] + median["soundfile"]
    figures = {
        "write": ("write", "write_bare"),
        "verify": ("verify", "sha256sum"),
        "verify_share": ("verify", "hash"),
        "verify_decode": ("verify_decode", "hash_and_decode"),
    }
    for name, (ours, other) in figures.items():
        line = {
            "name": f"shards.{name}",
            "value": round(samples / median[ours], 1),
            "unit": "samples/cpu_s",
            "baseline": round(samples / median[other], 1),
            "ratio": round(median[other] / median[ours], 4),
            "runs": len(rounds),
        }
        print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512, help=f"a multiple of {UNIT_SIZE}")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        bench = Bench(options.samples)
        rounds = []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(bench.seconds(Path(folder)))
        report(options.samples, rounds)
    except SpeechchatError as error:
        print(f"bench_shards: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
