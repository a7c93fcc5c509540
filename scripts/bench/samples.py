"""Runs made without models, for the benches: long dialogues of plausible sizes, and a million of them."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Config
from pipeline.dialogue import Clip, Dialogue, PlannedDialogue, Role, Score, Source, Take, Transcript, Turn
from pipeline.engine.base import Job
from pipeline.engine.run import freeze
from pipeline.plan import Unit, plan_units
from pipeline.shards.format import Encoded
from pipeline.shards.index import PARQUET
from pipeline.shards.manifest import FileFact, Manifest
from pipeline.shards.store import RunFolder, publish
from pipeline.shards.writer import UnitWriter
from pipeline.stages.cast import Casting
from pipeline.stages.listen import Hearing
from pipeline.stages.pack import KeptTake, Origin, SpokenTurn, pack
from speakers import load_library

UNIT = 64
VARIANTS = 24
"""Dialogues that differ in more than their keys."""
LEVEL = 0.05
"""RMS of speech; FLAC packs it to about 11 bits a sample, as it does real speech of that level."""
_TEXT = "the train to the old harbour leaves at nine and takes a little less than an hour on a good day"
_WORDS = _TEXT.split()
_METRICS = ("wer", "cer", "mer", "logprob", "no_speech", "compression_ratio", "snr", "mos_sig", "mos_bak", "mos_ovr")
_ORIGIN = Origin("bench", dict.fromkeys(("text", "speech", "judge"), "0" * 16), ())


class Maker:
    """turns: the fewest and the most of a dialogue. seconds: the shortest and the longest turn. level: 0 makes silence,
    which is small."""

    def __init__(
        self,
        samples: int,
        turns: tuple[int, int] = (4, 6),
        seconds: tuple[float, float] = (3.0, 8.0),
        level: float = LEVEL,
    ):
        self.config = Config(dialogues=samples, unit_size=UNIT, languages={"en": 1}, splits={"train": 1})
        self._turns, self._seconds, self._level = turns, seconds, level
        casting = Casting(self.config, load_library())
        plans = (plan for unit in plan_units(self.config) for plan in unit.dialogues)
        self._variants = [self._make(plan, casting) for plan in islice(plans, min(VARIANTS, samples))]

    def run(self, root: Path) -> RunFolder:
        """A run of which all units are there."""
        folder = self.begin(root)
        for unit in plan_units(self.config):
            self.unit(folder, unit)
        return folder

    def begin(self, root: Path) -> RunFolder:
        freeze(Job(self.config, root, _ORIGIN))
        return RunFolder(root)

    def unit(self, folder: RunFolder, unit: Unit) -> Manifest:
        publish(folder.text(unit.number), b"\n")
        with UnitWriter(folder, unit) as writer:
            for plan in unit.dialogues:
                item = self._variants[plan.ordinal % len(self._variants)]
                writer.accept(replace(item, sample=item.sample.model_copy(update={"key": plan.id})))
            return writer.commit(_ORIGIN.digests)

    def _make(self, plan: PlannedDialogue, casting: Casting) -> Encoded:
        chance = np.random.default_rng(plan.ordinal)
        roles: list[Role] = ["user", "assistant"] * int(chance.integers(self._turns[0] // 2, self._turns[1] // 2 + 1))
        turns, spoken = [], []
        for role in roles:
            seconds = round(float(chance.uniform(*self._seconds)), 2)
            text = " ".join(islice(_cycle(int(chance.integers(9))), int(seconds * 2.7))).capitalize() + "."
            turns.append(Turn(role=role, written=text, spoken=text, author="llm"))
            rate = self.config.audio.user_rate if role == "user" else self.config.audio.assistant_rate
            clip = Clip(self._level * speech_like(int(seconds * rate), rate, chance), rate)
            scores = tuple(Score(name=name, value=round(float(chance.random()), 6)) for name in _METRICS)
            said = {"engine": "kokoro", "voice": "bench", "speed": 1.0, "transcript": text, "seconds": seconds}
            takes = tuple(
                Take(take=number, seed=number, error_rate=0.125, reason=reason, **said)
                for number, reason in enumerate(("words", "") if chance.random() < 0.1 else ("",))
            )
            hearing = Hearing(Transcript(text, -0.2, 0.01, 1.1), scores)
            spoken.append(SpokenTurn(KeptTake(clip, hearing, len(takes) - 1), takes))
        source = Source(name="bench", license="CC0-1.0", row=plan.id)
        dialogue = Dialogue(plan=plan, system="", source=source, turns=tuple(turns))
        return pack(dialogue, casting.cast(plan), spoken, _ORIGIN, self.config)


def _cycle(start: int) -> Iterator[str]:
    while True:
        yield from _WORDS[start:]
        start = 0


def speech_like(samples: int, rate: int, chance: np.random.Generator) -> np.ndarray:
    """float32 [samples] of RMS 1: noise with a spectrum that falls by 9 dB an octave above 300 Hz, in syllables."""
    spectrum = np.fft.rfft(chance.standard_normal(samples))
    spectrum /= 1 + (np.fft.rfftfreq(samples, 1 / rate) / 300) ** 1.5
    noise = np.fft.irfft(spectrum, samples)
    noise *= 0.1 + np.sin(np.pi * 4.2 * np.arange(samples) / rate) ** 2
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def long_run(root: Path, samples: int, real: Collection[int]) -> RunFolder:
    """A run of so many dialogues, in units, every index of its own. The tars are one and the same file, but those
    of the units `real`, which are their own."""
    maker = Maker(samples, seconds=(0.4, 1.2), level=0.0)
    folder = maker.begin(root)
    units = list(plan_units(maker.config))
    others = [unit for unit in units if unit.number not in real]
    for unit in [*(unit for unit in units if unit.number in real), others[0]]:
        manifest = maker.unit(folder, unit)
    first = manifest.unit
    table, tar = pq.read_table(folder.index(first, "train"), partitioning=None), folder.shard(first, "train")

    def copy(unit: Unit) -> None:
        number = unit.number
        keys = pa.array([plan.id for plan in unit.dialogues])
        path, index = folder.shard(number, "train"), folder.index(number, "train")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(tar, path)
        buffer = io.BytesIO()
        pq.write_table(table.set_column(0, "key", keys), buffer, **PARQUET)
        size, digest = publish(index, buffer.getvalue())
        fact = manifest.file(".tar")
        assert fact is not None
        files = (
            fact.model_copy(update={"path": folder.relative(path)}),
            FileFact(path=folder.relative(index), bytes=size, sha256=digest),
        )
        line = manifest.model_copy(update={"unit": number, "files": files}).model_dump_json() + "\n"
        publish(folder.manifest(number, "train"), line.encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copy, others[1:]))
    return folder
