"""The chat completion as it goes over the wire: the body of a request, and what an answer says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pipeline.backends.llm.base import Finish, Prompt, Reply
from pipeline.backends.llm.structured import Mode, request_fields
from pipeline.config import WriterConfig

_PLAIN_ONLY = ("grammar", "stop")  # extras that would forbid or cut JSON

# Words that are not here count as a cut: a text whose end is in doubt is not used as it is.
_FINISHES: dict[str | None, Finish] = {
    None: "stop",
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "content_filter": "content filter",
    "refusal": "refusal",
}


def request_body(
    prompt: Prompt, mode: Mode, model: str, config: WriterConfig, extras: Mapping[str, Any]
) -> dict[str, Any]:
    """extras: of the server; `config.extra_body` comes on top, and null there leaves a field out."""
    fields, messages = dict(extras), list(prompt.messages)
    if prompt.schema is not None:
        asked, messages = request_fields(mode, prompt.schema, prompt.messages)
        fields = {name: value for name, value in fields.items() if name not in _PLAIN_ONLY} | asked
    body = {
        "model": model,
        "messages": messages,
        "temperature": config.temperature,
        "max_tokens": prompt.max_tokens or config.max_tokens,
        "seed": prompt.seed,
        **fields,
        **config.extra_body,
    }
    return {name: value for name, value in body.items() if value is not None}


def most_tokens(body: Mapping[str, Any], config: WriterConfig) -> tuple[int, int]:
    """The most tokens that a request can have, of prompt and of reply.

    Byte-level vocabularies have no token for less than a byte, so no text has more tokens than bytes; 16 a message and
    64 are for the marks and the system line of a chat template.
    """
    texts = [str(message["content"]) for message in body["messages"]]
    if "response_format" in body:
        texts.append(json.dumps(body["response_format"], ensure_ascii=False))
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    reply = max([limit for limit in limits if isinstance(limit, int)], default=config.max_tokens)
    choices = body.get("n")  # each one is billed
    return sum(len(text.encode()) + 16 for text in texts) + 64, reply * (choices if isinstance(choices, int) else 1)


def read_completion(answer: object) -> Reply | None:
    """The reply in a decoded answer, still without its cost; None if it is no chat completion."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(choices, list):
        return None
    usage, choice = answer.get("usage") or {}, (choices or [{}])[0]
    message = choice.get("message") or {} if isinstance(choice, dict) else None
    content = message.get("content") or "" if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, str):
        return None
    # A server may send half a surrogate pair, which no file takes.
    text, ended = content.encode(errors="replace").decode().strip(), choice.get("finish_reason")
    finish = _FINISHES.get(ended, "length") if isinstance(ended, str | None) else "length"
    if message.get("refusal"):
        text, finish = text or str(message["refusal"]).strip(), "refusal"
    elif finish == "stop" and not text:
        finish = "empty"
    return Reply(
        text,
        finish,
        str(answer.get("model") or ""),
        _tokens(usage, "prompt_tokens"),
        _tokens(usage, "completion_tokens"),
    )


def _tokens(usage: object, name: str) -> int:
    """0 where the server does not tell, or tells what is no count."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return max(0, int(count)) if isinstance(count, int | float) and math.isfinite(count) else 0
