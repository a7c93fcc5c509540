"""One rank of a training job, as torchrun starts it: takes some batches, says which keys it saw, saves where it is.

RANK=0 WORLD_SIZE=2 python tests/training/torch_job.py RUN CACHE RENDEZVOUS WORKERS BATCHES OUT [STATE …]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torchdata.stateful_dataloader import StatefulDataLoader

from pipeline.training.stream import DialogueStream


def main(run: str, cache: str, rendezvous: str, workers: str, batches: str, out: str, *states: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    stream = DialogueStream(run, seed=5, cache=cache)
    if states:
        stream.load_state_dict([torch.load(state) for state in states])
    loader = StatefulDataLoader(stream, batch_size=2, num_workers=int(workers), collate_fn=list)
    seen = []
    for taken, batch in enumerate(loader, 1):
        seen += [item.key for item in batch]
        total = torch.tensor([len(batch)])
        if not states:
            dist.all_reduce(total)  # the ranks go step by step, as in training
        if taken == int(batches):
            break
    torch.save(loader.state_dict(), f"{out}/state-{dist.get_rank()}-of-{dist.get_world_size()}.pt")
    Path(out, f"keys-{dist.get_rank()}-of-{dist.get_world_size()}.txt").write_text("\n".join(seen))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
