"""Pieces of a FLAC: where the frames of a stretch of samples lie, and to decode them without the rest (RFC 9639).

libsndfile seeks in a FLAC by guessing and decoding until it is right, which takes longer than to decode all of a short
track. Who knows where the frames lie needs neither the guesses nor the other bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import soundfile as sf

from pipeline.errors import DataError

_SYNC = b"\xff\xf8"
"""A frame of a stream of fixed block size (section 9.1.1)."""
_BLOCK_SIZES = {6: 1, 7: 2}
_RATES = {12: 1, 13: 2, 14: 2}
"""Bytes at the end of a frame's header, by the code of its block size and of its rate (9.1.1, 9.1.2)."""


def _crc8_table() -> bytes:
    """Of the polynomial x^8 + x^2 + x + 1 (9.1.8)."""
    table = bytearray()
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x107) if value & 0x80 else value << 1
        table.append(value)
    return bytes(table)


_CRC8 = _crc8_table()


def frame_ranges(data: bytes, spans: Sequence[tuple[int, int]], name: str = "audio") -> list[tuple[int, int]]:
    """Of each span (first sample, sample behind the last) of a mono FLAC the frames that hold it, as (offset in `data`,
    bytes). An empty span has none: (0, 0).

    Raises DataError naming `name` where the frames cannot be found, or the block size is not fixed.
    """
    block, frames, first = _stream(data, name)
    found = {0: first, -(-frames // block): len(data)}
    syncs = _syncs(data)
    ranges = []
    for start, end in spans:
        if not 0 <= start <= end <= frames:
            raise DataError(f"{name}: no samples {start} to {end} in a clip of {frames}")
        if start == end:
            ranges.append((0, 0))
            continue
        edges = []
        for number in (start // block, -(-end // block)):
            if number not in found:
                nearest = max(known for known in found if known < number)
                behind = syncs[syncs.searchsorted(found[nearest], "right") :]
                found[number] = _find(data, number, behind.tolist(), first, name)
            edges.append(found[number])
        ranges.append((edges[0], edges[1] - edges[0]))
    return ranges


def block_size(data: bytes, name: str = "audio") -> int:
    """Samples of a frame. Raises DataError as `frame_ranges`."""
    return _stream(data, name)[0]


def decode_frames(data: bytes, block: int, rate: int, span: tuple[int, int], name: str = "audio") -> np.ndarray:
    """The samples of a span, int16 [n], from the bytes of the frames that hold it (`frame_ranges`).

    block: samples of a frame. Raises DataError naming `name` where they cannot be decoded whole.
    """
    start, end = span
    if start == end:
        return np.empty(0, np.int16)
    lead = start % block
    frames = lead + end - start
    try:
        with sf.SoundFile(io.BytesIO(_header(block, rate, frames) + data)) as file:
            samples = file.read(frames, dtype="int16")
    except sf.SoundFileError as error:
        raise DataError(f"{name}: not decodable: {' '.join(str(error).split())}") from None
    if len(samples) != frames:
        raise DataError(f"{name}: {len(samples)} samples decoded where {frames} belong")
    return samples[lead:]


def _stream(data: bytes, name: str) -> tuple[int, int, int]:
    """(samples of a frame, of all frames, where the first frame begins), from the metadata blocks (8.1, 8.2)."""
    place, last, smallest, largest, frames = 4, not data.startswith(b"fLaC"), 0, 0, 0
    while not last and place + 4 <= len(data):
        last, kind, length = data[place] >= 0x80, data[place] & 0x7F, int.from_bytes(data[place + 1 : place + 4], "big")
        if kind == 0:
            smallest, largest = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (4, 6))
            frames = int.from_bytes(data[place + 14 : place + 22], "big") & (1 << 36) - 1
        place += 4 + length
    if not last or not largest or smallest != largest or (frames and not data.startswith(_SYNC, place)):
        raise DataError(f"{name}: no FLAC of fixed block size")
    return largest, frames, place


def _syncs(data: bytes) -> np.ndarray:
    """Where the sync code of a frame stands, or samples look like it, ascending."""
    code = int.from_bytes(_SYNC, "little")
    halves = [np.frombuffer(data, "<u2", (len(data) - odd) // 2, odd) for odd in (0, 1)]
    return np.sort(np.concatenate([2 * np.flatnonzero(half == code) + odd for odd, half in enumerate(halves)]))


def _find(data: bytes, number: int, places: Sequence[int], first: int, name: str) -> int:
    """Which of the places is where the frame of this number begins. The sync code cannot be told from samples: its
    header has a checksum, and the rate and sample size of the first frame, which begins at `first`. Without those, one
    byte in 2^32 would be taken for a header."""
    coded = _coded(number)
    alike = data[first + 3 : first + 4] + coded
    for place in places:
        if data.startswith(alike, place + 3) and not (data[place + 2] ^ data[first + 2]) & 15:
            length = 4 + len(coded) + _BLOCK_SIZES.get(data[place + 2] >> 4, 0) + _RATES.get(data[place + 2] & 15, 0)
            crc = 0
            for value in data[place : place + length]:
                crc = _CRC8[crc ^ value]
            if data[place + length : place + length + 1] == bytes((crc,)):
                return place
    raise DataError(f"{name}: frame {number} is not there: damaged")


def _coded(number: int) -> bytes:
    """The number of a frame, up to 31 bits, as its header has it: UTF-8 as it was before Unicode ended (9.1.5)."""
    if number < 0x80:
        return bytes((number,))
    count = next(count for count in range(2, 7) if number < 1 << (5 * count + 1))
    lead = (0xFF00 >> count & 0xFF) | number >> 6 * (count - 1)
    return bytes((lead, *(0x80 | number >> 6 * at & 0x3F for at in reversed(range(count - 1)))))


def _header(block: int, rate: int, frames: int) -> bytes:
    """A stream of mono 16 bit with the one metadata block that must be there; its MD5 is not known (8.2)."""
    sizes = block.to_bytes(2, "big") * 2 + bytes(6)
    return b"fLaC\x80\x00\x00\x22" + sizes + (rate << 44 | 15 << 36 | frames).to_bytes(8, "big") + bytes(16)
