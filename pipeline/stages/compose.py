"""compose: a row of a source → the text of a dialogue, step by step.

rewrite → converse → style → disfluencies → filter → review. Each step is optional, each has a versioned prompt where it
asks the LLM, and each that drops a dialogue says why. What an LLM sends that is not what was asked for is asked for
again (`writer.attempts` times), because another seed is another reply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline.backends.llm.base import Prompt
from pipeline.backends.llm.structured import ReplyFault, parse_json
from pipeline.config import Config
from pipeline.dialogue import (
    Author,
    Dialogue,
    Language,
    PlannedDialogue,
    Role,
    Score,
    SourceRow,
    Stage,
    TextAttempt,
    TextLine,
    Turn,
    derive_seed,
)
from pipeline.sources.topics import Choice, read_choices
from pipeline.stages import shapes as schema
from pipeline.stages.draft import Ask, Draft, Dropped, given_up, rejected
from pipeline.text.checks import count_units, is_code_switched, reply_fault, unspeakable
from pipeline.text.disfluency import add_disfluencies
from pipeline.text.filters import text_fault
from pipeline.text.verbalize import verbalize
from prompts import PromptTemplate, load

VERSION = 2
_FINAL = " .!?。！？"
_MARGIN = 64  # tokens for the braces and names of a structured reply

Shape = TypeVar("Shape", bound=BaseModel)


class Composer:
    """Makes the text of dialogues; holds the prompts, and nothing of a dialogue."""

    def __init__(self, config: Config):
        self._config = config
        self._text = config.text
        self._templates = templates(config)
        self._people = people(config)

    async def compose(self, planned: PlannedDialogue, row: SourceRow | None, ask: Ask) -> TextLine:
        """The dialogue, or its reject. Raises what `ask` raises."""
        if row is None:
            return rejected(planned, "source", "exhausted", "no row is left: see sources.*.laps and weight")
        row = self._peopled(planned, row)
        draft = Draft(planned, row, ask, self._is_code_switched(planned))
        try:
            await self._steps(draft)
        except Dropped as dropped:
            return rejected(planned, dropped.stage, dropped.reason, str(dropped), draft.failed)
        dialogue = Dialogue(
            plan=planned,
            system=row.system,
            source=row.source,
            turns=tuple(draft.turns),
            instruction=draft.instruction,
            topic=row.topic,
            persona=row.persona,
            scenario=row.scenario,
            code_switch=draft.code_switch,
            scores=draft.scores,
        )
        return TextLine(plan=planned, dialogue=dialogue, reject=None, failed=tuple(draft.failed))

    async def _steps(self, draft: Draft) -> None:
        mode = "none" if draft.row.ready else self._text.converse.mode
        lines = draft.row.lines
        # The whole of a longer conversation is what stands on its own, not its first line.
        if self._text.rewrite.enabled and not draft.row.ready and 0 < len(lines) <= 2:
            draft.instruction = lines[0]
            lines = (await self._rewrite(draft), *lines[1:])
        if mode == "whole":
            await self._whole(draft, lines)
        elif mode == "none":
            draft.turns = [self._turn(line, place, draft) for place, line in enumerate(lines)]
        else:
            await self._turn_by_turn(draft, lines, mode)
        if self._text.style.enabled and not draft.row.ready:
            await self._style(draft)
        self._filter(draft)
        if self._text.review.enabled:
            await self._review(draft)
        self._disfluencies(draft)

    # ---- the steps ------------------------------------------------------------------------------------------------

    async def _rewrite(self, draft: Draft) -> str:
        row = draft.row
        messages = self._templates["rewrite", draft.plan.language].render(
            instruction=row.lines[0], answer=row.lines[1] if len(row.lines) > 1 else ""
        )

        def fault(reply: schema.Rewritten) -> str | None:
            if not reply.speakable:
                return None
            question = verbalize(reply.question, draft.plan.language)
            if count_units(question, draft.plan.language) > self._text.max_units[draft.plan.language]:
                return "too long"
            return unspeakable(question, draft.plan.language)

        reply = await self._structured(draft, "rewrite", messages, schema.Rewritten, schema.REWRITTEN, 1, fault)
        if not reply.speakable:
            raise Dropped("rewrite", "not speakable", row.lines[0])
        return " ".join(reply.question.split())

    async def _whole(self, draft: Draft, lines: Sequence[str]) -> None:
        count, row, language = self._turn_count(draft.plan), draft.row, draft.plan.language
        messages = self._templates["converse", language].render(
            turns=count,
            lines=_lines(lines),
            topic=row.topic,
            persona=row.persona,
            scenario=row.scenario,
            system=row.system,
            code_switch=draft.code_switch,
            max_user=self._text.max_units[language],
            max_assistant=self._text.max_units[language],
        )

        spoken: list[str] = []

        def fault(reply: schema.Written) -> str | None:
            if [turn.role for turn in reply.turns] != [_role(place) for place in range(count)]:
                return "turns"
            spoken[:] = [turn.text for turn in reply.turns]
            if self._text.style.enabled:
                return None  # what is for the ear comes then
            spoken[:] = [verbalize(_line(text), language) for text in spoken]
            return self._fault(spoken, draft)

        shape = schema.written(count)
        reply = await self._structured(draft, "converse", messages, schema.Written, shape, count, fault)
        draft.turns = [
            Turn(role=turn.role, written=_line(turn.text), spoken=said, author="llm")
            for turn, said in zip(reply.turns, spoken, strict=True)
        ]
        draft.checked = not self._text.style.enabled

    async def _turn_by_turn(self, draft: Draft, lines: Sequence[str], mode: str) -> None:
        """The user's lines, and the LLM's replies; `reword` shows it the source's reply, and falls back on it."""
        language = draft.plan.language
        pairs = len(lines) // 2 if mode == "reword" else (len(lines) + 1) // 2
        for number in range(2 * pairs):
            line = lines[number] if number < len(lines) else ""
            if number % 2 == 0:
                draft.turns.append(self._plain(line, number, draft))
                continue
            note = line if mode == "reword" else ""
            turn = await self._answer(draft, number, note, self._left(draft.turns, lines, number, mode, language))
            if turn is None and mode == "reply":
                raise given_up(draft)
            draft.turns.append(turn or self._plain(line, number, draft))

    async def _answer(self, draft: Draft, number: int, note: str, left: int) -> Turn | None:
        """A reply of the LLM that passes the checks, or None after `writer.attempts` replies."""
        language = draft.plan.language
        history: list[tuple[Role, str]] = [(turn.role, turn.written) for turn in draft.turns]
        note = verbalize(note, language)
        messages = self._templates["converse", language].messages(history, note, draft.row.system)
        for attempt in range(self._config.writer.attempts):
            seed = derive_seed(draft.plan.seed, "reply", number, attempt)
            reply = await draft.ask(Prompt(messages, language, seed, step="converse", dialogue=draft.plan.id))
            written = " ".join(reply.text.split())
            spoken = verbalize(written, language)
            cut = reply.finish if reply.finish != "stop" else None
            reason = cut or check_reply(spoken, draft.turns, note, left, language, self._config.grounding)
            if reason is None:
                return Turn(role="assistant", written=written, spoken=spoken, author="llm")
            draft.failed.append(TextAttempt(step="converse", turn=number, author="llm", text=written, reason=reason))
            if reason == "copy":
                return None
        return None

    async def _style(self, draft: Draft) -> None:
        language, options = draft.plan.language, self._text.style
        messages = self._templates["style", language].render(
            turns=[{"role": turn.role, "text": turn.written} for turn in draft.turns],
            emotions=list(options.emotions),
            styles=list(options.styles),
            code_switch=draft.code_switch,
            max_user=self._text.max_units[language],
            max_assistant=self._text.max_units[language],
        )

        spoken: list[str] = []

        def fault(reply: schema.Styled) -> str | None:
            if len(reply.turns) != len(draft.turns):
                return "turns"
            for turn in reply.turns:
                if turn.emotion not in ("", *options.emotions) or turn.style not in ("", *options.styles):
                    return "label"
            spoken[:] = [verbalize(_line(turn.text), language) for turn in reply.turns]
            return self._fault(spoken, draft)

        count = len(draft.turns)
        shape = schema.styled(count, options.emotions, options.styles)
        reply = await self._structured(draft, "style", messages, schema.Styled, shape, count, fault)
        draft.turns = [
            turn.model_copy(
                update={"spoken": said, "author": "llm", "emotion": styled.emotion, "style": styled.style},
            )
            for turn, styled, said in zip(draft.turns, reply.turns, spoken, strict=True)
        ]
        draft.checked = True

    def _filter(self, draft: Draft) -> None:
        reason = None if draft.checked else self._fault([turn.spoken for turn in draft.turns], draft)
        place = -1
        if reason is None:
            found = text_fault(draft.turns, draft.plan.language, self._text.filter, draft.code_switch)
            place, reason = found or (place, None)
        if reason is not None:
            turns = draft.turns if place < 0 else [draft.turns[place]]
            raise Dropped("filter", reason, " / ".join(turn.spoken for turn in turns))

    async def _review(self, draft: Draft) -> None:
        messages = self._templates["review", draft.plan.language].render(
            turns=[{"role": turn.role, "text": turn.spoken} for turn in draft.turns], code_switch=draft.code_switch
        )
        limits = self._text.review.limits
        reply = await self._structured(draft, "review", messages, schema.Reviewed, schema.REVIEWED, 2, lambda _: None)
        marks = reply.model_dump(exclude={"reason"})
        draft.scores = tuple(Score(name=name, value=float(mark)) for name, mark in marks.items())
        below = [name for name, limit in limits.items() if marks[name] < limit]
        if below:
            text = " / ".join(turn.spoken for turn in draft.turns)
            raise Dropped(
                "review", below[0], f"{', '.join(f'{name} {marks[name]}' for name in below)}: {reply.reason} | {text}"
            )

    def _disfluencies(self, draft: Draft) -> None:
        """After the review, so that a stumble that was asked for costs no marks."""
        options, plan = self._text.disfluency, draft.plan
        for place, turn in enumerate(draft.turns):
            seed = derive_seed(plan.seed, "disfluency", place)
            if turn.role == "user" and random.Random(seed).random() < options.rate:
                spoken, spans = add_disfluencies(turn.spoken, plan.language, seed, options.kinds)
                draft.turns[place] = turn.model_copy(update={"spoken": spoken, "disfluencies": spans})

    # ---- what the steps share -------------------------------------------------------------------------------------

    async def _structured(
        self,
        draft: Draft,
        stage: Stage,
        messages: tuple[dict[str, str], ...],
        shape: type[Shape],
        json_schema: Mapping[str, Any],
        turns: int,
        fault: Callable[[Shape], str | None],
    ) -> Shape:
        """A reply of this shape without a fault. turns: how many turns' worth of tokens it may have. Raises Dropped."""
        for attempt in range(self._config.writer.attempts):
            prompt = Prompt(
                messages,
                draft.plan.language,
                derive_seed(draft.plan.seed, stage, attempt),
                schema=dict(json_schema),
                max_tokens=self._config.writer.max_tokens * turns + _MARGIN,
                step=stage,
                dialogue=draft.plan.id,
            )
            reply = await draft.ask(prompt)
            reason: str | None = reply.finish
            if reply.finish == "stop":
                try:
                    parsed = parse_json(reply.text, shape)
                except ReplyFault as error:
                    reason = error.reason
                else:
                    reason = fault(parsed)
                    if reason is None:
                        return parsed
            draft.failed.append(TextAttempt(step=stage, turn=-1, author="llm", text=reply.text, reason=str(reason)))
        raise given_up(draft)

    def _fault(self, spoken: Sequence[str], draft: Draft) -> str | None:
        """Why these turns cannot be spoken, by rule: the first reason found."""
        language = draft.plan.language
        sizes = [count_units(text, language) for text in spoken]
        for text, size in zip(spoken, sizes, strict=True):
            reason = unspeakable(text, language, draft.code_switch)
            if reason or size > self._text.max_units[language]:
                return reason or "too long"
        if sum(sizes) > self._text.max_dialogue_units[language]:
            return "too long"
        if draft.code_switch and not any(is_code_switched(text) for text in spoken):
            return "no code-switching"
        return None

    def _turn(self, line: str, place: int, draft: Draft, author: Author = "source") -> Turn:
        line = _line(line)
        if place == 0 and draft.instruction:
            author = "llm"  # the question was rewritten
        return Turn(role=_role(place), written=line, spoken=verbalize(line, draft.plan.language), author=author)

    def _plain(self, line: str, place: int, draft: Draft) -> Turn:
        """A line of the source as a turn. Raises Dropped where it cannot be spoken."""
        turn = self._turn(line, place, draft)
        reason = unspeakable(turn.spoken, draft.plan.language)
        if reason:
            draft.failed.append(TextAttempt(step="converse", turn=place, author=turn.author, text=line, reason=reason))
            raise Dropped("converse", reason, f"turn {place}: {line}")
        return turn

    def _left(self, turns: Sequence[Turn], lines: Sequence[str], number: int, mode: str, language: Language) -> int:
        """Words or characters that a reply may have so that the rest of the dialogue still fits."""
        used = sum(count_units(turn.spoken, language) for turn in turns)
        rest = lines[number + 1 :: 1 if mode == "reword" else 2]
        ahead = sum(count_units(verbalize(line, language), language) for line in rest)
        return min(self._text.max_units[language], self._text.max_dialogue_units[language] - used - ahead)

    def _peopled(self, planned: PlannedDialogue, row: SourceRow) -> SourceRow:
        """A bare question gets somebody who asks it and a place; a conversation has its own."""
        if not self._people or row.ready or row.persona or len(row.lines) > 2:
            return row
        draw = random.Random(derive_seed(planned.seed, "people"))
        persona, scenario = (draw.choice(choices).text(planned.language) for choices in self._people)
        return row.model_copy(update={"persona": persona, "scenario": scenario})

    def _turn_count(self, planned: PlannedDialogue) -> int:
        counts = sorted(self._text.converse.turns)
        weights = [self._text.converse.turns[count] for count in counts]
        return random.Random(derive_seed(planned.seed, "turns")).choices(counts, weights)[0]

    def _is_code_switched(self, planned: PlannedDialogue) -> bool:
        share = self._text.converse.code_switch
        drawn = random.Random(derive_seed(planned.seed, "code-switch")).random() < share
        return planned.language == "zh" and self._text.converse.mode == "whole" and drawn


