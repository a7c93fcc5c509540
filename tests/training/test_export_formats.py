"""Each format read back: keys, texts and sound are the run's, each dialogue once, in order."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soxr

from pipeline import audio
from pipeline.errors import StorageError, UsageError
from pipeline.shards.format import Encoded
from pipeline.shards.store import RunFolder
from pipeline.training.export import export
from pipeline.training.formats import FORMATS, find_format, tables
from pipeline.training.source import open_run
from tests.synthetic import make_run
from tests.training.exported import Spoken, samples_of, sound, tree

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    splits = {"train": 0.5, "validation": 0.25, "test": 0.25}
    return make_run(tmp_path_factory.mktemp("formats") / "run", 8, 2, rejected=1, splits=splits)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def answers(run: RunFolder) -> list[dict[str, Any]]:
    """Units for each answer, seven numbers a frame, other ones for each turn."""
    return [
        {"key": sample.key, "turn": number, "units": [number * 100 + at for at in range(14)]}
        for sample, turns, _, _ in samples_of(run)
        for number, spoken in enumerate(turns)
        if spoken.turn.role == "assistant"
    ]


def units_file(run: RunFolder, path: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    rows = answers(run) if rows is None else rows
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows[::-1]), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]), "utf-8")
    return path


def same_sound(data: bytes | Path, spoken: Spoken, rate: int) -> None:
    pcm, found = sound(data)
    wanted = spoken.pcm
    if rate != spoken.rate:
        wanted = audio.to_pcm(soxr.resample(audio.from_pcm(spoken.pcm), spoken.rate, rate, quality="HQ"))
    assert found == rate
    np.testing.assert_array_equal(pcm, wanted)


def pairs(run: RunFolder, rows: dict[str, list[Any]]) -> list[tuple[Any, Any, list[Spoken]]]:
    """(row, sample, turns): the rows of a split are its samples, in order."""
    found = []
    for split in SPLITS:
        samples = [(sample, turns) for sample, turns, _, _ in samples_of(run, split)]
        found += [(row, *item) for row, item in zip(rows[split], samples, strict=True)]
    assert len(found) == 7
    return found


@pytest.mark.parametrize("format", ["ms-swift", "llama-factory"])
@pytest.mark.parametrize(
    "options",
    [{}, {"rate": 24000, "files": "flac", "text": "written", "transcript": True, "root": "/data/talk"}],
)
def test_conversations_with_audios(run: RunFolder, tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    """What both trainers' rules say: roles by turns, an <audio> for each of `audios`, in order."""
    export(run.root, format, tmp_path, options=options)
    messages, role, content, names = {
        "ms-swift": ("messages", "role", "content", {"user": "user", "assistant": "assistant"}),
        "llama-factory": ("conversations", "from", "value", {"user": "human", "assistant": "gpt"}),
    }[format]
    for row, sample, turns in pairs(run, {split: lines(tmp_path / f"{split}.jsonl") for split in SPLITS}):
        assert row["id"] == sample.key
        said = [getattr(spoken.turn, options.get("text", "spoken")) for spoken in turns]
        wanted = [
            "<audio>" + (text if "transcript" in options else "") if spoken.turn.role == "user" else text
            for text, spoken in zip(said, turns, strict=True)
        ]
        assert [item[content] for item in row[messages]] == wanted
        assert [item[role] for item in row[messages]] == [names[spoken.turn.role] for spoken in turns]
        users = [spoken for spoken in turns if spoken.turn.role == "user"]
        for path, spoken in zip(row["audios"], users, strict=True):
            assert sample.key in path
            root = "/data/talk/" if options else ""
            assert path.startswith(root)
            same_sound(tmp_path / path.removeprefix(root), spoken, options.get("rate", 16000))


