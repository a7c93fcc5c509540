"""The configuration: one tree, loaded from a preset or a YAML file, changed by `--set key=value`.

A key is either *content* (it reaches the bytes of a shard, so it is part of a stage's digest and is frozen in
RUN/config.yaml) or *execution* (where and how fast: marked `EXECUTION`, free to change between two starts of a run).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.dialogue import Language, Split
from pipeline.errors import ConfigError
from pipeline.listening_sections import UNTOLD, AsrConfig, JudgeConfig, QualityConfig, RecognizerConfig, RepairConfig
from pipeline.sections import (
    EXECUTION,
    ConverseConfig,
    DedupConfig,
    DisfluencyConfig,
    EndpointConfig,
    EngineConfig,
    FilterConfig,
    ReviewConfig,
    RewriteConfig,
    Section,
    SourceConfig,
    StyleConfig,
    TextConfig,
    Weight,
    WriterConfig,
)
from pipeline.speech_sections import (
    AudioConfig,
    CastConfig,
    EnvironmentConfig,
    TtsConfig,
    TtsEngineConfig,
    WatermarkConfig,
)
from pipeline.view_sections import ViewConfig

__all__ = [
    "EXECUTION",
    "AsrConfig",
    "AudioConfig",
    "CastConfig",
    "Config",
    "ConverseConfig",
    "DedupConfig",
    "DisfluencyConfig",
    "EndpointConfig",
    "EngineConfig",
    "EnvironmentConfig",
    "FilterConfig",
    "JudgeConfig",
    "QualityConfig",
    "RecognizerConfig",
    "RepairConfig",
    "ReviewConfig",
    "RewriteConfig",
    "Section",
    "SourceConfig",
    "StyleConfig",
    "TextConfig",
    "TtsConfig",
    "TtsEngineConfig",
    "ViewConfig",
    "WatermarkConfig",
    "WriterConfig",
    "all_keys",
    "assign_settings",
    "digest",
    "explain",
    "load_config",
    "parse_yaml",
    "preset_names",
    "validate_config",
]


class Config(Section):
    """The whole configuration of a run."""

    dialogues: int = Field(64, ge=1, description="planned dialogues, a multiple of unit_size")
    unit_size: int = Field(64, ge=1, le=1000)
    seed: int = Field(0, ge=0)
    languages: dict[Language, Weight] = Field({"en": 1, "zh": 1})
    splits: dict[Split, Weight] = Field({"train": 0.9, "validation": 0.05, "test": 0.05})
    regated_from: str = Field(
        "", description="digest of the run that `speechchat regate` judged again; not set by hand"
    )
    sources: dict[str, SourceConfig] = Field(
        {"chatterbot": SourceConfig()}, min_length=1, description="where text comes from, by name"
    )
    text: TextConfig = TextConfig()
    writer: WriterConfig = WriterConfig()
    dedup: DedupConfig = DedupConfig()
    cast: CastConfig = CastConfig()
    tts: TtsConfig = TtsConfig()
    require_licence: Literal["any", "commercial"] = Field(
        "any", description="commercial: refuse models, voices and sources whose licence forbids commercial use"
    )
    audio: AudioConfig = AudioConfig()
    watermark: WatermarkConfig = WatermarkConfig()
    asr: AsrConfig = AsrConfig()
    quality: QualityConfig = QualityConfig()
    judge: JudgeConfig = JudgeConfig()
    repair: RepairConfig = RepairConfig()
    views: dict[str, ViewConfig] = Field(
        {}, json_schema_extra=EXECUTION, description="variants of the user's track, by name; they change no shard"
    )
    engine: EngineConfig = Field(EngineConfig(), json_schema_extra=EXECUTION)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.dialogues % self.unit_size:
            whole = -(-self.dialogues // self.unit_size) * self.unit_size
            raise ValueError(
                f"dialogues={self.dialogues} is no multiple of unit_size={self.unit_size}, so a later, longer run "
                f"would change its last unit; use dialogues={whole}"
            )
        gate = self.judge.needs("mos_sig", "mos_bak", "mos_ovr")
        if gate and self.quality.engine == "none":
            raise ValueError(f"{gate} needs a quality model: quality.engine is none, so no MOS is measured")
        gate = self.judge.needs("similarity", "swap")
        if gate and self.quality.speaker == "none":
            raise ValueError(f"{gate} needs a speaker encoder: quality.speaker is none; set it to resemblyzer")
        for kind, gates in (("limits", self.judge.limits), ("floors", self.judge.floors)):
            for language in self.active_languages:
                engine = self.asr.by_language.get(language, self.asr).engine
                for name in sorted(gates.get(language, {}).keys() & UNTOLD.get(engine, ())):
                    raise ValueError(
                        f"judge.{kind}.{language}.{name}: a recogniser of kind {engine} does not tell it, so nothing "
                        f"would be held back; take the gate out, or let faster-whisper listen"
                    )
        for name, source in self.sources.items():
            if source.kind not in ("chatterbot", "topics"):
                if source.data is None:
                    raise ValueError(f"sources.{name}.data: name the file, folder or data set of its {source.kind}")
                if not source.license:
                    raise ValueError(
                        f"sources.{name}.license: name it; it travels into every sample that is made of it"
                    )
            if source.kind == "topics" and self.text.converse.mode != "whole":
                raise ValueError(
                    f"sources.{name}: topics have no lines, so the LLM must write them: set text.converse.mode=whole"
                )
        for name in ("languages", "splits"):
            if not sum(getattr(self, name).values()) > 0:
                raise ValueError(f"{name} needs at least one weight above 0")
        return self

    @property
    def active_languages(self) -> tuple[Language, ...]:
        return tuple(sorted(name for name, weight in self.languages.items() if weight > 0))

    def content(self) -> dict[str, Any]:
        """The part that reaches the output, as plain data."""
        content = _content(self)
        content["text"]["grounding"] = self.grounding
        # Files count by what is in them (see text_digest_parts); where they lie reaches no output.
        for step in ("rewrite", "converse", "style", "review"):
            prompt = content["text"][step]["prompt"]
            content["text"][step]["prompt"] = prompt and Path(prompt).name
        for key in ("against", "benchmarks"):
            content["dedup"][key] = [path.name for path in getattr(self.dedup, key)]
        return content

    @property
    def grounding(self) -> float:
        """text.grounding, or what it is if nothing was said."""
        if self.text.grounding is not None:
            return self.text.grounding
        return 0.8 if self.embedded else 0.0

    @property
    def embedded(self) -> bool:
        """Whether the embedded LLM writes."""
        return self.writer.base_url is None and not self.writer.endpoints

    @property
    def llm_steps(self) -> tuple[str, ...]:
        """Names of the prompts that the LLM is asked with, in the order of the steps."""
        text = self.text
        steps = (
            (text.rewrite.enabled, text.rewrite.prompt),
            (True, text.converse.template),
            (text.style.enabled, text.style.prompt),
        )
        return tuple(
            name for on, name in (*steps, (text.review.enabled, text.review.prompt)) if on and name is not None
        )


def _content(section: Section) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("execution"):
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            out[name] = _content(value)
        elif isinstance(value, dict) and any(isinstance(item, Section) for item in value.values()):
            out[name] = {key: _content(item) for key, item in value.items()}
        else:
            out[name] = json.loads(json.dumps(value, default=str))
    return out


def digest(*parts: object) -> str:
    """16 hex digits over the canonical JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def preset_names() -> list[str]:
    return sorted(
        item.name.removesuffix(".yaml")
        for item in resources.files("pipeline.presets").iterdir()
        if item.name.endswith(".yaml")
    )


