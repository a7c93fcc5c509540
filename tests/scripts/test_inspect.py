"""scripts/inspect_samples.py over a synthetic run: eight dialogues, three rejected, two units in two splits."""

from __future__ import annotations

import base64
import importlib
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner, Result

from pipeline import audio
from pipeline.shards.reader import read_rejects, read_takes, read_unit
from pipeline.shards.store import RunFolder
from tests.synthetic import MISHEARD, STUMBLES, make_run

ROOT = Path(__file__).parents[2]
ACCEPTED = ["zh-000000-03", "en-000001-00", "zh-000001-01", "en-000001-02", "zh-000001-03"]
REJECTED = ["en-000000-00", "zh-000000-01", "en-000000-02"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("runs") / "small"
    return make_run(root, dialogues=8, unit_size=4, rejected=3, splits={"train": 1, "test": 1})


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))  # as `python scripts/inspect_samples.py` has it
        return importlib.import_module("inspect_samples")


def call(script: ModuleType, *arguments: object) -> Result:
    return CliRunner().invoke(script.app, [str(item) for item in arguments])


def one_line(result: Result, exit_code: int) -> str:
    """The line on standard error of a call that ended as errors for users do."""
    assert result.exit_code == exit_code, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("inspect_samples: ")
    return line


def rows(result: Result, title: str) -> list[list[str]]:
    """Words of the rows of a table, without its head."""
    _, found, rest = ("\n" + result.stdout).partition(f" {title} ")
    words = [line.split() or [""] for line in rest.splitlines()[2:]] if found else []
    end = next((number for number, row in enumerate(words) if row[0] in ("", "accepted", "rejected")), 0)
    return [row for row in words[:end] if "-0000" in row[0]]


class Page(HTMLParser):
    """What a page shows: attributes of every element, the articles, and the text in each."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.articles: dict[str, dict[str, str | None]] = {}
        self.text: dict[str, str] = {}
        self.marks: dict[str, list[tuple[str, str]]] = {}
        self.takes: dict[str, list[bytes]] = {}
        self._key = self._mark = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append((tag, values))
        if tag in ("del", "ins") and self._key:
            self._mark = tag
            self.marks[self._key].append((tag, ""))
        if tag == "article":
            self._key = values["id"] or ""
            self.articles[self._key] = values
            self.text[self._key], self.marks[self._key], self.takes[self._key] = "", [], []
        if tag == "img" or values.get("class") == "whole":
            self.articles[self._key][tag] = values["src"]
        elif tag == "audio":
            self.takes[self._key].append(_data(values["src"], "audio/flac"))

    def handle_endtag(self, tag: str) -> None:
        self._mark = "" if tag == self._mark else self._mark
        self._key = "" if tag == "article" else self._key

    def handle_data(self, data: str) -> None:
        if self._key:
            self.text[self._key] += data
            if self._mark:
                self.marks[self._key][-1] = (self._mark, self.marks[self._key][-1][1] + data)

    def payload(self, key: str, tag: str, kind: str) -> bytes:
        return _data(self.articles[key][tag], kind)


def _data(link: str | None, kind: str) -> bytes:
    head, _, data = (link or "").partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


@pytest.fixture(scope="module")
def shown(run: RunFolder, script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Everything of the run, with pictures."""
    out = tmp_path_factory.mktemp("inspect")
    return call(script, run.root, "--out", out), out


def test_table_tells_each_dialogue(shown: tuple[Result, Path]) -> None:
    result, _ = shown
    assert result.exit_code == 0, result.output
    accepted = {row[0]: row for row in rows(result, "accepted")}
    assert list(accepted) == ACCEPTED
    assert [row[0] for row in rows(result, "rejected")] == REJECTED
    _, split, language, seconds, turns, _, agent, author, metric, worst, mos = accepted["en-000001-02"]
    assert (split, language, turns, agent, author) == ("train", "en", "4", "am_michael", "source")
    assert (metric, worst) == ("wer", "0.000")
    assert 4 < float(seconds) < 12
    assert 2.8 <= float(mos) < 3.8
    assert accepted["en-000001-00"][7] == "llm"


