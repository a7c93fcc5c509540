"""The acoustic channel, measured: levels, bands, decay, and that nothing moves in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from scipy.signal import correlate, welch

from pipeline.channel.chain import Chain, check_view
from pipeline.channel.codecs import bandpass, transcode
from pipeline.channel.noise import add_noise, babble, looped, pink, power, white
from pipeline.channel.recordings import list_recordings, read_recording
from pipeline.channel.rooms import Room, draw_room, measured, reverberate, simulate
from pipeline.dialogue import ChannelStep
from pipeline.errors import ConfigError, DataError
from pipeline.view_sections import (
    BandConfig,
    CodecConfig,
    CodecName,
    GainConfig,
    NoiseConfig,
    RirConfig,
    ViewConfig,
)

RATE = 16000
SPANS = ((2000, 20000), (30000, 45000))


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def speech(length: int = 48000, rate: int = RATE) -> np.ndarray:
    """Noise in the band of a voice that comes and goes in SPANS, four times a second, at an amplitude of 0.1."""
    voice = bandpass(draw(1).standard_normal(length), rate, 200, min(3000, 0.4 * rate))
    envelope = np.sin(np.pi * 4 * np.arange(length) / rate) ** 2
    mask = np.zeros(length)
    for first, last in SPANS:
        mask[first:last] = 1
    return 0.1 * voice * envelope * mask


def lag(track: np.ndarray, clean: np.ndarray) -> int:
    """Samples by which the track comes later, by the peak of the cross-correlation."""
    return int(np.argmax(correlate(track, clean, "full"))) - (len(clean) - 1)


def run(view: ViewConfig, seed: int = 0, **more: object) -> tuple[np.ndarray, tuple[ChannelStep, ...]]:
    return Chain(speech(), RATE, SPANS, view, seed, 0.9, **more).run()  # type: ignore[arg-type]


def drawn(step: ChannelStep) -> dict[str, float]:
    return {item.name: item.value for item in step.parameters}


def band_power(track: np.ndarray, low: float, high: float, rate: int = RATE) -> float:
    """dB."""
    frequencies, density = welch(track, rate, nperseg=1024)
    return 10 * float(np.log10(np.mean(density[(frequencies >= low) & (frequencies <= high)])))


@pytest.mark.parametrize("snr", [-10, 0, 7.5, 40])
def test_noise_has_the_ratio_that_was_asked_for(snr: float) -> None:
    clean, hiss = speech(), pink(48000, draw(2))
    noise = add_noise(clean, hiss, SPANS, snr) - clean
    assert 10 * np.log10(power(clean, SPANS) / power(noise, SPANS)) == pytest.approx(snr, abs=1e-6)
    assert power(noise, [(20000, 30000)]) == pytest.approx(power(noise, SPANS), rel=0.5)  # in the pause too


def test_white_noise_is_flat_and_pink_falls_by_three_decibels_an_octave() -> None:
    for noise, fall in ((white(2**17, draw()), 0), (pink(2**17, draw()), 3.01)):
        octaves = [band_power(noise, low, 2 * low) for low in (250, 500, 1000, 2000)]
        assert -np.diff(octaves) == pytest.approx([fall] * 3, abs=0.3)


def test_babble_is_its_talkers_equally_loud() -> None:
    time = np.arange(RATE) / RATE
    talkers = [0.9 * np.sin(2 * np.pi * 300 * time), 0.01 * np.sin(2 * np.pi * 900 * time)]
    mix = babble(3 * RATE + 5, talkers, draw())
    assert len(mix) == 3 * RATE + 5
    assert band_power(mix, 200, 400) == pytest.approx(band_power(mix, 800, 1000), abs=0.5)
    assert band_power(mix, 200, 400) - band_power(mix, 1500, 7000) > 40


def test_a_recording_goes_round() -> None:
    assert list(looped(np.arange(4), 7, 3)) == [3, 0, 1, 2, 3, 0, 1]
    assert list(looped(np.arange(4), 3, -1)) == [3, 0, 1]


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_the_telephone_band_lets_nothing_else_through(rate: int) -> None:
    noise = white(8 * rate, draw())
    narrow = bandpass(noise, rate, 300, 3400)
    assert band_power(narrow, 500, 3200, rate) == pytest.approx(band_power(noise, 500, 3200, rate), abs=0.3)
    assert band_power(narrow, 30, 150, rate) < band_power(noise, 30, 150, rate) - 45
    if rate > 8000:
        assert band_power(narrow, 3600, rate / 2, rate) < band_power(noise, 3600, rate / 2, rate) - 50
    low = bandpass(noise, rate, 0, 3400)
    assert band_power(low, 0, 300, rate) == pytest.approx(band_power(noise, 0, 300, rate), abs=0.3)
    assert lag(narrow, noise) == 0 and len(narrow) == len(noise)


@pytest.mark.parametrize("name", ["mulaw", "alaw", "gsm", "opus", "mp3"])
@pytest.mark.parametrize(("rate", "length"), [(16000, 48000), (24000, 60001), (11025, 30011)])
def test_a_codec_moves_nothing_and_leaves_its_mark(name: CodecName, rate: int, length: int) -> None:
    clean = speech(length, rate)
    coded = transcode(clean, rate, name)
    assert len(coded) == length and np.all(np.isfinite(coded))
    assert abs(lag(coded, clean)) <= rate // 1000
    assert np.corrcoef(coded, clean)[0, 1] > {"gsm": 0.6, "opus": 0.8}.get(
        name, 0.9
    )  # they code less than the waveform
    assert not np.allclose(coded, clean, atol=1e-5)
    assert np.array_equal(coded, transcode(clean, rate, name))


def test_narrow_codecs_have_no_highs() -> None:
    noise = 0.1 * white(RATE * 2, draw())
    for name in ("mulaw", "alaw", "gsm"):
        assert band_power(transcode(noise, RATE, name), 4500, 8000) < band_power(noise, 4500, 8000) - 30
    assert band_power(transcode(noise, RATE, "mp3"), 4500, 6000) > band_power(noise, 4500, 6000) - 6


def decay_seconds(taps: np.ndarray, rate: int) -> float:
    """RT60 from the slope of the backward-integrated energy between -5 and -25 dB (Schroeder 1965, ISO 3382: T20)."""
    energy = np.cumsum(taps[::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-12)
    first, last = int(np.argmax(level < -5)), int(np.argmax(level < -25))
    return 3 * (last - first) / rate


@pytest.mark.parametrize("rt60", [0.25, 0.5])
def test_a_simulated_room_rings_as_long_as_it_should(rt60: float) -> None:
    pytest.importorskip("pyroomacoustics")
    room = Room((5.0, 4.0, 2.8), (1.0, 1.0, 1.5), (2.0, 1.0, 1.5), 1.0, rt60)
    response = simulate(room, RATE, 7)
    assert decay_seconds(response.taps, RATE) == pytest.approx(rt60, rel=0.35)
    assert abs(int(np.argmax(np.abs(response.taps))) - response.delay) <= 1
    assert np.array_equal(response.taps, simulate(room, RATE, 7).taps)
    assert not np.array_equal(response.taps, simulate(room, RATE, 8).taps)


def test_reverberation_fills_the_pause_and_moves_nothing() -> None:
    pytest.importorskip("pyroomacoustics")
    clean = speech()
    room = draw_room(RirConfig(rt60=(0.5, 0.5), distance=(1.0, 1.0)), draw(3))
    wet = reverberate(clean, simulate(room, RATE, 1))
    assert len(wet) == len(clean) and abs(lag(wet, clean)) <= RATE // 1000
    tail = [(20000, 22000)]  # just behind the first span, where the dry track is silent
    assert power(clean, tail) == 0 and power(wet, tail) > 1e-4 * power(wet, SPANS)
    assert power(wet, tail) > 10 * power(wet, [(26000, 28000)])


def test_rooms_are_possible_ones() -> None:
    config = RirConfig(rt60=(0.05, 0.4), size=(3, 9), height=(2.4, 4), distance=(0.2, 2))
    rooms = [draw_room(config, draw(seed)) for seed in range(200)]
    assert len({room.sides for room in rooms}) == 200
    for room in rooms:
        volume = np.prod(room.sides)
        walls = 2 * (room.sides[0] * room.sides[1] + sum(room.sides[:2]) * room.sides[2])
        assert 0 < 0.1611 * volume / walls / room.rt60 < 0.91  # mean absorption by Sabine
        for place in (room.mouth, room.microphone):
            assert all(0.499 <= at <= side - 0.499 for at, side in zip(place[:2], room.sides[:2], strict=True))
        assert np.linalg.norm(np.subtract(room.mouth, room.microphone)) == pytest.approx(room.distance)


def test_a_recorded_response_is_aligned_by_its_peak(tmp_path: Path) -> None:
    taps = np.zeros((4000, 2), np.float32)
    taps[[1200, 2700], 0] = (0.5, 0.25)
    sf.write(tmp_path / "hall.wav", taps, 48000, subtype="FLOAT")
    files = list_recordings(tmp_path, "rir")
    response = measured(read_recording(tmp_path / "hall.wav", files["hall.wav"], RATE))
    clean = speech()
    wet = reverberate(clean, response)
    assert lag(wet, clean) == 0
    echo = (2700 - 1200) // 3
    assert np.corrcoef(wet[echo + 2000 :], (clean + 0.5 * np.roll(clean, echo))[echo + 2000 :])[0, 1] > 0.99


def test_steps_are_taken_in_order_and_recorded() -> None:
    view = ViewConfig(
        steps=("gain", "noise", "band", "codec"),
        gain=GainConfig(db=(-6, -6)),
        noise=NoiseConfig(kind="white", snr=(12, 12)),
        band=BandConfig(low=300, high=3400),
        codec=CodecConfig(names=("alaw",)),
    )
    track, steps = run(view)
    assert [(step.name, step.kind) for step in steps] == [
        ("gain", ""), ("noise", "white"), ("band", ""), ("codec", "alaw"),
    ]  # fmt: skip
    assert [drawn(step) for step in steps] == [
        {"gain": -6.0}, {"snr": 12.0}, {"low": 300.0, "high": 3400.0}, {"rate": 8000.0},
    ]  # fmt: skip
    assert band_power(track, 4200, 8000) < band_power(track, 500, 3000) - 40
    other, _ = run(view.model_copy(update={"steps": ("gain", "band", "codec", "noise")}))
    assert band_power(other, 4200, 8000) > band_power(other, 500, 3000) - 20


def test_a_seed_draws_for_each_step_alone() -> None:
    """The same seed draws the same again, whatever else the view does; another seed draws otherwise."""
    noisy = ViewConfig(steps=("noise",), noise=NoiseConfig(snr=(0, 30)))
    track, steps = run(noisy, seed=5)
    again, same = run(noisy, seed=5)
    assert np.array_equal(track, again) and steps == same
    both = run(ViewConfig(steps=("gain", "noise"), noise=NoiseConfig(snr=(0, 30))), seed=5)[1]
    assert both[1] == steps[0]
    assert len({drawn(run(noisy, seed=seed)[1][0])["snr"] for seed in range(8)}) == 8


def test_too_loud_is_turned_down_and_said() -> None:
    track, steps = run(ViewConfig(steps=("gain",), gain=GainConfig(db=(30, 30))))
    assert [step.name for step in steps] == ["gain", "limit"]
    assert np.max(np.abs(track)) == pytest.approx(0.9)
    total = sum(drawn(step)["gain"] for step in steps)
    assert track == pytest.approx(speech() * 10 ** (total / 20), abs=1e-4)


def test_babble_needs_somebody_else() -> None:
    view = ViewConfig(steps=("noise",), noise=NoiseConfig(kind="babble", voices=3))
    assert run(view)[1][0].kind == "pink"
    _, (step,) = run(view, talkers=[speech(9000), speech(8000)])
    assert step.kind == "babble" and drawn(step)["voices"] == 2


def recordings(folder: Path, **files: np.ndarray) -> Path:
    for name, samples in files.items():
        path = folder / "deep" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, samples, RATE)
    return folder


def test_recorded_noise_is_drawn_and_named(tmp_path: Path) -> None:
    time = np.arange(RATE // 2) / RATE
    folder = recordings(tmp_path, **{f"hum{n}": 0.3 * np.sin(2 * np.pi * 100 * n * time) for n in (1, 2, 3)})
    (tmp_path / "notes.txt").write_text("not a sound")
    files = list_recordings(folder, "noise")
    assert list(files) == [f"deep/hum{n}.wav" for n in (1, 2, 3)]
    config = NoiseConfig(folder=folder, license="CC0-1.0", files=files, snr=(3, 3))
    kinds = set()
    for seed in range(12):
        track, (step,) = run(ViewConfig(steps=("noise",), noise=config), seed=seed)
        kinds.add(step.kind)
        hum = 100 * int(step.kind[-5])
        noise = track - speech()
        assert 10 * np.log10(power(speech(), SPANS) / power(noise, SPANS)) == pytest.approx(3, abs=0.01)
        spectrum = np.abs(np.fft.rfft(noise))
        assert np.argmax(spectrum) == pytest.approx(hum * len(noise) / RATE, abs=2)
    assert kinds == set(files)


def test_a_recording_that_is_mostly_silent_is_heard_in_speech(tmp_path: Path) -> None:
    click = np.zeros(48000 * 4)
    click[150000:150400] = 0.5
    files = list_recordings(recordings(tmp_path, click=click), "noise")
    config = NoiseConfig(folder=tmp_path, license="CC0-1.0", files=files, snr=(10, 10))
    for seed in range(6):
        track, _ = run(ViewConfig(steps=("noise",), noise=config), seed=seed)
        noise = track - speech()
        assert 10 * np.log10(power(speech(), SPANS) / power(noise, SPANS)) == pytest.approx(10, abs=0.01)


def test_bad_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"views\.x\.noise\.folder: .*nowhere is no folder"):
        list_recordings(tmp_path / "nowhere", "views.x.noise.folder")
    with pytest.raises(ConfigError, match=r"no audio file in .*\.wav"):
        list_recordings(tmp_path, "noise")
    recordings(tmp_path, good=np.ones(100) / 2, silent=np.zeros(100))
    files = list_recordings(tmp_path, "noise")
    with pytest.raises(DataError, match=r"silent\.wav: holds nothing but silence"):
        read_recording(tmp_path / "deep" / "silent.wav", files["deep/silent.wav"], RATE)
    with pytest.raises(DataError, match=r"good\.wav: is not the file that the view began with"):
        read_recording(tmp_path / "deep" / "good.wav", "0" * 64, RATE)
    (tmp_path / "bad.wav").write_bytes(b"RIFF but no more")
    with pytest.raises(ConfigError, match=r"bad\.wav: not readable: .*mend or remove it") as told:
        list_recordings(tmp_path, "noise")
    assert "BytesIO" not in str(told.value) and "\n" not in str(told.value)
    (tmp_path / "bad.wav").unlink()
    recordings(tmp_path, empty=np.zeros(0))
    with pytest.raises(ConfigError, match=r"empty\.wav: holds no sound"):
        list_recordings(tmp_path, "noise")


def test_a_view_that_no_track_can_go_through_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = ViewConfig(steps=("band",), band=BandConfig(high=5000))
    check_view("x", wide, 16000)
    with pytest.raises(ConfigError, match=r"views\.x\.band\.high=5000: a track of 8000 Hz ends at 4000 Hz"):
        check_view("x", wide, 8000)
    placeless = ViewConfig(steps=("noise",), noise=NoiseConfig(files={"a.wav": "0"}))
    with pytest.raises(ConfigError, match=r"--set views\.x\.noise\.folder=FOLDER"):
        check_view("x", placeless, 16000)
    monkeypatch.setattr("pipeline.channel.rooms.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'speechchat\[views\]'"):
        check_view("x", ViewConfig(steps=("rir",)), 16000)
