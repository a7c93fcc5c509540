"""The plan of the house holds: imports point one way, importing is cheap, files are short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("pipeline", "speakers", "prompts", "scripts")

# What a room may import beside itself: cli → engine → stages → the rooms of work → what everybody knows.
KNOWN = {"dialogue", "errors", "config"}
LIBRARIES = KNOWN | {"speakers", "prompts"}
WORK = {"backends", "shards", "text", "audio", "channel", "sources"}
MAY: dict[str, set[str]] = {
    "dialogue": set(),
    "errors": set(),
    "config": {"dialogue", "errors"},
    "plan": KNOWN,
    "speakers": KNOWN,
    "prompts": KNOWN,
    "text": KNOWN,
    "audio": KNOWN,
    "channel": KNOWN | {"audio"},
    "models": KNOWN,  # and its registry and its downloads
    "sources": KNOWN | {"text"},  # selects by what can be said
    "backends": KNOWN | {"models", "speakers", "audio"},
    "shards": KNOWN | {"plan", "audio"},
    "training": KNOWN | {"plan", "audio", "shards", "models"},
    "stages": LIBRARIES | WORK | {"plan"},
    "engine": LIBRARIES | WORK | {"plan", "models", "stages", "pipeline"},
    "cli": LIBRARIES | WORK | {"plan", "models", "stages", "engine", "training", "pipeline"},
    "pipeline": KNOWN | {"shards", "training"},  # the public names
    "scripts": LIBRARIES | WORK | {"plan", "models", "stages", "engine", "training", "pipeline"},
}
SAME_ROOM = {
    "console": "cli",
    "model_pull": "models",
    "cli_views": "cli",
    "cli_voices": "cli",
    "cli_clone": "cli",
    "cli_gate": "cli",
    "cli_plan": "cli",
    "cli_repair": "cli",
    "cli_status": "cli",
    "cli_training": "cli",
    "sections": "config",
    "speech_sections": "config",
    "listening_sections": "config",
    "view_sections": "config",
    "voice": "dialogue",
    "model_registry": "models",
    "licences": "models",
    "presets": "config",
}

HEAVY = (
    "onnxruntime",
    "faster_whisper",
    "misaki",
    "xllamacpp",
    "hibari",
    "torch",
    "matplotlib",
    "pyroomacoustics",
    "TTS",
    "audioseal",
    "openai",
    "ray",
    "s3fs",
    "botocore",
)


def files() -> Iterator[Path]:
    for top in CODE:
        yield from sorted((ROOT / top).rglob("*.py"))


def room(module: str) -> str:
    """`pipeline.stages.cast` is in the room `stages`; `pipeline` itself holds the public names."""
    parts = module.split(".")
    if parts[0] != "pipeline" or len(parts) == 1:
        return parts[0]
    return SAME_ROOM.get(parts[1], parts[1])


def own_module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    place = ROOT / Path(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module of the house that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide where they point"
            base = node.module or ""
            names = [f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names]
        for name in names:
            if name.split(".")[0] in (*CODE, "tests"):
                yield node.lineno, name


@pytest.mark.parametrize("path", list(files()), ids=own_module)
def test_imports_point_one_way(path: Path) -> None:
    own = room(own_module(path))
    for line, name in imported(path):
        assert name.split(".")[0] != "tests", f"{path}:{line}: nothing that ships imports tests"
        target = room(name)
        assert target == own or target in MAY[own], f"{path}:{line}: {own} imports {name}"


def test_the_rule_has_no_way_back() -> None:
    """No room can reach itself through others."""

    def reach(start: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        for target in MAY[start] - seen:
            seen = reach(target, seen | {target})
        return seen

    assert [name for name in MAY if name in reach(name)] == []
    assert all("cli" not in targets for targets in MAY.values())


def test_every_room_has_its_rule() -> None:
    assert {room(own_module(path)) for path in files()} == set(MAY)


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    """Also those inside functions, and modules that are imported by name from a package."""
    path = tmp_path / "some.py"
    path.write_text("from pipeline import audio, __version__\ndef f():\n    import pipeline.cli\n")
    assert list(imported(path)) == [(1, "pipeline.audio"), (1, "pipeline"), (3, "pipeline.cli")]


@pytest.mark.parametrize("module", ["pipeline", "pipeline.engine.run", "pipeline.cli", "pipeline.backends"])
def test_importing_is_cheap(module: str) -> None:
    """Heavy packages are imported by the worker that uses them."""
    code = f"import sys, {module}; print(*sorted(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_files_are_short() -> None:
    tops = [ROOT / name for name in (*CODE, "tests")]
    texts = [path for top in tops for path in top.rglob("*") if path.suffix in (".py", ".yaml", ".html", ".tpl")]
    texts += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".yaml")]
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in texts}
    assert {str(path): length for path, length in lengths.items() if length > 400} == {}
    assert len(lengths) > 60
