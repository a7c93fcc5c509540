"""What people see of a run while it goes on: live progress with an estimate of its end."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from pipeline.config import Config
from pipeline.engine.base import Done, Pool
from pipeline.plan import unit_count
from pipeline.shards.manifest import Manifest
from pipeline.stages.studio import Progress
from pipeline.stages.write import TextProgress

QUIET_INTERVAL = 10.0  # seconds between lines where the output is no terminal


class ProgressDisplay:
    """An Observer: a live line on a terminal, a line every few seconds elsewhere. Writes to standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._started = time.monotonic()
        self._printed = self._started
        self._units = self._dialogues = 0
        self._written = TextProgress()
        self._notes: set[str] = set()
        self._to_write = 0
        self._compared: tuple[int, int] | None = None
        self._before = Done()
        self._done = Done()
        self._flying: list[Progress] = []
        self._finished_units: set[int] = set()
        self._repaired = 0

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def planned(self, config: Config, done: Done) -> None:
        self._started = time.monotonic()
        self._units, self._dialogues = unit_count(config), config.dialogues
        self._before = done
        if done.units:
            self._console.print(f"{done.units} of {self._units} units are finished already")
        self._show()

    def writing(self, dialogues: int) -> None:
        self._to_write = dialogues
        self._show()

    def wrote(self, unit: int, seconds: float) -> None:
        self._show()

    def written(self, progress: TextProgress) -> None:
        for note in progress.notes:
            if note not in self._notes:
                self._notes.add(note)
                self.trouble(note)
        if progress.dialogues >= self._written.dialogues:  # a worker that was replaced begins anew
            self._written = progress
        self._show()

    def compared(self, done: int, total: int) -> None:
        self._compared = (done, total)
        self._show()

    def workers(self, writers: Pool, studios: Pool) -> None:
        pass  # `speechchat status` shows them

    def progress(self, studios: list[Progress]) -> None:
        self._flying = [item for item in studios if item.unit >= 0 and item.unit not in self._finished_units]
        self._show()

    def finished(self, manifest: Manifest, progress: Progress) -> None:
        self._finished_units.add(manifest.unit)
        self._done.add(manifest)
        self._repaired += progress.repaired
        self._flying = [item for item in self._flying if item.unit != manifest.unit]
        self._show()

    def trouble(self, message: str) -> None:
        self._console.print(f"! {message}", style="yellow", markup=False)

    def _line(self) -> tuple[float, str]:
        """Share done, and the line."""
        fresh = self._done.planned + sum(item.done for item in self._flying)
        accepted = self._done.accepted + sum(item.accepted for item in self._flying)
        seconds = self._done.seconds + sum(item.seconds for item in self._flying)
        elapsed = time.monotonic() - self._started
        if not fresh and self._written.dialogues < self._to_write:  # all the text comes first
            done = self._written.dialogues
            eta = _clock(elapsed / done * (self._to_write - done)) if done else "…"
            return done / self._to_write, f"{self._text_state()} · {_clock(elapsed)} elapsed, {eta} left"
        repaired = self._repaired + sum(item.repaired for item in self._flying)
        share = (self._before.planned + fresh) / self._dialogues if self._dialogues else 1.0
        left = self._dialogues - self._before.planned - fresh
        eta = _clock(elapsed / fresh * left) if fresh else "…"
        judged = self._before.planned + fresh
        kept = self._before.accepted + accepted
        text = (
            f"units {self._before.units + self._done.units}/{self._units} · {self._text_state()} · "
            f"spoken {judged}/{self._dialogues} dialogues · "
            f"audio {self._before.seconds + seconds:.0f} s · yield {kept / judged if judged else 1:.0%} · "
            f"{f'repaired {repaired} turns · ' if repaired else ''}{_clock(elapsed)} elapsed, {eta} left"
        )
        return share, text

    def _text_state(self) -> str:
        """Dialogues written in this session, the share that was kept, and what was paid."""
        written = self._written
        parts = [f"written {written.dialogues}" + (f" of {self._to_write}" if self._to_write else "")]
        if written.dialogues:
            parts.append(f"kept {written.kept / written.dialogues:.0%}")
        if written.tokens:
            parts.append(f"{written.tokens / 1000:.0f}k tokens")
        if written.cost:
            parts.append(f"${written.cost:.2f}")
        if self._compared and self._compared[0] < self._compared[1]:
            parts.append("compared {}/{} units".format(*self._compared))
        return ", ".join(parts)

    def _show(self) -> None:
        share, line = self._line()
        if self._console.is_terminal:
            self._live.update(Group(Text(line), ProgressBar(total=1, completed=share, width=60)))
        elif time.monotonic() - self._printed >= QUIET_INTERVAL:
            self._printed = time.monotonic()
            self._console.print(line, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
