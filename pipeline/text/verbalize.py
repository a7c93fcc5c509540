"""From written to spoken text by rule: what a person would say who reads the line aloud.

What no rule here knows stays as it is, so that `checks.unspeakable` finds it.
"""

from __future__ import annotations

import re
import unicodedata

from pipeline.dialogue import Language
from pipeline.text.numerals import read_figures_en, read_figures_zh

_ABBREVIATIONS = {
    r"Dr\.": "Doctor",
    r"Mr\.": "Mister",
    r"Mrs\.": "Missus",
    r"Ms\.": "Miz",
    r"Prof\.": "Professor",
    r"Lt\.": "Lieutenant",
    r"Capt\.": "Captain",
    r"Gen\.": "General",
    r"e\.\s?g\.,?": "for example,",
    r"i\.\s?e\.,?": "that is,",
    r"etc\.(?=\s*$)": "et cetera.",
    r"etc\.?": "et cetera",
    r"vs\.?": "versus",
    r"approx\.": "approximately",
    r"No\.(?=\s?\d)": "number",
}
_ABBREVIATION = [(re.compile(rf"\b{short}(?!\w)"), full) for short, full in _ABBREVIATIONS.items()]
_INITIALS = re.compile(r"\b(?:[A-Za-z]\.){2,}(\s*$)?")
_EMOTICON = re.compile(r"(?:(?<=\s)|^)(?:[:;=]['-]?[()DPp|/\\]|<3|\^_\^|[xX]D)(?=\s|$|[.!?])")
_ASCII = str.maketrans("‘’‚′“”„″‐‑‒–，。！？：；、", "''''\"\"\"\"----,.!?:;,")
_FULL_WIDTH = str.maketrans(",?!;:.", "，？！；：。")
_KEPT_ZH = "，！？：；（）"
_EMOJI_PART = re.compile("[\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")  # variation selectors, skin tones
_KEPT_SIGNS = "°℃℉"
_HAN_EDGE = r"[^\x00-\xff]"


def verbalize(text: str, language: Language) -> str:
    """`text` as it is to be said: figures, amounts, signs and common abbreviations in words, no decoration."""
    text = _unicode(text, _KEPT_ZH if language == "zh" else "")
    text = _EMOTICON.sub("", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = _english(text) if language == "en" else _mandarin(text)
    text = re.sub(r"([,;:，；：、])(?:\s*[,;:，；：、])+", r"\1", text)
    text = re.sub(r"[,;，；、]\s*(?=[.!?。！？])", "", text)
    text = re.sub(r"([.!?。！？])(?:\s*[,;，；、])+", r"\1", text)
    text = re.sub(r" {2,}", " ", text)
    return text.strip(" ,;，；、")


def _unicode(text: str, kept: str) -> str:
    """NFKC, but for `kept` and for superscripts and the like (10² is not 102); emoji and control characters dropped."""
    out = []
    for char in text:
        category = unicodedata.category(char)
        if char in kept or category == "No":
            out.append(char)
        elif category in ("Cc", "Zl", "Zp"):
            out.append(" ")
        elif char in _KEPT_SIGNS or not (category in ("So", "Cf", "Me") or _EMOJI_PART.match(char)):
            out.append(unicodedata.normalize("NFKC", char))
    return unicodedata.normalize("NFC", "".join(out))


def _english(text: str) -> str:
    text = re.sub(r"\s*(?:—|--+|\s[-–]\s)\s*", ", ", text).translate(_ASCII)
    text = re.sub(r"\s*\.{2,}\s*$", ".", text)
    text = re.sub(r"\s*\.{2,}\s*", ", ", text)
    text = re.sub(r"\s*\(\s*|\s*\)(?=\s*\w)", ", ", text).replace(")", "")
    text = re.sub(r"([!?,])\1+", r"\1", text)
    text = re.sub(r"!\?|\?!", "?", text)
    for short, full in _ABBREVIATION:
        text = short.sub(full, text)
    text = _INITIALS.sub(
        lambda match: " ".join(match[0].replace(".", "").strip()) + ("." if match[1] is not None else ""),
        text,
    )
    text = re.sub(r"(?<=\w)\s*&\s*(?=\w)", " and ", text)
    text = re.sub(r"(?<=\w)\s*\+\s*(?=\w)", " plus ", text)
    text = re.sub(r"#(?=\d)", "number ", text)
    text = re.sub(r"'(?=\d0s\b)", "", text)
    text = re.sub(
        r"(?<=\d)\s*°\s*([CF])\b",
        lambda m: " degrees Celsius" if m[1] == "C" else " degrees Fahrenheit",
        text,
    )
    text = re.sub(r"(?<=\d) %", "%", text)
    return re.sub(r"\s+([,.!?;:])", r"\1", read_figures_en(text))


def _mandarin(text: str) -> str:
    text = re.sub(r"\s*(?:—|--+)+\s*|\s[-–]\s", "，", text)
    text = re.sub(r"\s*(?:\.{2,}|。{2,})\s*$", "。", text)
    text = re.sub(r"\s*(?:\.{2,}|。{2,})\s*", "，", text)
    text = re.sub(r"([!?！？，,])\1+", r"\1", text)
    text = re.sub(r"[（(]|[)）](?=[^\s，。！？；：,.!?;:])", "，", text)
    text = re.sub(r"[)）]", "", text)
    text = re.sub(r"(\d)\s*°\s*C", r"\1摄氏度", text)
    text = re.sub(r"(?<=\d)\s*\+\s*(?=\d)", "加", text)
    text = re.sub(r"(?<=\w)\s*&\s*(?=\w)", "和", text)
    text = read_figures_zh(re.sub(r"(?<=\d) (?=%)", "", text))
    text = re.sub(rf"(?<={_HAN_EDGE})\s*·\s*(?={_HAN_EDGE})", "", text)  # the dot in a foreign name is not said
    text = re.sub(
        rf"(?<={_HAN_EDGE})\s*[,.?!;:]|[,.?!;:](?=\s*{_HAN_EDGE})",
        lambda m: m[0].strip().translate(_FULL_WIDTH),
        text,
    )
    return re.sub(rf"(?<={_HAN_EDGE})\s+|\s+(?={_HAN_EDGE})", "", text)
