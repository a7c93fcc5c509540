"""Drawing rows: what is on disk is the same however the run came to be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.dialogue import SourceRow
from pipeline.errors import ConfigError, DataError
from pipeline.plan import Unit, plan_units
from pipeline.shards.store import RunFolder
from pipeline.sources import Sources
from pipeline.stages.draw import Draw, draw_counts, read_rows
from tests.sources.data import alpaca, few_topics, write

UNITS = 8


def config(root: Path, kind: str = ".jsonl", laps: int | None = None, units: int = UNITS) -> Config:
    """Two sources for units of four dialogues; without laps the rows last for six units and a half."""
    rows: list[Any] = alpaca(26, 2)
    path = root / f"rows{kind}"
    if not path.exists():
        write(path, [*rows[:10], *([] if kind == ".parquet" else ["{"]), *rows[10:]] if kind == ".jsonl" else rows)
    web = {"kind": "instructions", "license": "MIT", "data": str(path), "max_broken": 0.5, "laps": laps, "weight": 3}
    talk = {"kind": "topics", "laps": 1, "topics": {"en": ["tea"], "zh": ["bus"]}, "data": few_topics(root)}
    return Config(
        dialogues=4 * units,
        unit_size=4,
        sources={"web": web, "talk": talk},
        text={"converse": {"mode": "whole", "personas": False}},
    )


def published(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.root.rglob("*")) if path.is_file()}


def draw_all(config: Config, root: Path, restart: frozenset[int] = frozenset()) -> RunFolder:
    """Every unit in order, with a new process's state before those in `restart`."""
    folder = RunFolder(root)
    draw = Draw(config, folder)
    for unit in plan_units(config):
        if unit.number in restart:
            draw = Draw(config, folder)
        draw.ensure(unit)
    return folder


def units(config: Config) -> list[Unit]:
    return list(plan_units(config))


def test_a_unit_has_a_row_for_each_dialogue_in_its_language(tmp_path: Path) -> None:
    made = config(tmp_path)
    folder = draw_all(made, tmp_path / "run")
    sources = Sources(made)
    for unit in plan_units(made):
        rows = read_rows(folder, unit.number)
        assert rows == [sources.next(planned.language) for planned in unit.dialogues]
        for row, planned in zip(rows, unit.dialogues, strict=True):
            assert row is None or (row.topic or row.lines[0]).isascii() == (planned.language == "en")
    last: list[SourceRow | None] = read_rows(folder, UNITS - 1)
    assert None in last  # the rows are used up by then
    head = json.loads(folder.rows(2).read_text("utf-8").splitlines()[0])
    assert set(head) == {"state", "counts", "rows"} and len(json.dumps(head)) < 2000
    assert draw_counts(folder, UNITS) == sources.counts()
    assert draw_counts(folder, UNITS)["web"].broken == 1
    assert draw_counts(folder, 1)["web"].used < 4 <= draw_counts(folder, 2)["web"].used
    assert draw_counts(RunFolder(tmp_path / "none"), UNITS) == {}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([".jsonl", ".csv", ".json", ".parquet", ".jsonl.gz"]),
    laps=st.sampled_from([None, 2]),
    restart=st.frozensets(st.integers(0, UNITS - 1)),
)
def test_a_restart_changes_no_byte(tmp_path: Path, kind: str, laps: int | None, restart: frozenset[int]) -> None:
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    made = config(tmp_path, kind, laps)
    whole = draw_all(made, tmp_path / "runs" / "whole")
    stopped = draw_all(made, tmp_path / "runs" / "stopped", restart)
    each = draw_all(made, tmp_path / "runs" / "each", frozenset(range(UNITS)))
    assert published(whole) == published(stopped) == published(each)
    assert len(published(whole)) == UNITS


def test_a_run_that_grows_draws_on(tmp_path: Path) -> None:
    whole = draw_all(config(tmp_path), tmp_path / "whole")
    draw_all(config(tmp_path, units=3), tmp_path / "grown")
    assert published(draw_all(config(tmp_path), tmp_path / "grown")) == published(whole)


def test_earlier_units_are_drawn_first_and_what_is_there_stays(tmp_path: Path) -> None:
    made = config(tmp_path)
    whole = published(draw_all(made, tmp_path / "whole"))
    folder = RunFolder(tmp_path / "run")
    Draw(made, folder).ensure(units(made)[5])
    assert published(folder) == {name: data for name, data in whole.items() if name <= "unit-000005.jsonl"}
    folder.rows(2).unlink()
    folder.rows(4).unlink()
    draw = Draw(made, folder)
    before = folder.rows(3).stat().st_mtime_ns
    for number in (7, 2, 4, 3, 0):
        draw.ensure(units(made)[number])
    assert published(folder) == whole and folder.rows(3).stat().st_mtime_ns == before


def test_a_finished_run_needs_no_source(tmp_path: Path) -> None:
    made = config(tmp_path)
    folder = draw_all(made, tmp_path / "run")
    before = published(folder)
    (tmp_path / "rows.jsonl").unlink()
    lost = made.model_copy(update={"sources": {"web": made.sources["web"]}})
    draw = Draw(lost, folder)
    for unit in plan_units(lost):
        draw.ensure(unit)
    assert published(folder) == before
    folder.rows(7).unlink()
    with pytest.raises(ConfigError, match="there is no such file"):
        draw.ensure(units(lost)[7])


def test_a_failure_leaves_no_file_and_can_be_mended(tmp_path: Path) -> None:
    whole = published(draw_all(config(tmp_path), tmp_path / "whole"))
    path = tmp_path / "rows.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:8], *[b"{" + line for line in lines[8:]]]))
    folder, made = RunFolder(tmp_path / "run"), config(tmp_path)
    draw = Draw(made, folder)
    with pytest.raises(ConfigError, match="19 of 27 rows are broken"):
        for unit in plan_units(made):
            draw.ensure(unit)
    assert 0 < len(published(folder)) < UNITS
    path.write_bytes(content)
    for unit in plan_units(made):
        draw.ensure(unit)  # the same one goes on from the disk
    assert published(folder).keys() == whole.keys()
    assert published(folder)["unit-000000.jsonl"] == whole["unit-000000.jsonl"]


def test_a_damaged_file_of_rows_is_named(tmp_path: Path) -> None:
    made = config(tmp_path)
    folder = draw_all(made, tmp_path / "run")
    path = folder.rows(1)
    path.write_bytes(path.read_bytes()[:100])
    for read in (lambda: read_rows(folder, 1), lambda: draw_counts(folder, 2), lambda: read_rows(folder, 99)):
        with pytest.raises(
            DataError, match=r"unit-0000\d\d\.jsonl: not the rows of a unit: .*; remove it and run again"
        ):
            read()
    whole = folder.rows(2).read_bytes()
    folder.rows(2).write_bytes(whole[:-20])
    with pytest.raises(DataError, match="not the rows of a unit"):
        read_rows(folder, 2)
    folder.rows(2).write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(DataError, match="not the rows of a unit"):
        read_rows(folder, 2)
