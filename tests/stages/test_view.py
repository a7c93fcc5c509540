"""A sample behind a channel: the user's track is another, and nothing else."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import correlate

from pipeline import audio
from pipeline.dialogue import ModelUse, Sample, SampleTurn
from pipeline.engine.run import load_frozen
from pipeline.shards.format import Encoded, sample_json
from pipeline.shards.reader import read_unit
from pipeline.shards.store import RunFolder
from pipeline.stages.view import ViewJob, change_speed, view_sample
from pipeline.view_sections import BandConfig, CodecConfig, NoiseConfig, RirConfig, SpeedConfig, ViewConfig
from tests.synthetic import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("view") / "run", dialogues=4, unit_size=4, rejected=0)


@pytest.fixture(scope="module")
def samples(run: RunFolder) -> list[Encoded]:
    return [item for manifest in run.manifests() for item in read_unit(run, manifest)]


def job(run: RunFolder, name: str, view: ViewConfig) -> ViewJob:
    config, frozen = load_frozen(run)
    digests = {**frozen.digests, "speech": "f" * 16}
    noise = ModelUse(role="noise", name="3 recordings", sha256="", license="CC0-1.0")
    return ViewJob(config, run.root, run.root / "views" / name, name, view, digests, (noise,))


def tracks(item: Encoded) -> tuple[np.ndarray, np.ndarray]:
    return audio.decode(item.user)[0], audio.decode(item.assistant)[0]


def cut(turn: SampleTurn, track: np.ndarray, rate: int) -> np.ndarray:
    return track[round(turn.start * rate) : round(turn.end * rate)]


def user_speech(item: Encoded, track: np.ndarray) -> np.ndarray:
    sample = item.sample
    return np.concatenate([cut(turn, track, sample.user_rate) for turn in sample.turns if turn.role == "user"])


def decibels(track: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(track.astype(np.float64) ** 2)))


def plain(sample: Sample) -> dict[str, object]:
    """What a view leaves as it is."""
    data = sample.model_dump(exclude={"view", "channel", "duration", "provenance"})
    return {**data, "turns": [turn.model_dump(exclude={"start", "end"}) for turn in sample.turns]}


def test_noise_is_added_to_the_users_track_at_its_ratio(run: RunFolder, samples: list[Encoded]) -> None:
    work = job(run, "noisy", ViewConfig(steps=("noise",), noise=NoiseConfig(snr=(5, 15))))
    ratios = []
    for clean in samples:
        seen = view_sample(clean, work, {})
        (step,) = seen.sample.channel
        (snr,) = [item.value for item in step.parameters]
        ratios.append(snr)
        dry, wet = tracks(clean)[0], tracks(seen)[0]
        noise = wet.astype(np.float64) - dry
        measured = decibels(user_speech(clean, dry)) - decibels(user_speech(clean, noise))
        assert measured == pytest.approx(snr, abs=0.1) and 5 <= snr <= 15
        pause = noise[round(clean.sample.turns[0].end * 16000) : round(clean.sample.turns[1].end * 16000)]
        assert decibels(pause) == pytest.approx(decibels(user_speech(clean, noise)), abs=3)
        assert seen.assistant == clean.assistant
        assert seen.sample.turns == clean.sample.turns and seen.sample.duration == clean.sample.duration
        assert plain(seen.sample) == plain(clean.sample)
        assert (seen.sample.view, clean.sample.view, clean.sample.channel) == ("noisy", "", ())
        assert seen.sample.provenance.models == (*clean.sample.provenance.models, *work.models)
        assert seen.sample.provenance.speech_digest == "f" * 16
        assert Sample.model_validate_json(sample_json(seen.sample)) == seen.sample
    assert len(set(ratios)) == len(samples)


def test_what_is_drawn_hangs_on_the_dialogue_and_the_name_of_the_view(run: RunFolder, samples: list[Encoded]) -> None:
    view = ViewConfig(steps=("noise", "codec"), codec=CodecConfig(names=("mulaw", "gsm", "opus")))
    first, again = (view_sample(samples[1], job(run, "a", view), {}) for _ in range(2))
    assert first == again
    other = view_sample(samples[1], job(run, "b", view), {})
    assert first.sample.channel != other.sample.channel and first.user != other.user


def test_babble_is_made_of_other_users(run: RunFolder, samples: list[Encoded]) -> None:
    view = ViewConfig(steps=("noise",), noise=NoiseConfig(kind="babble", snr=(0, 0), voices=2))
    own = samples[0].sample.turns[0].voice
    time = np.arange(16000) / 16000
    talkers = {own: np.sin(2 * np.pi * 5000 * time), "else": np.sin(2 * np.pi * 6500 * time)}
    seen = view_sample(samples[0], job(run, "crowd", view), talkers)
    noise = tracks(seen)[0].astype(np.float64) - tracks(samples[0])[0] * 10 ** (_limited(seen) / 20)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / 16000)
    assert spectrum[np.abs(hertz - 6500) < 50].sum() > 1000 * spectrum[np.abs(hertz - 5000) < 50].sum()
    assert seen.sample.channel[0].kind == "babble"


def _limited(seen: Encoded) -> float:
    return sum(item.value for step in seen.sample.channel if step.name == "limit" for item in step.parameters)


def noisy(encoded: Encoded) -> Encoded:
    """The user's turns as bursts of noise: a tone is like itself a period later, noise only where it is."""
    track = tracks(encoded)[0]
    noise = np.random.default_rng(0).normal(0, 3000, len(track)).astype(np.int16)
    return dataclasses.replace(
        encoded, user=audio.encode_flac(np.where(track, noise, 0).astype(np.int16), encoded.sample.user_rate)
    )


