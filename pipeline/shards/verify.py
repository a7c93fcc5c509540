"""verify: is what lies in the run folder what was published, and is every planned dialogue accounted for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import audio
from pipeline.config import Config
from pipeline.dialogue import Reject, Sample, TextLine
from pipeline.errors import DataError
from pipeline.plan import Unit, plan_units
from pipeline.shards.format import INDEX_SCHEMA, MEMBERS, Encoded, Member, index_row
from pipeline.shards.reader import one_line, parse_sample, read_rejects, walk_takes
from pipeline.shards.stats import Stats, run_stats
from pipeline.shards.store import Manifest, RunFolder, sha256_file
from pipeline.shards.tars import walk_tar
from pipeline.shards.writer import recorded_takes, summarize

MAX_SECONDS = 24 * 3600.0  # of a sample; beyond this it is a damaged number, and no memory to decode into


@dataclass
class Verification:
    """What was checked and what is wrong. problems: one line each, naming the file. missing: units not made yet."""

    units: int = 0
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.missing


def verify(
    folder: RunFolder, config: Config, decode: bool = False, digests: Mapping[str, str] | None = None
) -> Iterator[Verification]:
    """Check unit after unit, yielding the state so far after each.

    Without `decode` the lengths are those that the FLAC headers state; with it every clip is decoded.
    digests: of the run's stages, as its config.yaml has them; no unit of another configuration may lie here.
    """
    state = Verification()
    known: set[Path] = {folder.config, folder.stats, folder.card}
    for unit in plan_units(config):
        manifest_path = folder.manifest(unit.number, unit.split)
        known |= {manifest_path, folder.text(unit.number)}
        try:
            manifest = folder.load_manifest(unit.number, unit.split)
            if manifest is None:
                state.missing.append(unit.number)
            else:
                known |= {folder.root / fact.path for fact in manifest.files}
                if digests is not None and _manifest_digests(manifest) != dict(digests):
                    state.problems.append(f"{manifest_path}: made with another configuration than {folder.config}")
                state.problems.extend(_verify_unit(folder, unit, manifest, decode, state))
                state.units += 1
        except DataError as error:
            state.problems.append(str(error))
        except OSError as error:
            state.problems.append(f"{error.filename or manifest_path}: not readable: {error.strerror}")
        yield state
    state.problems.extend(_foreign(folder, known))
    if state.ok:
        state.problems.extend(_check_totals(folder, config))
    yield state


def _check_totals(folder: RunFolder, config: Config) -> Iterator[str]:
    """stats.json is what the manifests add up to, and the card is there."""
    try:
        said = Stats.model_validate_json(folder.stats.read_bytes())
    except (OSError, ValueError) as error:
        yield f"{folder.stats}: not readable: {one_line(error)}; give the run's command again to write it anew"
        return
    if said != run_stats(folder, config):
        yield f"{folder.stats}: is not what the units add up to; give the run's command again to write it anew"
    if not folder.card.is_file():
        yield f"{folder.card}: missing; give the run's command again to write it anew"


def _manifest_digests(manifest: Manifest) -> dict[str, str]:
    return {"text": manifest.text_digest, "speech": manifest.speech_digest, "judge": manifest.judge_digest}


def _foreign(folder: RunFolder, known: set[Path]) -> Iterator[str]:
    for top in ("shards", "rejects", "dialogues"):
        for path in sorted((folder.root / top).rglob("*")):
            if not path.is_dir() and path not in known:
                yield f"{path}: no manifest names this file; resume the run, or remove it"


def _verify_unit(folder: RunFolder, unit: Unit, manifest: Manifest, decode: bool, state: Verification) -> Iterator[str]:
    manifest_path = folder.manifest(unit.number, unit.split)
    if not _names_its_files(folder, unit, manifest):
        yield f"{manifest_path}: does not name exactly the files of its unit"
        return
    broken = False
    for fact in manifest.files:
        problem = check_file(folder.root / fact.path, fact.bytes, fact.sha256)
        state.bytes += fact.bytes
        if problem:
            broken = True
            yield problem
    if broken:
        return  # what lies inside a file that is not the published one says nothing more
    samples: list[Sample] = []
    if manifest.accepted:
        path = folder.shard(unit.number, unit.split)
        rows = []
        for encoded, members in _walk(path, decode):
            samples.append(encoded.sample)
            rows.append(index_row(encoded.sample, members))
        index = folder.index(unit.number, unit.split)
        try:
            table = pq.ParquetFile(index).read()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{index}: not a readable index: {one_line(error)}") from None
        if not table.equals(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)):
            yield f"{index}: does not say what the shard holds"
    clips: list[str] = []
    if manifest.file(folder.relative(folder.reject_clips(unit.number))):
        clips = [encoded.sample.key for encoded, _ in _walk(folder.reject_clips(unit.number), decode)]
    rejects = [reject for reject, _ in read_rejects(folder, manifest)]
    takes = _check_takes(folder, manifest, rejects, decode)
    if clips != [reject.id for reject in rejects if reject.clips]:
        yield f"{folder.rejects(unit.number)}: does not say which clips were kept"
    yield from _check_accounts(folder, unit, manifest, samples, [reject.id for reject in rejects])
    digests = _manifest_digests(manifest)
    if any(_digests(sample) != digests for sample in samples):
        yield f"{manifest_path}: its digests are not those of its samples"
    if summarize(unit, samples, rejects, takes, digests, manifest.files) != manifest:
        yield f"{manifest_path}: its counts are not those of the shard and the rejects"
    state.samples += len(samples)
    state.seconds += sum(sample.duration for sample in samples)


def _names_its_files(folder: RunFolder, unit: Unit, manifest: Manifest) -> bool:
    files = {folder.text(unit.number)}
    if manifest.accepted:
        files |= {folder.shard(unit.number, unit.split), folder.index(unit.number, unit.split)}
    if manifest.rejected:
        files |= {folder.rejects(unit.number)}
    kept = {folder.reject_clips(unit.number), folder.reject_takes(unit.number)} if manifest.rejected else set()
    named = [fact.path for fact in manifest.files]
    must, may = (set(map(folder.relative, paths)) for paths in (files, kept))
    return len(set(named)) == len(named) and must <= set(named) <= must | may


def _digests(sample: Sample) -> dict[str, str]:
    made = sample.provenance
    return {"text": made.text_digest, "speech": made.speech_digest, "judge": made.judge_digest}


def check_file(path: Path, size: int, sha256: str) -> str:
    if not path.is_file():
        return f"{path}: missing, though its manifest names it"
    found = path.stat().st_size
    if found != size:
        return f"{path}: {found} bytes where {size} were published: {'cut short' if found < size else 'grown'}"
    if sha256_file(path) != sha256:
        return f"{path}: its SHA-256 is not the published one: damaged or changed"
    return ""


def _walk(path: Path, decode: bool) -> Iterator[tuple[Encoded, tuple[Member, ...]]]:
    """Samples with the places of their members. Raises DataError for any structure that is not a shard's."""
    data: list[bytes] = []
    members: list[Member] = []
    for number, (member, payload) in enumerate(walk_tar(path)):
        key, _, suffix = member.name.partition(".")
        if suffix != MEMBERS[number % 3]:
            raise DataError(f"{path}: member {member.name!r} where KEY.{MEMBERS[number % 3]} belongs")
        data.append(payload)
        members.append(member)
        if len(data) == 3:
            encoded = parse_sample(path, key, data)
            if len({item.name.partition(".")[0] for item in members}) != 1:
                raise DataError(f"{path}: members of different samples are mixed at {key!r}")
            _check_sample(path, encoded, decode)
            yield encoded, tuple(members)
            data, members = [], []
    if data:
        raise DataError(f"{path}: ends inside sample {members[0].name.partition('.')[0]!r}")