def people(config: Config) -> tuple[tuple[Choice, ...], ...]:
    """Personas and scenarios for rows that name none; nothing where they are not asked for."""
    if config.text.converse.mode != "whole" or not config.text.converse.personas:
        return ()
    return tuple(read_choices(None, name, f"{name}.yaml", Choice)[1] for name in ("personas", "scenarios"))


def templates(config: Config) -> dict[tuple[str, Language], PromptTemplate]:
    """The prompts of a configuration by step and language. Raises ConfigError."""
    text = config.text
    wanted = {"rewrite": text.rewrite.enabled and text.rewrite.prompt, "converse": text.converse.template}
    wanted |= {"style": text.style.enabled and text.style.prompt, "review": text.review.enabled and text.review.prompt}
    found = {}
    for step, name in wanted.items():
        kind = "reply" if step == "converse" and text.converse.mode != "whole" else step
        for language in config.active_languages if name else ():
            found[step, language] = load(str(name), language, kind)
    return found


def check_reply(
    spoken: str, turns: Sequence[Turn], reference: str, left: int, language: Language, grounding: float
) -> str | None:
    """Why a reply may not be spoken, or None.

    left: the most words (en) or characters (zh) it may have; grounding: see TextConfig.
    """
    reason = unspeakable(spoken, language)
    if reference and spoken.strip(_FINAL) == reference.strip(_FINAL):
        return "copy"  # the human's words are the human's, whoever typed them last
    if reason is None and count_units(spoken, language) > left:
        reason = "too long"
    return reason or reply_fault(spoken, language, [turn.spoken for turn in turns], reference, grounding)


def _role(place: int) -> Role:
    return "user" if place % 2 == 0 else "assistant"


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(lines: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": _role(place), "text": _line(line)} for place, line in enumerate(lines)]
