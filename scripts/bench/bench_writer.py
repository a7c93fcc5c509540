"""What the LLM client costs, beside the bare AsyncOpenAI loop on the same server in the same run.

    python scripts/bench/bench_writer.py [--requests 1500] [--runs 5]

The server is a process of its own on loopback; it answers after 200 ms and has 64 slots: what comes beyond them waits.
Each of `runs` rounds asks `requests` prompts, 64 at a time, bare and through a ReplyJournal with a budget (so with
everything: endpoints, retries, journal, ledger, prices), in turns, plain and with a JSON schema, then the prompts of
real dialogues, these through the whole text stage as well: rows of a file to published text, one request a dialogue. A
first round is not counted. One JSON line a figure, medians over the rounds; ratio = value / baseline:

    writer.in_flight          mean number of requests at the server; baseline: the bare loop
    writer.cpu                CPU ms a request of the client's process; baseline: the bare loop
    writer.cpu_over           the difference of the two
    writer.known              CPU ms a request that the journal knows; no baseline
    writer.structured.…       the same with a schema of 2 KB in each request
    writer.reply.…            the same with the prompts of converse.mode=reply, and
    writer.reply.stage_…      in_flight, cpu and cpu_over of the whole text stage on the same prompts
    writer.reply.rules        CPU ms a request of the stage where a Writer answers at once: what is neither client nor
                              server, that is prompts, verbalisation, checks, filters, journal, publishing
    writer.whole.…            the same with converse.mode=whole: a structured reply of four turns
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import openai

from pipeline.backends.llm.base import Prompt, Reply, Writer
from pipeline.backends.llm.openai import make_writer
from pipeline.config import Config
from pipeline.errors import SpeechchatError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.draw import Draw
from pipeline.stages.replies import Ledger, ReplyJournal
from pipeline.stages.write import TextStage

SLOTS = 64
LATENCY = 0.2  # seconds
SCHEMA = {
    "type": "object",
    "properties": {
        f"turn_{n}": {"type": "string", "description": f"What is said in turn {n}, as it is to be spoken."}
        for n in range(20)
    },
    "required": [f"turn_{n}" for n in range(20)],
    "additionalProperties": False,
}
LINE = "Take the second street on the left."
TALK = (
    "Excuse me, how do I get to the old station from here?",
    "Walk down to the river, then cross the bridge; it takes about 15 minutes.",
    "Is there a bus as well, if it starts to rain?",
    "Yes, the number 7 stops right behind the market every half hour.",
)
TURNS = [{"role": ("user", "assistant")[place % 2], "text": text} for place, text in enumerate(TALK)]
ANSWERS = {"m": LINE, "reply": LINE, "whole": json.dumps({"turns": TURNS})}  # by model
UNIT = 50  # dialogues
Ask = Callable[[Prompt], Awaitable[str]]


class Figures(NamedTuple):
    """in_flight: mean number of requests at the server (by Little's law: rate times latency). cpu: ms a request."""

    in_flight: float
    cpu: float


class Bench:
    """Prompts for a model of the server, bare and through client and journal."""

    def __init__(self, port: int, model: str, prompts: Sequence[Prompt] = (), **config: Any):
        self.url = f"http://127.0.0.1:{port}/v1"
        self.model = model
        self.prompts = list(prompts)
        writer = {"base_url": self.url, "model": model, "concurrency": SLOTS, "prices": {model: (1, 1)}, "budget": 1000}
        self.config = Config.model_validate({"writer": writer, "engine": {"kind": "local"}, **config})

    async def bare(self) -> Figures:
        async with openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=60) as client:

            async def ask(prompt: Prompt) -> str:
                shape = {
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "strict": True, "schema": prompt.schema},
                }
                fields: Any = {"response_format": shape} if prompt.schema else {}
                completion = await client.chat.completions.create(
                    model=self.model,
                    messages=list(prompt.messages),  # type: ignore[arg-type]
                    temperature=0.4,
                    max_tokens=prompt.max_tokens or 80,
                    seed=prompt.seed,
                    **fields,
                )
                return completion.choices[0].message.content or ""

            return await measure(lambda: self._all(ask), len(self.prompts))

    async def client(self, root: Path) -> tuple[Figures, float]:
        """The figures, and CPU ms a request that the journal knows."""
        folder = RunFolder(root)
        async with self._writer() as writer:
            with ReplyJournal(folder.replies(0), writer, None, Ledger(folder.ledger, 1000)) as journal:

                async def ask(prompt: Prompt) -> str:
                    return (await journal.ask(prompt)).text

                figures = await measure(lambda: self._all(ask), len(self.prompts))
                before = time.process_time()
                for prompt in self.prompts:
                    await journal.ask(prompt)
                return figures, 1000 * (time.process_time() - before) / len(self.prompts)

    async def _all(self, ask: Ask) -> None:
        left = iter(self.prompts)

        async def asker() -> None:
            for prompt in left:
                if await ask(prompt) != ANSWERS[self.model]:
                    raise RuntimeError("the bench's server sent something else")

        await asyncio.gather(*[asker() for _ in range(SLOTS)])

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[Writer]:
        writer = make_writer(self.config)
        try:
            yield writer
        finally:
            await writer.close()


