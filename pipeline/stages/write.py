"""write: units of rows → units of text, through the LLM, published before anything is spoken.

A reply is on disk as soon as it is there (stages/replies.py), so an interrupted unit is composed again and pays only
for what it had not asked yet. The published text may be edited by hand before it is spoken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.config import Config
from pipeline.dialogue import PlannedDialogue, SourceRow, TextLine
from pipeline.errors import BackendError, ConfigError, DataError, EndpointError
from pipeline.plan import Unit
from pipeline.shards.disk import sha256_file
from pipeline.shards.store import RunFolder, publish
from pipeline.sources import Sources
from pipeline.stages import compose
from pipeline.stages.compose import Composer, templates
from pipeline.stages.draft import rejected
from pipeline.stages.draw import read_rows
from pipeline.stages.replies import Ledger, ReplyJournal

DRAIN = 10.0  # seconds
POLL = 0.2  # seconds


@dataclass
class TextProgress:
    """What a writer has done in this session: dialogues composed and kept, replies that came (tokens as billed,
    dollars), those that were paid for earlier not counted. notes: what people should know, a line each."""

    dialogues: int = 0
    kept: int = 0
    replies: int = 0
    tokens: int = 0
    cost: float = 0.0
    notes: tuple[str, ...] = ()


class TextStage:
    """Writes units of text. One per worker; many dialogues are under way at once.

    concurrency: dialogues at once; a dialogue has one request under way, and one that has begun goes before the next.
    """

    def __init__(self, config: Config, writer: Writer, folder: RunFolder, ledger: Ledger | None, concurrency: int):
        self._composer = Composer(config)
        self._writer = writer
        self._folder = folder
        self._ledger = ledger
        self._reuse = config.writer.reuse
        self.progress = TextProgress()
        self._slots = asyncio.Semaphore(concurrency)

    async def run(self, unit: Unit) -> bool:
        """Write the text of a unit and publish it. Its rows must have been drawn.

        Returns whether there was anything to do. Raises EndpointError, BudgetError: what was paid for is kept.
        """
        final = self._folder.text(unit.number)
        while not final.exists():
            lock = self._folder.unit_lock(unit.number)
            if lock is None:
                await asyncio.sleep(POLL)  # another worker writes it
                continue
            with lock:
                if not final.exists():
                    await self._write(unit, final)
                    self._folder.crash_journal(unit.number).unlink(missing_ok=True)  # which the lock had made
                    return True
        return False

    async def _write(self, unit: Unit, final: Path) -> None:
        rows = read_rows(self._folder, unit.number)
        lines: dict[str, TextLine] = {}
        with ReplyJournal(self._folder.replies(unit.number), self._writer, self._reused(unit), self._ledger) as journal:
            questions = _Questions(journal, self.progress)

            async def one(planned: PlannedDialogue, row: SourceRow | None) -> None:
                async with self._slots:
                    lines[planned.id] = await self._line(planned, row, questions)
                self.progress.dialogues += 1
                self.progress.kept += lines[planned.id].dialogue is not None

            try:
                await _all(one(planned, row) for planned, row in zip(unit.dialogues, rows, strict=True))
            finally:
                await questions.drain()
        text = "".join(lines[planned.id].model_dump_json() + "\n" for planned in unit.dialogues)
        publish(final, text.encode())

    def _reused(self, unit: Unit) -> Path | None:
        return RunFolder(self._reuse).replies(unit.number) if self._reuse else None

    async def _line(self, planned: PlannedDialogue, row: SourceRow | None, questions: _Questions) -> TextLine:
        try:
            return await self._composer.compose(planned, row, questions.ask)
        except BackendError as error:
            if not await questions.is_served(planned):
                raise EndpointError(
                    f"{error}; nobody is served, so no dialogue is blamed for it, and what was written is kept: "
                    "give the same command again when that is mended"
                ) from error
            return rejected(planned, "converse", "backend", str(error))


class _Questions:
    """The requests of a unit. One that was sent is waited for, whoever has stopped waiting: it may be paid for."""

    def __init__(self, journal: ReplyJournal, progress: TextProgress):
        self._journal = journal
        self._progress = progress
        self._pending: set[asyncio.Task[Reply]] = set()
        # By dialogue: replies that had come in this session before the request that failed was sent.
        self._failed: dict[str, int] = {}

    async def ask(self, prompt: Prompt) -> Reply:
        before = self._progress.replies
        request = asyncio.ensure_future(self._journal.ask(prompt))
        self._pending.add(request)
        request.add_done_callback(self._ended)
        try:
            reply = await asyncio.shield(request)
        except BackendError as error:
            # One that is to blame itself stays so, but where a second try could help, who was served meanwhile counts.
            self._failed[prompt.dialogue] = before if error.retryable else 0
            raise
        if not reply.known:
            self._progress.replies += 1
            self._progress.tokens += reply.prompt_tokens + reply.completion_tokens
            self._progress.cost += reply.cost
        return reply

    def _ended(self, request: asyncio.Task[Reply]) -> None:
        self._pending.discard(request)
        if not request.cancelled():
            request.exception()  # asked for: where nobody waits any more, asyncio would print a failure as a bug

    async def is_served(self, planned: PlannedDialogue) -> bool:
        """Is anybody served, now that a request of this dialogue failed; asks for a word if nobody was since."""
        if self._progress.replies > self._failed.get(planned.id, 0):
            return True
        word = ({"role": "user", "content": "Say yes."},)
        # Each time another seed: what an earlier one was answered says nothing.
        prompt = Prompt(word, planned.language, time.time_ns() % 2**31, max_tokens=4, step="test", dialogue=planned.id)
        try:
            await self.ask(prompt)
        except BackendError:
            return False
        return True

    async def drain(self) -> None:
        """Give what is under way a moment to come in and be written down, then drop it."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=DRAIN)
        for request in self._pending:
            request.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)


