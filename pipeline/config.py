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
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.dialogue import Language, Split
from pipeline.errors import ConfigError

EXECUTION: dict[str, Any] = {"execution": True}

# The error rates that exist for a language (text/rates.py measures them).
RATES: dict[Language, tuple[str, ...]] = {"en": ("wer", "cer"), "zh": ("cer", "per")}

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def _defaults(**values: Any) -> BeforeValidator:
    """What a map by language holds for a language that the configuration does not name."""
    return BeforeValidator(lambda given: {**values, **given} if isinstance(given, dict) else given)


class SourceConfig(Section):
    """Where opening lines come from. topics: names of the corpus's files, by language."""

    kind: Literal["chatterbot"] = "chatterbot"
    path: Path | None = Field(
        None, json_schema_extra=EXECUTION, description="folder of the corpus; the installed package if null"
    )
    topics: dict[Language, tuple[str, ...]] = {}
    max_turns: int = Field(4, ge=2, le=64)


class TextConfig(Section):
    """What is speakable, per turn. max_units: words (en) or characters (zh)."""

    max_units: Annotated[dict[Language, Positive], _defaults(en=24, zh=36)] = {}
    max_dialogue_units: Annotated[dict[Language, Positive], _defaults(en=40, zh=56)] = {}
    grounding: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of an LLM reply's content that the source's own reply must hold; 0 = off; "
        "null: 0.8 for the embedded LLM, which drifts, and 0 for an endpoint",
    )


class WriterConfig(Section):
    """The LLM. Without base_url the embedded model is started on loopback."""

    base_url: str | None = Field(None, json_schema_extra=EXECUTION)
    model: str = "gemma-3-270m"
    model_path: Path | None = Field(None, json_schema_extra=EXECUTION, description="GGUF file for the embedded server")
    prompt: str = "reply"
    temperature: float = Field(0.4, ge=0, le=2)
    max_tokens: Positive = 80
    attempts: int = Field(3, ge=1, le=16, description="replies asked for a turn before the source's own line is taken")
    extra_body: dict[str, Any] = {}
    concurrency: Positive = Field(16, json_schema_extra=EXECUTION)
    timeout: float = Field(60, gt=0, json_schema_extra=EXECUTION, description="seconds for one request")
    retries: int = Field(4, ge=0, le=20, json_schema_extra=EXECUTION)


class CastConfig(Section):
    """Who speaks. agents: the few voices of the assistant, by language; users: the user's, all others if null."""

    agents: Annotated[
        dict[Language, tuple[str, ...]],
        _defaults(en=("af_heart", "am_michael"), zh=("zf_xiaoxiao", "zm_yunxi")),
    ] = {}
    users: dict[Language, tuple[str, ...]] | None = None


class TtsConfig(Section):
    """speeds: take n is spoken at speeds[n] (an engine without chance needs each take to differ)."""

    engine: str = "kokoro"
    model_path: Path | None = Field(None, json_schema_extra=EXECUTION, description="folder of the model's files")
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field((1.0, 0.88), min_length=1)
    threads: Positive = Field(1, json_schema_extra=EXECUTION)


class AudioConfig(Section):
    """Tracks and timeline. loudness: LUFS (ITU-R BS.1770); peak: dBFS; gap: seconds between turns, drawn evenly."""

    user_rate: int = Field(16000, ge=8000, le=48000)
    assistant_rate: int = Field(24000, ge=8000, le=48000)
    loudness: float = Field(-23.0, ge=-60, le=-5)
    peak: float = Field(-1.0, ge=-20, le=0)
    trim_below: float = Field(-50.0, ge=-90, le=-20, description="dBFS under which the ends of a clip are silence")
    lead: float = Field(0.2, ge=0, le=5, description="seconds of silence before the first turn")
    gap: tuple[float, float] = (0.25, 0.6)
    tail: float = Field(0.2, ge=0, le=5)

    @model_validator(mode="after")
    def _check(self) -> AudioConfig:
        for name in ("user_rate", "assistant_rate"):
            rate = getattr(self, name)
            if rate * 8 % 100:
                raise ValueError(f"{name}={rate} has no whole number of samples in 80 ms; use a multiple of 25")
        if not 0 <= self.gap[0] <= self.gap[1] <= 10:
            raise ValueError("gap must be two numbers of seconds, 0 <= low <= high <= 10")
        return self


