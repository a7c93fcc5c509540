"""The embedded LLM: Gemma 3 270M (base) behind llama.cpp's OpenAI-compatible HTTP server, on loopback.

`python -m pipeline.backends.llm.embedded --model FILE` is the server; `EmbeddedServer` starts and stops one.
The model is not instruction-tuned, so the chat template renders messages as a talk to be continued, and a
grammar bounds the reply. Replies repeat: a seed a request, one slot, and no prompt cache (more slots or a
cache would change the shape of the batches and with it the rounding).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import selectors
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pipeline.dialogue import Language
from pipeline.errors import EndpointError, ModelError

_CONTEXT = 4096
# Requests that the server works on at once; more of them only wait there, within their timeout.
SLOTS = 1

# A base model of this size does not follow instructions, and loses a reference reply over the talk around it: shown
# both, fewer than one reply in five kept to the reference. It does say a line again in other words: seven in ten. So
# where the last message ends in a note, as the prompts of this package do, the template shows the notes and how they
# were said, and else the talk itself. Either way the last line is left open for the assistant.
CHAT_TEMPLATE = """\
{%- set zh = language is defined and language == 'zh' -%}
{%- set label = '\\n提示：' if zh else '\\nNote: ' -%}
{%- if label in messages[-1]['content'] -%}
  {{- '把每句话换一种更友好的说法。' if zh else 'Each line is said again in a friendlier way.' -}}
  {%- set last = namespace(noted=false) -%}
  {%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
      {%- set last.noted = label in message['content'] -%}
      {%- if last.noted -%}
        {%- set note = message['content'].split(label)[-1] -%}
        {{- '\\n\\n' + ('原话：' if zh else 'Line: ') + note -}}
        {%- set ended = namespace(yes=false) -%}
        {%- for mark in ['.', '!', '?', '。', '！', '？'] -%}
          {%- if note.endswith(mark) -%}{%- set ended.yes = true -%}{%- endif -%}
        {%- endfor -%}
        {%- if not ended.yes -%}{{- '。' if zh else '.' -}}{%- endif -%}
        {{- '\\n' + ('换说：' if zh else 'Again:') -}}
      {%- endif -%}
    {%- elif message['role'] == 'assistant' and last.noted -%}{{- ('' if zh else ' ') + message['content'] -}}
    {%- endif -%}
  {%- endfor -%}
{%- else -%}
  {%- for message in messages -%}
    {%- if message['role'] == 'system' -%}{{- message['content'] + '\\n' -}}
    {%- elif message['role'] == 'user' -%}{{- '\\n' + ('用户：' if zh else 'User: ') + message['content'] -}}
    {%- else -%}{{- '\\n' + ('助手：' if zh else 'Assistant: ') + message['content'] -}}
    {%- endif -%}
  {%- endfor -%}
  {{- '\\n' + ('助手：' if zh else 'Assistant:') -}}
{%- endif -%}"""

# GBNF: one or two sentences of plain words, bounded, so that a drifting model still ends with a full stop.
_GRAMMARS: dict[Language, str] = {
    "en": r"""root ::= " "? sentence (" " sentence)?
sentence ::= [A-Z] [a-zA-Z ,\x27-]{2,90} [.!?]""",
    "zh": r"""root ::= sentence sentence?
sentence ::= [一-龥，、]{2,30} [。！？]""",
}


def request_extras(language: Language) -> dict[str, Any]:
    """What a request to the embedded server needs beside the standard fields, and no other server knows."""
    return {
        "cache_prompt": False,
        "grammar": _GRAMMARS[language],
        "chat_template_kwargs": {"language": language},
        "stop": ["\n"],
    }


class EmbeddedServer:
    """The server as a child process, ready when the constructor returns; a context manager.

    base_url: what an OpenAI client is given. Raises ModelError where the model does not load, EndpointError
    where the server is not up within `deadline` seconds. It exits by itself when this process dies.
    """

    def __init__(self, model: Path, threads: int = 1, deadline: float = 120):
        if find_spec("xllamacpp") is None:
            raise ModelError("the embedded LLM needs xllamacpp: pip install 'speechchat[embedded]'")
        if not model.is_file():
            raise ModelError(f"the embedded LLM {model} is no file; run `speechchat models pull gemma-3-270m`")
        # A file, not a pipe: the log is read only if the start fails, and a full pipe would stop the server.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        command = [sys.executable, "-P", "-m", __name__, "--model", str(model), "--threads", str(threads)]
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": path},
            # A session of its own: Ctrl-C at the terminal is for the run, which then stops its server.
            start_new_session=True,
        )
        try:
            self.base_url: str = self._wait(model, deadline)["base_url"]
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Stops the server by its process id. Safe to call again."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, model: Path, deadline: float) -> dict[str, Any]:
        """The line that the server prints when it is ready."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            ready = selector.select(deadline)
        line = stdout.readline() if ready else b""
        if line:
            return dict(json.loads(line))
        if not ready:
            raise EndpointError(f"the embedded LLM was not ready after {deadline:g} s: {self._last_lines()}")
        status = self._process.wait()
        raise ModelError(
            f"the embedded LLM could not load {model} (exit status {status}): {self._last_lines()}; "
            "run `speechchat models pull gemma-3-270m`, or set writer.model_path to a GGUF file"
        )

    def _last_lines(self, count: int = 3) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line][-count:])


def _serve(model: Path, port: int, threads: int) -> None:
    # Whatever the library prints must not mix with our one line.
    parent = os.getppid()
    ours = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"gemma-3-270m"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = _CONTEXT
    params.n_parallel = SLOTS
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_gpu_layers = 0
    # Else the context's size would depend on the memory that happens to be free.
    params.fit_params = False
    params.warmup = False
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.use_jinja = True
    params.chat_template = CHAT_TEMPLATE
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 2
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"xllamacpp: {error}")
    line = {"base_url": f"{server.listening_address}/v1", "pid": os.getpid()}
    print(json.dumps(line), file=ours, flush=True)
    # The end of stdin is the parent's death; a fork of it may hold the pipe open, so its pid counts too.
    while os.getppid() == parent:
        if select.select([0], [], [], 1.0)[0] and not os.read(0, 4096):
            break
    # Nothing is worth saving, and an orderly end would first finish what nobody waits for.
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves a GGUF model on loopback until standard input ends.")
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    _serve(arguments.model, arguments.port, arguments.threads)


if __name__ == "__main__":
    main()