def test_rejected_only_with_stage_reason_and_detail(run: RunFolder, script: ModuleType, tmp_path: Path) -> None:
    result = call(script, run.root, "--rejected", "--no-png", "--out", tmp_path)
    assert rows(result, "accepted") == []
    table = rows(result, "rejected")
    assert [row[0] for row in table] == REJECTED
    assert table[0][1:8] == ["test", "en", "judge", "wer", "turn", "1:", "wer"]
    assert table[1][3:5] == ["filter", "url"]
    assert "not spoken, turn 1, source, url: http://example.org" in result.stdout
    assert set(Page(tmp_path / "index.html").articles) == set(REJECTED)


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        (("--split", "train", "--language", "zh"), ["zh-000001-01", "zh-000001-03"]),
        (("--language", "en", "--limit", "3"), ["en-000000-00", "en-000000-02", "en-000001-00"]),
        (("--split", "train", "--rejected"), []),
    ],
)
def test_filters(run: RunFolder, script: ModuleType, tmp_path: Path, filters: tuple[str, ...], keys: list[str]) -> None:
    result = call(script, run.root, "--no-png", "--out", tmp_path, *filters)
    assert result.exit_code == 0
    found = [row[0] for title in ("accepted", "rejected") for row in rows(result, title)]
    assert sorted(found) == sorted(keys)
    assert (tmp_path / "index.html").exists() == bool(keys)


def test_reads_no_further_than_the_limit(run: RunFolder, script: ModuleType, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(run.root, tmp_path / "copy"))
    shard = next(copy.root.glob("shards/*/000/unit-000001.tar"))
    shard.write_bytes(b"")
    assert call(script, copy.root, "--no-png", "--limit", 4).exit_code == 0
    assert str(shard) in one_line(call(script, copy.root, "--no-png", "--limit", 5), 1)


def test_key_shows_turns_takes_and_differences(run: RunFolder, script: ModuleType, tmp_path: Path) -> None:
    result = call(script, run.root, "--key", "en-000001-00", "--no-png", "--out", tmp_path)
    text = " ".join(result.stdout.split())
    said = next(iter(STUMBLES))
    assert (
        "take 0, first take, bf_emma (kokoro) at speed 1: refused for wer, wer 0.167, heard what do you call that"
        in text
    )
    assert "take 1, again, bf_emma (kokoro) at speed 0.88: passed" in text
    assert f"spoken {said} heard {said}" in text
    assert "written It is the Seine & it runs < 800 km." in text
    assert list(Page(tmp_path / "index.html").articles) == ["en-000001-00"]
    rejected = call(script, run.root, "--key", "en-000000-00", "--no-png", "--out", tmp_path).stdout
    assert "[-she-] [+he+] sells [-sea-] [+these+] shells" in rejected


@pytest.mark.parametrize(
    ("key", "near"),
    [("zh-000000-00", "en-000000-00"), ("en-000009-02", "en-000000-02"), ("nonsense", "-00000")],
)
def test_unknown_key_names_the_nearest(run: RunFolder, script: ModuleType, key: str, near: str) -> None:
    line = one_line(call(script, run.root, "--key", key), 2)
    assert repr(key) in line
    assert near in line.partition("nearest")[2]


def test_page_needs_nothing_from_outside(shown: tuple[Result, Path]) -> None:
    page = Page(shown[1] / "index.html")
    assert list(page.articles) == sorted(ACCEPTED + REJECTED, key=lambda key: key.split("-")[1:])
    links = [values.get(name) for _, values in page.elements for name in ("src", "href") if name in values]
    assert links
    assert all((link or "").startswith("data:") for link in links)
    assert not any(tag in ("link", "iframe", "object") for tag, _ in page.elements)
    assert {key for key, values in page.articles.items() if values["data-status"] == "rejected"} == set(REJECTED)
    assert "judge: wer" in page.text["en-000000-00"]


