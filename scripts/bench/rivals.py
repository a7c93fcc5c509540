"""The same samples as others stream them, for bench_stream.py: one process, in order.

Each gives its samples undecoded (bytes in memory), or with the two tracks decoded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from pipeline.shards.format import MEMBERS, Encoded

TRACKS = MEMBERS[1:]


def bare(data: bytes) -> np.ndarray:
    return sf.read(io.BytesIO(data), dtype="int16")[0]


def webdataset(shards: Sequence[Path]) -> Iterator[dict[str, Any]]:
    import webdataset as wds

    return iter(wds.WebDataset([str(path) for path in shards], shardshuffle=False, empty_check=False))


def webdataset_decoded(shards: Sequence[Path]) -> Iterator[list[np.ndarray]]:
    for item in webdataset(shards):
        json.loads(item["json"])
        yield [bare(item[name]) for name in TRACKS]


def datasets(shards: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Its builder parses the JSON, whatever it is told; the features are told, so that it does not infer them."""
    from datasets import Features, Json, Value, disable_progress_bars, load_dataset

    disable_progress_bars()
    features = Features(
        {"__key__": Value("string"), "__url__": Value("string"), "json": Json()}
        | dict.fromkeys(TRACKS, Value("binary"))
    )
    files = [str(path) for path in shards]
    return iter(load_dataset("webdataset", data_files=files, split="train", streaming=True, features=features))


def make_shar(folder: Path, shards: Sequence[Sequence[Encoded]]) -> None:
    """lhotse Shar: cuts of the user's recording with the assistant's beside, in their own FLAC bytes, and of the record
    the text and the times of its turns."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment  # type: ignore[import-untyped]
    from lhotse.shar import JsonlShardWriter, TarWriter  # type: ignore[import-untyped]

    folder.mkdir()
    size = len(shards[0])
    with (
        JsonlShardWriter(str(folder / "cuts.%06d.jsonl.gz"), shard_size=size) as cuts,
        TarWriter(str(folder / "recording.%06d.tar"), shard_size=size) as users,
        TarWriter(str(folder / "target_recording.%06d.tar"), shard_size=size) as assistants,
    ):
        for item in (item for shard in shards for item in shard):
            sample, tracks = item.sample, []
            for data, tar in ((item.user, users), (item.assistant, assistants)):
                with sf.SoundFile(io.BytesIO(data)) as file:
                    rate, count = file.samplerate, file.frames
                source = AudioSource(type="shar", channels=[0], source="")
                track = Recording(sample.key, [source], rate, count, count / rate)
                tar.write(f"{sample.key}.flac", io.BytesIO(data))
                tar.write(f"{sample.key}.json", io.BytesIO(json.dumps(track.to_dict()).encode()), count=False)
                tracks.append(track)
            segments = [
                SupervisionSegment(
                    id=f"{sample.key}-{number}",
                    recording_id=sample.key,
                    start=turn.start,
                    duration=turn.end - turn.start,
                    text=turn.spoken,
                    speaker=turn.role,
                )
                for number, turn in enumerate(sample.turns)
            ]
            cut = MonoCut(sample.key, 0, tracks[0].duration, 0, segments, recording=tracks[0])
            cut.target_recording = tracks[1]
            cuts.write(cut)


def lhotse(folder: Path) -> Iterator[Any]:
    from lhotse import CutSet

    return iter(CutSet.from_shar(in_dir=folder))


def lhotse_decoded(folder: Path) -> Iterator[list[np.ndarray]]:
    for cut in lhotse(folder):
        yield [cut.load_audio(), cut.target_recording.load_audio()]
