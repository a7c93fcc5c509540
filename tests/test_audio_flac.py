"""A stretch of a FLAC decodes from the frames that hold it, whatever lies in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import audio
from pipeline.audio.flac import block_size, decode_frames, frame_ranges
from pipeline.errors import DataError


def clip(kind: str, length: int, seed: int) -> np.ndarray:
    """int16 [length]; noise is stored as it is, so that anything may lie between two frames."""
    if kind == "noise":
        return np.random.default_rng(seed).integers(-32768, 32768, length).astype(np.int16)
    if kind == "tone":
        return (9000 * np.sin(np.arange(length) / (5 + seed % 50))).astype(np.int16)
    return np.zeros(length, np.int16)


@settings(deadline=None)
@given(
    st.sampled_from(["noise", "tone", "silence"]),
    st.integers(1, 60_000),
    st.integers(0, 1000),
    st.sampled_from([8000, 16000, 24000, 44100]),
    st.data(),
)
def test_any_stretch(kind: str, length: int, seed: int, rate: int, data: st.DataObject) -> None:
    samples = clip(kind, length, seed)
    flac = audio.encode_flac(samples, rate, {"comment": "x" * (1 + seed % 40)})
    edges = st.integers(0, length)
    spans = [(min(pair), max(pair)) for pair in data.draw(st.lists(st.tuples(edges, edges), max_size=4))]
    for (start, end), (offset, size) in zip(spans, frame_ranges(flac, spans), strict=True):
        found = decode_frames(flac[offset : offset + size], block_size(flac), rate, (start, end))
        assert found.dtype == np.int16 and np.array_equal(found, samples[start:end])


@pytest.mark.parametrize("number", [127, 128, 2047, 2048, 2500])
def test_frames_with_longer_numbers(number: int) -> None:
    """The number of a frame takes one byte, two from 128 on, three from 2048 on."""
    samples = clip("tone", 4096 * 2600, 3)
    flac = audio.encode_flac(samples, 16000)
    span = (4096 * number + 5, 4096 * (number + 1) - 7)
    ((offset, size),) = frame_ranges(flac, [span])
    assert size < 20_000
    assert np.array_equal(decode_frames(flac[offset : offset + size], 4096, 16000, span), samples[slice(*span)])


def test_samples_that_look_like_the_header_of_a_frame() -> None:
    """Of frame 2, with the right checksum, but of another rate and of two channels."""
    samples = clip("noise", 4096 * 4, 0)
    samples[1000:1003] = np.frombuffer(bytes.fromhex("fff8c91802cc"), ">i2")
    flac = audio.encode_flac(samples, 16000)
    assert flac.find(bytes.fromhex("fff8c91802cc")) > 0
    ((offset, size),) = frame_ranges(flac, [(8192, 12288)])
    assert np.array_equal(decode_frames(flac[offset : offset + size], 4096, 16000, (8192, 12288)), samples[8192:12288])


def test_every_flipped_bit_is_found_or_harmless() -> None:
    """Each frame has a checksum of its own."""
    samples = clip("tone", 9000, 1)
    flac = audio.encode_flac(samples, 16000)
    ((offset, size),) = frame_ranges(flac, [(0, 9000)])
    found = 0
    for bit in range(0, 8 * size, 97):
        damaged = bytearray(flac[offset : offset + size])
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert np.array_equal(decode_frames(bytes(damaged), 4096, 16000, (0, 9000)), samples), bit
        except DataError:
            found += 1
    assert found


@pytest.mark.parametrize("flac", [b"", b"RIFF", b"fLaC", b"fLaC\x80\0\0\x22" + bytes(34)])
def test_what_is_no_flac(flac: bytes) -> None:
    with pytest.raises(DataError, match=r"^a\.flac: no FLAC of fixed block size$"):
        frame_ranges(flac, [(0, 1)], "a.flac")


def test_a_frame_that_is_gone_and_a_stretch_that_is_none() -> None:
    flac = audio.encode_flac(clip("noise", 20_000, 1), 16000)
    with pytest.raises(DataError, match=r"^a\.flac: frame 3 is not there: damaged$"):
        frame_ranges(flac[:20_000], [(0, 4096 * 3)], "a.flac")
    with pytest.raises(DataError, match=r"^a\.flac: no samples 5 to 20001 in a clip of 20000$"):
        frame_ranges(flac, [(5, 20_001)], "a.flac")
    with pytest.raises(DataError, match="decod"):
        decode_frames(b"", 4096, 16000, (0, 10))
