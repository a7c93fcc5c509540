"""Views of a run: laid out like a run, made exactly once, the same bytes wherever they are made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import yaml

from pipeline import cli_views
from pipeline.config import EngineConfig
from pipeline.engine.run import load_frozen
from pipeline.engine.views import choose_views, make_views
from pipeline.errors import ConfigError, RunFolderError, RunIncomplete, RunMismatchError, SpeechchatError
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_unit
from pipeline.shards.stats import Stats
from pipeline.shards.store import RunFolder
from pipeline.shards.verify import verify
from pipeline.training.stream import DialogueStream
from pipeline.view_sections import CodecConfig, NoiseConfig, SpeedConfig, ViewConfig
from tests.fakes import tree
from tests.synthetic import make_run

HERE = EngineConfig(kind="local", studios=1)
PHONE = ViewConfig(steps=("noise", "codec"), codec=CodecConfig(names=("mulaw", "alaw")))
FAST = ViewConfig(steps=("speed", "noise"), speed=SpeedConfig(factors=(1.1,)), noise=NoiseConfig(kind="babble"))


class Watcher:
    """A ViewObserver that remembers; it stops the work after so many units."""

    def __init__(self, stop_after: int = 99) -> None:
        self.units: list[int] = []
        self.began_with: list[tuple[str, int, int]] = []
        self.troubles: list[str] = []
        self._stop_after = stop_after

    def began(self, name: str, units: int, finished: int) -> None:
        self.began_with.append((name, units, finished))

    def finished(self, manifest: Manifest) -> None:
        self.units.append(manifest.unit)
        if len(self.units) == self._stop_after:
            raise KeyboardInterrupt

    def trouble(self, message: str) -> None:
        self.troubles.append(message)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four units of two; the first two dialogues are rejected, one of them with its clips."""
    return make_run(tmp_path_factory.mktemp("views") / "run", dialogues=8, unit_size=2, rejected=2)


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="module")
def whole(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The phone view as one process makes it."""
    root = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(finished.root, root)
    make_views(root, {"phone": PHONE}, HERE, Watcher())
    return tree(root / "views" / "phone")


def check(folder: RunFolder) -> None:
    config, frozen = load_frozen(folder)
    *_, state = verify(folder, config, True, frozen.digests)
    assert state.ok, (state.problems, state.missing)


def refusal(error: type[SpeechchatError], *parts: str) -> object:
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


def test_a_view_is_laid_out_like_a_run(run: RunFolder, tmp_path: Path) -> None:
    before = tree(run.root)
    watcher = Watcher()
    assert "## The view" not in run.card.read_text("utf-8")
    both = make_views(run.root, {"phone": PHONE, "fast": FAST}, HERE, watcher)
    assert watcher.began_with == [("phone", 4, 0), ("fast", 4, 0)] and watcher.units == [0, 1, 2, 3] * 2
    clean = Stats.model_validate_json(run.stats.read_bytes())
    for name, stats in zip(("phone", "fast"), both, strict=True):
        folder = RunFolder(run.root / "views" / name)
        check(folder)
        assert stats == Stats.model_validate_json(folder.stats.read_bytes())
        assert (stats.planned, stats.accepted, stats.rejected) == (clean.planned, clean.accepted, clean.rejected)
        card = folder.card.read_text("utf-8")
        assert f"## The view `{name}`" in card and "| noise | kind" in card
        turns, originals = (
            list(DialogueStream(root, each="turn", shuffle=0, cache=tmp_path)) for root in (folder.root, run.root)
        )
        assert [(turn.key, turn.text) for turn in turns] == [(turn.key, turn.text) for turn in originals] != []
        for seen, original in zip(turns, originals, strict=True):
            assert np.array_equal(seen.audio, original.audio) == (seen.role == "assistant")
    assert both[0].hours == clean.hours and both[1].hours < clean.hours
    assert {path: data for path, data in tree(run.root).items() if not path.startswith("views/")} == before
    check(run)  # a run does not mind its views


def test_a_finished_view_is_left_alone(run: RunFolder) -> None:
    make_views(run.root, {"phone": PHONE}, HERE, Watcher())
    places = {path: path.stat() for path in (run.root / "views").rglob("*") if "logs" not in path.parts}
    watcher = Watcher()
    make_views(run.root, {"phone": PHONE}, HERE, watcher)
    assert watcher.units == [] and watcher.began_with == [("phone", 4, 4)]
    assert {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in places.items()} == {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in places
    }


def test_processes_make_the_same_bytes(run: RunFolder, whole: dict[str, bytes]) -> None:
    watcher = Watcher()
    make_views(run.root, {"phone": PHONE}, EngineConfig(kind="local", studios=2), watcher)
    assert sorted(watcher.units) == [0, 1, 2, 3] and tree(run.root / "views" / "phone") == whole


@pytest.mark.usefixtures("ray_here")
def test_ray_makes_the_same_bytes(run: RunFolder, whole: dict[str, bytes]) -> None:
    make_views(run.root, {"phone": PHONE}, EngineConfig(kind="ray"), Watcher())
    assert tree(run.root / "views" / "phone") == whole


def test_it_goes_on_where_it_was(run: RunFolder, whole: dict[str, bytes]) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_views(run.root, {"phone": PHONE}, HERE, Watcher(stop_after=2))
    view = run.root / "views" / "phone"
    (view / "shards" / "train" / "000" / "unit-000003.tar").write_bytes(b"torn")  # published, but no manifest came
    (view / "shards" / "train" / "000" / "unit-000002.tar.tmp").write_bytes(b"half")
    watcher = Watcher()
    make_views(run.root, {"phone": PHONE}, HERE, watcher)
    assert watcher.units[-1] == 3 and not {0, 1} & set(watcher.units) and tree(view) == whole


def test_a_killed_driver_leaves_nothing_wrong(run: RunFolder, whole: dict[str, bytes]) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.engine.test_views import *\n"
        "if __name__ == '__main__':\n"
        "    make_views(Path(sys.argv[1]), {'phone': PHONE}, EngineConfig(kind='local', studios=2), Watcher())\n"
    )
    script = run.root.parent / "drive.py"
    script.write_text(code)
    view = run.root / "views" / "phone"
    driver = subprocess.Popen([sys.executable, str(script), str(run.root)])
    deadline = time.monotonic() + 120
    while not any((view / "shards").rglob("*.json")):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    make_views(run.root, {"phone": PHONE}, HERE, Watcher())  # waits until the last worker is gone
    assert tree(view) == whole


def test_another_configuration_is_refused(run: RunFolder, whole: dict[str, bytes]) -> None:
    make_views(run.root, {"phone": PHONE}, HERE, Watcher())
    louder = PHONE.model_copy(update={"noise": NoiseConfig(snr=(0.0, 10.0))})
    with refusal(RunMismatchError, r"views\.phone\.noise\.snr is \[5\.0, 20\.0\] there and \[0\.0, 10\.0\] here"):
        make_views(run.root, {"phone": louder}, HERE, Watcher())
    with refusal(RunMismatchError, r"views\.phone\.steps is \['noise', 'codec'\] there and \['codec'\] here"):
        make_views(run.root, {"phone": ViewConfig(steps=("codec",), codec=PHONE.codec)}, HERE, Watcher())
    assert tree(run.root / "views" / "phone") == whole


def drop_units(run: RunFolder, units: Sequence[int]) -> dict[Path, bytes]:
    """Take units out of a run, as if they were still to come; returns what to put back."""
    taken = {}
    for unit in units:
        for path in [*run.unit_files(unit, "train"), run.manifest(unit, "train"), run.text(unit)]:
            if path.exists():
                taken[path] = path.read_bytes()
                path.unlink()
    return taken


def test_units_that_the_run_lacks_are_named_and_follow_later(run: RunFolder, whole: dict[str, bytes]) -> None:
    taken = drop_units(run, [1, 3])
    watcher = Watcher()
    with refusal(RunIncomplete, r"2 units of the run are not finished \(1, 3\)", "finish the run"):
        make_views(run.root, {"phone": PHONE}, HERE, watcher)
    assert watcher.units == [0, 2]
    for path, data in taken.items():
        path.write_bytes(data)
    watcher = Watcher()
    make_views(run.root, {"phone": PHONE}, HERE, watcher)
    assert watcher.units == [1, 3] and tree(run.root / "views" / "phone") == whole


def test_a_run_that_grew_gets_the_missing_units(run: RunFolder, whole: dict[str, bytes]) -> None:
    grown = run.config.read_text("utf-8")
    run.config.write_text(grown.replace("dialogues: 8\n", "dialogues: 4\n"), "utf-8")
    taken = drop_units(run, [2, 3])
    (small,) = make_views(run.root, {"phone": PHONE}, HERE, Watcher())
    assert small.units_planned == 2 and small.complete
    check(RunFolder(run.root / "views" / "phone"))
    run.config.write_text(grown, "utf-8")
    for path, data in taken.items():
        path.write_bytes(data)
    watcher = Watcher()
    make_views(run.root, {"phone": PHONE}, HERE, watcher)
    assert watcher.units == [2, 3] and tree(run.root / "views" / "phone") == whole


def test_a_damaged_unit_costs_no_other(run: RunFolder, whole: dict[str, bytes]) -> None:
    shard = run.shard(2, "train")
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + b"x")
    watcher = Watcher()
    with refusal(RunIncomplete, r"1 units of views are quarantined \(phone 2; see .*NAME/quarantine\)"):
        make_views(run.root, {"phone": PHONE}, HERE, watcher)
    assert watcher.units == [0, 1, 3] and len(watcher.troubles) == 1
    assert "SHA-256" in watcher.troubles[0] and str(shard) in watcher.troubles[0]
    shard.write_bytes(good)
    make_views(run.root, {"phone": PHONE}, HERE, Watcher())
    assert tree(run.root / "views" / "phone") == whole


@pytest.fixture
def hums(tmp_path: Path) -> Path:
    folder = tmp_path / "hums"
    folder.mkdir()
    for name, hertz in (("low", 80), ("high", 1000)):
        samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(24000) / 24000)
        sf.write(folder / f"{name}.wav", samples, 24000)
    return folder


def humming(folder: Path, licence: str = "CC-BY-4.0") -> ViewConfig:
    return ViewConfig(steps=("noise",), noise=NoiseConfig(folder=folder, license=licence))


def test_recordings_are_frozen_by_name_and_checksum(run: RunFolder, hums: Path) -> None:
    make_views(run.root, {"hum": humming(hums)}, HERE, Watcher())
    view = RunFolder(run.root / "views" / "hum")
    check(view)
    text = view.config.read_text("utf-8")
    frozen = yaml.safe_load(text)
    assert list(frozen["views"]["hum"]["noise"]["files"]) == ["high.wav", "low.wav"] and str(hums) not in text
    samples = [item.sample for manifest in view.manifests() for item in read_unit(view, manifest)]
    assert {step.kind for sample in samples for step in sample.channel if step.name == "noise"} <= {
        "high.wav",
        "low.wav",
    }
    assert all("CC-BY-4.0" in {use.license for use in sample.provenance.models} for sample in samples)
    assert "2 recordings" in view.card.read_text("utf-8")
    # Finished: where the recordings lie is of no interest any more.
    views, _ = choose_views(run.root, [], None, ["engine.kind=local"])
    assert list(views) == ["hum"] and views["hum"].noise.folder is None
    make_views(run.root, views, HERE, Watcher())
    drop = view.manifest(3, "train")
    drop.unlink()
    with refusal(ConfigError, r"views\.hum\.noise\.folder: where do its 2 files lie"):
        make_views(run.root, views, HERE, Watcher())
    again, _ = choose_views(run.root, [], None, [f"views.hum.noise.folder={hums}"])
    before = tree(view.root)
    moved = hums.rename(hums.with_name("elsewhere"))
    with refusal(ConfigError, r"views\.hum\.noise\.folder: .*hums is no folder"):
        make_views(run.root, again, HERE, Watcher())
    make_views(run.root, {"hum": humming(moved)}, HERE, Watcher())
    assert drop.exists() and before.items() <= tree(view.root).items()
    (moved / "low.wav").write_bytes((moved / "high.wav").read_bytes())
    with refusal(RunMismatchError, r"views\.hum\.noise\.files\.low\.wav is '[0-9a-f]{64}' there"):
        make_views(run.root, {"hum": humming(moved)}, HERE, Watcher())


def test_a_licence_is_heeded(run: RunFolder, hums: Path) -> None:
    text = run.config.read_text("utf-8")
    run.config.write_text(text.replace("require_licence: any", "require_licence: commercial"), "utf-8")
    with refusal(ConfigError, "require_licence=commercial", "CC-BY-NC-4.0"):
        make_views(run.root, {"hum": humming(hums, "CC-BY-NC-4.0")}, HERE, Watcher())
    assert not (run.root / "views").exists()


def test_views_are_chosen_by_name_file_and_setting(finished: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "views.yaml"
    path.write_text(yaml.safe_dump({"views": {"mine": {"steps": ["gain"]}}, "engine": {"kind": "local"}}))
    views, engine = choose_views(finished.root, [], str(path), ["views.mine.gain.db=[-3, -3]"])
    assert list(views) == ["mine"] and views["mine"].gain.db == (-3.0, -3.0) and engine.kind == "local"
    views, engine = choose_views(finished.root, ["room", "mine"], str(path), ["engine.kind=ray"])
    assert list(views) == ["room", "mine"] and views["room"].steps == ("rir", "noise") and engine.kind == "ray"
    views, _ = choose_views(finished.root, [], None, ["views.loud.steps=[gain]"])
    assert list(views) == ["loud"]


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (["phoen"], [], r"no view is called 'phoen'; did you mean 'phone'\? known: phone, room"),
        ([], [], r"name the views to make: phone, room, crowd, speed"),
        (["phone"], ["views.phone.noise.snrr=[1, 2]"], r"did you mean 'views\.phone\.noise\.snr'"),
        (["phone"], ["dialogues=4"], r"changes only views\.\* and engine\.\*"),
        (["phone"], ["views.phone.noise.snr=[9, 2]"], r"views\.phone\.noise\.snr: a range is two numbers"),
        (["phone"], ["views.phone.steps=[noise, speed]"], r"views\.phone: .*speed comes first"),
        ([], ["views.A/b.steps=[gain]"], r"views\.A/b: a view is a folder; name it with a-z"),
    ],
)
def test_what_cannot_be_made_is_told(finished: RunFolder, names: list[str], settings: list[str], said: str) -> None:
    with refusal(ConfigError, said) as told:  # type: ignore[attr-defined]
        choose_views(finished.root, names, None, settings)
    assert "\n" not in str(told.value)


def test_a_folder_that_is_no_run_has_no_views(tmp_path: Path) -> None:
    with refusal(RunFolderError, r"holds no config\.yaml, so it is no run"):
        choose_views(tmp_path, ["phone"], None, [])


def test_the_command_tells_where_the_view_is(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    cli_views.views(run.root, ["speed"], settings=["engine.studios=1"], engine="local")
    told = capsys.readouterr()
    assert told.out.startswith(f"{run.root / 'views' / 'speed'}: 6 dialogues")
    assert "view speed" in told.err and "4/4" in told.err
    assert json.loads((run.root / "views" / "speed" / "stats.json").read_text())["accepted"] == 6
