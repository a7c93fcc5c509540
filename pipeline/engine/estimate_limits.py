"""Where a run would break first: what it asks of folders, hubs, driver, LLM and disk, beside what they bear."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.dialogue import Record
from pipeline.engine.estimate_work import HOUR, Wall, Work

FOLDER = 1000
"""Units whose files share a folder."""


class Limit(Record):
    """What the run asks of something that has an end. share: wanted / limit; above 1 it breaks there.

    remedy: what moves it.
    """

    name: str
    wanted: float
    limit: float
    unit: str
    share: float
    how: str
    remedy: str


def limits(work: Work, wall: Wall | None) -> list[Limit]:
    """What breaks first comes first. wall: None where no cluster is known; then no rate a second is either."""
    found = [*_sizes(work), *(_rates(work, wall) if wall is not None and not wall.missing else ())]
    return sorted(found, key=lambda item: (-item.share, item.name))


def _sizes(work: Work) -> Iterator[Limit]:
    rates = work.rates
    yield _limit(
        "entries in a folder",
        min(work.units, FOLDER) * 3.0,
        rates["folder_entries"],
        "",
        f"3 files a unit × {FOLDER} units a folder at most, however long the run",
        "none needed",
    )
    yield _limit(
        "files of the shards",
        work.files["shards"],
        rates["repository_files"],
        "",
        f"3 files a unit × {work.units:,} units, in one repository of a hub",
        "raise unit_size, or publish in several repositories",
    )
    held = rates["driver_bytes"] + work.units * rates["driver_bytes_per_unit"]
    how = f"{rates['driver_bytes'] / 1e6:.0f} MB + {work.units:,} units × {rates['driver_bytes_per_unit']:g} B"
    if work.config.dedup.barrier:
        held += work.planned * rates["dedup_bytes_per_dialogue"]
        how += f" + {work.planned:,} dialogues × {rates['dedup_bytes_per_dialogue']:g} B at the barrier"
    yield _limit("memory of the driver", held, rates["driver_memory"], "B", how, "a larger node for the driver")


def _rates(work: Work, wall: Wall) -> Iterator[Limit]:
    rates, gpus = work.rates, wall.cluster.gpus
    text, speech = max(wall.text.values()), max(wall.speech.values())
    if work.gpu["write"]:
        most = gpus / rates["token_gpu"]
        replies, prompts = (count / text / HOUR for count in (work.reply_tokens, work.prompt_tokens))
        yield _limit(
            "LLM tokens a second",
            replies,
            most,
            "/s",
            f"of replies, with {prompts:,.0f} of prompts, for {text:,.0f} h; {gpus:g} GPUs bear {most:,.0f}",
            "more GPUs, a smaller LLM, fewer steps in `text`",
        )
        busy = most * rates["utilisation"]
        yield _limit(
            "requests in flight",
            busy * rates["latency"],
            work.slots,
            "",
            f"to keep {gpus:g} GPUs busy: {busy:,.0f} reply tokens/s × {rates['latency']:g} s a token; there are "
            "engine.writers × writer.concurrency",
            "raise engine.writers or writer.concurrency",
        )
    if speech:
        published = work.sizes["shards"] + work.sizes["rejects"]
        yield _limit(
            "disk bytes a second",
            2 * published / speech / HOUR,
            rates["disk_bytes_per_second"],
            "B/s",
            f"{published:.3g} B, written and read back once, in {speech:,.0f} h",
            "faster storage, or judge.keep=sample",
        )


def _limit(name: str, wanted: float, limit: float, unit: str, how: str, remedy: str) -> Limit:
    return Limit(name=name, wanted=wanted, limit=limit, unit=unit, share=wanted / limit, how=how, remedy=remedy)
