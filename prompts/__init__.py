"""Prompt templates: one versioned YAML file a prompt and language, `NAME.LANGUAGE.yaml`.

version: 1              counts the changes that readers should know of
system: text            jinja2: the instructions
examples:               few-shot turns, as chat messages: the variables of one request (those left out are empty; in
  - {..., assistant: …} prompts for the step reply, `line` is called `user`), and what to answer
user: text              jinja2: what the model reads as the user's message

A template may use the variables of its step (VARIABLES) and no other. Texts among them are data from outside: they
reach a template as one line each, and are never read as a template. The filter `json` puts a value in JSON, so
that a text cannot end its own quotation marks: `{{ instruction | json }}`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
import jinja2.meta
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.dialogue import Language, Role
from pipeline.errors import ConfigError

__all__ = ["KEYS", "VARIABLES", "Example", "PromptTemplate", "Step", "load", "names", "parse"]

Step = Literal["reply", "rewrite", "converse", "style", "review", "rephrase"]

# Where the configuration names the prompt of a step.
KEYS: dict[Step, str] = {
    "reply": "text.converse.prompt",
    "rewrite": "text.rewrite.prompt",
    "converse": "text.converse.prompt",
    "style": "text.style.prompt",
    "review": "text.review.prompt",
    "rephrase": "repair.ladder",
}

_TURNS = [{"role": "user", "text": "x"}, {"role": "assistant", "text": "x"}]
# The variables of each step, each with a value of its type to try a template with; max_user and max_assistant are
# words (en) or characters (zh) of a turn. Without the first one, a prompt could not say what it is about.
VARIABLES: dict[Step, dict[str, Any]] = {
    "reply": {"line": "x", "note": "x"},
    "rewrite": {"instruction": "x", "answer": "x"},
    "converse": {
        "turns": 2,
        "lines": _TURNS,
        "topic": "x",
        "persona": "x",
        "scenario": "x",
        "system": "x",
        "code_switch": True,
        "max_user": 1,
        "max_assistant": 1,
    },
    "style": {
        "turns": _TURNS,
        "emotions": ["x"],
        "styles": ["x"],
        "code_switch": True,
        "max_user": 1,
        "max_assistant": 1,
    },
    "review": {"turns": _TURNS, "code_switch": True},
    "rephrase": {"line": "x", "turns": _TURNS, "code_switch": True, "max_units": 1},
}

# Tokens that chat templates of common models set around messages: a server would read them as such in a text, too.
_SPECIAL = re.compile(r"<(?=[|｜]|/?s>|(?:start|end)_of_turn>)|[\[](?=/?(?:INST|SYSTEM_PROMPT)\])|<(?=</?SYS>>)")
_FAULTS = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError)


class Example(BaseModel):
    """A request and its answer. Beside `assistant` it holds variables of the step, as attributes."""

    model_config = ConfigDict(frozen=True, extra="allow")

    assistant: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    system: str
    examples: tuple[Example, ...] = ()
    user: str


@dataclass(frozen=True)
class PromptTemplate:
    """A loaded prompt. digest: 16 hex digits over the file's content; system, user: jinja2 source."""

    name: str
    language: Language
    step: Step
    digest: str
    version: int
    system: str
    examples: tuple[Example, ...]
    user: str

    def messages(self, history: Sequence[tuple[Role, str]], note: str, system: str = "") -> tuple[dict[str, str], ...]:
        """Chat messages for the assistant's next turn: instructions, examples, the talk so far. Step reply only.

        history: (role, text) of the turns so far, the last one the user's. note: a reference reply that the
        answer should agree with, "" for none. system: what the dialogue itself tells the assistant, or "".
        Raises ValueError where the last turn is not the user's.
        """
        if not history or history[-1][0] != "user":
            raise ValueError("the last turn of the history must be the user's")
        first, *rest = self.render(line=history[-1][1], note=note)
        told = "\n\n".join(filter(None, [first["content"], _inert(system)]))
        talk = [_message(role, _inert(text)) for role, text in history[:-1]]
        return (_message("system", told), *rest[:-1], *talk, rest[-1])

    def render(self, **variables: Any) -> tuple[dict[str, str], ...]:
        """Chat messages of one request: instructions, examples, the request. variables: all of the step's, by name.

        Raises TypeError where one is missing or is none of the step's.
        """
        known = VARIABLES[self.step]
        if variables.keys() != known.keys():
            raise TypeError(f"{self.step} takes {', '.join(known)}; it was given {', '.join(variables) or 'nothing'}")
        messages = [_message("system", _fill(self.system, variables))]
        for example in self.examples:
            messages.append(_message("user", _fill(self.user, _given(example, self.step))))
            messages.append(_message("assistant", example.assistant))
        messages.append(_message("user", _fill(self.user, variables)))
        return tuple(messages)