def test_page_escapes_and_marks(shown: tuple[Result, Path]) -> None:
    page = Page(shown[1] / "index.html")
    assert "It is the Seine & it runs < 800 km." in page.text["en-000001-00"]
    assert "runs &lt; 800 km" in (shown[1] / "index.html").read_text("utf-8")
    hopeless = [("del", "she"), ("ins", "he"), ("del", "sea"), ("ins", "these")]
    # First of a take of the turn before that was refused; then of the take that stands.
    assert page.marks["en-000000-00"][:6] == [("del", "river"), ("ins", "liver"), *hopeless]
    assert page.marks["en-000001-00"] == [("del", "river"), ("ins", "liver")]  # of the refused take alone
    assert "<del><b>r</b>iver</del><ins><b>l</b>iver</ins>" in (shown[1] / "index.html").read_text("utf-8")
    assert next(iter(MISHEARD.values())) in page.text["en-000000-00"]


def test_mandarin_is_marked_character_by_character(shown: tuple[Result, Path]) -> None:
    page = Page(shown[1] / "index.html")
    marked = [key for key, marks in page.marks.items() if marks == [("del", "两"), ("ins", "凉")]]
    assert marked and all(key.startswith("zh-") for key in marked)


def test_page_tells_and_plays_every_attempt(run: RunFolder, shown: tuple[Result, Path]) -> None:
    page, key = Page(shown[1] / "index.html"), "en-000000-00"
    manifest = next(item for item in run.manifests() if item.unit == 0)
    reject, encoded = next(item for item in read_rejects(run, manifest) if item[0].id == key)
    kept = {turn: sample.take for turn, sample in enumerate(encoded.sample.turns)} if encoded else {}
    others = [(turn.turn, take) for turn in reject.turns for take in turn.takes if take.take != kept[turn.turn]]
    clips = [(clip.turn, clip.take) for clip in read_takes(run, manifest)[key]]
    assert clips == [(turn, take.take) for turn, take in others] and others
    for (_, take), flac in zip(others, page.takes[key], strict=True):
        samples, rate = audio.decode(flac)
        assert len(samples) / rate == pytest.approx(take.seconds, abs=0.001)
    for turn in reject.turns:
        for take in turn.takes:
            assert f"{take.voice} (kokoro) at speed {take.speed:g}" in page.text[key]
    assert "again, " in page.text[key] and "the one in the tracks" in page.text[key]
    assert page.takes["en-000001-00"] == []  # of accepted dialogues no other take is kept


def test_a_refused_turn_shows_scores_and_which_gate_they_break(shown: tuple[Result, Path]) -> None:
    text = (shown[1] / "index.html").read_text("utf-8")
    _, _, article = text.partition('<article id="en-000000-00"')
    assert re.search(r'title="word error rate \(en\)" class="bad">wer 0\.500<', article.partition("</article>")[0])


def test_what_is_alike_in_two_words_is_no_difference(script: ModuleType) -> None:
    turns = sys.modules["inspect_turns"]
    [same, pair] = turns.marks("the river", "the liver", "en")
    assert same.same and (pair.said, pair.heard) == (((False, "r"), (True, "iver")), ((False, "l"), (True, "iver")))
    [_, other] = turns.marks("the river", "the dog", "en")
    assert (other.said, other.heard) == (((False, "river"),), ((False, "dog"),))
    [_, lost] = turns.marks("the river", "the", "en")
    assert (lost.said_text, lost.heard) == ("river", ())
    assert turns.marks("It costs $5.", "it costs five dollars", "en") == ()


def test_page_plays_both_tracks(run: RunFolder, shown: tuple[Result, Path]) -> None:
    page = Page(shown[1] / "index.html")
    manifest = next(item for item in run.manifests() if item.unit == 1)
    encoded = next(item for item in read_unit(run, manifest) if item.sample.key == "en-000001-02")
    sound, rate = sf.read(io.BytesIO(page.payload("en-000001-02", "audio", "audio/flac")), dtype="int16")
    assistant, _ = audio.decode(encoded.assistant)
    assert (rate, sound.shape) == (24000, (round(encoded.sample.duration * 24000), 2))
    assert np.array_equal(sound[:, 1], assistant)
    for turn in encoded.sample.turns:
        left, right = np.abs(sound[int(turn.start * rate) : int(turn.end * rate)].astype(int)).mean(axis=0)
        assert (left > 50 * right) if turn.role == "user" else (right > 50 * left)
    buttons = [values for tag, values in page.elements if tag == "button"]
    for turn in encoded.sample.turns:
        assert any((item["data-start"], item["data-end"]) == (str(turn.start), str(turn.end)) for item in buttons)
    assert "audio" not in page.articles["zh-000000-01"]