def _check_takes(folder: RunFolder, manifest: Manifest, rejects: Sequence[Reject], decode: bool) -> int:
    """How many clips of takes lie there. Raises DataError for one that no reject tells of, that is not at its place,
    or that is no clip."""
    path = folder.reject_takes(manifest.unit)
    if not manifest.file(folder.relative(path)):
        return 0
    expected = ((reject.id, *place) for reject in rejects for place in sorted(recorded_takes(reject)))
    count = 0
    for key, clip in walk_takes(path):
        name = clip.name(key)
        if (key, clip.turn, clip.take) not in expected:  # takes from it up to there: what was passed comes no more
            raise DataError(f"{path}: {name} is no take of {folder.rejects(manifest.unit)}, or not at its place")
        audio.header(clip.flac, f"{path}: {name}")
        if decode:
            audio.decode(clip.flac, f"{path}: {name}")
        count += 1
    if not count:
        raise DataError(f"{path}: holds no clip")
    return count


def _check_sample(path: Path, encoded: Encoded, decode: bool) -> None:
    sample = encoded.sample
    name = f"{path}: {sample.key}"
    if not sample.turns or {voice.role for voice in sample.voices} != {"user", "assistant"}:
        raise DataError(f"{name}.json: a sample has turns, and a voice for each of the two roles")
    if not 0 < sample.duration < MAX_SECONDS:
        raise DataError(f"{name}.json: duration {sample.duration} is none")
    for turn in sample.turns:
        if not 0 <= turn.start <= turn.end <= sample.duration:
            raise DataError(f"{name}.json: turn {sample.turns.index(turn)} lies outside the timeline")
    _check_track(f"{name}.user.flac", encoded.user, sample.user_rate, sample.duration, decode)
    _check_track(f"{name}.assistant.flac", encoded.assistant, sample.assistant_rate, sample.duration, decode)


def _check_track(name: str, data: bytes, rate: int, duration: float, decode: bool) -> None:
    frames, found = audio.header(data, name)
    expected = round(duration * rate)
    if found != rate or frames != expected:
        raise DataError(f"{name}: {frames} samples at {found} Hz where {expected} at {rate} Hz belong")
    if decode:
        audio.decode(data, name)  # compares what it decodes with the header


def _check_accounts(
    folder: RunFolder, unit: Unit, manifest: Manifest, samples: list[Sample], rejects: list[str]
) -> Iterator[str]:
    """planned = accepted + rejected, by id, in the text and in the speech."""
    path = folder.manifest(unit.number, unit.split)
    planned = [item.id for item in unit.dialogues]
    accepted = [sample.key for sample in samples]
    if sorted(accepted + rejects) != sorted(planned):
        yield f"{path}: planned dialogues are not exactly the accepted and the rejected ones"
    order = {key: place for place, key in enumerate(planned)}
    if [order.get(key, -1) for key in accepted] != sorted(order.get(key, -1) for key in accepted):
        yield f"{path}: samples are not in the order of the plan"
    text = folder.text(unit.number)
    try:
        lines = [TextLine.model_validate_json(line) for line in text.read_bytes().splitlines()]
    except ValueError as error:
        yield f"{text}: not readable: {one_line(error)}"
        return
    if [line.plan for line in lines] != list(unit.dialogues):
        yield f"{text}: does not hold exactly the planned dialogues"
