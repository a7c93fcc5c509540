"""Recipes as text: how one is compared, stored and shown, and what it says about the age of a voice."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.voice import Age, Gender, Recipe, Voice, Weights

# Raised by 3 semitones, formants and all, a woman sounds as if her vocal tract were 16 % shorter: that of a child of
# about ten (Fitch and Giedd, "Morphology and development of the human vocal tract", JASA 106, 1999).
CHILD_SHIFT = 3.0
# Women's voices fall and slow down with age. Men's do not fall, so that none of these
# is an old man. An approximation.
OLD_SHIFT, OLD_SPEED = -2.0, 0.9


def plain(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says that is not said by default; mixes as maps of name to weight."""
    out: dict[str, Any] = {}
    for name, field in Recipe.model_fields.items():
        value = getattr(recipe, name)
        if value != field.default:
            out[name] = dict(sorted(value)) if name in ("timbre", "prosody") else value
    return out


def canonical(recipe: Recipe) -> str:
    """A recipe as JSON: equal recipes, equal text."""
    return json.dumps(plain(recipe), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def describe(recipe: Recipe) -> str:
    """A recipe for people: `0.6 af_bella + 0.4 af_sky, spoken like af_nova, +1.5 st, x0.94`."""
    parts = {
        "styles": _mix(recipe.timbre),
        "name": recipe.name,
        "clip": recipe.clip,
        "embedding": f"an embedding of {len(recipe.embedding)} numbers",
    }
    out = [parts[recipe.kind]]
    if recipe.prosody:
        out.append(f"spoken like {_mix(recipe.prosody)}")
    if recipe.shift:
        out.append(f"{recipe.shift:+g} st")
    if recipe.speed != 1:
        out.append(f"x{recipe.speed:g}")
    return ", ".join(out)


def _mix(weights: Weights) -> str:
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights)


def apparent_age(gender: Gender, recipe: Recipe) -> Age:
    """How old a voice sounds that is made of grown people, as far as its shift and its speed tell."""
    if gender == "female" and recipe.shift >= CHILD_SHIFT:
        return "child"
    if gender == "female" and recipe.shift <= OLD_SHIFT and recipe.speed <= OLD_SPEED:
        return "old"
    return "adult"


def like_parents(voice: Voice, bases: Mapping[str, Voice]) -> Voice:
    """`voice` with what follows from those that it speaks like, by style: rate and pitch (foretold; 0 where theirs were
    not measured), accent (of most of them, by weight), and age, where they are no grown people."""
    recipe = voice.recipe
    mine = {name: base for name, base in bases.items() if set(base.languages) & set(voice.languages)}
    manner = [(mine[name], weight) for name, weight in recipe.prosody or recipe.timbre if name in mine]
    if not manner:
        return voice
    age = _heaviest([(base.age, weight) for base, weight in manner])
    update = {
        "rate": round(_mean([(base.rate, weight) for base, weight in manner]) * recipe.speed, 2),
        "pitch": round(_mean([(base.pitch, weight) for base, weight in manner]) * 2 ** (recipe.shift / 12), 1),
        "accent": _heaviest([(base.accent, weight) for base, weight in manner]),
        "age": apparent_age(voice.gender, recipe) if age == "adult" else age,
    }
    return voice.model_copy(update=update)


def _mean(shares: Sequence[tuple[float, float]]) -> float:
    if not all(value for value, _ in shares):
        return 0.0
    return math.fsum(value * weight for value, weight in shares) / math.fsum(weight for _, weight in shares)


def _heaviest(shares: Sequence[tuple[str, float]]) -> str:
    totals: dict[str, float] = {}
    for name, weight in shares:
        totals[name] = totals.get(name, 0.0) + weight
    return max(sorted(totals), key=totals.__getitem__)
