"""Small data sets on disk, in every kind of file that a source reads."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config

ENGLISH = ("apples", "bread", "cheese", "dates", "eggs", "fish", "grapes", "honey", "ice", "jam", "kale", "lemons")
CHINESE = ("苹果", "面包", "奶酪", "红枣", "鸡蛋", "鱼", "葡萄", "蜂蜜", "冰", "果酱", "白菜", "柠檬")


def alpaca(count: int, chinese_every: int = 0) -> list[dict[str, Any]]:
    """Rows that differ, in English, each n-th one in Mandarin."""
    rows = []
    for number in range(count):
        if chinese_every and number % chinese_every == 0:
            first, second = CHINESE[number % 12], CHINESE[number // 12 % 12]
            rows.append({"instruction": f"你喜欢{first}和{second}吗？", "output": "我很喜欢，味道很好。"})
        else:
            first, second = ENGLISH[number % 12], ENGLISH[number // 12 % 12]
            question = f"Do you like {first} with {second}, my friend?"
            rows.append({"instruction": question, "output": "Yes, I like it a lot."})
    return rows


def write(path: Path, rows: Sequence[Any]) -> Path:
    """The rows in the format that the ending of `path` names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffixes = path.suffixes
    if suffixes[0] == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=7)
        return path
    text = io.StringIO()
    if suffixes[0] == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
    elif suffixes[0] == ".json":
        json.dump(list(rows), text, ensure_ascii=False, indent=1)
    else:
        for row in rows:
            text.write(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False))
            text.write("\n")
    data = text.getvalue().encode()
    if suffixes[-1] == ".gz":
        data = gzip.compress(data)
    if suffixes[-1] == ".zst":
        import pyarrow as pa

        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def few_topics(root: Path) -> str:
    """A file of two topics: the shipped one is slow to read again and again."""
    path = root / "topics.yaml"
    path.write_text(
        "- {id: tea, domain: food, en: green tea, zh: 绿茶}\n- {id: bus, domain: travel, en: the bus, zh: 坐公交车}\n",
        "utf-8",
    )
    return str(path)


def config(
    path: Path | str,
    languages: Sequence[str] = ("en",),
    mode: str = "reword",
    rewrite: bool = False,
    **source: Any,
) -> Config:
    """One source called `web`."""
    return Config(
        languages=dict.fromkeys(languages, 1),
        sources={"web": {"kind": "instructions", "license": "MIT", "data": str(path), **source}},
        text={"converse": {"mode": mode}, "rewrite": {"enabled": rewrite}},
    )