def test_picture_shows_the_turns_where_they_are(run: RunFolder, shown: tuple[Result, Path]) -> None:
    """Columns with much of the user's colour, read back as seconds, are the user's turn."""
    from matplotlib.image import imread

    page, key = Page(shown[1] / "index.html"), "en-000001-00"
    png = (shown[1] / f"{key}.png").read_bytes()
    assert page.payload(key, "img", "image/png") == png
    manifest = next(item for item in run.manifests() if item.unit == 1)
    sample = next(item.sample for item in read_unit(run, manifest) if item.sample.key == key)
    pixels = imread(io.BytesIO(png))[:, :, :3]
    left, right = (float(page.articles[key][name] or "") for name in ("data-left", "data-right"))
    width = pixels.shape[1]
    blue = np.array([0x2C, 0x66, 0xB0]) / 255
    columns = np.nonzero((np.abs(pixels - blue).max(axis=2) < 0.08).sum(axis=0) > 20)[0]
    columns = columns[columns > left * width]
    seconds = (columns / width - left) / (right - left) * sample.duration
    assert seconds.min() == pytest.approx(sample.turns[0].start, abs=0.15)
    assert seconds.max() == pytest.approx(sample.turns[0].end, abs=0.15)


def test_labels_are_never_boxes(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = sys.modules["inspect_picture"]
    monkeypatch.setattr(picture, "han_font", lambda: "")
    assert picture.label("你喜欢喝茶吗？") == "nǐ xǐ huān hē chá ma?"
    assert picture.label("It costs $5 or $6.") == "It costs $5 or $6."
    monkeypatch.setattr(picture, "han_font", lambda: "Some Han Font")
    assert picture.label("你喜欢喝茶吗？") == "你喜欢喝茶吗？"


def test_without_matplotlib(
    run: RunFolder, script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'speechchat[inspect]'" in one_line(call(script, run.root, "--out", tmp_path), 2)
    assert not list(tmp_path.iterdir())
    assert call(script, run.root, "--no-png", "--out", tmp_path).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert not any(tag == "img" for tag, _ in Page(tmp_path / "index.html").elements)


def test_command_line_leaves_the_data_as_it_is(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(run.root, tmp_path / "copy"))

    def data() -> dict[Path, bytes]:
        files = (path for path in copy.root.rglob("*") if path.is_file() and copy.logs not in path.parents)
        return {path: path.read_bytes() for path in files}

    before = data()
    command = [sys.executable, "scripts/inspect_samples.py", str(copy.root), "--limit", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(copy.logs / "inspect" / "index.html") in done.stdout
    assert (copy.logs / "inspect" / "en-000000-00.png").read_bytes().startswith(b"\x89PNG")
    assert data() == before


def test_totals_without_stats(run: RunFolder, script: ModuleType, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(run.root, tmp_path / "copy"))
    arguments = (copy.root, "--no-png", "--out", tmp_path / "page")
    call(script, *arguments)
    finished = (tmp_path / "page" / "index.html").read_text("utf-8")
    copy.stats.unlink()
    assert call(script, *arguments).exit_code == 0
    assert (tmp_path / "page" / "index.html").read_text("utf-8") == finished


def test_damage_is_one_line(run: RunFolder, script: ModuleType, tmp_path: Path) -> None:
    assert "no run" in one_line(call(script, tmp_path), 2)
    for name in ("stats.json", "dialogues/000/unit-000000.jsonl"):
        copy = RunFolder(shutil.copytree(run.root, tmp_path / Path(name).stem))
        (copy.root / name).write_text("{")
        assert str(copy.root / name) in one_line(call(script, copy.root, "--no-png"), 1)
