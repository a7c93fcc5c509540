"""What an estimate rests on: shipped assumptions, what a pilot run measured, and what the user says."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.config import Config, RecognizerConfig, TtsEngineConfig
from pipeline.dialogue import Record
from pipeline.errors import UsageError

Basis = Literal["given", "pilot", "configuration", "measured", "published", "not measured"]
SHARES = ("speech_share", "text_yield", "speech_yield", "first_take_failure", "utilisation")
"""Between 0 and 1."""
SOUND = {"cpu": "CPU s a second of audio", "gpu": "GPU s a second of audio"}
WRITE = {
    "token_cpu": "CPU s a token of the replies",
    "token_gpu": "GPU s a token of the replies",
    "latency": "s a token of one reply",
}
_TRUST: tuple[Basis, ...] = ("measured", "published", "not measured")
ABOVE_ZERO = (
    *("seconds_per_dialogue", "utilisation", "dedup_per_second"),
    *("driver_memory", "disk_bytes_per_second", "folder_entries", "repository_files"),
)
"""Something is divided by them, or nothing would be left to estimate."""


class Assumption(Record):
    """A rate with its unit, where it is from, and how far that can be trusted."""

    key: str
    value: float
    unit: str
    basis: Basis
    source: str


@dataclass(frozen=True)
class Rates:
    """All assumptions by key. notes: what the user should know of them."""

    assumptions: dict[str, Assumption]
    notes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> float:
        return self.assumptions[key].value


def assume(config: Config, pilot: Path | None = None, given: Sequence[str] = ()) -> Rates:
    """The rates for `config`: of the shipped table, then of the pilot, then as `key=value` in `given`.

    Raises UsageError for a bad `given`, RunFolderError, ConfigError and DataError for a bad pilot.
    """
    rates = {item.key: item for item in _shipped(config)}
    notes: tuple[str, ...] = ()
    if pilot is not None:
        from pipeline.engine.estimate_pilot import measure  # it knows the engine, which takes its time to import

        found, notes = measure(pilot, config)
        for item in found:
            rates[item.key] = rates[item.key].model_copy(
                update={"value": item.value, "basis": "pilot", "source": item.source}
            )
    for key, value in pairs("--assume", given, rates).items():
        if key in SHARES and value > 1:
            raise UsageError(f"--assume {key}={value:g}: it is a share, from 0 to 1")
        if key in ABOVE_ZERO and value == 0:
            raise UsageError(f"--assume {key}=0: it must be above 0")
        rates[key] = rates[key].model_copy(update={"value": value, "basis": "given", "source": "--assume"})
    return Rates(rates, notes)


def pairs(option: str, given: Sequence[str], known: Mapping[str, object]) -> dict[str, float]:
    """`key=number` settings of an option. Raises UsageError naming the option, the key and the known ones."""
    found = {}
    for setting in given:
        key, eq, text = setting.partition("=")
        if not eq:
            raise UsageError(f"{option} {setting!r}: write it as key=number; known: {', '.join(known)}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"{option} {setting!r}: unknown key {key!r}; {hint}known: {', '.join(known)}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{option} {setting!r}: {text!r} is no number from 0 on")
        found[key] = value
    return found


# ---- the shipped table ----------------------------------------------------------------------------------------------


def _shipped(config: Config) -> Iterator[Assumption]:
    table = yaml.safe_load(resources.files("pipeline.engine").joinpath("estimate.yaml").read_text("utf-8"))
    for key, entry in table["assumptions"].items():
        yield Assumption(key=key, **entry)
    yield from _tokens(config, table["steps"])
    writer = "embedded" if config.embedded else "served"
    yield from _mean(table["write"], {"": (writer, 1.0)}, "", WRITE)
    engines = {name: (_engine(section), 1.0) for name, section in config.tts.engines.items()}
    yield from _mean(table["speak"], engines, "speak_", SOUND)
    heard = config.active_languages
    ears = {name: (_recognizer(config.asr.by_language.get(name, config.asr)), config.languages[name]) for name in heard}
    yield from _mean(table["listen"], ears, "listen_", SOUND)


def _mean(
    table: Mapping[str, Any], users: Mapping[Any, tuple[str, float]], prefix: str, units: Mapping[str, str]
) -> Iterator[Assumption]:
    """users: by engine or language, the entry of the table and its weight. The basis is that of the worst entry."""
    total = math.fsum(weight for _, weight in users.values())
    names = dict.fromkeys(name for name, _ in users.values())
    for kind, unit in units.items():
        found = {name: table[name][kind] for name in names if kind in table[name]}
        used = math.fsum(found[name]["value"] * weight for name, weight in users.values() if name in found)
        yield Assumption(
            key=prefix + kind,
            value=used / total,
            unit=unit,
            basis=max((entry["basis"] for entry in found.values()), key=_TRUST.index, default="configuration"),
            source="; ".join(entry["source"] for entry in found.values()) or f"{', '.join(names)}: none",
        )


def _engine(section: TtsEngineConfig) -> str:
    if section.kind == "coqui":
        return "coqui-cpu" if section.device == "cpu" else "coqui"
    return section.kind if section.kind in ("kokoro", "hibari") else "served"


def _recognizer(section: RecognizerConfig) -> str:
    if section.engine == "sherpa":
        return "sherpa"
    if section.engine == "faster-whisper" and not section.model and section.model_path is None:
        return "whisper-base"
    return "whisper-large-cpu" if section.device == "cpu" else "whisper-large"


def _tokens(config: Config, steps: Mapping[str, Mapping[str, float]]) -> Iterator[Assumption]:
    """Requests and tokens of one dialogue, before any is asked for again."""
    text, asked = config.text, []
    weights = {name: source.weight for name, source in config.sources.items()}
    rows = math.fsum(weight for name, weight in weights.items() if config.sources[name].kind != "topics")
    if text.rewrite.enabled:
        asked.append(("rewrite", rows / (math.fsum(weights.values()) or 1)))  # a topic has no line to rewrite
    if text.converse.mode == "whole":
        asked.append(("converse", 1.0))
    elif text.converse.mode != "none":
        asked.append(("reply", 1.5))  # replies of the assistant in a dialogue of 2 to 4 turns
    asked += [(name, 1.0) for name in ("style", "review") if getattr(text, name).enabled]
    source = ", ".join(f"{name} × {times:g}" for name, times in asked) or "no step asks the LLM"
    parts: tuple[tuple[str, str, Basis], ...] = (
        ("requests", "", "configuration"),
        ("prompt_tokens", "prompt", "measured"),
        ("reply_tokens", "reply", "not measured"),
    )
    for key, part, basis in parts:
        value = math.fsum(times * (steps[name][part] if part else 1) for name, times in asked)
        unit = f"{key.replace('_', ' ')} a dialogue planned"
        yield Assumption(key=key, value=value, unit=unit, basis=basis, source=f"shipped prompts: {source}")
