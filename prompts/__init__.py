"""Prompt templates: one versioned YAML file a prompt and language, `NAME.LANGUAGE.yaml`.

version: 1              counts the changes that readers should know of
system: text            the instructions
examples:               few-shot turns, as chat messages: a line of the user's, the note, the reply
  - {user: ..., note: ..., assistant: ...}
user: text              jinja2, from `line` and `note`: what the model reads as the user's message
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.dialogue import Language, Role
from pipeline.errors import ConfigError

__all__ = ["Example", "PromptTemplate", "load", "names"]


class Example(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str
    note: str
    assistant: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    system: str
    examples: tuple[Example, ...]
    user: str


@dataclass(frozen=True)
class PromptTemplate:
    """A loaded prompt. digest: 16 hex digits over the file's content; user: jinja2 source."""

    name: str
    language: Language
    digest: str
    version: int
    system: str
    examples: tuple[Example, ...]
    user: str

    def messages(self, history: Sequence[tuple[Role, str]], note: str, system: str = "") -> tuple[dict[str, str], ...]:
        """Chat messages for the assistant's next turn: instructions, examples, the talk so far.

        history: (role, text) of the turns so far, the last one the user's. note: a reference reply that the
        answer should agree with, "" for none. system: what the dialogue itself tells the assistant, or "".
        Raises ValueError where the last turn is not the user's.
        """
        if not history or history[-1][0] != "user":
            raise ValueError("the last turn of the history must be the user's")
        messages = [_message("system", "\n\n".join(filter(None, [self.system, system])))]
        for example in self.examples:
            messages.append(_message("user", self._render(example.user, example.note)))
            messages.append(_message("assistant", example.assistant))
        messages += [_message(role, text) for role, text in history[:-1]]
        messages.append(_message("user", self._render(history[-1][1], note)))
        return tuple(messages)

    def _render(self, line: str, note: str) -> str:
        # A note is one line: a line break in it would end it.
        return _template(self.user).render(line=line, note=" ".join(note.split())).strip()


def names() -> list[str]:
    """The names of the shipped prompts, sorted."""
    files = (item.name for item in resources.files(__name__).iterdir())
    return sorted({file.split(".")[0] for file in files if file.endswith(".yaml") and file.count(".") == 2})


@cache
def load(name: str, language: Language) -> PromptTemplate:
    """The prompt called `name` in `language`. Raises ConfigError naming the nearest one or the bad field."""
    file = f"{name}.{language}.yaml"
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"writer.prompt: no prompt is called {name!r}; {hint}prompts: {', '.join(names())}")
    if not resources.files(__name__).joinpath(file).is_file():
        raise ConfigError(f"writer.prompt: prompt {name!r} has no text in {language!r} (prompts/{file})")
    text = resources.files(__name__).joinpath(file).read_text("utf-8")
    return parse(text, name, language)


def parse(text: str, name: str, language: Language) -> PromptTemplate:
    """The prompt in `text`, a file NAME.LANGUAGE.yaml. Raises ConfigError naming file and field."""
    where = f"prompts/{name}.{language}.yaml"
    try:
        data = _File.model_validate(yaml.safe_load(text))
        _template(data.user).render(line="", note="")
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(faults)}") from None
    except jinja2.TemplateError as error:
        raise ConfigError(f"{where}: user: no jinja2 template of `line` and `note`: {error}") from None
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return PromptTemplate(name, language, digest, data.version, data.system.strip(), data.examples, data.user)


@cache
def _template(source: str) -> jinja2.Template:
    # An unknown name in a template is a mistake to be told, not an empty string.
    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(source)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