def names() -> list[str]:
    """The names of the shipped prompts, sorted."""
    files = (item.name for item in resources.files(__name__).iterdir())
    return sorted({file.split(".")[0] for file in files if file.endswith(".yaml") and file.count(".") == 2})


@cache
def load(name: str, language: Language, step: Step | None = None) -> PromptTemplate:
    """The prompt called `name` in `language`: a shipped one, or a path to files of one's own, as `my/prompts/rewrite`
    for my/prompts/rewrite.en.yaml and rewrite.zh.yaml. step: whose variables it may use; the name says it if None.

    Raises ConfigError naming the key of the configuration and the nearest prompt, or the file and the bad field.
    """
    if step is None and name in get_args(Step):
        step = name  # type: ignore[assignment]
    key = KEYS[step] if step else "prompt"
    if not name.isprintable():
        raise ConfigError(f"{key}: {name!r} can be no prompt's name: it holds signs that do not show")
    if "/" in name or "\\" in name:
        if step is None:
            raise ValueError(f"say which step {name!r} is for")
        return parse(_read(name, language, key), name, language, step)
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{key}: no prompt is called {name!r}; {hint}prompts: {', '.join(names())}; "
            f"one of your own is named by its path: ./{name} for {name}.{language}.yaml here"
        )
    file = resources.files(__name__).joinpath(f"{name}.{language}.yaml")
    return parse(file.read_text("utf-8"), name, language, step or "reply")


def _read(name: str, language: Language, key: str) -> str:
    path = Path(f"{name}.{language}.yaml")
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{key}: no file {path}; a prompt of your own is named without its ending, "
            f"and has a file for each language: {Path(name).name}.en.yaml, {Path(name).name}.zh.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {path} is not readable: {error}") from None


def parse(text: str, name: str, language: Language, step: Step = "reply") -> PromptTemplate:
    """The prompt in `text`, a file NAME.LANGUAGE.yaml, tried with values of each variable.

    Raises ConfigError naming file and field.
    """
    where = f"{'' if '/' in name or chr(92) in name else 'prompts/'}{name}.{language}.yaml"
    try:
        data = _File.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: it is nested too deep") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(faults)}") from None
    full = VARIABLES[step]
    needed = next(iter(full))
    empty = {key: value if type(value) is int or key == needed else type(value)() for key, value in full.items()}
    for field, source in (("system", data.system), ("user", data.user)):
        used = _check(source, step, f"{where}: {field}")
        for values in (full, empty):
            _try(source, values, f"{where}: {field}")
        if field == "user" and needed not in used:
            raise ConfigError(f"{where}: user: `{needed}` is not used, so the model would not know what it is about")
    for number, example in enumerate(data.examples):
        place = f"{where}: examples.{number}"
        given = _given(example, step)
        for key, value in given.items():
            if key not in full:
                raise ConfigError(f"{place}: {_unknown(key, step)}")
            if type(value) is not type(full[key]):
                raise ConfigError(f"{place}.{key}: it is a {type(full[key]).__name__}, not {value!r}")
        _try(data.user, given, place)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return PromptTemplate(name, language, step, digest, data.version, data.system.strip(), data.examples, data.user)


def _check(source: str, step: Step, where: str) -> set[str]:
    """The variables that a template uses, all of them its step's."""
    try:
        used = jinja2.meta.find_undeclared_variables(_environment().parse(source))
    except jinja2.TemplateError as error:
        raise ConfigError(f"{where}: no jinja2 template: {' '.join(str(error).split())}") from None
    for variable in sorted(used - VARIABLES[step].keys()):
        raise ConfigError(f"{where}: {_unknown(variable, step)}")
    return used


def _try(source: str, values: Mapping[str, Any], where: str) -> None:
    try:
        _fill(source, values)
    except _FAULTS as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None


def _unknown(variable: str, step: Step) -> str:
    near = difflib.get_close_matches(variable, VARIABLES[step], n=1, cutoff=0.4)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"unknown variable `{variable}`; {hint}known in a prompt for {step}: {', '.join(VARIABLES[step])}"


def _given(example: Example, step: Step) -> dict[str, Any]:
    """The variables of an example; what it leaves out is empty, but a number has no empty value."""
    given = dict(example.model_extra or {})
    if step == "reply" and "user" in given:
        given["line"] = given.pop("user")
    return {key: type(value)() for key, value in VARIABLES[step].items() if type(value) is not int} | given


def _inert(value: Any) -> Any:
    """Texts, also those within lists and maps, as one line each in which no server sees the end of a message."""
    if isinstance(value, str):
        return " ".join(_SPECIAL.sub(lambda match: match[0] + " ", value).split())
    if isinstance(value, Mapping):
        return {key: _inert(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_inert(item) for item in value]
    return value


def _fill(source: str, values: Mapping[str, Any]) -> str:
    return _template(source).render(_inert(values)).strip()


@cache
def _environment() -> jinja2.Environment:
    # A prompt may be somebody else's file: it reads the variables, and nothing of the program.
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment


@cache
def _template(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
