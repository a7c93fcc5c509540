"""A calibration for people: a few lines, and a page with tables, curves and the clips that the rule is wrong about."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.engine.gate_figures import curve
from pipeline.engine.gate_rules import TARGETS, Table
from pipeline.engine.page import head
from pipeline.engine.voice_words import LANGUAGES
from pipeline.shards.store import publish

NO_PLOT = "The curves are left out: drawing them takes matplotlib (pip install 'speechchat[inspect]')"
CURVES = {"en": ("cer", "wer", "gap", "dropped"), "zh": ("per", "ser", "cer", "gap", "dropped")}


def words(found: Mapping[str, Any]) -> list[str]:
    """A line a language and rule: what it refuses and misses, on voices and sentences that fitted nothing."""
    out = [
        f"{LANGUAGES[language]}: the good clips are of one voice or sentence, so that nothing can be fitted and tried "
        "on others: give --good more"
        for language in found["one_sided"]
    ]
    for language, item in found["languages"].items():
        for name, part in (("proposed", "held"), ("current", "held")):
            rule, judged = item[name], item[name][part]
            refused, bound = judged["refused"], rule.get("upper_bound")
            note = (
                f" (an upper bound of both: a run that gates on {', '.join(bound)} would listen again)" if bound else ""
            )
            out.append(
                f"{LANGUAGES[language]}, {name} rule ({said(rule)}): refuses {percent(refused)} of {refused['count']} "
                f"good clips (budget {found['budget'][language]:.0%}); catches {_caught(judged, found, language)}{note}"
            )
        dialogues = item["proposed"]["held"]["dialogues"]
        if dialogues:
            out.append(
                f"{LANGUAGES[language]}, whole dialogues ({dialogues['turns']:.1f} turns): the proposed rule would "
                f"refuse {dialogues['refused']:.1%} of the good ones at the first take"
            )
    return out


def _caught(judged: Mapping[str, Any], found: Mapping[str, Any], language: str) -> str:
    targets = found["targets"][language]
    parts = []
    for kind, shares in judged["caught"].items():
        target = f" (target {targets[kind]:.0%})" if kind in targets else ""
        parts.append(f"{kind} {shares['share']:.1%}{target}")
    return ", ".join(parts)


def percent(shares: Mapping[str, Any]) -> str:
    return f"{shares['share']:.1%} ({shares['low']:.1%} to {shares['high']:.1%})"


def said(rule: Mapping[str, Any]) -> str:
    """The rule in one line."""
    limits = [f"{name} ≤ {value:g}" for name, value in rule["limits"].items()]
    floors = [f"{name} ≥ {value:g}" for name, value in rule["floors"].items()]
    appeal = " and ".join(f"{name} ≤ {value:g}" for name, value in rule["appeal"].items())
    return ", ".join([*limits, *floors]) + (f"; other words pass with {appeal}" if appeal else "") or "no gate"


def write_page(out: Path, found: Mapping[str, Any], tables: Mapping[str, Table]) -> None:
    """index.html, which needs nothing but the files beside it, and roc.png where matplotlib is there.

    tables: by language, of all clips. Raises OSError, StorageError.
    """
    from jinja2 import Environment, StrictUndefined

    picture = draw(tables)
    if picture:
        publish(out / "roc.png", picture, replace=True)
    else:
        (out / "roc.png").unlink(missing_ok=True)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(PAGE).render(
        found=found,
        words=words(found),
        names=LANGUAGES,
        percent=percent,
        said=said,
        picture=bool(picture),
        no_plot=NO_PLOT,
    )
    publish(out / "index.html", page.encode(), replace=True)


def draw(tables: Mapping[str, Table]) -> bytes | None:
    """A PNG of the ROC of the text scores, a picture a language; None where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(5.5 * max(1, len(tables)), 4.5), layout="constrained")
    for place, (language, table) in enumerate(sorted(tables.items()), 1):
        axes = figure.add_subplot(1, len(tables), place)
        kinds = tuple(TARGETS[language])  # type: ignore[index]
        for name in CURVES[language]:
            if name in table.names:
                refused, caught = curve(table, name, "limit", kinds)
                axes.step(100 * refused, 100 * caught, where="post", label=name)
        axes.set(xlim=(0, 15), ylim=(50, 101), xlabel="good clips refused, %", ylabel="bad clips caught, %")
        axes.set_title(f"{LANGUAGES[language]}: {', '.join(kinds)}", fontsize=9)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


