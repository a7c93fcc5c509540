"""Stream the shards of a run as a training loop would, and say how fast.

    python scripts/stream_training.py runs/demo --split train --limit 8 --shuffle 100

Reads through `pipeline.stream_turns` (plain webdataset). Where torch is installed it reads a second time through a
DataLoader with worker processes, and finds the same turns.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from importlib import util
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import SpeechchatError, TurnExample, stream_turns
from pipeline.shards.remote import place


def main(
    run: Annotated[Path, typer.Argument(help="a run folder, or s3://BUCKET/PATH", parser=place)],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "train",
    limit: Annotated[int, typer.Option(help="turns to print")] = 8,
    shuffle: Annotated[int, typer.Option(help="size of the shuffle buffer, in samples; 0 reads in order")] = 0,
    seed: Annotated[int, typer.Option(help="of the shuffling")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    workers: Annotated[int, typer.Option(help="of the DataLoader, where torch is installed; 0 leaves it out")] = 2,
) -> None:
    """Print turns with their loss role, then samples and audio seconds per second."""
    options: dict[str, Any] = {"shuffle": shuffle, "seed": seed, "epochs": epochs}
    seen = consume("webdataset", stream_turns(run, split, **options), limit)
    if not workers:
        return
    if util.find_spec("torch") is None:
        typer.echo("torch is not installed, so no DataLoader was tried: pip install 'speechchat[train]'")
        return
    from torch.utils.data import DataLoader

    loader = DataLoader(stream_turns(run, split, **options), batch_size=None, num_workers=workers)
    again = consume(f"DataLoader, {workers} workers", loader, 0)
    if again != seen:
        raise SystemExit(f"the DataLoader gave {again.total()} turns where {seen.total()} were streamed before")


def consume(name: str, turns: Iterable[TurnExample], limit: int) -> Counter[tuple[str, int]]:
    """Read everything; returns how often each (key, turn) came."""
    seen: Counter[tuple[str, int]] = Counter()
    keys: set[str] = set()
    seconds = learned = 0.0
    started = time.perf_counter()
    for turn in turns:
        seen[turn.key, turn.turn] += 1
        keys.add(turn.key)
        length = len(turn.audio) / turn.rate
        seconds += length
        learned += length if turn.loss else 0.0
        if seen.total() <= limit:
            role = "loss   " if turn.loss else "context"
            typer.echo(
                f"{turn.key} turn {turn.turn} {turn.role:9} {role} {turn.audio.shape} at {turn.rate} Hz: {turn.text}"
            )
    wall = time.perf_counter() - started
    typer.echo(
        f"{name}: {len(keys)} samples, {seen.total()} turns, {seconds:.1f} s of speech ({learned:.1f} s with loss) "
        f"in {wall:.2f} s: {len(keys) / wall:.0f} samples and {seconds / wall:.0f} audio seconds per second"
    )
    return seen


if __name__ == "__main__":
    try:
        typer.run(main)
    except SpeechchatError as error:
        print(f"stream_training: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