def load_config(name: str, settings: Sequence[str] = ()) -> Config:
    """The configuration called `name` (a preset, or the path of a YAML file), changed by `key=value` settings.

    Raises ConfigError with one line that names the file and the key.
    """
    if name in preset_names():
        text = resources.files("pipeline.presets").joinpath(f"{name}.yaml").read_text("utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: not readable: {error}") from None
    else:
        raise ConfigError(
            f"{name!r} is neither a preset nor a file; {_nearest(name, preset_names())}"
            f"presets: {', '.join(preset_names())}"
        )
    data = parse_yaml(text, name)
    data.pop("provenance", None)  # of a frozen RUN/config.yaml, which is a configuration like any other
    assign_settings(data, settings)
    return validate_config(data, name)


def assign_settings(data: dict[str, Any], settings: Sequence[str]) -> None:
    """Put each `key=value` into the tree; values are YAML. Raises ConfigError."""
    for setting in settings:
        key, eq, value = setting.partition("=")
        if not eq or not key:
            raise ConfigError(f"--set {setting!r}: write it as key=value, for example --set judge.min_mos=2.5")
        _assign(data, key.strip().split("."), _parse_value(value, setting), setting)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{name}:{where} not valid YAML: {problem}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: a configuration is a map of keys to values, this is a {type(data).__name__}")
    return data


