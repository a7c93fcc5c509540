"""An audit in plain words: what each figure says of the library, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LANGUAGES = {"en": "English", "zh": "Mandarin"}


def words(summary: Mapping[str, Any]) -> list[str]:
    """A few sentences: of the whole library, then of each language."""
    library, sample = summary["library"]["voices"], summary["measured"]["sample"]
    out = []
    if sample:
        passed, limits = summary["passed"], summary["limits"]
        out.append(
            f"{passed['passed']} of {sample} voices drawn at random pass (WER in English, PER in Mandarin, at most "
            f"{limits['error']:.0%}; DNSMOS at least {limits['mos']:g}; no faulty clip): of the library's {library:,}, "
            f"{passed['at_least']:.1%} at least, with {summary['confidence']:.0%} confidence."
        )
        if passed["reasons"]:
            why = ", ".join(f"{name} {count}" for name, count in passed["reasons"].items())
            out.append(f"What the others failed by: {why}. They are in rejected.txt.")
    if summary["measured"]["selected"]:
        chosen = summary["passed_selected"]
        out.append(f"Of {chosen['voices']} selected voices {chosen['passed']} pass, on seven sentences each.")
    for language, found in summary["languages"].items():
        out += [f"{LANGUAGES[language]}: {line}" for line in _language(found)]
    return out


def _language(found: Mapping[str, Any]) -> list[str]:
    out = []
    for limit, sizes in found["distinct"].items():
        out.append(
            f"{sizes['all']} of the measured voices that pass are mutually distinct at cosine < {limit} (of the "
            f"selected alone {sizes['selected']}, of the sample alone {sizes['sample']}, of the stock voices "
            f"{sizes['base']}): at least so many clearly different speakers are in the library."
        )
    if found["within"] and found["same_voice"]:
        within, told = found["within"], found["same_voice"]
        out.append(
            f"A voice that says three other sentences has a cosine of {within['median']:.3f} to itself (median of "
            f"{within['count']}; {_most(within)}). Whether two means of three sentences are of one voice is told with "
            f"{told['rate']:.1%} errors of either kind, at {told['threshold']:.3f}."
        )
    if found["nearest"]:
        near = found["nearest"]
        out.append(
            f"A voice of the sample has its nearest neighbour among the other {found['sample'] - 1} at "
            f"{near['median']:.3f} (median; {_most(near)}); in the whole library it is nearer still."
        )
    if found["nearest_base"]:
        base = found["nearest_base"]
        out.append(f"To the nearest stock voice it is {base['median']:.3f} (median; {_most(base)}).")
    if found["coverage"]:
        cover = found["coverage"]
        out.append(
            f"{cover['share']:.1%} of the sample lie within cosine 0.85 of a selected voice (of the library's "
            f"{found['voices']:,}: {cover['at_least']:.1%} at least, {cover['at_most']:.1%} at most): a voice beyond "
            "the distinct ones is a variation in the neighbourhood of one of them, in pace, pitch and colour, and no "
            "speaker of its own."
        )
    if found["near_copies"]:
        copies = found["near_copies"]
        out.append(
            f"{copies['pairs']} of {copies['of']:,} pairs of the sample are as alike as a voice is to itself "
            f"({copies['cosine']:.3f} or more): {copies['share']:.2%} of all pairs, {copies['at_most']:.2%} at most. "
            f"So a voice of the library has about {copies['expected_a_voice']:,.0f} others that these sentences do not "
            "tell from it."
        )
    return out


def _most(spread: Mapping[str, Any]) -> str:
    return f"90 % of them {spread['p5']:.3f} to {spread['p95']:.3f}"