class AsrConfig(Section):
    engine: str = "faster-whisper"
    model_path: Path | None = Field(None, json_schema_extra=EXECUTION, description="folder of the model's files")
    beam: int = Field(1, ge=1, le=10)
    threads: Positive = Field(1, json_schema_extra=EXECUTION)


class QualityConfig(Section):
    """engine: "dnsmos" or "none" (then no MOS is stored)."""

    engine: str = "dnsmos"


class JudgeConfig(Section):
    """A turn passes if each named rate is at most its limit. Rates: wer, cer, per (see text/rates.py).

    min_mos: lowest DNSMOS overall score, 1 to 5; null gates nothing.
    """

    limits: Annotated[
        dict[Language, dict[Literal["wer", "cer", "per"], Weight]],
        _defaults(en={"wer": 0.1}, zh={"cer": 0.1}),
    ] = {}
    min_mos: float | None = Field(None, ge=1, le=5)
    keep: Literal["none", "sample", "all"] = Field(
        "all", description="which rejected clips are kept; sample: one in ten"
    )

    @model_validator(mode="after")
    def _check(self) -> JudgeConfig:
        for language, limits in self.limits.items():
            for rate in limits:
                if rate not in RATES[language]:
                    raise ValueError(
                        f"limits.{language}.{rate}: {rate} is not measured for {language}; "
                        f"measured are {' and '.join(RATES[language])}"
                    )
        return self


class EngineConfig(Section):
    """How the work is done; nothing here reaches a byte of the output."""

    kind: Literal["ray", "local"] = "ray"
    address: str | None = Field(None, description='Ray cluster; null starts one here, "auto" finds a running one')
    studios: int | None = Field(None, ge=1, description="studio workers; as many as the CPUs allow if null")
    studio_cpus: float = Field(1, gt=0)
    studio_gpus: float = Field(0, ge=0)
    writers: Positive = 2
    window: int = Field(16, ge=1, description="units in flight between text and speech")
    tries: int = Field(3, ge=1, le=20, description="tries of a unit before it is quarantined")
    restarts: int = Field(3, ge=0, le=100, description="restarts of one worker before it is given up")


class Config(Section):
    """The whole configuration of a run."""

    dialogues: int = Field(64, ge=1, description="planned dialogues, a multiple of unit_size")
    unit_size: int = Field(64, ge=1, le=1000)
    seed: int = Field(0, ge=0)
    languages: dict[Language, Weight] = {"en": 1, "zh": 1}
    splits: dict[Split, Weight] = {"train": 0.9, "validation": 0.05, "test": 0.05}
    regated_from: str = Field(
        "", description="digest of the run that `speechchat regate` judged again; not set by hand"
    )
    source: SourceConfig = SourceConfig()
    text: TextConfig = TextConfig()
    writer: WriterConfig = WriterConfig()
    cast: CastConfig = CastConfig()
    tts: TtsConfig = TtsConfig()
    audio: AudioConfig = AudioConfig()
    asr: AsrConfig = AsrConfig()
    quality: QualityConfig = QualityConfig()
    judge: JudgeConfig = JudgeConfig()
    engine: EngineConfig = Field(EngineConfig(), json_schema_extra=EXECUTION)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.dialogues % self.unit_size:
            whole = -(-self.dialogues // self.unit_size) * self.unit_size
            raise ValueError(
                f"dialogues={self.dialogues} is no multiple of unit_size={self.unit_size}, so a later, longer run "
                f"would change its last unit; use dialogues={whole}"
            )
        if self.judge.min_mos is not None and self.quality.engine == "none":
            raise ValueError("judge.min_mos needs a quality model: quality.engine is none, so no MOS is measured")
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
        return content

    @property
    def grounding(self) -> float:
        """text.grounding, or what it is if nothing was said."""
        if self.text.grounding is not None:
            return self.text.grounding
        return 0.8 if self.writer.base_url is None else 0.0


def _content(section: Section) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("execution"):
            continue
        value = getattr(section, name)
        out[name] = _content(value) if isinstance(value, Section) else json.loads(json.dumps(value, default=str))
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
    known = list(all_keys())
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


def _nearest(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {match[0]!r}? " if match else ""


def all_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree."""
    for name, field in section.model_fields.items():
        yield prefix + name
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
