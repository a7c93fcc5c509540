"""Stream the shards of a run or a release as a training loop would, stop and go on, and say how fast.

    python scripts/stream_training.py runs/demo --split train --limit 8
    torchrun --nproc-per-node 2 scripts/stream_training.py runs/demo --workers 2 --take 3 --state state.json
    python scripts/stream_training.py runs/demo --state state.json --resume

The first reads an epoch of turns through `pipeline.DialogueStream`, and where torchdata is installed once more through
its StatefulDataLoader with worker processes, and finds the same turns. With `--take` each process stops after so many
batches and saves where it is (RANK in the file's name); `--resume` reads the rest, by any number of processes.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from importlib import util
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import Batches, DialogueStream, SpeechchatError, TurnExample


def main(
    run: Annotated[str, typer.Argument(help="a run or a release: a folder, s3://BUCKET/PATH or https://HOST/PATH")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "train",
    limit: Annotated[int, typer.Option(help="turns to print")] = 8,
    shuffle: Annotated[int, typer.Option(help="items that are shuffled together; 0 reads in order")] = 0,
    seed: Annotated[int, typer.Option(help="of the shuffling")] = 0,
    seconds: Annotated[float, typer.Option(help="of audio in a padded batch of turns")] = 60.0,
    workers: Annotated[int, typer.Option(help="of the loader, where torchdata is installed; 0 leaves it out")] = 2,
    take: Annotated[int | None, typer.Option(help="batches, then stop and save the state")] = None,
    state: Annotated[Path, typer.Option(help="where the state is saved, or read from")] = Path("stream-state.json"),
    resume: Annotated[bool, typer.Option("--resume", help="go on from the states that lie there")] = False,
) -> None:
    """Print turns with their loss role, then samples and audio seconds per second."""
    stream = DialogueStream(run, split, each="turn", shuffle=shuffle, seed=seed, batches=Batches(seconds))
    if take is None and not resume:
        seen = consume("in process", stream, limit)
        if workers and util.find_spec("torchdata"):
            stream.set_epoch(0)
            again = consume(f"StatefulDataLoader, {workers} workers", loader(stream, workers), 0)
            if again != seen:
                raise SystemExit(f"the loader gave {again.total()} turns where {seen.total()} were streamed before")
        elif workers:
            typer.echo("torchdata is not installed, so no loader was tried: pip install 'speechchat[train]'")
        return
    if resume:
        stream.load_state_dict([json.loads(path.read_text()) for path in saved(state)])
    batches: Any = loader(stream, workers) if workers and util.find_spec("torchdata") else stream
    consume(f"rank {stream.rank} of {stream.ranks}", islice(batches, take), limit)
    if take is not None:
        path = state.with_name(f"{state.stem}-{stream.rank}{state.suffix}")
        path.write_text(json.dumps(batches.state_dict()))
        typer.echo(f"the state is in {path}")


def loader(stream: DialogueStream, workers: int) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(stream, batch_size=None, num_workers=workers)


def saved(state: Path) -> list[Path]:
    """The states of all ranks."""
    paths = sorted(state.parent.glob(f"{state.stem}-*{state.suffix}"))
    if not paths:
        raise SystemExit(f"{state.stem}-0{state.suffix}: no such state; --take N saves one")
    return paths


def consume(name: str, batches: Iterable[list[TurnExample]], limit: int) -> Counter[tuple[str, int]]:
    """Read everything; returns how often each (key, turn) came."""
    seen: Counter[tuple[str, int]] = Counter()
    keys: set[str] = set()
    seconds = learned = 0.0
    started = time.perf_counter()
    for turn in (turn for batch in batches for turn in batch):
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
