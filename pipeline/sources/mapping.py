"""From a row of somebody else's data set to the lines of a dialogue."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import SourceConfig
from pipeline.dialogue import Language
from pipeline.errors import ConfigError
from pipeline.sources.base import nearest, shorten
from pipeline.text.language import language_of

# Our name of a field: what it is called where the configuration does not say. id and language only if it does.
FIELDS: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response", "answer"),
    "question": ("question", "prompt", "text"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "turns"),
    "role": ("role", "from"),
    "content": ("content", "value"),
    "system": ("system",),
    "id": (),
    "language": (),
}
_TALK = ("messages", "role", "content", "system", "id", "language")
USED: dict[str, tuple[str, ...]] = {
    "instructions": ("instruction", "input", "output", "system", "id", "language"),
    "questions": ("question", "system", "id", "language"),
    "conversations": _TALK,
    "dialogues": _TALK,
}
REQUIRED = {
    "instructions": "instruction",
    "questions": "question",
    "conversations": "messages",
    "dialogues": "messages",
}
SPARSE = frozenset({"input", "system"})  # may be absent from thousands of rows and there in the next

_ROLES = {
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "ai"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "function_call", "function_response", "observation"),
}
_ROLE = {theirs: ours for ours, names in _ROLES.items() for theirs in names}
_ATTACHED = ("image", "images", "audio", "audios", "video", "videos", "file", "files", "attachments")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MISSING = object()


class BrokenRow(Exception):
    """The row is not what the mapping says that it is; `str` says why."""


@dataclass(frozen=True)
class MappedRow:
    """lines alternate user, assistant, … from the user. id: "" for the row's number. language: None for one that is
    neither. unfit: why no rule needs to look at the lines, "" if they must: "attachment", "tool use", "turn order",
    "language", "empty"."""

    lines: tuple[str, ...]
    system: str
    id: str
    language: Language | None
    unfit: str


class FieldMap:
    """The mapping of a source. found: those of our names of which some row had the field.

    Raises ConfigError for a name in `fields` that the kind of source does not use.
    """

    def __init__(self, name: str, source: SourceConfig):
        self._source = source
        self.found: set[str] = set()
        used = USED[source.kind]
        for ours in source.fields:
            if ours not in used:
                raise ConfigError(
                    f"sources.{name}.fields.{ours}: {source.kind} have no such field; {nearest(ours, used)}"
                    f"they have: {', '.join(used)}"
                )
        self._paths = {ours: (source.fields[ours],) if ours in source.fields else FIELDS[ours] for ours in used}

    def missing(self, early: bool) -> str | None:
        """The first of our names that should be there and that no row had; early: those that may be rare are not
        missed yet."""
        wanted = (REQUIRED[self._source.kind], *self._source.fields)
        return next((ours for ours in wanted if ours not in self.found and not (early and ours in SPARSE)), None)

    def paths(self, ours: str) -> tuple[str, ...]:
        """What the field is called in the data."""
        return self._paths[ours]

    def __call__(self, record: Any) -> MappedRow:
        """Raises BrokenRow."""
        if not isinstance(record, Mapping):
            raise BrokenRow(f"a row is a map of fields to values, this is {_kind(record)}")
        system = self._text(record, "system")
        attached = any(record.get(name) for name in _ATTACHED)
        unfit = "attachment" if attached else ""
        if self._source.kind == "instructions":
            parts = (self._text(record, "instruction", required=True), self._text(record, "input"))
            lines = ["\n".join(filter(None, parts))]
            if output := self._text(record, "output"):
                lines.append(output)
        elif self._source.kind == "questions":
            lines = [self._text(record, "question", required=True)]
        else:
            lines, told, fault = self._talk(record)
            system, unfit = told or system, unfit or fault
        identity = self._text(record, "id") if self._paths["id"] else ""
        language = self._language(record, lines)
        if language is None and not unfit:
            unfit = "language" if any(lines[::2]) else "empty"
        return MappedRow(tuple(lines), system, identity, language, unfit)

    def _talk(self, record: Mapping[str, Any]) -> tuple[list[str], str, str]:
        """(lines, system message, why they are unfit or "") of a conversation, cut to whole pairs of turns; a user
        line that nobody answers is kept if it is the only one."""
        system = ""
        turns: list[tuple[str, str]] = []
        for place, message in enumerate(self.messages(record)):
            role, text, fault = self._message(message, place)
            if fault:
                return [text for _, text in turns], system, fault
            if role == "system" and not turns:
                system = "\n".join(filter(None, (system, text)))
            elif role == "user" or turns:
                turns.append((role, text))
            if len(turns) == self._source.max_turns:
                break
        lines = [text for _, text in turns]
        if any(role != ("user", "assistant")[place % 2] for place, (role, _) in enumerate(turns)):
            return lines, system, "turn order"
        return lines[: max(len(lines) // 2 * 2, 1)], system, ""

    def messages(self, record: Mapping[str, Any]) -> list[Any]:
        """The turns of a conversation as they are. Raises BrokenRow."""
        messages = self._get(record, "messages", required=True)
        if isinstance(messages, str) and messages.lstrip()[:1] == "[":  # a cell of a CSV file
            try:
                messages = json.loads(messages)
            except (ValueError, RecursionError):
                raise BrokenRow(f"{self._name('messages')} is no JSON list") from None
        if not isinstance(messages, list) or not messages:
            raise BrokenRow(f"{self._name('messages')} is {_kind(messages)}, not a list of turns")
        return messages

    def _message(self, message: Any, place: int) -> tuple[str, str, str]:
        """(our role, text, why it is unfit or "") of a message; plain strings alternate, from the user."""
        if isinstance(message, str):
            return ("user", "assistant")[place % 2], _clean(message, f"turn {place + 1}"), ""
        if not isinstance(message, Mapping):
            raise BrokenRow(f"turn {place + 1} is {_kind(message)}, not a message")
        theirs = self._get(message, "role", required=True)
        role = _ROLE.get(str(theirs).strip().lower())
        if role is None:
            raise BrokenRow(f"turn {place + 1}: unknown role {shorten(str(theirs), 40)!r}")
        if role == "tool" or message.get("tool_calls") or message.get("function_call"):
            return role, "", "tool use"
        if any(message.get(name) for name in _ATTACHED):
            return role, "", "attachment"
        content = self._get(message, "content", required=True)
        if isinstance(content, list):
            if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
                return role, "", "attachment"
            content = "\n".join(part["text"] for part in content)
        return role, _string(content, self._name("content")), ""

    def _language(self, record: Mapping[str, Any], lines: Sequence[str]) -> Language | None:
        if self._paths["language"]:
            told = self._text(record, "language", required=True).lower()
            if re.match(r"zh|cmn|chinese|mandarin|中文|汉语", told):
                return "zh"
            return "en" if re.match(r"en\b|eng|en[-_]|英", told) else None
        # An answer may be in another language (a translation); the user's lines are those of the dialogue.
        return language_of(" ".join(lines[::2])) if self._source.language == "auto" else self._source.language

    def _text(self, record: Mapping[str, Any], ours: str, required: bool = False) -> str:
        value = self._get(record, ours, required)
        if isinstance(value, float) and math.isnan(value):
            value = None  # what pandas writes for a cell without a value
        return "" if value is None and not required else _string(value, self._name(ours))

    def _get(self, record: Mapping[str, Any], ours: str, required: bool = False) -> Any:
        for path in self._paths[ours]:
            value = _walk(record, path)
            if value is not _MISSING:
                self.found.add(ours)
                return value
        if required:
            known = ", ".join(shorten(str(name), 30) for name in list(record)[:8])
            raise BrokenRow(f"no field {self._name(ours)}; it has: {known or 'none'}")
        return None

    def _name(self, ours: str) -> str:
        return repr(self._paths[ours][0])


def _walk(record: Any, path: str) -> Any:
    """The value at a dotted path: names of maps, and indices of lists. A name may have dots in it."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    head, dot, rest = path.partition(".")
    if isinstance(record, Mapping) and dot and head in record:
        return _walk(record[head], rest)
    if isinstance(record, list) and head.isdecimal() and int(head) < len(record):
        return _walk(record[int(head)], rest) if dot else record[int(head)]
    return _MISSING


def _string(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BrokenRow(f"{name} is {_kind(value)}, not text")
    return _clean(str(value), name)


def _clean(text: str, name: str) -> str:
    if _SURROGATE.search(text):
        raise BrokenRow(f"{name} is not valid Unicode")
    return text.strip()


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", dict: "a map", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")
