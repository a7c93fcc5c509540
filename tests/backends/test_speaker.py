"""Speaker embeddings: the same numbers as the package that the weights are from, and nothing executed to get them."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from pipeline.backends.speaker.likeness import unity
from pipeline.backends.speaker.melspectrogram import filters, mel_power
from pipeline.backends.speaker.resemblyzer import Resemblyzer, window_starts
from pipeline.backends.speaker.torch_file import read_tensors
from pipeline.dialogue import Clip
from pipeline.errors import ModelError

DATA = Path(__file__).parent / "data"
VOICES = ("af_heart", "zm_yunxi")
# What Resemblyzer 0.1.4 gives (torch 2.13, librosa 0.11): `embed_utterance(normalize_volume(wav, -30,
# increase_only=True))` of each clip, of the clip at -30 dB (_quiet), and `embed_utterance(preprocess_wav(wav))`, which
# also cuts silences by webrtcvad (_vad).
EXPECTED = {name: np.array(row) for name, row in json.loads((DATA / "resemblyzer.json").read_text()).items()}


def clip(name: str) -> Clip:
    audio, rate = sf.read(DATA / f"{name}.flac", dtype="float32")
    return Clip(audio, rate)


def gained(item: Clip, decibels: float) -> Clip:
    return Clip(item.audio * np.float32(10 ** (decibels / 20)), item.rate)


@pytest.fixture(scope="module")
def encoder() -> Resemblyzer:
    return Resemblyzer()


@pytest.mark.embedded
@pytest.mark.parametrize("name", VOICES)
def test_the_numbers_are_those_of_the_package(encoder: Resemblyzer, name: str) -> None:
    found = encoder.embed([clip(name), gained(clip(name), -30)])
    assert found.shape == (2, encoder.dim) and found.dtype == np.float32
    assert np.abs(found[0] - EXPECTED[name]).max() < 1e-5
    assert np.abs(found[1] - EXPECTED[f"{name}_quiet"]).max() < 1e-5
    # Leaving out its VAD does not matter where the clip is trimmed.
    assert found[0] @ EXPECTED[f"{name}_vad"] > 0.98


@pytest.mark.embedded
def test_an_embedding_does_not_depend_on_its_company(encoder: Resemblyzer) -> None:
    clips = [clip("af_heart"), clip("zm_yunxi"), Clip(clip("af_heart").audio[:30000], 16000), clip("zm_yunxi")] * 2
    together = encoder.embed(clips)
    for number in (0, 2, 7):
        assert np.array_equal(encoder.embed(clips[number : number + 1])[0], together[number])
    assert np.array_equal(encoder.embed(clips[::-1])[::-1], together)


@pytest.mark.embedded
def test_voices_differ_and_halves_of_one_do_not(encoder: Resemblyzer) -> None:
    halves = [Clip(part, 16000) for name in VOICES for part in np.array_split(clip(name).audio, 2)]
    alike = (lambda rows: rows @ rows.T)(encoder.embed(halves))
    assert min(alike[0, 1], alike[2, 3]) > 0.85
    assert alike[:2, 2:].max() < 0.7


@pytest.mark.embedded
def test_windows_are_as_dense_as_asked(encoder: Resemblyzer) -> None:
    item = clip("af_heart")
    sparse, dense = encoder.windows([item], 1.3)[0], encoder.windows([item], 2.5)[0]
    assert (len(sparse), len(dense)) == (6, 12)
    assert np.allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-5)
    mean = sparse.mean(axis=0)
    assert np.allclose(encoder.embed([item])[0], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.embedded
def test_silence_and_short_clips_have_an_embedding(encoder: Resemblyzer) -> None:
    found = encoder.embed([Clip(np.zeros(16000, np.float32), 16000), Clip(clip("af_heart").audio[:1600], 16000)])
    assert np.isfinite(found).all()
    assert encoder.embed([]).shape == (0, 256)
    assert encoder.windows([], 1.3) == []


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("item", "said"),
    [(Clip(np.zeros(24000, np.float32), 24000), "24000 Hz"), (Clip(np.zeros(0, np.float32), 16000), "empty")],
)
def test_clips_that_it_cannot_take(encoder: Resemblyzer, item: Clip, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encoder.embed([item])


def test_windows_cover_the_clip() -> None:
    """A last window that is filled by three quarters is kept."""
    assert window_starts(100, 1.3) == [0]
    assert window_starts((77 + 120) * 160 - 1, 1.3) == [0]
    assert window_starts((77 + 120) * 160, 1.3) == [0, 77]
    assert window_starts(5 * 16000, 2.5) == list(range(0, 361, 40))
    with pytest.raises(ValueError, match="gaps"):
        window_starts(16000, 0.5)


def test_mel_bands_are_where_they_should_be() -> None:
    """Slaney's scale: under 1 kHz the bands are equally wide; each has the area of its triangle."""
    bank = filters(16000, 400, 40)
    frequencies = np.fft.rfftfreq(400, 1 / 16000)
    centres = frequencies[bank.argmax(axis=0)]
    for hertz in (440.0, 1000.0, 3000.0):
        tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)
        power = mel_power(tone, 16000, 400, 160, 40)
        assert power.shape == (101, 40)
        assert abs(centres[power[50].argmax()] - hertz) < 100
    assert np.allclose(bank[:, 20:].sum(axis=0) * 40, 1, atol=0.05)


@pytest.fixture
def harmless(tmp_path: Path) -> Path:
    return tmp_path / "was_run"


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def legacy(*objects: object) -> bytes:
    return b"".join(pickle.dumps(item, 2) for item in objects)


MAGIC = 0x1950A86A20F9469CFC6C


def test_a_file_of_weights_can_run_nothing(tmp_path: Path, harmless: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(legacy(MAGIC, 1001, {}, {"model_state": Evil(harmless)}, []))
    with pytest.raises(ModelError, match=r"weights\.pt: .* it asks for posix"):
        read_tensors(file, "model_state")
    assert not harmless.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", legacy(1), legacy(MAGIC, 1001, {}), legacy(MAGIC, 1001, {}, {}, []), legacy(MAGIC, 1001, {}, 7, [])],
    ids=["empty", "foreign", "another magic", "cut", "no section", "no map"],
)
def test_a_file_that_is_no_weights(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"weights\.pt: not a file of weights"):
        read_tensors(file, "model_state")


@pytest.mark.embedded
def test_cut_weights_are_refused(tmp_path: Path, encoder: Resemblyzer) -> None:
    from pipeline.models import main_file

    cut = tmp_path / "pretrained.pt"
    cut.write_bytes(main_file("resemblyzer").read_bytes()[:2_000_000])
    with pytest.raises(ModelError, match="not a file of weights"):
        Resemblyzer(cut)


def around(*people: int, count: int = 4) -> np.ndarray:
    """Windows of people who are at right angles to each other, `count` each, with some variation."""
    chance = np.random.default_rng(0)
    rows = np.concatenate([np.eye(8)[[person] * count] for person in people])
    rows = rows + 0.05 * chance.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_two_people_are_told_from_one() -> None:
    assert unity(around(0, 0)) > 0.98
    assert unity(around(0, 1)) < 0.2
    assert unity(around(0, 1, 0, 1, count=2)) < 0.2  # they take turns
    assert unity(around(0, 0, 0, 1)) < 0.2
    assert unity(around(0, 1, count=2)) == 1.0  # too short to tell
