"""The same unit handed to two workers, because the first was taken for dead: one of them makes it, and never both."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, TtsEngineConfig, load_config
from pipeline.dialogue import Clip, ModelUse
from pipeline.engine.base import make_job, open_studio, open_text
from pipeline.engine.run import freeze, load_frozen, run
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from pipeline.stages.draw import Draw
from pipeline.voice import SpeechRequest, Unsaid
from tests import fakes
from tests.fakes import FakeLLM, Silent, config_file, tree

pytestmark = pytest.mark.faults

_NUMBERS = itertools.count(1)


class Chancy(fakes.FaultySynthesizer):
    """Speaks at another volume than every other one: what two of them made cannot be mixed up."""

    deterministic = False

    def __init__(self, slowness: float):
        super().__init__(slowness)
        self._volume = 1 / next(_NUMBERS)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        clips = super().synthesize(requests)
        return [clip if isinstance(clip, Unsaid) else Clip(clip.audio * self._volume, clip.rate) for clip in clips]


def build_tts(section: TtsEngineConfig) -> Chancy:
    return Chancy(0.05)


def models(section: TtsEngineConfig) -> tuple[ModelUse, ...]:
    return fakes.models(section)


@pytest.fixture
def config(tmp_path: Path, llm: FakeLLM, corpus: Path) -> Config:
    changes: dict[str, Any] = {
        "dialogues": 2,
        "engine__kind": "local",
        "tts__engines__kokoro__kind": "tests.faults.test_twice:build_tts",
        "asr__engine": "tests.fakes:build_deaf_asr",
        "judge__limits": {"en": {}},
    }
    return load_config(str(config_file(tmp_path / "run.yaml", llm.base_url, corpus, **changes)))


def test_a_unit_is_spoken_by_one_of_two_studios(tmp_path: Path, config: Config) -> None:
    """The second comes while the first has a dialogue in its shard, waits, and finds the unit there."""
    out = tmp_path / "run"
    run(config, out, Silent(), until="write")
    job, [unit] = make_job(config, out), plan_units(config)
    made: dict[int, Any] = {}

    def work(number: int) -> None:
        studio, held = open_studio(job)
        with held:
            made[number] = studio.run(unit)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    threads[0].start()
    temporary = job.folder.shard(0, "train").with_name("unit-000000.tar.tmp")
    deadline = time.monotonic() + 60
    while not (temporary.exists() and temporary.stat().st_size):
        assert threads[0].is_alive() and time.monotonic() < deadline
        time.sleep(0.001)
    threads[1].start()
    for thread in threads:
        thread.join()
    manifests = [manifest for manifest, _ in made.values()]
    assert len(manifests) == 2 and manifests[0] == manifests[1] == job.folder.load_manifest(0, "train")
    assert sorted(progress.done for _, progress in made.values()) == [0, 2]
    run(config, out, Silent())
    folder = RunFolder(out)
    *_, state = verify(folder, load_frozen(folder)[0], decode=True)
    assert state.ok


def test_a_unit_is_written_by_one_of_two_writers(tmp_path: Path, config: Config, llm: FakeLLM) -> None:
    """Nobody is asked twice either."""
    job, [unit] = make_job(config, tmp_path / "run"), plan_units(config)
    job.folder.logs.mkdir(parents=True)
    freeze(job)
    Draw(config, job.folder).ensure(unit)
    llm.delay = 0.3

    async def both() -> list[bool]:
        async with AsyncExitStack() as stack:
            writers = [await stack.enter_async_context(open_text(job)) for _ in range(2)]
            return await asyncio.gather(*(writer.run(unit) for writer in writers))

    assert sorted(asyncio.run(both())) == [False, True]
    texts = [json.loads(line) for line in job.folder.text(0).read_text("utf-8").splitlines()]
    assert [text["plan"]["id"] for text in texts] == [planned.id for planned in unit.dialogues]
    assert len(llm.requests) == 2
    run(config, tmp_path / "run", Silent())
    run(config, tmp_path / "undisturbed", Silent(), until="write")
    made, undisturbed = tree(tmp_path / "run"), tree(tmp_path / "undisturbed")
    assert made["dialogues/000/unit-000000.jsonl"] == undisturbed["dialogues/000/unit-000000.jsonl"]
