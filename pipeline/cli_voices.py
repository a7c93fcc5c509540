"""`speechchat voices`: what voices there are, how one sounds, and how a large library is built."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from speakers import Voice

voices_app = typer.Typer(help="The voice library: what there is, how it sounds, and building a large one.")

LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", help="a library of your own, .yaml or .parquet; the shipped one if not named"),
]


@voices_app.callback(invoke_without_command=True)
def voices_list(
    context: typer.Context,
    library: LibraryOption = None,
    language: Annotated[str | None, typer.Option(help="en or zh")] = None,
    gender: Annotated[str | None, typer.Option(help="female or male")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="list only the first so many")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for machines")] = False,
) -> None:
    """List the voices: language, gender, age, accent, split, characters a second, engine, licence, recipe."""
    from pipeline.dialogue import Language, Split
    from speakers import Gender, load_library
    from speakers.recipes import describe

    if context.invoked_subcommand:
        return
    for name, value, known in (("language", language, Language), ("gender", gender, Gender), ("split", split, Split)):
        if value not in (None, *get_args(known)):
            raise ConfigError(f"--{name} {value!r}: the library knows {', '.join(get_args(known))}")
    found = load_library(library).select(language, gender, split)  # type: ignore[arg-type]
    voices = found[:limit]
    if as_json:
        typer.echo(json.dumps([voice.model_dump(mode="json") for voice in voices], ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("voice", "speaker", "split", "rate", "engine", "licence"):
        table.add_column(name, no_wrap=True)
    table.add_column("recipe", overflow="fold")
    for voice in voices:
        speaker = " ".join(filter(None, (*voice.languages, voice.accent, voice.gender, voice.age)))
        facts = (speaker, voice.split, f"{voice.rate:g}", voice.engine, voice.license)
        table.add_row(voice.id, *facts, describe(voice.recipe))
    Console(highlight=False, markup=False).print(table)
    typer.echo(f"{len(found)} voices" + (f", the first {limit} of them are listed" if len(voices) < len(found) else ""))


@voices_app.command("say")
def voices_say(
    voice: Annotated[str, typer.Argument(help="a voice of the library")],
    text: Annotated[str, typer.Argument(help="what to say")],
    out: Annotated[Path, typer.Option(help="an audio file: .flac, .wav, .mp3, .ogg")] = Path("say.flac"),
    library: LibraryOption = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="PRESET|FILE", help="whose engines to use, for voices that Kokoro does not speak"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key; repeatable")
    ] = None,
) -> None:
    """Hear a voice: speak a text into a file."""
    from pipeline.config import load_config
    from pipeline.engine.preview import say

    place = [f"cast.library={library}"] if library else []
    seconds = say(voice, text, out, load_config(config or "quickstart", [*place, *(settings or [])]))
    typer.echo(f"{out}: {seconds:.2f} s")


@voices_app.command("build")
def voices_build(
    out: Annotated[Path, typer.Option(help="the table to write, .parquet")],
    count: Annotated[int, typer.Option(min=1, help="voices, those of the base library among them")] = 42002,
    seed: Annotated[int, typer.Option(help="another seed draws other recipes")] = 0,
    languages: Annotated[str, typer.Option(help="shares of the languages")] = "en=1,zh=1",
    splits: Annotated[str, typer.Option(help="shares of the splits")] = "train=0.96,validation=0.02,test=0.02",
    near: Annotated[
        float, typer.Option(min=1, help="how many times as fast as its slowest parent a voice's fastest may speak")
    ] = 1.15,
    library: LibraryOption = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="a library whose voices are added as they are, such as cloned ones")
    ] = None,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="rejected.txt of an audit: voices to leave out, others are drawn in their place; repeatable"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a table that is there")] = False,
) -> None:
    """Build a large library: the base voices, and recipes drawn around them by a seed. No model is needed.

    Use it in a run with `--set cast.library=voices.parquet`.
    """
    from pipeline.dialogue import Language, Split
    from pipeline.shards.disk import storage_errors
    from speakers import load_library
    from speakers.build import build
    from speakers.library import merge
    from speakers.table import read_embeddings, write_table

    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: end the name in .parquet")
    if out.exists() and not force:
        raise UsageError(f"{out} is there already; name another file, or replace it with --force")
    shares = _shares("--languages", languages, get_args(Language)), _shares("--splits", splits, get_args(Split))
    start = time.perf_counter()
    base = load_library(library, hard=True)
    refused = {id for path in without or [] for id in _ids(path)}
    built = build(base, count, seed, *shares, near=near, without=refused)  # type: ignore[arg-type]
    for path in add or []:
        built = merge(built, load_library(path), str(path))
    tables = [path for path in (library, *(add or [])) if path is not None and path.suffix == ".parquet"]
    measured = {id: value for path in tables for id, value in read_embeddings(path).items()}
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_table(built, out, measured)
    _show(built.voices)
    ids = {voice.id for voice in base.voices}
    kept, added = sum(voice.id in ids for voice in built.voices), len(built.voices) - count
    more = f", {added} were added" if added else ""
    typer.echo(
        f"{out}: {len(built.voices)} voices in {time.perf_counter() - start:.1f} s: {kept} are of the base library, "
        f"{count - kept} are recipes drawn around them{more}"
    )


@voices_app.command("audit")
def voices_audit(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="a table of `voices build`, or a .yaml")],
    out: Annotated[Path, typer.Option(help="the folder for what is found; an audit that is there is gone on with")],
    sample: Annotated[int, typer.Option(min=0, help="voices drawn at random")] = 200,
    seed: Annotated[int, typer.Option(help="another seed draws other voices")] = 0,
    selected: Annotated[bool, typer.Option("--selected", help="also the voices that are said to be distinct")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; one a CPU if not named")] = None,
    max_error: Annotated[float, typer.Option(min=0, help="highest WER (en), PER (zh) of a voice")] = 0.05,
    min_mos: Annotated[float, typer.Option(min=1, max=5, help="lowest DNSMOS, of clips as they come out")] = 2.8,
    config: Annotated[str | None, typer.Option(metavar="PRESET|FILE", help="whose engines and models to use")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print audit.json")] = False,
) -> None:
    """Prove a library: let a sample of it speak and listen: how many voices are told apart, understood, of quality.

    Interrupt it at any moment and give the same command again: what was measured is kept.
    """
    from pipeline.engine.counting import CountProgress
    from pipeline.engine.voice_audit import audit
    from pipeline.engine.voice_plan import Limits, audit_config, plan_audit
    from pipeline.engine.voice_words import words
    from speakers import load_library

    configuration, voices = audit_config(config, settings or [], workers), load_library(library, hard=True)
    plan = plan_audit(voices, sample, seed, selected)
    try:
        found = audit(voices, out, configuration, plan, Limits(max_error, min_mos), CountProgress("measured", "voice"))
    except KeyboardInterrupt:
        typer.echo("interrupted: what was measured is kept; give the same command again to go on", err=True)
        raise typer.Exit(130) from None
    lines = [json.dumps(found, ensure_ascii=False)] if as_json else [*words(found), f"Listen: {out / 'index.html'}"]
    typer.echo("\n".join(lines))


def _ids(path: Path) -> set[str]:
    """The first word of each line. Raises ConfigError."""
    try:
        return {line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"--without {path}: cannot be read ({reason}); name the rejected.txt of an audit") from None


def _shares(option: str, text: str, known: Sequence[str]) -> dict[str, float]:
    """`en=1,zh=0.5` as a map. Raises ConfigError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            shares[name] = float(value)
        except ValueError:
            shares[name] = -1
        if name not in known or not 0 <= shares[name] < float("inf"):
            example = ",".join(f"{item}=1" for item in known)
            raise ConfigError(f"{option} {text!r}: write it as {example}, numbers from 0 on")
    if not sum(shares.values()):
        raise ConfigError(f"{option} {text!r}: one share at least must be above 0")
    return shares


def _show(voices: Sequence[Voice]) -> None:
    counts = Counter((" ".join(voice.languages), voice.gender, voice.split) for voice in voices)
    table = Table("languages", "gender", "train", "validation", "test", "all")
    for languages, gender in sorted({key[:2] for key in counts}):
        row = [counts[languages, gender, split] for split in ("train", "validation", "test")]
        table.add_row(languages, gender, *map(str, row), str(sum(row)))
    Console(highlight=False, markup=False).print(table)
