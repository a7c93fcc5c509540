"""What a run would take, before it is begun: each figure with how it comes about and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.config import Config
from pipeline.dialogue import Record
from pipeline.engine.estimate_limits import Limit, limits
from pipeline.engine.estimate_rates import Assumption, Rates, assume, pairs
from pipeline.engine.estimate_work import HOUR, Cluster, Wall, Work
from pipeline.errors import UsageError

__all__ = ["PRICES", "Assumption", "Cluster", "Estimate", "Figure", "Limit", "estimate"]

PRICES = ("gpu_hour", "cpu_hour", "token_million")
"""What may be given a price, in any currency: an hour of a GPU, of a CPU, a million tokens of prompts and replies."""


class Figure(Record):
    """A result. how: its arithmetic. rests_on: keys of assumptions."""

    group: str
    name: str
    value: float
    unit: str
    how: str
    rests_on: tuple[str, ...] = ()


class Estimate(Record):
    """figures: in the order of the work. limits: what breaks first comes first. notes: what the user should know."""

    figures: tuple[Figure, ...]
    limits: tuple[Limit, ...]
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> float:
        """The value of a figure by its name. Raises KeyError."""
        for item in self.figures:
            if item.name == name:
                return item.value
        raise KeyError(name)


def estimate(
    config: Config,
    cluster: Cluster | None = None,
    pilot: Path | None = None,
    given: Sequence[str] = (),
    prices: Sequence[str] = (),
) -> Estimate:
    """The estimate of a whole run of `config`.

    cluster: without one neither wall time nor a rate a second is told. pilot: a run of the same engines. given, prices:
    `key=number` settings of assumptions and of PRICES. Raises UsageError for a bad one of these, RunFolderError,
    ConfigError and DataError for a bad pilot.
    """
    for name, value in vars(cluster).items() if cluster else ():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"--{name} {value:g}: give a number from 0 on")
    if cluster and not cluster.cpus:
        raise UsageError("--cpus 0: a run needs CPUs, also where all its models are served; give a number above 0")
    tariff = pairs("--price", prices, dict.fromkeys(PRICES))
    rates = assume(config, pilot, given)
    work = Work(config, rates, tariff)
    wall = Wall(work, cluster) if cluster else None
    figures = [*_data(work), *_tokens(work), *_hours(work), *_money(work)]
    if wall is not None and not wall.missing:
        figures += _wall(wall, rates)
    return Estimate(
        figures=tuple(figures),
        limits=tuple(limits(work, wall)),
        assumptions=tuple(rates.assumptions.values()),
        notes=(*rates.notes, *_notes(work, wall)),
    )


def number(value: float) -> str:
    """Four digits, or the whole part with its thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _data(work: Work) -> Iterator[Figure]:
    rates, yields = work.rates, ("text_yield", "speech_yield")
    kept = f"{work.planned:,} planned × {rates['text_yield']:.3g} (text) × {rates['speech_yield']:.3g} (speech)"
    each = f"{rates['seconds_per_dialogue']:.4g} s a dialogue"
    takes = f"(1 + {rates['first_take_failure']:.3g} × {rates['repairs']:.3g})"
    spoken = f"{work.spoken:,.0f} spoken × {each} × {rates['speech_share']:.3g} speech × {takes} takes"
    units = f"{work.planned:,} dialogues, {work.config.unit_size} a unit"
    files = ", ".join(f"{count:,.0f} {name}" for name, count in work.files.items())
    yield Figure(group="data", name="units", value=work.units, unit="", how=units)
    yield Figure(group="data", name="dialogues accepted", value=work.accepted, unit="", how=kept, rests_on=yields)
    length = (*yields, "seconds_per_dialogue")
    yield Figure(group="data", name="audio", value=work.audio / HOUR, unit="h", how=f"× {each}", rests_on=length)
    keys: tuple[str, ...] = (*length[::2], "speech_share", "first_take_failure", "repairs")
    yield Figure(group="data", name="speech of all takes", value=work.takes / HOUR, unit="h", how=spoken, rests_on=keys)
    yield Figure(group="data", name="files", value=math.fsum(work.files.values()), unit="", how=files, rests_on=yields)
    by_size = {
        "shards": ("shard_bytes_per_second",),
        "records": ("record_bytes_per_dialogue",),
        "rejects": ("reject_clips", "shard_bytes_per_second"),
    }
    for name, keys in by_size.items():
        yield Figure(
            group="data",
            name=f"bytes of {name}",
            value=work.sizes[name],
            unit="B",
            how=_rates(rates, keys),
            rests_on=keys,
        )
    total = math.fsum(work.sizes.values())
    yield Figure(group="data", name="bytes", value=total, unit="B", how="all three")


