"""JSON from an LLM: how it is asked for, and the strict reading of what comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

Mode = Literal["json_schema", "json_object", "none"]
MODES: tuple[Mode, ...] = ("json_schema", "json_object", "none")
"""Ways to hold a server to JSON, the strictest first."""

Model = TypeVar("Model", bound=BaseModel)

# What a server says that does not know a way: it names the field, or the grammar that it would make of the schema.
_UNKNOWN = re.compile(r"response_format|json_schema|json_object|json mode|grammar|guided|structured", re.IGNORECASE)
_REFUSALS = (400, 422, 501)

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],“”＂]', re.DOTALL)
# Full-width quotes are mended around a key only: in a value they may be what somebody says.
_WIDE_KEY = re.compile(r'[“”＂]([^“”＂"\\{}\[\],:：]*)[“”＂]\s*[:：]')


class ReplyFault(ValueError):
    """A reply that is not the JSON that was asked for. reason: "truncated", "no json" or "schema"."""

    def __init__(self, reason: Literal["truncated", "no json", "schema"], detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def parse_json(text: str, model: type[Model]) -> Model:
    """The one JSON object in a reply, as a `model`.

    Mended are a byte order mark, code fences and other text around the object, commas before a closing bracket, and
    full-width quotes around keys. An object that was cut off is never completed. Raises ReplyFault.
    """
    try:
        data = from_json(text, allow_inf_nan=False)
    except ValueError:
        text = _outermost(text)
        try:
            data = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise ReplyFault("no json", str(error)) from None
    if not isinstance(data, dict):
        raise ReplyFault("no json", "not an object")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ReplyFault("schema", f"{'.'.join(map(str, first['loc'])) or 'object'}: {first['msg']}") from None


def _outermost(text: str) -> str:
    """The one outermost object of a text, without commas that nothing follows."""
    pieces: list[str] = []
    depth, place, last, ended = 0, 0, "", False
    while token := _TOKEN.search(text, place):
        mark = token[0]
        if depth:
            between = text[place : token.start()]
            pieces.append(between)
            last = between.strip()[-1:] or last
        place = token.end()
        if not depth:
            if len(mark) > 1 or mark == '"':
                place = token.start() + 1  # quotes around the object are prose, and may hold it
            if mark != "{":
                continue
            if ended:
                raise ReplyFault("no json", "more than one object")
        elif mark == '"':
            break  # a string without an end
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            ended = depth == 0
            if last == ",":
                _drop_comma(pieces)
        elif mark in "“”＂":
            key = _WIDE_KEY.match(text, token.start()) if last in ("{", ",") else None
            if key is None:
                raise ReplyFault("no json", "full-width quotes")
            mark, place = json.dumps(key[1], ensure_ascii=False) + ":", key.end()
        pieces.append(mark)
        last = mark[-1]
    if depth:
        raise ReplyFault("truncated", f"it ends inside the object: …{text[-40:]}")
    if not ended:
        raise ReplyFault("no json", f"no object in: {text[:40]}")
    return "".join(pieces)


def _drop_comma(pieces: list[str]) -> None:
    """Remove the last comma; only blanks follow it."""
    place = len(pieces) - 1
    while pieces[place] != ",":
        place -= 1
    del pieces[place]


def weaker_mode(mode: Mode, status: int, message: str) -> Mode | None:
    """The next way to ask, if an answer says that the server does not know `mode`."""
    if mode == MODES[-1] or status not in _REFUSALS or not _UNKNOWN.search(message):
        return None
    return MODES[MODES.index(mode) + 1]


def request_fields(
    mode: Mode, schema: Mapping[str, Any], messages: tuple[dict[str, str], ...]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What asks for JSON: fields of the request, and the messages, which hold the schema where the fields do not."""
    if mode == "json_schema":
        shape = {"name": "reply", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": shape}}, list(messages)
    order = "Reply with one JSON object and nothing else. It must be valid against this JSON schema: " + json.dumps(
        schema, ensure_ascii=False
    )
    head, rest = messages[:1], list(messages)
    if head and head[0]["role"] == "system":
        order, rest = f"{head[0]['content']}\n\n{order}", rest[1:]
    fields = {"response_format": {"type": "json_object"}} if mode == "json_object" else {}
    return fields, [{"role": "system", "content": order}, *rest]
