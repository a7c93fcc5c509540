"""Cloned voices from real speech: what is kept, what is refused and why, and the library that is written.

The speakers are two Kokoro voices, and the same moved by some semitones (then they are somebody else).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import typer
from typer.testing import CliRunner

from pipeline.audio import resample
from pipeline.backends.quality.dnsmos import Dnsmos
from pipeline.backends.speaker.resemblyzer import Resemblyzer
from pipeline.backends.vad.silero import Silero
from pipeline.cli_clone import voices_clone
from pipeline.dialogue import Clip, Score
from pipeline.engine.prompt_checks import Listeners, Rules
from pipeline.engine.prompt_files import find_prompts
from pipeline.engine.prompt_store import PromptStore
from pipeline.engine.voice_prompts import Clones, Terms, clone, split_of
from pipeline.errors import ConfigError, UsageError
from speakers import load_library
from speakers.table import read_embeddings

pytestmark = pytest.mark.embedded

DATA = Path(__file__).parents[1] / "backends" / "data"
RULES = Rules(seconds=(2.0, 8.0), min_mos=2.9)
TERMS = Terms("xtts", "CC-BY-4.0", "read for this corpus", gender="female", languages=("en",))


def moved(name: str, semitones: float) -> np.ndarray:
    """float32 at 16 kHz: pitch and formants moved together, so that another person speaks."""
    audio, rate = sf.read(DATA / f"{name}.flac", dtype="float32")
    return resample(Clip(audio, round(rate * 2 ** (semitones / 12))), 16000).audio


HEART, YUNXI, HIGH = moved("af_heart", 0), moved("zm_yunxi", 0), moved("zm_yunxi", 5)
FIRST, SECOND = np.array_split(HEART, 2)


class Remembered:
    """DNSMOS that judges each sound once: most tests are about the same few."""

    name, rate = Dnsmos.name, Dnsmos.rate

    def __init__(self) -> None:
        self._model = Dnsmos()
        self._known: dict[bytes, tuple[Score, ...]] = {}

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        for item in clips:
            if item.audio.tobytes() not in self._known:
                self._known[item.audio.tobytes()] = self._model.score([item])[0]
        return [self._known[item.audio.tobytes()] for item in clips]


@pytest.fixture(scope="module")
def models() -> Listeners:
    return Listeners(Silero(), Remembered(), Resemblyzer())


def put(folder: Path, clips: dict[str, np.ndarray | bytes]) -> Path:
    for name, sound in clips.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(sound, bytes):
            path.write_bytes(sound)
        else:
            sf.write(path, sound, 16000)
    return folder


def made(folder: Path, models: Listeners, rules: Rules = RULES, terms: Terms = TERMS) -> Clones:
    store = PromptStore(folder.with_suffix(".parquet"))
    clones = clone(find_prompts(str(folder)), rules, terms, store, models)
    store.write(clones)
    return clones


def reasons(clones: Clones) -> dict[str, str]:
    """The reason by the name of the file."""
    return {Path(item.name).name: item.reason for item in clones.refused}


def table(path: Path, rows: Iterable[dict[str, str]]) -> None:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_best_clip_of_each_speaker_is_kept(tmp_path: Path, models: Listeners) -> None:
    hiss = 0.002 * np.random.default_rng(0).standard_normal(len(SECOND)).astype(np.float32)
    folder = put(tmp_path / "people", {"Anna/a.wav": SECOND + hiss, "Anna/b.flac": FIRST, "王芳/c.ogg": HIGH})
    (folder / "Anna" / "b.txt").write_text("We walked along the river\nuntil the sun went down.\n", "utf-8")
    clones = made(folder, models, Rules((2.0, 8.0), 2.0))
    assert [voice.id for voice in clones.voices] == [
        "xtts_" + hashlib.sha256("王芳".encode()).hexdigest()[:8],
        "xtts_anna",
    ]
    assert reasons(clones) == {"a.wav": "spare"}
    assert clones.heard == 3
    anna = load_library(folder.with_suffix(".parquet")).voice("xtts_anna")
    assert anna == clones.voices[1]
    assert (anna.gender, anna.languages, anna.engine) == ("female", ("en",), "xtts")
    assert (anna.license, anna.consent) == ("CC-BY-4.0", "read for this corpus")
    assert Path(anna.recipe.clip) == folder / "Anna" / "b.flac"
    assert anna.recipe.clip_sha256 == hashlib.sha256((folder / "Anna" / "b.flac").read_bytes()).hexdigest()
    assert anna.recipe.clip_text == "We walked along the river until the sun went down."


def test_the_embedding_is_that_of_the_voice(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "people", {"anna/a.wav": FIRST, "anna/b.wav": SECOND, "yun/c.wav": HIGH})
    clones = made(folder, models)
    stored = read_embeddings(folder.with_suffix(".parquet"))
    assert np.array_equal(stored["xtts_anna"], clones.embeddings["xtts_anna"])
    whole = models.encoder.embed([Clip(HEART, 16000), Clip(HIGH, 16000)])
    assert stored["xtts_anna"] @ whole[0] > 0.95
    assert stored["xtts_yun"] @ whole[1] > 0.95
    assert stored["xtts_anna"] @ stored["xtts_yun"] < 0.75


def test_each_fault_is_found_and_named(tmp_path: Path, models: Listeners) -> None:
    chance = np.random.default_rng(1)
    whole = io.BytesIO()
    sf.write(whole, FIRST, 16000, format="FLAC")
    clips: dict[str, np.ndarray | bytes] = {
        "anna/good.wav": FIRST,
        "anna/short.wav": FIRST[:16000],
        "anna/long.wav": np.tile(FIRST, 4),
        "anna/hiss.wav": FIRST + 0.03 * chance.standard_normal(len(FIRST)).astype(np.float32),
        "anna/silence.wav": np.zeros(48000, np.float32),
        "anna/tone.wav": 0.3 * np.sin(np.arange(48000) / 5).astype(np.float32),
        "anna/two.wav": np.concatenate([FIRST, HIGH]),
        "anna/turns.wav": np.concatenate([FIRST, YUNXI[:30000], SECOND])[:127000],
        "anna/cut.flac": whole.getvalue()[:9000],
        "anna/text.wav": b"not a sound at all",
        "anna/again.wav": FIRST,
        "anna/notes.txt": b"no clip",
        ".trash/old.wav": FIRST,
    }
    clones = made(put(tmp_path / "people", clips), models)
    assert reasons(clones) == {
        "short.wav": "too_short",
        "long.wav": "too_long",
        "hiss.wav": "noisy",
        "silence.wav": "silent",
        "tone.wav": "silent",
        "two.wav": "two_people",
        "turns.wav": "two_people",
        "cut.flac": "unreadable",
        "text.wav": "unreadable",
        "good.wav": "duplicate",  # `again` comes first by name
    }
    assert Path(clones.voices[0].recipe.clip).name == "again.wav"
    details = {Path(item.name).name: item.detail for item in clones.refused}
    assert details["short.wav"] == "1.0 s of speech, 2 at least"
    assert "again.wav" in details["good.wav"]


def test_one_person_under_two_names_becomes_one(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "people", {"anna/a.wav": FIRST, "hannah/b.wav": SECOND, "yun/c.wav": HIGH})
    clones = made(folder, models)
    assert [voice.id for voice in clones.voices] == ["xtts_anna", "xtts_yun"]
    (left,) = clones.refused
    assert left.reason == "duplicate"
    assert "'hannah' sounds like 'anna'" in left.detail
    everybody = made(folder, models, Rules((2.0, 8.0), 2.9, same=1))
    assert [voice.id for voice in everybody.voices] == ["xtts_anna", "xtts_hannah", "xtts_yun"]


def test_metadata_say_who_speaks_what(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "people", {"wav/1.wav": FIRST, "wav/2.wav": HIGH, "wav/3.wav": YUNXI, "stray.wav": FIRST})
    rows = [("1", "p1", "f", "en", "Hello."), ("2", "p2", "male", "zh-CN", "你好。"), ("3", "p3", "", "zh", "")]
    names = ("file", "speaker_id", "gender", "language", "text")
    table(folder / "metadata.csv", (dict(zip(names, (f"wav/{row[0]}.wav", *row[1:]), strict=True)) for row in rows))
    clones = made(folder, models, terms=Terms("xtts", "CC0-1.0", "asked"))
    assert [(v.id, v.gender, v.languages, v.recipe.clip_text) for v in clones.voices] == [
        ("xtts_p1", "female", ("en",), "Hello."),
        ("xtts_p2", "male", ("zh",), "你好。"),
    ]
    (left,) = clones.refused
    assert left.reason == "unlabelled"
    assert "the gender of the speaker 'p3' is not known" in left.detail and "--gender" in left.detail


def test_metadata_without_files_are_about_the_folders(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "people", {"anna/a.wav": FIRST, "yun/c.wav": HIGH})
    lines = ({"speaker": "anna", "gender": "female"}, {"speaker": "yun", "gender": "male", "age": "child"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    clones = made(folder, models, terms=Terms("xtts", "CC0-1.0", "asked", languages=("en", "zh")))
    assert [(v.gender, v.age, v.languages) for v in clones.voices] == [
        ("female", "adult", ("en", "zh")),
        ("male", "child", ("en", "zh")),
    ]


def test_sound_in_a_parquet_file_gets_files_of_its_own(tmp_path: Path, models: Listeners) -> None:
    """As `datasets` writes it; only clips that are kept stay on the disk."""

    def encoded(audio: np.ndarray, kind: str) -> bytes:
        buffer = io.BytesIO()
        sf.write(buffer, audio, 16000, format=kind)
        return buffer.getvalue()

    first, second, other = encoded(FIRST, "FLAC"), encoded(SECOND, "WAV"), encoded(HIGH, "FLAC")
    rows = [
        {"audio": {"bytes": data, "path": name}, "speaker_id": who, "gender": "female", "language": "en"}
        for data, name, who in ((first, "x.flac", 7), (second, "y.wav", 7), (b"junk", "j.wav", 8), (other, "z.flac", 9))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    store = PromptStore(tmp_path / "clones.yaml")
    clones = clone(find_prompts(str(tmp_path / "rows.parquet")), RULES, TERMS, store, models)
    store.write(clones)
    library = load_library(tmp_path / "clones.yaml")
    assert library.voices == clones.voices
    kept = {voice.id: Path(voice.recipe.clip) for voice in library.voices}
    assert sorted(kept) == ["xtts_7", "xtts_9"]
    assert kept["xtts_9"].read_bytes() == other
    assert sorted((tmp_path / "clones_clips").iterdir()) == sorted(kept.values())
    assert Counter(item.reason for item in clones.refused) == {"spare": 1, "unreadable": 1}
    assert [item.name for item in clones.refused if item.reason == "unreadable"] == [
        f"{tmp_path / 'rows.parquet'}, row 3"
    ]


def test_clips_of_the_user_stay_where_ours_would_lie(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "my_clips", {"a.wav": FIRST, "b.wav": SECOND, "c.wav": HIGH})
    table(folder / "metadata.csv", ({"file": f"{name}.wav", "speaker": f"s{name}"} for name in "abc"))
    out = tmp_path / "my.parquet"  # clips without a file of their own would go to my_clips
    store = PromptStore(out)
    clones = clone(find_prompts(str(folder)), RULES, TERMS, store, models)
    store.write(clones)
    assert sorted(path.name for path in folder.iterdir()) == ["a.wav", "b.wav", "c.wav", "metadata.csv"]
    assert load_library(out).voices == clones.voices


@pytest.mark.parametrize("ending", ["parquet", "yaml"])
def test_the_same_clips_give_the_same_bytes_wherever_they_lie(tmp_path: Path, models: Listeners, ending: str) -> None:
    written = []
    for place in ("one", "two"):
        put(tmp_path / place / "people", {"anna/a.wav": FIRST, "yun/c.wav": HIGH})
        store = PromptStore(tmp_path / place / f"voices.{ending}")
        clones = clone(find_prompts(str(tmp_path / place / "people")), RULES, TERMS, store, models)
        store.write(clones)
        written.append((tmp_path / place / f"voices.{ending}").read_bytes())
    assert written[0] == written[1]


def test_splits_are_by_speaker_and_by_share() -> None:
    terms = Terms("xtts", "CC0-1.0", "asked", shares=(("train", 0.5), ("validation", 0.25), ("test", 0.25)))
    names = [f"speaker {number}" for number in range(2000)]
    splits = [split_of(name, terms) for name in names]
    counts = Counter(splits)
    assert abs(counts["train"] - 1000) < 100 and abs(counts["test"] - 500) < 80
    assert splits[7] == split_of("speaker 7", terms)
    other = Terms("xtts", "CC0-1.0", "asked", seed=1, shares=terms.shares)
    assert [split_of(name, other) for name in names] != splits


def test_who_speaks_must_be_said(tmp_path: Path) -> None:
    folder = put(tmp_path / "people", {"a.wav": FIRST})
    with pytest.raises(UsageError, match=r"a\.wav: whose voice is it\?.*metadata\.csv"):
        list(find_prompts(str(folder)))
    table(folder / "metadata.csv", [{"file": "a.wav", "gender": "female"}])
    with pytest.raises(UsageError, match=r"row 1: no speaker"):
        list(find_prompts(str(folder)))
    table(folder / "metadata.csv", [{"file": "a.wav", "speaker": "anna", "gender": "soprano"}])
    with pytest.raises(UsageError, match="gender 'soprano': female or male"):
        list(find_prompts(str(folder)))
    table(folder / "metadata.csv", [{"file": "a.wav", "speaker": "anna", "language": "fr"}])
    with pytest.raises(UsageError, match="language 'fr': en and zh are known"):
        list(find_prompts(str(folder)))


def test_two_speakers_with_one_id(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "people", {"Anna B/a.wav": FIRST, "anna_b/c.wav": HIGH})
    with pytest.raises(UsageError, match="'Anna B' and 'anna_b' would both be called xtts_anna_b"):
        made(folder, models)


def test_a_speaker_has_one_gender(tmp_path: Path, models: Listeners) -> None:
    folder = put(tmp_path / "people", {"a.wav": FIRST, "b.wav": SECOND})
    rows = ({"file": f"{name}.wav", "speaker": "anna", "gender": sex} for name, sex in (("a", "f"), ("b", "m")))
    table(folder / "metadata.csv", rows)
    with pytest.raises(UsageError, match=r"b\.wav: the speaker 'anna' is male here and female before"):
        made(folder, models)


class Command:
    """`voices clone` with the words that a shell would give it."""

    def __init__(self) -> None:
        self._app = typer.Typer()
        self._app.command()(voices_clone)

    def __call__(self, *words: object) -> tuple[str, str]:
        """Standard output and error; raises what the command raises."""
        done = CliRunner().invoke(self._app, [str(word) for word in words])
        if done.exception is not None:
            raise done.exception
        return done.stdout, done.stderr


NEEDED = (
    "--engine",
    "xtts",
    "--license",
    "CC0-1.0",
    "--consent",
    "asked",
    "--gender",
    "female",
    "--languages",
    "en,zh",
)
EASY = ("--min-seconds", 2, "--max-seconds", 8, "--min-mos", 2.9)


def test_the_command_counts_and_names(tmp_path: Path) -> None:
    clips = {"anna/a.wav": FIRST, "anna/b.wav": FIRST[:16000], "anna/c.wav": b"junk", "yun/d.wav": HIGH}
    folder, out = put(tmp_path / "people", clips), tmp_path / "voices" / "clones.parquet"
    said, errors = Command()(folder, "--out", out, *NEEDED, *EASY)
    assert f"{out}: 2 voices of 4 clips: 2 female" in said
    assert "1 too_short" in said and "1 unreadable" in said
    assert errors.count("\n") == 1 and errors.startswith(f"! {folder / 'anna' / 'c.wav'}: ")
    assert len(load_library(out).voices) == 2
    with pytest.raises(UsageError, match=r"there already.*--force"):
        Command()(folder, "--out", out, *NEEDED, *EASY)
    said, _ = Command()(folder, "--out", out, *NEEDED, *EASY, "--force", "--json")
    data = json.loads(said)
    assert data["counts"] == {"too_short": 1, "unreadable": 1}
    assert [voice["id"] for voice in data["voices"]] == ["xtts_anna", "xtts_yun"]
    assert {item["reason"] for item in data["refused"]} == {"too_short", "unreadable"}


def test_what_the_command_refuses(tmp_path: Path) -> None:
    folder, out = put(tmp_path / "people", {"anna/a.wav": FIRST[:16000]}), tmp_path / "clones.parquet"
    for option in ("--engine", "--license", "--consent"):
        place = NEEDED.index(option)
        with pytest.raises(UsageError, match=f"{option} is missing"):
            Command()(folder, "--out", out, *NEEDED[:place], *NEEDED[place + 2 :])
    with pytest.raises(UsageError, match="no such folder"):
        Command()(tmp_path / "nobody", "--out", out, *NEEDED)
    with pytest.raises(UsageError, match=r"end the name in \.parquet or \.yaml"):
        Command()(folder, "--out", tmp_path / "clones.csv", *NEEDED)
    with pytest.raises(UsageError, match=r"no clip of 1 was kept: 1 too_short \(first .*a\.wav: 1\.0 s of speech"):
        Command()(folder, "--out", out, *NEEDED)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no clip was found"):
        Command()(tmp_path / "empty", "--out", out, *NEEDED)
    put(tmp_path / "broken", {"metadata.parquet": b"PAR1 and no more"})
    with pytest.raises(ConfigError, match=r"metadata\.parquet.*damaged"):
        Command()(tmp_path / "broken", "--out", out, *NEEDED)
    assert not out.exists()