def read_text(folder: RunFolder, unit: Unit) -> list[TextLine]:
    """The published text of a unit, in the order of the plan; a line with neither dialogue nor reject was rejected by
    hand. Raises DataError naming the line and the field."""
    path = folder.text(unit.number)
    way_out = "mend it, or remove the file to have it written anew"
    texts = []
    # of bytes: text may hold U+2028; an editor may leave a byte order mark and blank lines
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            if line.strip():
                texts.append(TextLine.model_validate_json(line))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ": ".join(filter(None, (f"line {number}", ".".join(map(str, fault["loc"])))))
            raise DataError(f"{path}: {place}: {fault['msg'].removeprefix('Value error, ')}; {way_out}") from None
    if [text.plan for text in texts] != list(unit.dialogues):
        raise DataError(f"{path}: not the text of this unit's dialogues (a line each, in the order of ids); {way_out}")
    return [text if text.dialogue or text.reject else rejected(text.plan, "filter", "by hand", "") for text in texts]


def text_digest_parts(config: Config) -> list[object]:
    """What the text of a run depends on, beside the models. Raises ConfigError for a source or a prompt."""
    content = config.content()
    keys = ("unit_size", "seed", "languages", "splits", "sources", "text", "writer", "dedup")
    prompts = {f"{step}.{language}": prompt.digest for (step, language), prompt in templates(config).items()}
    about = [[choice.model_dump() for choice in choices] for choices in compose.people(config)]
    parts = [compose.VERSION, {key: content[key] for key in keys}, prompts, about, Sources(config).digest]
    return [*parts, _compared_with(config)]


def _compared_with(config: Config) -> list[object]:
    """What the barrier holds the texts against: the benchmark files, and the size of each text of earlier runs (to
    read them all at each start would take as long as the barrier itself)."""
    try:
        files = [sha256_file(path) for path in config.dedup.benchmarks]
    except OSError as error:
        raise ConfigError(f"dedup.benchmarks: {error.filename}: not readable: {error.strerror}") from None
    runs = [sorted((root / "dialogues").glob("*/unit-*.jsonl")) for root in config.dedup.against]
    return [files, [[(path.name, path.stat().st_size) for path in paths] for paths in runs]]


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Run side by side; the first failure ends the others and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
