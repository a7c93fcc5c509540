"""A data set as a source: selection, languages, accounts, resumption, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.dialogue import Language, SourceRow
from pipeline.errors import ConfigError
from pipeline.sources import Sources
from pipeline.sources.rows import RowSource
from tests.sources.data import alpaca, config, write

CODE = "Explain this.\n```python\nprint('hello')\n```"
LONG = (
    "Well, when my grandmother baked bread on Sunday mornings, the whole house smelled of warm flour, and we children "
    "waited at the kitchen door until she let us taste the crust, which was still so hot that it burned our fingers, "
    "but nobody ever complained, because the butter melted at once and ran down our hands, and somebody always laughed "
    "before the second loaf left the oven."
)


def everything(source: RowSource | Sources, language: Language = "en") -> list[SourceRow]:
    rows = []
    while (row := source.next(language)) is not None:
        rows.append(row)
    assert source.next(language) is None
    return rows


def source(path: Path, **settings: Any) -> RowSource:
    return RowSource("web", config(path, **settings))


def refused(path: Path | str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        everything(RowSource("web", config(path, **settings)))
    message = str(caught.value)
    assert "\n" not in message and message.startswith("sources.web.")
    return message


def test_rows_come_in_order_once_and_say_where_from(tmp_path: Path) -> None:
    web = source(write(tmp_path / "rows.jsonl", alpaca(20)))
    rows = everything(web)
    assert [row.lines for row in rows] == [(item["instruction"], item["output"]) for item in alpaca(20)]
    assert [row.source.row for row in rows[:2]] == ["rows.jsonl#1", "rows.jsonl#2"]
    assert {(row.source.name, row.source.license) for row in rows} == {("web", "MIT")} == {web.origin}
    named = source(write(tmp_path / "named.csv", [{"key": "k7", **alpaca(1)[0]}]), fields={"id": "key"})
    assert everything(named)[0].source.row == "named.csv#k7"


def test_laps_read_it_again_but_count_it_once(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*alpaca(5), {"instruction": CODE, "output": "no"}, "{"])
    once, twice = source(path, max_broken=1), source(path, max_broken=1, laps=2)
    rows = everything(once)
    assert everything(twice) == rows + rows
    assert twice.counts().model_copy(update={"used": 5}) == once.counts()
    assert (once.counts().read, once.counts().selected, once.counts().broken) == (7, 5, 1)


@pytest.mark.parametrize("mode", ["reword", "none", "reply", "whole"])
@pytest.mark.parametrize("rewrite", [False, True])
def test_what_is_selected_depends_on_who_writes(tmp_path: Path, mode: str, rewrite: bool) -> None:
    """A line that the LLM writes anew may be long; one that is spoken as it is may not."""
    rows = [
        {"instruction": "Do you like bread?", "output": "Yes, I like it a lot."},
        {"instruction": "Do you like cheese?"},
        {"instruction": LONG, "output": "That is a lot."},
        {"instruction": "What about jam?", "output": LONG},
        {"instruction": CODE, "output": "It says hello."},
        {"instruction": "Do you like fish?", "output": CODE},
    ]
    web = source(write(tmp_path / "rows.jsonl", rows), mode=mode, rewrite=rewrite)
    picked = {rows.index(next(item for item in rows if item["instruction"] == row.lines[0])) for row in everything(web)}
    expected = {0}
    if mode in ("reply", "whole"):
        expected |= {1, 3}
    if mode == "whole" or rewrite:
        expected |= {2}
    assert picked == expected
    counts = web.counts()
    assert counts.read == 6 == counts.selected + sum(counts.dropped.values())
    assert counts.dropped.get("no reply", 0) == (mode in ("reword", "none"))
    assert counts.dropped.get("too long", 0) == (2 not in picked) + (3 not in picked)


def test_dialogues_are_ready_and_must_be_sayable_in_any_mode(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"dialog": ["Hello there.", "Hi, my friend."]},
        {"dialog": ["Hello?"]},
        {"dialog": ["So?", LONG]},
    ]
    rows += [{"dialog": ["Same here.", "same here."]}]
    web = source(write(tmp_path / "rows.jsonl", rows), kind="dialogues", mode="whole", rewrite=True)
    [row] = everything(web)
    assert row.ready and row.lines == ("Hello there.", "Hi, my friend.")
    assert web.counts().dropped == {"no reply": 1, "too long": 1, "echo": 1}


def test_a_long_talk_is_cut_by_pairs(tmp_path: Path) -> None:
    lines = [f"This is what I say in turn {word}." for word in ("one", "two", "three", "four")]
    path = write(tmp_path / "rows.jsonl", [{"turns": lines}])
    data = config(path, kind="dialogues").model_dump()
    data["text"]["max_dialogue_units"] = {"en": 20}
    [row] = everything(RowSource("web", Config.model_validate(data)))
    assert row.lines == tuple(lines[:2])


def test_each_language_has_its_own_place_in_the_same_rows(tmp_path: Path) -> None:
    data = [*alpaca(30, chinese_every=3), {"instruction": CODE, "output": "no"}, "{", {"question": "no instruction"}]
    path = write(tmp_path / "rows.jsonl", data)
    both = source(path, languages=("en", "zh"), max_broken=1)
    chinese = [both.next("zh") for _ in range(4)]
    english = everything(both, "en")
    chinese += everything(both, "zh")
    assert [row.lines[0] for row in chinese if row] == [row["instruction"] for row in alpaca(30, 3)[::3]]
    assert len(english) == 20 and all(row.lines[0].isascii() for row in english)
    counts = both.counts()
    assert (counts.read, counts.selected, counts.broken, sum(counts.dropped.values())) == (33, 30, 2, 1)
    assert counts.first_broken[0].startswith("rows.jsonl#32: not JSON")
    assert counts.first_broken[1] == "rows.jsonl#33: no field 'instruction'; it has: question"
    # Rows of a language that nobody asked for are passed over, and are no loss.
    only = source(path, languages=("zh",), max_broken=1)
    assert [row.lines for row in everything(only, "zh")] == [row.lines for row in chinese if row]
    assert (only.counts().read, sum(only.counts().dropped.values())) == (12, 0)


def test_a_language_that_is_set_is_not_guessed(tmp_path: Path) -> None:
    web = source(write(tmp_path / "rows.jsonl", alpaca(6, chinese_every=3)), languages=("en", "zh"), language="en")
    assert web.languages == {"en"}
    assert len(everything(web)) == 4 and sum(web.counts().dropped.values()) == 2


@pytest.mark.parametrize("kind", [".jsonl.gz", ".csv", ".parquet"])
def test_it_goes_on_where_its_state_was_taken(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"rows{kind}", alpaca(40, chinese_every=3))
    settings: dict[str, Any] = {"languages": ("en", "zh"), "laps": 2}
    whole = source(path, **settings)
    turns: list[Language] = [language for _ in range(60) for language in ("en", "zh")]
    expected = [whole.next(language) for language in turns]
    assert None in expected
    one, drawn = source(path, **settings), []
    for place, language in enumerate(turns):
        drawn.append(one.next(language))
        if place % 7 == 0 or drawn[-1] is None:
            state = json.loads(json.dumps(one.state()))
            one = source(path, **settings)
            one.restore(state)
    assert drawn == expected and one.counts() == whole.counts() and one.state() == whole.state()


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_too_many_broken_rows(tmp_path: Path) -> None:
    rows: list[Any] = alpaca(3000)
    for place in range(11, 1500, 40):  # 25 in the first thousand, 38 in all
        rows[place] = {"question": "?"}
    path = write(tmp_path / "rows.jsonl", rows)
    message = refused(path)
    assert (
        f"sources.web.data: {path}: 25 of 1000 rows are broken (first: rows.jsonl#12: no field 'instruction'" in message
    )
    assert message.endswith("mend them or raise sources.web.max_broken")
    tolerant = source(path, max_broken=0.03)
    assert len(everything(tolerant)) == 3000 - 38
    assert tolerant.counts().broken == 38 and len(tolerant.counts().first_broken) == 5
    late = [*alpaca(1000), *[{"question": "?"}] * 40, *alpaca(2000)]
    assert "40 of 1040 rows are broken (first: rows.jsonl#1001: " in refused(write(path, late))


def test_a_small_run_is_told_too_and_a_few_broken_rows_are_borne(tmp_path: Path) -> None:
    """It may end long before a thousand rows are read."""
    mostly = [row if place % 5 < 2 else "{broken" for place, row in enumerate(alpaca(400))]
    web = source(write(tmp_path / "mostly.jsonl", mostly))
    with pytest.raises(ConfigError, match=r"12 of 20 rows are broken \(first: mostly\.jsonl#3: .*web\.max_broken"):
        for _ in range(16):
            web.next("en")
    early: list[Any] = alpaca(900)
    for place in (3, 9, 47, 80):  # more than one in a hundred by then, but there are rows to come
        early[place] = "{broken"
    web = source(write(tmp_path / "early.jsonl", early))
    assert len(everything(web)) == 896 and web.counts().broken == 4
    some = [row if place % 5 else "{broken" for place, row in enumerate(alpaca(400))]
    assert len(everything(source(write(tmp_path / "some.jsonl", some), max_broken=0.2))) == 320
    assert "2 of 20 rows are broken" in refused(tmp_path / "early.jsonl", max_broken=0)


def test_the_share_is_also_looked_at_in_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*alpaca(8), "{", "[1]"])
    assert "2 of 10 rows are broken (first: rows.jsonl#9: not JSON" in refused(path)


@pytest.mark.parametrize("kind", ["questions", "chatterbot", "topics"])
@pytest.mark.parametrize("data", ["", "  "])
def test_no_name_is_not_the_folder_that_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, data: str
) -> None:
    write(tmp_path / "rows.jsonl", [{"question": "Do you like bread?"}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^sources\.web\.data: it is empty; name a file"):
        Sources(config(data, kind=kind, mode="whole"))


def test_nothing_to_read(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.jsonl").endswith("none.jsonl: there is no such file or folder")
    assert refused("./somewhere/else").endswith("there is no such file or folder")
    for kind in (".jsonl", ".json", ".csv"):
        assert "it is empty: it has no row" in refused(write(tmp_path / f"rows{kind}", []))
    (tmp_path / "void.csv").write_bytes(b"")
    assert "it is empty: it has no row" in refused(tmp_path / "void.csv")


def test_no_usable_row_says_what_became_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"instruction": LONG, "output": "Yes."}] * 3 + [{"instruction": "Why?"}])
    message = refused(path)
    assert f"{path}: none of its 4 rows can be used (too long 3, no reply 1)" in message


@pytest.mark.parametrize("count", [10, 1500])
def test_a_field_that_no_row_has_names_those_that_are_there(tmp_path: Path, count: int) -> None:
    rows = [{"qid": 7, "data": {"qestion": item["instruction"]}, "reply": "Yes."} for item in alpaca(count)]
    path = write(tmp_path / "rows.jsonl", rows)
    message = refused(path, kind="questions", mode="reply", fields={"question": "data.question"})
    assert message.startswith("sources.web.fields.question: none of ") and str(path) in message
    assert "has 'data.question'; did you mean 'data.qestion'? the first has: qid, data.qestion, reply" in message
    message = refused(path)
    assert message.startswith("sources.web.fields: none of ") and "has 'instruction'; " in message
    assert message.endswith("name it: sources.web.fields={instruction: THEIRS}")
    # Also one that the kind could do without: who maps it means to have it.
    message = refused(path, fields={"instruction": "data.qestion", "output": "replay"})
    assert message.startswith("sources.web.fields.output: none of ") and "did you mean 'reply'?" in message


def test_message_fields_that_no_row_has(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"messages": [{"speaker": "user", "content": "Hi"}]}] * 5)
    message = refused(path, kind="conversations", fields={"role": "speker"})
    assert "has 'speker'; did you mean 'speaker'? the first has: speaker, content" in message


def test_a_rare_field_may_come_late(tmp_path: Path) -> None:
    rows = alpaca(1200)
    rows[1100]["hint"] = "Think of soup."
    fields = {"instruction": "instruction", "input": "hint"}
    assert len(everything(source(write(tmp_path / "rows.jsonl", rows), fields=fields))) == 1200
    assert "none of 1100 rows" in refused(write(tmp_path / "rows.jsonl", rows[:1100]), fields=fields)


def test_a_language_without_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", alpaca(5))
    sources = Sources(config(path, languages=("en", "zh")))
    assert len(everything(sources, "en")) == 5
    with pytest.raises(ConfigError, match=r"^languages\.zh: no source has a row in this language that can be used"):
        sources.next("zh")
    with pytest.raises(ConfigError, match=r"^languages\.zh: no source has this language"):
        Sources(config(path, languages=("en", "zh"), language="en"))