@pytest.mark.parametrize(
    "view",
    [
        ViewConfig(steps=("rir",), rir=RirConfig(rt60=(0.3, 0.4), distance=(0.5, 1.5))),
        ViewConfig(steps=("band", "codec"), band=BandConfig(), codec=CodecConfig(names=("gsm",))),
        ViewConfig(steps=("codec",), codec=CodecConfig(names=("mp3",))),
    ],
    ids=["room", "phone", "mp3"],
)
def test_nothing_moves_in_time(run: RunFolder, samples: list[Encoded], view: ViewConfig) -> None:
    if "rir" in view.steps:
        pytest.importorskip("pyroomacoustics")
    clean = noisy(samples[0])
    dry = tracks(clean)[0].astype(np.float64)
    wet = tracks(view_sample(clean, job(run, "x", view), {}))[0].astype(np.float64)
    assert len(dry) == len(wet) and not np.array_equal(dry, wet)
    assert abs(int(np.argmax(correlate(wet, dry))) - (len(dry) - 1)) <= 16


def gaps(sample: Sample) -> list[float]:
    ends = [0.0, *(turn.end for turn in sample.turns)]
    return [turn.start - end for turn, end in zip(sample.turns, ends, strict=False)]


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_lays_out_the_timeline_anew(run: RunFolder, samples: list[Encoded], factor: float) -> None:
    view = ViewConfig(steps=("speed",), speed=SpeedConfig(factors=(factor,)))
    for clean in samples:
        seen = view_sample(clean, job(run, "fast", view), {})
        old, new = clean.sample, seen.sample
        (dry, said), (wet, says) = tracks(clean), tracks(seen)
        assert new.duration * 12.5 == pytest.approx(round(new.duration * 12.5), abs=1e-9)
        assert (len(wet), len(says)) == (round(new.duration * 16000), round(new.duration * 24000))
        assert gaps(new) == pytest.approx(gaps(old), abs=0.0051)
        assert new.duration - new.turns[-1].end >= 0.2
        silent = {"user": wet.copy(), "assistant": says.copy()}
        for before, after in zip(old.turns, new.turns, strict=True):
            rate = 16000 if after.role == "user" else 24000
            assert after.start * rate == pytest.approx(round(after.start * rate), abs=1e-6)
            silent[after.role][round(after.start * rate) : round(after.end * rate)] = 0
            if after.role == "assistant":
                assert np.array_equal(cut(before, said, 24000), cut(after, says, 24000))
            else:
                ratio = (before.end - before.start) / (after.end - after.start)
                assert ratio == pytest.approx(factor, rel=1e-3)
                assert peak(cut(after, wet, 16000)) / peak(cut(before, dry, 16000)) == pytest.approx(factor, rel=0.03)
        assert not np.any(silent["user"]) and not np.any(silent["assistant"])
        assert [(step.name, step.parameters[0].value) for step in new.channel] == [("speed", factor)]
        assert plain(new) == plain(old)


def peak(clip: np.ndarray) -> float:
    """The strongest frequency in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(clip))) * 16000 / len(clip))


def test_speed_one_changes_nothing(run: RunFolder, samples: list[Encoded]) -> None:
    view = ViewConfig(steps=("speed",), speed=SpeedConfig(factors=(1.0,)))
    seen = view_sample(samples[0], job(run, "same", view), {})
    assert (seen.user, seen.assistant, seen.sample.turns) == (
        samples[0].user,
        samples[0].assistant,
        samples[0].sample.turns,
    )


def test_the_tags_of_the_tracks_stay(run: RunFolder, samples: list[Encoded]) -> None:
    tags = {"comment": "synthetic speech", "title": "a"}
    tagged = dataclasses.replace(
        samples[0],
        user=audio.encode_flac(tracks(samples[0])[0], 16000, tags),
        assistant=audio.encode_flac(tracks(samples[0])[1], 24000, tags),
    )
    view = ViewConfig(steps=("speed",), speed=SpeedConfig(factors=(1.1,)))
    seen = view_sample(tagged, job(run, "x", view), {})
    for track in (seen.user, seen.assistant):
        with sf.SoundFile(io.BytesIO(track)) as file:
            assert tags.items() <= file.copy_metadata().items()


def test_an_interruption_stays_one(samples: list[Encoded]) -> None:
    """The assistant begins before the user has ended: it still does so, by as much, on two tracks."""
    sample = samples[0].sample
    first, second = sample.turns[:2]
    early = second.model_copy(update={"start": first.end - 0.3, "end": first.end - 0.3 + second.end - second.start})
    user, said = tracks(samples[0])
    length = round((second.end - second.start) * 24000)
    assistant = np.zeros_like(said)
    place = round(early.start * 24000)
    assistant[place : place + length] = cut(second, said, 24000)
    timed = change_speed(sample.model_copy(update={"turns": (first, early)}), user, assistant, 1.1, 0.2)
    assert timed.turns[1].start - timed.turns[0].end == pytest.approx(-0.3, abs=0.0051)
    assert timed.assistant is not None
    assert np.array_equal(cut(timed.turns[1], timed.assistant, 24000), cut(second, said, 24000))


def test_a_job_travels(run: RunFolder) -> None:
    """To a worker in another process."""
    import pickle

    work = job(run, "x", ViewConfig(steps=("noise",), noise=NoiseConfig(folder=Path("n"), license="CC0-1.0")))
    assert dataclasses.asdict(pickle.loads(pickle.dumps(work))) == dataclasses.asdict(work)
