"""What the steps ask the LLM for: the shapes that are parsed, and the JSON schemas that servers are held to.

The schemas are written by hand: strict servers want every key required, no other allowed, and few of pydantic's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.dialogue import Role


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True)  # an extra key of a chatty model does no harm


class Rewritten(_Shape):
    speakable: bool
    question: str


class WrittenTurn(_Shape):
    role: Role
    text: str


class Written(_Shape):
    turns: tuple[WrittenTurn, ...]


class StyledTurn(_Shape):
    text: str
    emotion: str = ""
    style: str = ""


class Styled(_Shape):
    turns: tuple[StyledTurn, ...]


class Reviewed(_Shape):
    coherence: int = Field(ge=1, le=5)
    naturalness: int = Field(ge=1, le=5)
    consistency: int = Field(ge=1, le=5)
    safety: int = Field(ge=1, le=5)
    self_contained: int = Field(ge=1, le=5)
    reason: str = ""


_TEXT = {"type": "string"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _turns(item: dict[str, Any], count: int) -> dict[str, Any]:
    return _object(turns={"type": "array", "items": item, "minItems": count, "maxItems": count})


REWRITTEN = _object(speakable={"type": "boolean"}, question=_TEXT)
REVIEWED = _object(
    **{name: {"type": "integer", "enum": [1, 2, 3, 4, 5]} for name in Reviewed.model_fields if name != "reason"},
    reason=_TEXT,
)


def written(count: int) -> dict[str, Any]:
    """A dialogue of `count` turns."""
    return _turns(_object(role={"type": "string", "enum": ["user", "assistant"]}, text=_TEXT), count)


def styled(count: int, emotions: Sequence[str], styles: Sequence[str]) -> dict[str, Any]:
    """`count` turns with labels; a label that is not asked for is ""."""
    label = {"emotion": ["", *emotions], "style": ["", *styles]}
    return _turns(
        _object(text=_TEXT, **{name: {"type": "string", "enum": list(of)} for name, of in label.items()}), count
    )
