"""write: source rows → text, through the LLM, checked by rule before it may be spoken.

The human dialogue of the source is the backbone: its user lines are spoken as they are, its replies are the references
that the LLM words anew for speech. A reply that fails the checks is asked for again, then the human one stands in, and
the turn says who wrote it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterable, Sequence

from pipeline.backends.llm.base import Prompt, Writer
from pipeline.config import Config
from pipeline.dialogue import (
    Dialogue,
    Language,
    PlannedDialogue,
    Reject,
    Role,
    TextAttempt,
    TextLine,
    Turn,
    derive_seed,
)
from pipeline.errors import BackendError, DataError, EndpointError
from pipeline.plan import Unit
from pipeline.shards.store import RunFolder, publish, storage_errors
from pipeline.sources import ChatterbotSource, SourceRow
from pipeline.text.checks import count_units, reply_fault, unspeakable
from pipeline.text.verbalize import verbalize
from prompts import PromptTemplate, load

VERSION = 1
_FINAL = " .!?。！？"


class TextStage:
    """Writes units of text. One per worker; many dialogues are under way at once.

    written: dialogues so far, for the progress display.
    """

    def __init__(self, config: Config, writer: Writer, source: ChatterbotSource, folder: RunFolder):
        self._config = config
        self._writer = writer
        self._source = source
        self._folder = folder
        self._templates = {language: load(config.writer.prompt, language) for language in config.active_languages}
        self.written = 0
        self._served = 0  # replies that came
        self._slots = asyncio.Semaphore(config.writer.concurrency)

    async def run(self, unit: Unit) -> bool:
        """Write the text of a unit and publish it; what an interrupted try had paid for is not paid again.

        Returns whether there was anything to do.
        """
        final = self._folder.text(unit.number)
        journal = self._folder.text_journal(unit.number)
        if final.exists():
            journal.unlink(missing_ok=True)
            return False
        lines = {line.plan.id: line for line in _read_journal(self._folder, unit)}

        async def one(planned: PlannedDialogue) -> None:
            line = await self._line(planned)
            # Opened for each line: a journal that is there says that something was paid for.
            with storage_errors(journal):
                journal.parent.mkdir(parents=True, exist_ok=True)
                with journal.open("a", encoding="utf-8") as file:
                    file.write(line.model_dump_json() + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            lines[planned.id] = line
            self.written += 1

        await _all(one(planned) for planned in unit.dialogues if planned.id not in lines)
        refused = [line.reject for line in lines.values() if line.reject and line.reject.reason == "backend"]
        if len(refused) == len(unit.dialogues) and not self._served:
            journal.unlink(missing_ok=True)
            raise EndpointError(f"every request was refused, so no dialogue is blamed for it: {refused[0].detail}")
        text = "".join(lines[planned.id].model_dump_json() + "\n" for planned in unit.dialogues)
        publish(final, text.encode())
        journal.unlink(missing_ok=True)
        return True

    async def _line(self, planned: PlannedDialogue) -> TextLine:
        row = self._source.row(planned)
        failed: list[TextAttempt] = []
        served = self._served
        try:
            async with self._slots:
                turns = await self._turns(planned, row, failed)
        except BackendError as error:
            if error.retryable and self._served == served:
                # Tried again and again, and nobody else was served meanwhile: no dialogue should be lost to that.
                raise EndpointError(f"{error}; what was written is kept: give the same command again later") from error
            return _rejected(planned, "backend", str(error), failed)
        if turns is None:
            return _rejected(planned, failed[-1].reason, f"turn {failed[-1].turn}: {failed[-1].text}", failed)
        dialogue = Dialogue(plan=planned, system="", source=row.source, turns=tuple(turns))
        return TextLine(plan=planned, dialogue=dialogue, reject=None, failed=tuple(failed))

    async def _turns(self, planned: PlannedDialogue, row: SourceRow, failed: list[TextAttempt]) -> list[Turn] | None:
        language = planned.language
        turns: list[Turn] = []
        for number, line in enumerate(row.lines):
            role: Role = "user" if number % 2 == 0 else "assistant"
            reference = verbalize(line, language)
            turn = None
            if role == "assistant":
                left = self._left(turns, row, number, planned)
                turn = await self._ask(planned, turns, number, line, left, failed)
            if turn is None:
                fault = unspeakable(reference, language)
                if fault:
                    failed.append(TextAttempt(turn=number, author="source", text=line, reason=fault))
                    return None
                turn = Turn(role=role, written=line, spoken=reference, author="source")
            turns.append(turn)
        return turns

    def _left(self, turns: Sequence[Turn], row: SourceRow, number: int, planned: PlannedDialogue) -> int:
        """Words or characters that a reply may have so that the rest of the dialogue still fits."""
        language = planned.language
        used = sum(count_units(turn.spoken, language) for turn in turns)
        ahead = sum(count_units(verbalize(line, language), language) for line in row.lines[number + 1 :])
        text = self._config.text
        return min(text.max_units[language], text.max_dialogue_units[language] - used - ahead)

    async def _ask(
        self, planned: PlannedDialogue, turns: list[Turn], number: int, note: str, left: int, failed: list[TextAttempt]
    ) -> Turn | None:
        """A reply of the LLM that passes the checks, or None after `writer.attempts` replies."""
        history: list[tuple[Role, str]] = [(turn.role, turn.written) for turn in turns]
        note = verbalize(note, planned.language)
        messages = self._templates[planned.language].messages(history, note)
        for attempt in range(self._config.writer.attempts):
            seed = derive_seed(planned.seed, "reply", number, attempt)
            [reply] = await self._writer.reply([Prompt(messages, planned.language, seed)])
            self._served += 1
            reply = " ".join(reply.split())
            spoken = verbalize(reply, planned.language)
            reason = check_reply(spoken, turns, note, left, planned.language, self._config.grounding)
            if reason is None:
                return Turn(role="assistant", written=reply, spoken=spoken, author="llm")
            failed.append(TextAttempt(turn=number, author="llm", text=reply, reason=reason))
            if reason == "copy":
                return None
        return None


def check_reply(
    spoken: str, turns: Sequence[Turn], reference: str, left: int, language: Language, grounding: float
) -> str | None:
    """Why a reply may not be spoken, or None.

    left: the most words (en) or characters (zh) it may have; grounding: see TextConfig.
    """
    reason = unspeakable(spoken, language)
    if spoken.strip(_FINAL) == reference.strip(_FINAL):
        return "copy"  # the human's words are the human's, whoever typed them last
    if reason is None and count_units(spoken, language) > left:
        reason = "too long"
    return reason or reply_fault(spoken, language, [turn.spoken for turn in turns], reference, grounding)


def read_text(folder: RunFolder, unit: Unit) -> list[TextLine]:
    """The published text of a unit, in the order of the plan."""
    path = folder.text(unit.number)
    lines = path.read_bytes().splitlines()  # of bytes: text may hold U+2028
    try:
        texts = [TextLine.model_validate_json(line) for line in lines]
    except ValueError:
        texts = []
    if [text.plan for text in texts] != list(unit.dialogues):
        raise DataError(f"{path}: not the text of this unit's dialogues; mend it, or remove it to have it written anew")
    return texts


def text_digest_parts(config: Config, templates: Sequence[PromptTemplate], source: ChatterbotSource) -> list[object]:
    """What the text of a run depends on, beside the models."""
    content = config.content()
    keys = ("unit_size", "seed", "languages", "splits", "source", "text", "writer")
    return [VERSION, {key: content[key] for key in keys}, [item.digest for item in templates], source.digest]


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Run side by side; the first failure ends the others and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _read_journal(folder: RunFolder, unit: Unit) -> list[TextLine]:
    path = folder.text_journal(unit.number)
    if not path.exists():
        return []
    planned = {item.id: item for item in unit.dialogues}
    lines = []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    for raw in whole.splitlines():
        line = TextLine.model_validate_json(raw)
        if planned.get(line.plan.id) == line.plan:
            lines.append(line)
    if len(whole) != len(data):
        # The last line was being written when the process died: cut it off, or the next one would be glued to it.
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return lines


def _rejected(planned: PlannedDialogue, reason: str, detail: str, failed: Sequence[TextAttempt]) -> TextLine:
    detail = " ".join(detail.split())  # one line, also where a backend's message has several
    reject = Reject(id=planned.id, language=planned.language, stage="text", reason=reason, detail=detail)
    return TextLine(plan=planned, dialogue=None, reject=reject, failed=tuple(failed))
