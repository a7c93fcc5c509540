"""AudioSeal's own loader and networks, with small random weights: what they compute is not learnt, how is real."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backends.watermark import audioseal
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip
from pipeline.errors import ModelError

torch = pytest.importorskip("torch", reason="the [watermark] extra is not installed")
pytest.importorskip("audioseal", reason="the [watermark] extra is not installed")

# As the card of the published model (audioseal_wm_16bits.yaml), with 2 filters for 32 and no LSTM.
NETWORK = {
    "activation": "ELU",
    "activation_params": {"alpha": 1.0},
    "causal": False,
    "channels": 1,
    "compress": 2,
    "dilation_base": 2,
    "dimension": 8,
    "disable_norm_outer_blocks": 0,
    "kernel_size": 7,
    "last_kernel_size": 7,
    "lstm": 0,
    "n_filters": 2,
    "n_residual_layers": 1,
    "norm": "weight_norm",
    "norm_params": {},
    "pad_mode": "constant",
    "ratios": [8, 5, 4, 2],
    "residual_kernel_size": 3,
    "true_skip": True,
}
GENERATOR = {
    "nbits": 16,
    "seanet": NETWORK,
    "decoder": {"final_activation": None, "final_activation_params": None, "trim_right_ratio": 1.0},
}
DETECTOR = {"nbits": 16, "seanet": NETWORK, "detector": {"output_dim": 32}}
SAID = 0b1010_0000_1100_0111
CLIP = Clip((0.1 * np.random.default_rng(0).standard_normal(24000)).astype(np.float32), 16000)


def save(path: Path, config: dict[str, Any], kind: Any, create: Callable[[Any], Any], change: Any = None) -> None:
    """A checkpoint with random weights, in the form of the published ones: configuration and older names of layers."""
    from audioseal.loader import AudioSeal

    torch.manual_seed(1)
    model = create(AudioSeal.parse_config(copy.deepcopy(config), config_type=kind))
    weights = {name.replace(".inner_conv.", "."): value for name, value in model.state_dict().items()}
    if change:
        change(weights)
    torch.save({"xp.cfg": config, "model": weights}, path)


def always_finds(weights: dict[str, Any]) -> None:
    """A detector that is sure of a mark with the message SAID in whatever it hears."""
    weight, bias = (
        next(name for name in weights if name.startswith("detector.1") and name.endswith(end))
        for end in (".weight", ".bias")
    )
    weights[weight] = torch.zeros_like(weights[weight])
    bits = [4.0 if SAID >> place & 1 else -4.0 for place in range(16)]
    weights[bias] = torch.tensor([-4.0, 4.0, *bits])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from audioseal import builder

    folder = tmp_path_factory.mktemp("audioseal")
    save(folder / "generator.pth", GENERATOR, builder.AudioSealWMConfig, builder.create_generator)
    save(folder / "detector.pth", DETECTOR, builder.AudioSealDetectorConfig, builder.create_detector)
    save(folder / "sure.pth", DETECTOR, builder.AudioSealDetectorConfig, builder.create_detector, always_finds)
    return folder


def config(files: Path, *settings: str) -> Config:
    own = [f"watermark.model_path={files / 'generator.pth'}", "watermark.engine=audioseal"]
    return load_config("quickstart", [*own, *settings])


@pytest.fixture(scope="module")
def seal(files: Path) -> audioseal.AudioSeal:
    return audioseal.build(config(files, f"watermark.detector_path={files / 'sure.pth'}"))


def mark(seal: audioseal.AudioSeal, clip: Clip = CLIP, message: int = SAID) -> np.ndarray:
    marked = seal.embed(clip, message)
    assert marked.rate == clip.rate and marked.audio.dtype == np.float32 and marked.audio.shape == clip.audio.shape
    return marked.audio - clip.audio


def test_a_clip_is_marked_as_audioseal_does_it(seal: audioseal.AudioSeal, files: Path) -> None:
    """What comes of its own loader, generator and message."""
    from audioseal import AudioSeal
    from audioseal.libs.moshi.utils.compile import no_compile

    generator = AudioSeal.load_generator(str(files / "generator.pth"), nbits=16)
    bits = [int(bit) for bit in reversed(f"{SAID:016b}")]
    with torch.inference_mode(), no_compile():
        marked = generator(torch.from_numpy(CLIP.audio)[None, None], message=torch.tensor([bits]))
    assert np.allclose(seal.embed(CLIP, SAID).audio, marked[0, 0].numpy(), atol=1e-5)
    assert np.abs(mark(seal)).max() > 1e-3


def test_the_same_clip_and_message_give_the_same_mark(seal: audioseal.AudioSeal, files: Path) -> None:
    first = mark(seal)
    assert np.array_equal(mark(seal), first)
    assert np.array_equal(mark(audioseal.build(config(files))), first)
    for place in range(16):
        assert not np.allclose(mark(seal, message=SAID ^ 1 << place), first, atol=1e-6)


def test_strength_multiplies_the_mark(seal: audioseal.AudioSeal, files: Path) -> None:
    strong = audioseal.build(config(files, "watermark.strength=2"))
    assert np.allclose(mark(strong), 2 * mark(seal), atol=1e-6)


def test_at_another_rate_the_mark_keeps_to_its_band(seal: audioseal.AudioSeal) -> None:
    wide = Clip((0.1 * np.random.default_rng(1).standard_normal(24001)).astype(np.float32), 24000)
    power = np.abs(np.fft.rfft(mark(seal, wide))) ** 2
    above = np.fft.rfftfreq(24001, 1 / 24000) > 8200
    assert power[above].sum() < 1e-3 * power.sum() and power.sum() > 0


@pytest.mark.parametrize("samples", [0, 1, 319, 320, 777])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_clip_of_any_length_stays_as_long(seal: audioseal.AudioSeal, samples: int, rate: int) -> None:
    assert len(mark(seal, Clip(np.full(samples, 0.1, np.float32), rate))) == samples


@pytest.mark.parametrize("message", [-1, 65536])
def test_a_message_has_16_bits(seal: audioseal.AudioSeal, message: int) -> None:
    with pytest.raises(ValueError, match="16 bits"):
        seal.embed(CLIP, message)


def test_what_the_detector_finds_is_read(seal: audioseal.AudioSeal, files: Path) -> None:
    for rate in (16000, 24000):
        assert seal.detect(Clip(CLIP.audio, rate)) == (1.0, SAID)
    unsure = audioseal.build(config(files, f"watermark.detector_path={files / 'detector.pth'}"))
    probability, message = unsure.detect(CLIP)
    assert 0 <= probability <= 1 and 0 <= message < 65536 and message != SAID


def test_the_model_is_named_by_its_file(files: Path) -> None:
    [use] = audioseal.models(config(files))
    assert (use.role, use.name, use.license) == ("watermark", "audioseal (the user's own)", "unknown")
    assert use.sha256 == hashlib.sha256((files / "generator.pth").read_bytes()).hexdigest()


def test_a_missing_file_names_its_key(files: Path, tmp_path: Path) -> None:
    none = load_config("quickstart", ["watermark.engine=audioseal"])
    for ask in (audioseal.build, audioseal.models):
        with pytest.raises(ModelError, match=r"^watermark\.model_path is not set: name the file of the generator's"):
            ask(none)
        with pytest.raises(
            ModelError, match=r"^watermark\.model_path=.*/none\.pth: no such file; name that of the gen"
        ):
            ask(config(files, f"watermark.model_path={tmp_path / 'none.pth'}"))
    with pytest.raises(ModelError, match=r"^watermark\.detector_path=.*/none\.pth: no such file; name that of the det"):
        audioseal.build(config(files, f"watermark.detector_path={tmp_path / 'none.pth'}"))
    with pytest.raises(ModelError, match=r"^watermark\.detector_path is not set: name the file of the detector's"):
        audioseal.build(config(files)).detect(CLIP)


def test_a_file_of_something_else_is_named(files: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"some": torch.zeros(1)}, tmp_path / "other.pth")
    for path in (tmp_path / "text.pth", tmp_path / "other.pth", files / "detector.pth"):
        with pytest.raises(ModelError, match=rf"^watermark\.model_path=.*{path.name}: not the generator's") as caught:
            audioseal.build(config(files, f"watermark.model_path={path}"))
        assert "\n" not in str(caught.value)


def test_a_missing_package_is_told_before_a_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "audioseal", None)
    with pytest.raises(ImportError, match="audioseal"):
        audioseal.build(load_config("quickstart", ["watermark.engine=audioseal"]))