PAGE = (
    head("The gate")
    + """<body>
<h1>The gate</h1>
{% for line in words %}<p>{{ line }}</p>
{% endfor %}
<p class="soft">Good clips are turns as the run speaks them at the first take, whether they came out well or not: a clip
that the engine itself got wrong counts as wrongly refused. Rules are fitted on one half of the voices and their
sentences and tried on the other. Intervals: {{ "%.0f" | format(100 * found.confidence) }} %, Clopper and Pearson.</p>
{% if picture %}<img src="roc.png" alt="ROC of the scores of the text">{% else %}<p class="soft">{{ no_plot }}</p>{% endif %}

{% for language, item in found.languages.items() %}
<h2>{{ names[language] }}</h2>
<p class="soft">{{ item.voices.fit }} voices fitted it, {{ item.voices.held }} tried it;
{{ item.left_out }} clips are left out: their sentence or voice is on the other side, or they are a foreign clip that is counted already.</p>
<div class="scroll"><table>
<tr><th>clips<th>what they are<th>target<th>proposed, fitted<th>proposed, tried<th>of<th>refused by<th>current, tried<th>current, all</tr>
<tr><td>good<td>{{ found.kinds.good }}<td>refused ≤ {{ "%.0f" | format(100 * found.budget[language]) }} %
{% for judged in (item.proposed.fit, item.proposed.held) %}<td class="number">{{ percent(judged.refused) }}{% endfor %}

<td class="number">{{ item.proposed.held.refused.count }}
<td>{% for reason, count in item.proposed.held.reasons.good.items() %}{{ reason }} {{ count }} {% endfor %}

{% for judged in (item.current.held, item.current.all) %}<td class="number">{{ percent(judged.refused) }}{% endfor %}</tr>
{% for kind, shares in item.proposed.held.caught.items() %}
{% set target = found.targets[language].get(kind) %}
<tr><td>{{ kind }}<td>{{ found.kinds[kind] }}<td>{% if target %}caught ≥ {{ "%.0f" | format(100 * target) }} %{% endif %}

<td class="number">{% if kind in item.proposed.fit.caught %}{{ percent(item.proposed.fit.caught[kind]) }}{% endif %}

<td class="number {% if target %}{{ "good" if shares.share >= target else "bad" }}{% endif %}">{{ percent(shares) }}<td class="number">{{ shares.count }}
<td>{% for reason, count in item.proposed.held.reasons[kind].items() %}{{ reason }} {{ count }} {% endfor %}

<td class="number">{{ percent(item.current.held.caught[kind]) }}<td class="number">{{ percent(item.current.all.caught[kind]) }}</tr>
{% endfor %}
</table></div>
<p>Proposed: {{ said(item.proposed) }}<br>Current: {{ said(item.current) }}</p>
<h3>Each score by itself, at 1 % of good clips refused</h3>
<p class="soft">The threshold is of one half; what it refuses and catches, of the other. Clips with a fault are not counted.</p>
<div class="scroll"><table>
<tr><th>score<th>threshold<th>good refused{% for kind in item.proposed.held.caught %}<th>{{ kind }}{% endfor %}</tr>
{% for name, score in item.scores.items() %}
<tr><td>{{ name }}<td class="number">{{ "%g" | format(score.threshold) }}<td class="number">{{ percent(score.refused) }}
{% for kind in item.proposed.held.caught %}<td class="number" title="{% if kind in score.area %}area under the ROC {{ score.area[kind] }}{% endif %}">{% if kind in score.caught %}{{ "%.0f" | format(100 * score.caught[kind].share) }} %{% endif %}
{% endfor %}</tr>
{% endfor %}
</table></div>
<h3>Where the proposed rule is wrong</h3>
<p class="soft">Good clips that it refuses, and clips that it should refuse and does not, of those that tried it; at most 40 of a
kind. What plays is what the engine said, before it was spoilt as sound.</p>
<div class="scroll"><table>
<tr><th>clips<th>change<th>to be said<th>heard<th>refused by<th>voice<th>listen</tr>
{% for row in item.proposed.wrong %}
<tr><td>{{ row.kind }}<td>{{ row.what }}<td>{{ row.wanted }}<td>{{ row.heard }}<td>{{ row.reason }}<td>{{ row.voice }}
<td>{% if row.clip %}<audio controls preload="none" src="clips/{{ row.clip }}"></audio>{% endif %}</tr>
{% endfor %}
</table></div>
{% endfor %}
</body>
</html>
"""  # noqa: E501
)
