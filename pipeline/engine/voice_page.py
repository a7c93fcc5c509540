"""The page of an audit: what it found, in words and histograms, and a table to filter with a player for each voice."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.page import head
from pipeline.engine.voice_words import LANGUAGES, words
from pipeline.shards.store import publish
from speakers.distinct import flat

NO_MAP = "map.png is left out: drawing it takes matplotlib (pip install 'speechchat[inspect]')"
COLUMNS = ("wer", "per", "mos", "pace", "pitch")
COLOURS = {
    ("en", "female"): "#d1495b",
    ("en", "male"): "#30638e",
    ("zh", "female"): "#edae49",
    ("zh", "male"): "#3a7d44",
}
MARKS = {"sample": ("o", 14), "selected": ("*", 60), "base": ("s", 30)}


def write_page(out: Path, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """index.html, which needs nothing but the files beside it, and map.png where matplotlib is there.

    rows: those of voices.parquet. Raises OSError, StorageError.
    """
    from jinja2 import Environment, StrictUndefined

    picture = draw_map(rows)
    if picture:
        publish(out / "map.png", picture, replace=True)
    else:
        (out / "map.png").unlink(missing_ok=True)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(PAGE).render(
        words=words(summary),
        rows=rows,
        columns=COLUMNS,
        languages=LANGUAGES,
        found=summary["languages"],
        scores=summary["scores"],
        picture=bool(picture),
        no_map=NO_MAP,
        bars=bars,
    )
    publish(out / "index.html", page.encode(), replace=True)


def bars(counts: Sequence[int]) -> list[tuple[float, float, float]]:
    """The bars of a histogram of cosines from 0 to 1: (left, width, height) in percent, those of 0 left out."""
    top, width = max(max(counts), 1), 100 / len(counts)
    return [(place * width, width, 100 * count / top) for place, count in enumerate(counts) if count]


def draw_map(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A PNG of the measured voices in two dimensions; None where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    shown = [row for row in rows if row["embedding"] is not None]
    points = flat(np.array([row["embedding"] for row in shown], np.float64))
    picture = Figure(figsize=(9, 7), layout="constrained")
    axes = picture.subplots()
    for role, (mark, size) in MARKS.items():
        for (language, gender), colour in COLOURS.items():
            places = [
                place
                for place, row in enumerate(shown)
                if row[role] and (row["language"], row["gender"]) == (language, gender)
            ]
            if places:
                label = f"{role}, {LANGUAGES[language]}, {gender} ({len(places)})"
                edge = "white" if mark == "o" else "black"
                axes.scatter(
                    points[places, 0],
                    points[places, 1],
                    s=size,
                    c=colour,
                    marker=mark,
                    edgecolors=edge,
                    lw=0.5,
                    label=label,
                )
    axes.set(title="Speaker embeddings, two main components", xticks=[], yticks=[])
    if shown:
        axes.legend(fontsize=7)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: .8rem; }
figure { margin: 0; padding: .6rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
svg { width: 100%; height: 5rem; fill: var(--bar); border-bottom: 1px solid var(--line); }
.ends { display: flex; justify-content: space-between; font-size: .8rem; }
nav { position: sticky; top: 0; padding: .5rem 0; background: var(--bg); display: flex; flex-wrap: wrap; gap: .5rem; }
select, input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; }
#voices th { cursor: pointer; white-space: nowrap; }
"""
PAGE = (
    head("Voices", STYLE)
    + """<body>
<h1>Voices</h1>
{% for line in words %}<p>{{ line }}</p>
{% endfor %}
<h2>Cosines</h2>
<div class="charts">
{% for language, item in found.items() %}
{% for name, title in (("nearest", "to the nearest of the sample"), ("within", "of a voice to itself, other sentences"), ("nearest_base", "to the nearest stock voice"), ("nearest_selected", "to the nearest selected voice")) %}
{% if item[name] %}
<figure><figcaption>{{ languages[language] }}: {{ title }}
<span class="soft">({{ item[name].count }} voices, median {{ "%.3f" | format(item[name].median) }})</span></figcaption>
<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="histogram of cosines">
{% for left, width, height in bars(item[name].histogram) %}<rect x="{{ left }}" y="{{ 100 - height }}" width="{{ width }}" height="{{ height }}"/>
{% endfor %}</svg><div class="ends soft"><span>0</span><span>0.5</span><span>1</span></div></figure>
{% endif %}
{% endfor %}
{% endfor %}
</div>
<h2>Map</h2>
{% if picture %}<img src="map.png" alt="map of the voices in two dimensions">{% else %}<p class="soft">{{ no_map }}</p>{% endif %}

<h2>Means over the sample</h2>
<div class="scroll"><table>
<tr><th>language<th>by<th><th>voices<th>WER<th>CER<th>PER<th>DNSMOS<th>s a character<th>F0, Hz<th>pass</tr>
{% for row in scores %}
<tr><td>{{ languages[row.language] }}<td>{{ row.by }}<td>{{ row.value }}<td class="number">{{ row.voices }}
{% for name in ("wer", "cer", "per", "mos", "pace", "pitch", "passed") %}<td class="number">{{ "" if row[name] is none else "%.3f" | format(row[name]) }}{% endfor %}</tr>
{% endfor %}
</table></div>
<h2>Voices</h2>
<nav>
{% for name in ("language", "gender", "split") %}
<label>{{ name }} <select data-filter="{{ name }}"><option value="">all</option>{% for value in rows | map(attribute=name) | unique | sort %}<option>{{ value }}</option>{% endfor %}</select></label>
{% endfor %}
<label>role <select data-filter="roles"><option value="">all</option><option>sample</option><option>selected</option><option>base</option></select></label>
<label>verdict <select data-filter="verdict"><option value="">all</option><option>pass</option><option>fail</option></select></label>
<label>find <input type="search" data-filter="text"></label> <span id="count" class="soft"></span>
</nav>
<div class="scroll"><table id="voices">
<thead><tr><th>voice<th>recipe<th>gender<th>age<th>split<th>listen
{% for name in columns %}<th>{{ name }}{% endfor %}<th>nearest<th>cosine<th>verdict</tr></thead>
<tbody>
{% for row in rows %}
<tr data-language="{{ row.language }}" data-gender="{{ row.gender }}" data-split="{{ row.split }}" data-roles="{{ "sample " if row.sample }}{{ "selected " if row.selected }}{{ "base" if row.base }}" data-verdict="{{ "fail" if row.reasons else "pass" }}">
<td>{{ row.id }}<td>{{ row.described }}<td>{{ row.gender }}<td>{{ row.age }}<td>{{ row.split }}
<td>{% if row.pace %}<audio controls preload="none" src="clips/{{ row.id }}.flac"></audio>{% endif %}

{% for name in columns %}<td class="number">{{ "" if row[name] is none else ("%.0f" if name == "pitch" else "%.3f") | format(row[name]) }}{% endfor %}

<td>{{ row.nearest or "" }}<td class="number">{{ "%.3f" | format(row.nearest_cosine) if row.nearest else "" }}
<td>{% if row.reasons %}<span class="bad">{{ row.reasons | join("; ") }}</span>{% else %}passes{% endif %}</tr>
{% endfor %}
</tbody></table></div>
<script>
const body = document.querySelector("#voices tbody"), filters = [...document.querySelectorAll("[data-filter]")];
function show() {
  let count = 0;
  for (const row of body.rows) {
    row.hidden = !filters.every(f => !f.value || (f.dataset.filter === "text"
      ? row.textContent.toLowerCase().includes(f.value.toLowerCase())
      : row.dataset[f.dataset.filter].split(" ").includes(f.value)));
    count += !row.hidden;
  }
  document.querySelector("#count").textContent = `${count} of ${body.rows.length}`;
}
filters.forEach(f => f.addEventListener("input", show));
document.querySelectorAll("#voices th").forEach((head, place) => head.addEventListener("click", () => {
  const up = head.dataset.up = head.dataset.up === "1" ? "" : "1";
  const value = row => { const text = row.cells[place].textContent.trim(); return text && !isNaN(text) ? +text : text; };
  body.append(...[...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return (typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1) * (up ? 1 : -1);
  }));
}));
document.addEventListener("play", e => document.querySelectorAll("audio").forEach(a => a !== e.target && a.pause()), true);
show();
</script>
</body>
</html>
"""  # noqa: E501
)