def _parse_value(value: str, setting: str) -> object:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {setting!r}: the value is not valid YAML") from None


def _assign(data: dict[str, Any], path: list[str], value: object, setting: str) -> None:
    for part in path[:-1]:
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {setting!r}: {part!r} is a value, it has no keys below it")
        data = inner
    data[path[-1]] = value


def validate_config(data: Mapping[str, Any], name: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_explain(item) for item in error.errors())) from None


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"] if part != "[key]"]
    key = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggest(path)}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict) else f" (it is {item['input']!r})"
    return f"{key}: {message}{shown}" if key else message


def _suggest(path: list[str]) -> str:
    """The nearest known key: one of that very name elsewhere, then among the neighbours, then anywhere in the tree."""
    known = [_under(path, key) for key in sorted(all_keys(), key=lambda key: "*" in key)]
    prefix = ".".join(path[:-1])
    siblings = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == prefix]
    near = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.5)
    match = (
        [key for key in known if key.rpartition(".")[2] == path[-1]]
        or [".".join([*path[:-1], name]) for name in near]
        or difflib.get_close_matches(".".join(path), [key for key in known if key != prefix], n=1, cutoff=0.5)
    )
    if match:
        return f"; did you mean {match[0]!r}?"
    return f"; known here: {', '.join(siblings)}" if siblings else "; `speechchat presets quickstart` shows the keys"


def _under(path: list[str], key: str) -> str:
    """A key with `*`, where a name of the user's own stands, with the name that stands there in `path`."""
    parts = key.split(".")
    return ".".join(path[place] if part == "*" and place < len(path) else part for place, part in enumerate(parts))


def _nearest(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {match[0]!r}? " if match else ""


def all_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree; `*` stands for a name of the user's own."""
    for name, field in section.model_fields.items():
        yield prefix + name
        named = get_args(field.annotation)[1:] if get_origin(field.annotation) is dict else ()
        for item in named:
            if isinstance(item, type) and issubclass(item, Section):
                yield from all_keys(item, f"{prefix}{name}.*.")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from all_keys(field.annotation, f"{prefix}{name}.")


def explain(section: Section, indent: str = "") -> str:
    """The configuration as YAML, with what its keys mean as comments; it loads as the configuration that it shows."""
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        text = " ".join((type(value).__doc__ or "").split()) if isinstance(value, Section) else field.description
        if text:
            lines.append(f"{indent}# {text}")
        if isinstance(value, Section):
            lines.append(f"{indent}{name}:\n{explain(value, indent + '  ')}")
        else:
            plain = json.dumps(section.model_dump(mode="json", include={name})[name], ensure_ascii=False)
            lines.append(f"{indent}{name}: {plain}")
    return "\n".join(lines)
