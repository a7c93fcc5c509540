"""`speechchat voices clone`: voices of people's reference clips."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.engine.voice_prompts import Clones

NAMED = 20
"""Refused clips of a kind that are named one by one."""


def voices_clone(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|FILE|DATASET",
            help="a folder with a sub-folder a speaker, or with a metadata.csv or .jsonl (columns: file, speaker, "
            "text, gender, language); such a file itself; a data set on the hub, owner/name",
        ),
    ],
    out: Annotated[Path, typer.Option(help="the library to write, .parquet or .yaml")],
    engine: Annotated[str | None, typer.Option(help="needed: the engine in tts.engines that clones them")] = None,
    license: Annotated[str | None, typer.Option(help="needed: of the recordings, as an SPDX identifier")] = None,
    consent: Annotated[str | None, typer.Option(help="needed: why these people's voices may be used")] = None,
    languages: Annotated[
        str | None, typer.Option(help="what the voices are to speak, such as en,zh, where the metadata do not say")
    ] = None,
    gender: Annotated[str | None, typer.Option(help="female or male, where the metadata do not say")] = None,
    min_mos: Annotated[float, typer.Option(min=1, max=5, help="lowest DNSMOS of a clip")] = 4.0,
    min_seconds: Annotated[float, typer.Option(min=1, help="of speech in a clip")] = 3.0,
    max_seconds: Annotated[float, typer.Option(min=1, help="of a clip")] = 15.0,
    same: Annotated[
        float, typer.Option(min=0, max=1, help="two speakers are one person from this cosine on; 1 merges nobody")
    ] = 0.85,
    unity: Annotated[float, typer.Option(min=0, max=1, help="two people speak in a clip below this cosine")] = 0.84,
    split: Annotated[str, typer.Option(help="of a data set on the hub")] = "train",
    seed: Annotated[int, typer.Option(help="another seed puts speakers into other splits")] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace a library that is there")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for machines, every refused clip in it")] = False,
) -> None:
    """Make a library of cloned voices: the best reference clip of each speaker, of those that are good enough.

    A clip is refused if it cannot be read, is silent, too short, too long, noisy (DNSMOS), holds two people, or is a
    duplicate; speakers who sound like one person become one. Add it to a large library with `voices build --add`.
    """
    from pipeline.backends.quality.dnsmos import Dnsmos
    from pipeline.backends.speaker.resemblyzer import Resemblyzer
    from pipeline.backends.vad.silero import Silero
    from pipeline.engine.prompt_checks import Listeners, Rules
    from pipeline.engine.prompt_files import find_prompts, read_languages
    from pipeline.engine.prompt_store import PromptStore
    from pipeline.engine.voice_prompts import Terms, clone
    from pipeline.shards.disk import storage_errors
    from pipeline.voice import Gender

    for name, value in (("--engine", engine), ("--license", license), ("--consent", consent)):
        if not (value or "").strip():
            raise UsageError(f"{name} is missing: cloned voices need an engine, a licence and the speakers' consent")
    if gender not in (None, *get_args(Gender)):
        raise UsageError(f"--gender {gender!r}: {' or '.join(get_args(Gender))}")
    if min_seconds >= max_seconds:
        raise UsageError(f"--min-seconds {min_seconds:g} must be below --max-seconds {max_seconds:g}")
    store = PromptStore(out)
    if out.exists() and not force:
        raise UsageError(f"{out} is there already; name another file, or replace it with --force")
    terms = Terms(
        engine=str(engine).strip(),
        license=str(license).strip(),
        consent=str(consent).strip(),
        gender=gender,  # type: ignore[arg-type]
        languages=read_languages([part for part in (languages or "").split(",") if part.strip()], "--languages"),
        seed=seed,
    )
    prompts = find_prompts(source, split)
    with storage_errors(out):
        clones = clone(
            prompts,
            Rules((min_seconds, max_seconds), min_mos, unity, same),
            terms,
            store,
            Listeners(Silero(), Dnsmos(), Resemblyzer()),
            lambda clips: typer.echo(f"{clips} clips", err=True) if clips % 160 == 0 else None,
        )
        store.write(clones)
    _show(clones, out, as_json)


def _show(clones: Clones, out: Path, as_json: bool) -> None:
    counts = Counter(item.reason for item in clones.refused)
    if as_json:
        refused = [vars(item) for item in clones.refused]
        voices = [voice.model_dump(mode="json") for voice in clones.voices]
        typer.echo(json.dumps({"voices": voices, "counts": counts, "refused": refused}, ensure_ascii=False))
        return
    for reason in ("unreadable", "duplicate"):
        named = [item for item in clones.refused if item.reason == reason]
        for item in named[:NAMED]:
            typer.echo(f"! {item.name}: {item.detail}", err=True)
        if len(named) > NAMED:
            typer.echo(f"! and {len(named) - NAMED} more are {reason}; --json names all", err=True)
    for reason, count in sorted(counts.items()):
        typer.echo(f"{count:6d} {reason}")
    splits = Counter(voice.split for voice in clones.voices)
    genders = Counter(voice.gender for voice in clones.voices)
    listed = ", ".join(f"{count} {name}" for name, count in (*sorted(genders.items()), *sorted(splits.items())))
    typer.echo(f"{out}: {len(clones.voices)} voices of {clones.heard} clips: {listed}")
