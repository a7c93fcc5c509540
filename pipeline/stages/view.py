"""view: a finished unit → the same dialogues with the user's track behind a channel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline import audio
from pipeline.channel.chain import Chain, drawn_step, step_draw
from pipeline.channel.noise import Span
from pipeline.channel.recordings import tags_of
from pipeline.config import Config
from pipeline.dialogue import ChannelStep, Clip, ModelUse, Role, Sample, SampleTurn, derive_seed
from pipeline.errors import DataError
from pipeline.plan import Unit
from pipeline.shards.format import Encoded
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_rejects, read_unit
from pipeline.shards.store import RunFolder, publish
from pipeline.shards.unit_check import check_file
from pipeline.shards.writer import UnitWriter
from pipeline.view_sections import ViewConfig

VERSION = 1


@dataclass(frozen=True)
class ViewJob:
    """All that a worker needs to know to make a view, picklable.

    config: the run's. source, root: folders of the run and of the view, seen by every worker under the same paths.
    view: with the checksums of its files. digests: text, speech, judge of the view. models: its recordings.
    """

    config: Config
    source: Path
    root: Path
    name: str
    view: ViewConfig
    digests: dict[str, str]
    models: tuple[ModelUse, ...]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root)


@dataclass(frozen=True)
class Timed:
    """Tracks (int16) and turns on one timeline; duration in seconds. assistant: None if it is the clean one."""

    user: np.ndarray
    assistant: np.ndarray | None
    turns: tuple[SampleTurn, ...]
    duration: float


def make_unit(job: ViewJob, unit: Unit) -> Manifest:
    """Make and publish a unit of a view. Raises DataError for a unit of the run, or a recording, that is damaged."""
    with job.folder.worker_lock():
        return _make_unit(job, unit)


def _make_unit(job: ViewJob, unit: Unit) -> Manifest:
    source = RunFolder(job.source)
    manifest = source.load_manifest(unit.number, unit.split)
    if manifest is None:
        raise DataError(f"{job.source}: unit {unit.number} is not there any more")
    for fact in manifest.files:
        problem = check_file(source.root / fact.path, fact.bytes, fact.sha256)
        if problem:
            raise DataError(f"{problem}; see `speechchat verify {source.root}`")
    folder = job.folder
    if not folder.text(unit.number).exists():
        publish(folder.text(unit.number), source.text(unit.number).read_bytes())
    samples = {item.sample.key: item for item in read_unit(source, manifest)}
    rejects = {reject.id: reject for reject, _ in read_rejects(source, manifest)}
    talkers = _talkers(samples.values()) if "noise" in job.view.steps and job.view.noise.kind == "babble" else {}
    with UnitWriter(folder, unit) as writer:
        for planned in unit.dialogues:
            if planned.id in rejects:
                writer.reject(rejects[planned.id])
            else:
                writer.accept(view_sample(samples[planned.id], job, talkers))
        return writer.commit(job.digests)


def view_sample(clean: Encoded, job: ViewJob, talkers: dict[str, np.ndarray]) -> Encoded:
    """The sample as the view has it: the user's track behind the channel, the assistant's words untouched.

    talkers: speech of the unit's user voices, for babble; the sample's own voice is left out.
    """
    sample, view = clean.sample, job.view
    seed = derive_seed(sample.provenance.seed, "view", job.name)
    timed, taken = _timed(clean, view, seed, job.config.audio.tail)
    voices = {turn.voice for turn in sample.turns if turn.role == "user"}
    chain = Chain(
        track=audio.from_pcm(timed.user).astype(np.float64),
        rate=sample.user_rate,
        spans=[_span(turn, sample.user_rate) for turn in timed.turns if turn.role == "user"],
        view=view,
        seed=seed,
        ceiling=10 ** (job.config.audio.peak / 20),
        talkers=[talkers[voice] for voice in sorted(talkers) if voice not in voices],
    )
    track, steps = chain.run()
    provenance = sample.provenance.model_copy(
        update={"speech_digest": job.digests["speech"], "models": (*sample.provenance.models, *job.models)}
    )
    update = {
        "duration": timed.duration,
        "turns": timed.turns,
        "provenance": provenance,
        "view": job.name,
        "channel": (*taken, *steps),
    }
    return Encoded(
        sample.model_copy(update=update),
        audio.encode_flac(audio.to_pcm(track), sample.user_rate, tags_of(clean.user)),
        clean.assistant
        if timed.assistant is None
        else audio.encode_flac(timed.assistant, sample.assistant_rate, tags_of(clean.assistant)),
    )


def _timed(clean: Encoded, view: ViewConfig, seed: int, tail: float) -> tuple[Timed, tuple[ChannelStep, ...]]:
    sample = clean.sample
    user, _ = audio.decode(clean.user, f"{sample.key}.user.flac")
    timed = Timed(user, None, sample.turns, sample.duration)
    if "speed" not in view.steps:
        return timed, ()
    factors = view.speed.factors
    factor = factors[int(step_draw(seed, "speed").integers(len(factors)))]
    if factor != 1:
        assistant, _ = audio.decode(clean.assistant, f"{sample.key}.assistant.flac")
        timed = change_speed(sample, user, assistant, factor, tail)
    return timed, (drawn_step("speed", factor=factor),)


def change_speed(sample: Sample, user: np.ndarray, assistant: np.ndarray, factor: float, tail: float) -> Timed:
    """The user's turns `factor` times as fast, everybody's pauses as they were, to 5 ms or the grid of the rates.

    user, assistant: int16 tracks. Tempo and pitch change together (Ko et al. 2015). The assistant's turns are the same
    samples at other places. tail: seconds of silence after the last turn, at least.
    """
    rates: dict[Role, int] = {"user": sample.user_rate, "assistant": sample.assistant_rate}
    tracks: dict[Role, np.ndarray] = {"user": user, "assistant": assistant}
    grid = audio.START_GRID * math.lcm(*((audio.START_GRID * rate).denominator for rate in rates.values()))
    free = dict.fromkeys(rates, Fraction(0))  # until when each track is taken
    before = now = Fraction(0)  # the end of the turn before, then and now
    placed: list[tuple[Fraction, np.ndarray]] = []
    for turn in sample.turns:
        rate = rates[turn.role]
        first, last = _span(turn, rate)
        clip = tracks[turn.role][first:last]
        if turn.role == "user":
            clip = audio.to_pcm(audio.resample(Clip(audio.from_pcm(clip), round(rate * factor)), rate).audio)
        start = round((now + Fraction(first, rate) - before) / grid) * grid
        start = max(start, -(-free[turn.role] // grid) * grid)
        placed.append((start, clip))
        before, now = Fraction(last, rate), start + Fraction(len(clip), rate)
        free[turn.role] = now
    duration = -(-(max(free.values()) + Fraction(tail).limit_denominator(1000)) // audio.GRID) * audio.GRID
    laid = {role: np.zeros(int(duration * rate), np.int16) for role, rate in rates.items()}
    turns = []
    for turn, (start, clip) in zip(sample.turns, placed, strict=True):
        rate = rates[turn.role]
        first = int(start * rate)
        laid[turn.role][first : first + len(clip)] = clip
        end = start + Fraction(len(clip), rate)
        # As much faster as its clip has become shorter.
        pace = (float(end) - float(start)) / (turn.end - turn.start) if turn.end > turn.start else 1.0

        def moved(time: float, was: float = turn.start, now: float = float(start), pace: float = pace) -> float:
            return round(now + (time - was) * pace, 3)

        words = tuple(
            word.model_copy(update={"start": moved(word.start), "end": moved(word.end)}) for word in turn.words
        )
        turns.append(turn.model_copy(update={"start": float(start), "end": float(end), "words": words}))
    return Timed(laid["user"], laid["assistant"], tuple(turns), float(duration))


def _span(turn: SampleTurn, rate: int) -> Span:
    return round(turn.start * rate), round(turn.end * rate)


def _talkers(samples: Iterable[Encoded]) -> dict[str, np.ndarray]:
    """All that each user voice says in these samples, one turn after the other."""
    said: dict[str, list[np.ndarray]] = {}
    for encoded in samples:
        for voice, clip in _user_turns(encoded):
            said.setdefault(voice, []).append(clip)
    return {voice: np.concatenate(clips) for voice, clips in said.items()}


def _user_turns(encoded: Encoded) -> Iterator[tuple[str, np.ndarray]]:
    track, rate = audio.decode(encoded.user, f"{encoded.sample.key}.user.flac")
    for turn in encoded.sample.turns:
        if turn.role == "user":
            first, last = _span(turn, rate)
            yield turn.voice, audio.from_pcm(track[first:last])
