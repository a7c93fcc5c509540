"""Who this process is: a rank of a job, and a worker of a DataLoader."""

from __future__ import annotations

import os
import sys
from numbers import Integral
from typing import Any

from pipeline.errors import UsageError


def find_world(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """(rank, ranks) of this process. Raises UsageError for a rank that is none."""
    found = (0, 1)
    torch = sys.modules.get("torch.distributed")
    if torch is not None and torch.is_available() and torch.is_initialized():
        found = (torch.get_rank(), torch.get_world_size())
    elif "RANK" in os.environ and "WORLD_SIZE" in os.environ:  # as torchrun says it
        try:
            found = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        except ValueError:
            raise UsageError("RANK and WORLD_SIZE in the environment are no numbers: mend or unset them") from None
    world = (found[0] if rank is None else rank, found[1] if ranks is None else ranks)
    if not all(isinstance(number, Integral) for number in world) or not 0 <= world[0] < world[1]:
        raise UsageError(f"rank {world[0]!r} is none of {world[1]!r} ranks: whole numbers, counted from 0")
    return world


def shared_epoch() -> Any:
    """[an epoch, how often one was set], which the workers of a DataLoader see; None without torch, or such memory."""
    torch = sys.modules.get("torch")
    try:
        return None if torch is None else torch.zeros(2).long().share_memory_()
    except RuntimeError:
        return None


def loader_worker() -> tuple[int, int] | None:
    """(worker, workers) of a DataLoader; None outside."""
    torch = sys.modules.get("torch.utils.data")
    info = torch.get_worker_info() if torch is not None else None
    return None if info is None else (info.id, info.num_workers)