def _tokens(work: Work) -> Iterator[Figure]:
    rates = work.rates
    for key in ("requests", "prompt_tokens", "reply_tokens"):
        how = f"{work.planned:,} planned × {rates[key]:.4g} × {rates['attempts']:.3g} attempts"
        yield Figure(
            group="LLM",
            name=key.replace("_", " "),
            value=getattr(work, key),
            unit="",
            how=how,
            rests_on=(key, "attempts"),
        )


def _hours(work: Work) -> Iterator[Figure]:
    for kind, table in (("CPU", work.cpu), ("GPU", work.gpu)):
        for stage, value in table.items():
            keys: tuple[str, ...] = (f"{stage}_{kind.lower()}",)
            if stage == "write":
                keys = ("request_cpu", "token_cpu") if kind == "CPU" else ("token_gpu",)
            how = _rates(work.rates, keys)
            if kind == "GPU" and stage == "write" and work.by_token:
                how = "none of ours: the LLM is paid by the token"
            yield Figure(group=kind, name=f"{kind} {stage}", value=value, unit="h", how=how, rests_on=keys)
        yield Figure(group=kind, name=kind, value=math.fsum(table.values()), unit="h", how="all stages")


def _rates(rates: Rates, keys: Sequence[str]) -> str:
    return ", ".join(f"{number(rates[key])} {rates.assumptions[key].unit}" for key in keys)


def _money(work: Work) -> Iterator[Figure]:
    amounts = {
        "cpu_hour": (math.fsum(work.cpu.values()), "CPU hours"),
        "gpu_hour": (math.fsum(work.gpu.values()), "GPU hours"),
        "token_million": ((work.prompt_tokens + work.reply_tokens) / 1e6, "million tokens"),
    }
    bill = {}
    for key, (amount, what) in amounts.items():
        if key in work.prices:
            bill[key] = amount * work.prices[key], f"{amount:,.1f} {what} × {work.prices[key]:g}"
        elif key == "token_million" and work.token_prices is not None:
            prompt, reply = work.token_prices
            how = f"writer.prices: {prompt:g} and {reply:g} a million tokens of prompts and of replies"
            bill[key] = (work.prompt_tokens * prompt + work.reply_tokens * reply) / 1e6, how
    for key, (value, how) in bill.items():
        yield Figure(group="money", name=f"price of {key}", value=value, unit="", how=how)
    if bill:
        total = math.fsum(value for value, _ in bill.values())
        unpriced = [key for key, (amount, _) in amounts.items() if amount and key not in bill and key in PRICES[:2]]
        how = f"without a price: {', '.join(unpriced)}" if unpriced else "all of it"
        yield Figure(group="money", name="money", value=total, unit="", how=how)


def _wall(wall: Wall, rates: Rates) -> Iterator[Figure]:
    for name, bounds in (("text", wall.text), ("speech", wall.speech)):
        keys: tuple[str, ...] = ("utilisation", "latency") if name == "text" else ("utilisation",)
        slowest = max(bounds, key=lambda bound: bounds[bound])
        how = f"waits for {slowest}: " + ", ".join(f"{bound} {hours:,.2f} h" for bound, hours in bounds.items())
        yield Figure(group="wall", name=f"wall of the {name}", value=bounds[slowest], unit="h", how=how, rests_on=keys)
    if wall.barrier:
        how = f"{_rates(rates, ('dedup_per_second',))}, one process; nothing is spoken before it has ended"
        keys = ("dedup_per_second",)
        yield Figure(group="wall", name="wall of the barrier", value=wall.barrier, unit="h", how=how, rests_on=keys)
    how = "one after the other" if wall.barrier else "text and speech side by side"
    yield Figure(group="wall", name="wall", value=wall.all, unit="h", how=f"{how}; {wall.all / 24:,.1f} days")


def _notes(work: Work, wall: Wall | None) -> Iterator[str]:
    if wall is None:
        yield "no wall time: name a cluster with --cpus and --gpus"
    elif wall.missing:
        yield f"no wall time: {wall.missing} need --gpus"
    if not work.prices and work.token_prices is None:
        yield "no money: name prices, for example --price gpu_hour=2.5"
    guesses = [key for key, item in work.rates.assumptions.items() if item.basis == "not measured"]
    if guesses:
        yield f"not measured: {', '.join(guesses)}; --pilot RUN or --assume KEY=NUMBER puts something better there"