class StageBench(Bench):
    """Prompts of dialogues that are made of rows of a file, also through the whole text stage."""

    def __init__(self, port: int, mode: str, rows: Path):
        count = sum(1 for _ in rows.open("rb"))
        super().__init__(
            port,
            mode,
            dialogues=count,
            unit_size=UNIT,
            languages={"en": 1},
            sources={"rows": {"kind": "questions", "data": str(rows), "license": "CC0-1.0"}},
            text={"converse": {"mode": mode, "turns": {4: 1}}},
        )
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(self.rules(Path(folder), self.prompts))

    async def stage(self, root: Path) -> Figures:
        async with self._writer() as writer:
            return await self._run(RunFolder(root), writer)

    async def rules(self, root: Path, asked: list[Prompt]) -> float:
        """CPU ms a request without any client. asked: gets the prompts."""
        return (await self._run(RunFolder(root), _Listener(asked, ANSWERS[self.model]))).cpu

    async def _run(self, folder: RunFolder, writer: Writer) -> Figures:
        units = list(plan_units(self.config))
        drawing = Draw(self.config, folder)
        for unit in units:
            drawing.ensure(unit)  # the driver's work, not a writer's
        stage = TextStage(self.config, writer, folder, Ledger(folder.ledger, 1000), SLOTS)

        async def write() -> None:
            await asyncio.gather(*[stage.run(unit) for unit in units])

        figures = await measure(write, self.config.dialogues)
        if stage.progress.kept != stage.progress.replies or stage.progress.kept != self.config.dialogues:
            raise RuntimeError(f"a dialogue was dropped or asked for again: {stage.progress}")
        return figures


class _Listener:
    """A Writer that answers at once and keeps the prompts."""

    name = "listener"
    deterministic = True

    def __init__(self, prompts: list[Prompt], answer: str):
        self._prompts = prompts
        self._answer = answer

    async def reply(self, prompts: Sequence[Prompt]) -> list[Reply]:
        self._prompts += [replace(prompt, meter=None) for prompt in prompts]
        return [Reply(self._answer) for _ in prompts]

    def fingerprint(self, prompt: Prompt) -> str:
        return self.name

    async def close(self) -> None: ...


def plain_prompts(requests: int, schema: dict[str, Any] | None) -> list[Prompt]:
    system = {"role": "system", "content": "You are a friendly voice assistant. Answer in one sentence."}
    return [
        Prompt(
            (system, {"role": "user", "content": question(number)}),
            "en",
            number,
            schema=schema,
            step="converse",
            dialogue=f"en-{number:06d}",
        )
        for number in range(requests)
    ]


def question(number: int) -> str:
    return f"What is the fastest way to platform {number}?"


async def measure(work: Callable[[], Awaitable[None]], requests: int) -> Figures:
    """Of work that makes so many requests; connections are opened on the way."""
    before, cpu = time.monotonic(), _cpu()
    await work()
    seconds, cpu = time.monotonic() - before, _cpu() - cpu
    return Figures(requests * LATENCY / seconds, 1000 * cpu / requests)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve() -> None:
    """Answers each request after LATENCY; prints its port, and ends with standard input."""
    slots = asyncio.Semaphore(SLOTS)
    answers = {f'"model":"{model}"'.encode(): _completion(text) for model, text in ANSWERS.items()}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                async with slots:
                    await asyncio.sleep(LATENCY)
                writer.write(next(answer for model, answer in answers.items() if model in body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
        }
    ).encode()
    return (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


def rounds(name: str, bench: Bench, runs: int) -> None:
    """Measure a bench and print its figures."""
    made: list[tuple[Figures, Figures, float, Figures, float]] = []
    for _ in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            bare = asyncio.run(bench.bare())
            client, known = asyncio.run(bench.client(root / "client"))
            stage, rules = client, 0.0
            if isinstance(bench, StageBench):
                stage = asyncio.run(bench.stage(root / "stage"))
                rules = asyncio.run(bench.rules(root / "rules", []))
            made.append((bare, client, known, stage, rules))
    del made[0]  # imports and opens what the others find
    bares, clients, knowns, stages, times = zip(*made, strict=True)
    compare(f"{name}.", clients, bares)
    show(f"{name}.known", knowns, "ms/request")
    if isinstance(bench, StageBench):
        compare(f"{name}.stage_", stages, bares)
        show(f"{name}.rules", times, "ms/request")


def compare(name: str, ours: Sequence[Figures], bare: Sequence[Figures]) -> None:
    show(f"{name}in_flight", [one.in_flight for one in ours], "requests", [one.in_flight for one in bare])
    show(f"{name}cpu", [one.cpu for one in ours], "ms/request", [one.cpu for one in bare])
    show(f"{name}cpu_over", [one.cpu - other.cpu for one, other in zip(ours, bare, strict=True)], "ms/request")


def show(name: str, values: Sequence[float], unit: str, baselines: Sequence[float] | None = None) -> None:
    value, baseline = statistics.median(values), statistics.median(baselines) if baselines else None
    line = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 3),
        "ratio": None if baseline is None else round(value / baseline, 4),
        "runs": len(values),
    }
    print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1500, help=f"a multiple of {UNIT}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="be the server")
    options = parser.parse_args(arguments)
    if options.serve:
        asyncio.run(serve())
        return 0
    if options.requests < UNIT or options.requests % UNIT or options.runs < 1:
        parser.error(f"--requests: a multiple of {UNIT}; --runs: 1 or more")
    command = [sys.executable, __file__, "--serve"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server,
    ):
        assert server.stdin is not None and server.stdout is not None
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps({"question": question(n)}) + "\n" for n in range(options.requests)), "utf-8")
        try:
            port = int(server.stdout.readline())
            rounds("writer", Bench(port, "m", plain_prompts(options.requests, None)), options.runs)
            rounds("writer.structured", Bench(port, "m", plain_prompts(options.requests, SCHEMA)), options.runs)
            for mode in ("reply", "whole"):
                rounds(f"writer.{mode}", StageBench(port, mode, rows), options.runs)
        except SpeechchatError as error:
            print(f"bench_writer: {error}", file=sys.stderr)
            return error.exit_code
        finally:
            server.stdin.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
