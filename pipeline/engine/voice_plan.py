"""Who an audit measures, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from pipeline.config import Config, assign_settings, load_config, validate_config
from pipeline.errors import UsageError
from pipeline.voice import Voice
from speakers.distinct import stratified
from speakers.library import VoiceLibrary, read_yaml
from speakers.recipes import canonical
from speakers.sentences import Use

WITHIN = 20
"""Voices of the sample that are measured twice."""


@dataclass(frozen=True)
class Limits:
    """error: the highest WER (en) or PER (zh) of a voice; mos: the lowest DNSMOS overall, of clips as they come out."""

    error: float = 0.05
    mos: float = 2.8


@dataclass(frozen=True)
class Plan:
    """Who is measured, by id. within: of the sample, those that speak other sentences too."""

    sample: frozenset[str]
    selected: frozenset[str]
    base: frozenset[str]
    within: frozenset[str]

    @property
    def ids(self) -> frozenset[str]:
        return self.sample | self.selected | self.base

    def uses(self, id: str) -> tuple[Use, ...]:
        check: tuple[Use, ...] = ("check",) if id in self.selected else ()
        more: tuple[Use, ...] = ("more",) if id in self.within else ()
        return ("embed", *check, *more)


def plan_audit(library: VoiceLibrary, sample: int, seed: int, selected: bool) -> Plan:
    """A sample by language and gender, the stock voices, and with `selected` those whose distinctness is claimed.

    Raises UsageError if that is nobody, or if no selected voice is there.
    """
    voices = library.voices
    strata = [(voice.languages[0], voice.gender) for voice in voices]
    drawn = stratified(strata, sample, seed)
    twice = stratified([strata[place] for place in drawn], WITHIN, seed)
    claimed = _claimed() if selected else frozenset()
    chosen = frozenset(voice.id for voice in voices if _sound(voice) in claimed)
    if selected and not chosen:
        raise UsageError("--selected: none of the shipped selected voices is in this library; leave the option out")
    if not drawn and not chosen:
        raise UsageError("--sample 0 measures nobody; give a number, or --selected")
    return Plan(
        sample=frozenset(voices[place].id for place in drawn),
        selected=chosen,
        base=frozenset(voice.id for voice in voices if is_base(voice)),
        within=frozenset(voices[drawn[place]].id for place in twice),
    )


def is_base(voice: Voice) -> bool:
    """Whether it is a style of the engine, as it is: one of those that the others are mixed of."""
    recipe = voice.recipe
    return len(recipe.timbre) == 1 and not recipe.prosody and recipe.shift == 0 and recipe.speed == 1


def _sound(voice: Voice) -> tuple[object, ...]:
    return voice.engine, voice.languages, canonical(voice.recipe)


def _claimed() -> frozenset[tuple[object, ...]]:
    file = resources.files("speakers").joinpath("distinct.yaml")
    found = read_yaml(file.read_text("utf-8"), "speakers/distinct.yaml", None) if file.is_file() else []
    return frozenset(map(_sound, found))


def audit_config(name: str | None, settings: Sequence[str], workers: int | None) -> Config:
    """The configuration called `name` (the defaults for None) changed by settings, on the CPUs of this machine unless
    they say engine.kind=ray. workers: processes, one a CPU for None. Raises ConfigError."""
    changes = ["engine.kind=local", *([f"engine.studios={workers}"] if workers else []), *settings]
    if name is not None:
        return load_config(name, changes)
    data = Config().model_dump(mode="json")
    assign_settings(data, changes)
    return validate_config(data, "audit")
