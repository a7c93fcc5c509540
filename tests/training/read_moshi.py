"""Runs where sphn is: `python -m tests.training.read_moshi JSONL SECONDS ANSWER`, the pieces that moshi-finetune's
`get_dataset_iterator` (finetune/data/dataset.py) asks it for."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import sphn


def pieces(jsonl: str, seconds: float) -> list[dict[str, object]]:
    found = sphn.dataset_jsonl(jsonl, duration_sec=seconds, num_threads=4, sample_rate=24000, pad_last_segment=True)
    return [
        {
            "path": item["path"],
            "start": item["start_time_sec"],
            "sha256": [
                hashlib.sha256(np.rint(channel[: item["unpadded_len"]] * 32768).astype("<i2").tobytes()).hexdigest()
                for channel in item["data"]
            ],
        }
        for item in found.seq(skip=0, step_by=1)
    ]


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps(pieces(sys.argv[1], float(sys.argv[2]))))
