"""rephrase: the LLM says a turn that nobody understood in other words.

A reply is in a journal of the unit (RUN/logs/repairs), synced, before it is spoken: a run that was killed asks nothing
twice and makes the same bytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.config import Config
from pipeline.dialogue import Dialogue, Turn, derive_seed
from pipeline.errors import BackendError, EndpointError
from pipeline.shards.store import RunFolder
from pipeline.stages.replies import Ledger, ReplyJournal, repair_journal
from pipeline.text.checks import count_units, reply_fault, unspeakable
from pipeline.text.filters import text_fault
from pipeline.text.verbalize import verbalize
from prompts import load

VERSION = 1
_FINAL = " .!?。！？"

Opening = Callable[[], AbstractAsyncContextManager[tuple[Writer, Ledger | None]]]
Result = TypeVar("Result")


class LlmRephraser:
    """Implements `Rephraser` (recording.py). opening: the writer and the run's ledger, entered at the first need and
    left by `close`; it lives in an event loop of its own, as the threads of a studio have none."""

    def __init__(self, config: Config, folder: RunFolder, opening: Opening):
        self._config = config
        self._folder = folder
        self._opening = opening
        self._prompts = {language: load("rephrase", language) for language in config.active_languages}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._opened: tuple[Writer, Ledger | None] | None = None
        self._entering = asyncio.Lock()
        self._stack = AsyncExitStack()

    def rephrase(self, dialogue: Dialogue, number: int) -> Turn | None:
        """Turn `number` in words that pass the rules of the text, None after `writer.attempts` replies that do not.

        Raises EndpointError where no endpoint can serve, BudgetError.
        """
        plan, turn = dialogue.plan, dialogue.turns[number]
        messages = self._prompts[plan.language].render(
            line=turn.spoken,
            turns=[{"role": item.role, "text": item.spoken} for item in dialogue.turns[:number]],
            code_switch=dialogue.code_switch,
            max_units=self._config.text.max_units[plan.language],
        )
        for attempt in range(self._config.writer.attempts):
            seed = derive_seed(plan.seed, "rephrase", number, attempt)
            prompt = Prompt(messages, plan.language, seed, step="rephrase", dialogue=plan.id)
            try:
                reply = self._run(self._ask(prompt, plan.unit))
            except BackendError as error:
                if error.retryable:
                    raise EndpointError(
                        f"{error}; a turn is to be rephrased, and what was made is kept: give the same command again "
                        "when that is mended, or take rephrase out of repair.ladder"
                    ) from error
                return None  # the server refuses this very request
            written = " ".join(reply.text.split())
            said = verbalize(written, plan.language)
            new = turn.model_copy(update={"written": written, "spoken": said, "author": "llm", "disfluencies": ()})
            if reply.finish == "stop" and not self._fault(new, dialogue, number):
                return new
        return None

    def close(self) -> None:
        """Leave what was opened. No thread may be asking."""
        if self._loop is None or self._thread is None:
            return
        try:
            self._run(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = None

    def _fault(self, new: Turn, dialogue: Dialogue, number: int) -> str | None:
        """Why the new text may not stand in the dialogue."""
        language, text = dialogue.plan.language, self._config.text
        old = dialogue.turns[number]
        if new.spoken.strip(_FINAL).lower() == old.fluent.strip(_FINAL).lower():
            return "copy"
        if reason := unspeakable(new.spoken, language, dialogue.code_switch):
            return reason
        turns = (*dialogue.turns[:number], new, *dialogue.turns[number + 1 :])
        sizes = [count_units(turn.spoken, language) for turn in turns]
        if sizes[number] > text.max_units[language] or sum(sizes) > text.max_dialogue_units[language]:
            return "too long"
        before = [turn.fluent for turn in dialogue.turns[:number]]
        if reason := reply_fault(new.spoken, language, before, old.fluent, self._config.grounding):
            return reason
        found = text_fault(turns, language, text.filter, dialogue.code_switch)
        return found[1] if found else None

    async def _ask(self, prompt: Prompt, unit: int) -> Reply:
        async with self._entering:
            if self._opened is None:
                self._opened = await self._stack.enter_async_context(self._opening())
        writer, ledger = self._opened
        path, reuse = repair_journal(self._folder, unit), self._config.writer.reuse
        # Closed, and with it synced, after each reply; a unit's dialogues ask one after the other.
        with ReplyJournal(path, writer, reuse and repair_journal(RunFolder(reuse), unit), ledger) as journal:
            return await journal.ask(prompt)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="rephraser", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