def test_llama_factory_describes_its_files(run: RunFolder, tmp_path: Path) -> None:
    export(run.root, "llama-factory", tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert {name: item["file_name"] for name, item in info.items()} == {f"speechchat_{s}": f"{s}.jsonl" for s in SPLITS}
    for item in info.values():
        assert item["formatting"] == "sharegpt"
        assert set(item["columns"].values()) <= lines(tmp_path / item["file_name"])[0].keys()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_llama_omni_2(run: RunFolder, tmp_path: Path, suffix: str) -> None:
    units = units_file(run, tmp_path / f"units{suffix}")
    export(run.root, "llama-omni", tmp_path / "out", options={"units": str(units)})
    known = {(row["key"], row["turn"]): row["units"] for row in answers(run)}
    for row, sample, turns in pairs(run, {s: json.loads((tmp_path / f"out/{s}.json").read_text()) for s in SPLITS}):
        assert row["id"] == sample.key
        for number, (item, spoken) in enumerate(zip(row["conversation"], turns, strict=True)):
            human = spoken.turn.role == "user"
            assert (item["from"], item["text"]) == ("human" if human else "gpt", spoken.turn.spoken)
            wanted = None if human else "".join(f"<{unit}>" for unit in known[sample.key, number])
            assert item["unit"] == wanted
            same_sound(tmp_path / "out" / item["speech"], spoken, 16000 if human else spoken.rate)


def test_llama_omni_without_units(run: RunFolder, tmp_path: Path) -> None:
    summary = export(run.root, "llama-omni", tmp_path)
    rows = json.loads((tmp_path / "train.json").read_text())
    assert all(item.keys() == {"from", "speech", "text"} for row in rows for item in row["conversation"])
    assert "no `unit`" in summary.notes[0]


def test_llama_omni_1_has_the_first_exchange(run: RunFolder, tmp_path: Path) -> None:
    """`preprocess_llama_3` asserts two messages; the first holds <speech> once."""
    units = units_file(run, tmp_path / "units.jsonl")
    export(run.root, "llama-omni", tmp_path / "out", options={"units": str(units), "version": 1})
    for row, sample, turns in pairs(run, {s: json.loads((tmp_path / f"out/{s}.json").read_text()) for s in SPLITS}):
        human, gpt = row["conversations"]
        assert row["id"] == sample.key
        assert (human["from"], human["value"].count("<speech>")) == ("human", 1)
        assert (gpt["from"], gpt["value"]) == ("gpt", turns[1].turn.spoken)
        assert gpt["tgt_units"] == list(range(100, 114))
        same_sound(tmp_path / "out" / row["speech"], turns[0], 16000)
        same_sound(tmp_path / "out" / row["answer_speech"], turns[1], turns[1].rate)


def load(folder: Path, cache: Path, name: str | None = None) -> Any:
    from datasets import Audio, load_dataset

    found = load_dataset(str(folder), name, cache_dir=str(cache))
    for split, table in found.items():
        for column, feature in table.features.items():
            if isinstance(feature, Audio):
                found[split] = found[split].cast_column(column, Audio(decode=False))
    return found


@pytest.mark.parametrize("codec", ["cosyvoice", "snac", None])
def test_slam_omni(run: RunFolder, tmp_path: Path, codec: str | None) -> None:
    options = {"units": str(units_file(run, tmp_path / "units.jsonl")), "codec": codec} if codec else {}
    export(run.root, "slam-omni", tmp_path / "out", options=options)
    known = {(row["key"], row["turn"]): row["units"] for row in answers(run)}
    seen = 0
    for split in SPLITS:
        rows = iter(load(tmp_path / "out", tmp_path / "cache", split)["train"])
        for sample, turns, _, _ in samples_of(run, split):
            for number in range(0, len(turns), 2):
                row, asked, said = next(rows), turns[number], turns[number + 1]
                history, _, question = row["question"].rpartition("<USER>: ")  # as the trainer takes it apart
                assert (question, row["answer"]) == (asked.turn.spoken, said.turn.spoken)
                before = zip(turns[:number:2], turns[1:number:2], strict=True)
                talk = [f"USER: {a.turn.spoken} ASSISTANT: {b.turn.spoken}" for a, b in before]
                assert history.strip() == " ".join(talk)
                assert row["question_audio"]["path"] == f"{sample.key}.{number:02d}.flac"
                same_sound(row["question_audio"]["bytes"], asked, 16000)
                units = known[sample.key, number + 1]
                if codec == "cosyvoice":
                    assert row["answer_cosyvoice_speech_token"] == units
                elif codec == "snac":
                    tokens = row["answer_snac"].split()
                    assert set(tokens[::8]) == {"#"}
                    assert [int(token) for at, token in enumerate(tokens) if at % 8] == units
                else:
                    same_sound(row["answer_audio"]["bytes"], said, said.rate)
                seen += 1
        assert next(rows, None) is None
    assert seen == sum(len(turns) // 2 for _, turns, _, _ in samples_of(run))


def test_hugging_face(run: RunFolder, tmp_path: Path) -> None:
    from datasets import load_dataset

    export(run.root, "hf", tmp_path / "out")
    features = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")).features
    assert [features[role].sampling_rate for role in ("user", "assistant")] == [16000, 24000]
    found = load(tmp_path / "out", tmp_path / "cache")
    assert list(found) == list(SPLITS)
    for split in SPLITS:
        for row, (sample, turns, user, assistant) in zip(found[split], samples_of(run, split), strict=True):
            whole = sample.model_dump(mode="json")
            assert (row["user"]["bytes"], row["assistant"]["bytes"]) == (user, assistant)
            assert {name: row[name] for name in ("key", "language", "duration", "source", "system", "view")} == {
                name: whole[name] for name in ("key", "language", "duration", "source", "system", "view")
            }
            assert [{**turn, **kept} for turn, kept in zip(whole["turns"], row["turns"], strict=True)] == whole["turns"]
            assert row["provenance"]["synthetic"] is True
            assert whole.keys() - row.keys() == {"version", "split", "user_rate", "assistant_rate"}
            assert whole["turns"][0].keys() - row["turns"][0].keys() == {"take", "takes"}
            for kept, spoken in zip(row["turns"], turns, strict=True):
                pcm, rate = sound(row[kept["role"]]["bytes"])
                cut = pcm[round(kept["start"] * rate) : round(kept["end"] * rate)]
                np.testing.assert_array_equal(cut, spoken.pcm)


def test_the_card_of_hugging_face(run: RunFolder, tmp_path: Path) -> None:
    export(run.root, "hf", tmp_path)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "| text | synthetic | CC0-1.0 | 7 |" in card
    assert "| voice | kokoro | Apache-2.0 |" in card
    # What versions of `datasets` before 4 do not know, and would refuse.
    metadata = pq.read_schema(next(tmp_path.glob("data/train/*/*.parquet"))).metadata[b"huggingface"]
    assert b'"List"' not in metadata


def test_row_groups_are_small(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a row, reads its group: of a hundred dialogues, or so many bytes of sound."""
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 1 << 20)
    sample, _, user, assistant = next(samples_of(run))
    maker = find_format("hf")(find_format("hf").Options())
    source = open_run(run.root)
    maker.check(source.folder, source.config)
    small, large = Encoded(sample, user[:100], assistant[:100]), Encoded(sample, bytes(1 << 19), bytes(1 << 19))
    for samples, wanted in (([small] * 250, [100, 100, 50]), ([large] * 2, [1, 1])):
        path, pieces = next(maker.unit(0, "train", iter(samples)))
        table = pq.ParquetFile(pa.BufferReader(b"".join(pieces)))
        assert path == "data/train/000/unit-000000.parquet"
        assert [table.metadata.row_group(at).num_rows for at in range(table.num_row_groups)] == wanted


@pytest.mark.parametrize(
    ("format", "read"),
    [
        ("ms-swift", lambda row: [row["messages"][0]["role"], row["messages"][0]["content"]]),
        ("llama-factory", lambda row: ["system", row["system"]]),
        ("llama-omni", lambda row: ["system", row["system"]]),
    ],
)
def test_a_system_prompt_is_kept(run: RunFolder, format: str, read: Any) -> None:
    kind = find_format(format)
    sample, _, user, assistant = next(samples_of(run))
    sample = sample.model_copy(update={"system": "Be brief."})
    *_, (_, rows) = kind(kind.Options()).unit(0, "train", iter([Encoded(sample, user, assistant)]))
    assert read(json.loads(rows)) == ["system", "Be brief."]


@pytest.mark.parametrize(
    ("format", "tag"),
    [("ms-swift", "<audio>"), ("llama-factory", "<audio>"), ("llama-factory", "<image>"), ("llama-factory", "<video>")],
)
def test_a_text_with_the_tag_of_a_file_is_refused(run: RunFolder, format: str, tag: str) -> None:
    kind = find_format(format)
    sample, _, user, assistant = next(samples_of(run))
    turns = (sample.turns[0].model_copy(update={"spoken": f"What is {tag} in HTML?"}), *sample.turns[1:])
    encoded = Encoded(sample.model_copy(update={"turns": turns}), user, assistant)
    with pytest.raises(UsageError, match=f"{sample.key}: a text holds '{tag}'"):
        list(kind(kind.Options()).unit(0, "train", iter([encoded])))


def test_a_folder_holds_fewer_than_ten_thousand_clips(run: RunFolder) -> None:
    """However many dialogues a unit has."""
    kind = find_format("llama-omni")
    sample, turns, user, assistant = next(samples_of(run))
    encoded = [Encoded(sample.model_copy(update={"key": f"en-000007-{n}"}), user, assistant) for n in range(101)]
    paths = [path for path, _ in kind(kind.Options()).unit(7, "train", iter(encoded))][:-1]
    folders = [Path(path).parent.as_posix() for path in paths]
    assert len(set(paths)) == 101 * len(turns)
    assert {folder: folders.count(folder) for folder in folders} == {
        "audio/000/unit-000007/00": 100 * len(turns),
        "audio/000/unit-000007/01": len(turns),
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("units.txt", "", "name a .jsonl or a .parquet file"),
        ("units.jsonl", "", "it has no units for turn 1 of"),
        ("units.jsonl", "{", "line 1 is not JSON"),
        ("units.jsonl", "{\udcff", "line 1 is not JSON"),
        ("units.jsonl", '{"key": "a", "turn": 18446744073709551616, "units": [1]}', "row 1: no dialogue has such"),
        ("units.jsonl", '{"key": "\\ud800", "turn": 1, "units": [1]}', "row 1: no dialogue has such"),
        ("units.jsonl", '{"key": "a", "turn": 1}', "row 1 is no key, turn and list of whole numbers"),
        ("units.jsonl", '{"key": "a", "turn": 1, "units": "1 2"}', "row 1 is no key, turn and list of whole numbers"),
        ("units.jsonl", '{"key": "a", "turn": "1", "units": [1]}', "row 1: `key` has to be"),
        ("units.jsonl", '{"key": "a", "turn": 1, "units": [1]}\n' * 2, "row 2: turn 1 of a is there twice"),
        ("units.parquet", "no parquet", "not readable as Parquet"),
    ],
)
def test_units_that_are_none(run: RunFolder, tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(UsageError) as raised:
        export(run.root, "llama-omni", tmp_path / "out", options={"units": str(tmp_path / name)})
    assert f"--set units={tmp_path / name}" in str(raised.value)
    assert said in str(raised.value)
    if "no units for turn" not in said:  # what cannot be read is said before the folder is one of an export
        assert not (tmp_path / "out").exists()


def test_units_that_no_disk_takes(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(name: str) -> sqlite3.Connection:
        connection = connect(name)
        connection.execute("PRAGMA max_page_count = 3")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    rows = [{"key": "a", "turn": turn, "units": [turn] * 1000} for turn in range(9)]
    options = {"units": str(units_file(run, tmp_path / "units.jsonl", rows))}
    with pytest.raises(StorageError, match=r"units.jsonl: row \d: not sorted \(database or disk is full\)"):
        export(run.root, "llama-omni", tmp_path / "out", options=options)


def test_snac_has_seven_units_a_frame(run: RunFolder, tmp_path: Path) -> None:
    rows = [{**row, "units": row["units"][:-1]} for row in answers(run)]
    options = {"units": str(units_file(run, tmp_path / "units.jsonl", rows)), "codec": "snac"}
    with pytest.raises(UsageError, match="has 13 units; SNAC has seven"):
        export(run.root, "slam-omni", tmp_path / "out", options=options)


def test_units_are_known_by_what_they_say(run: RunFolder, tmp_path: Path) -> None:
    """The file may move; another content is another export."""
    first = units_file(run, tmp_path / "units.jsonl")
    export(run.root, "llama-omni", tmp_path / "out", options={"units": str(first)})
    moved = first.rename(tmp_path / "moved.jsonl")
    assert export(run.root, "llama-omni", tmp_path / "out", options={"units": str(moved)}).added == 0
    moved.write_text(moved.read_text().replace("100", "101"))
    with pytest.raises(UsageError, match="holds another export: with units="):
        export(run.root, "llama-omni", tmp_path / "out", options={"units": str(moved)})


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_same_run_gives_the_same_bytes(timed_run: RunFolder, tmp_path: Path, format: str) -> None:
    for name in ("a", "b"):
        assert export(timed_run.root, format, tmp_path / name, ["validation"]).samples == 4
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert find_format(format).name == format


@pytest.mark.parametrize("format", FORMATS)
def test_the_page_names_each_format_and_option(format: str) -> None:
    page = (Path(tables.__file__).parents[1] / "README.md").read_text("utf-8")
    assert f"\n| `{format}` |" in page
    for option in find_format(format).Options.model_fields:
        named = [line for line in page.splitlines() if line.startswith(f"| `{option}=")]
        assert [line for line in named if "all but" in line or format in line.split("|")[2]], option
