"""From written to spoken text by rule: what a person would say who reads the line aloud.

What no rule here knows stays as it is, so that `checks.unspeakable` finds it. The conventions, each with its source,
are tests/text/verbalize.en.tsv and verbalize.zh.tsv. The figures of a language are read in verbalize_en.py (American
English, no "and" in cardinals) and verbalize_zh.py; here is what both share: characters, punctuation, short forms.
"""

from __future__ import annotations

import re
import unicodedata

from pipeline.dialogue import Language
from pipeline.text import verbalize_en, verbalize_zh

# Lines that no rule would change but for the width of Mandarin punctuation: most lines of a dialogue. One pass of a
# pattern that never goes back (possessive) is all that they cost.
_PLAIN_EN = re.compile(r"(?:[A-Za-z']++(?:-[A-Za-z']++)*+[,.!?;:]?+(?: (?! )|$))++")
_PLAIN_ZH = re.compile(r"(?:[\u4e00-\u9fff“”《》]++[，。！？；：、,.!?;:]?+)++")

_ABBREVIATIONS = {
    r"Dr\.": "Doctor",
    r"Mr\.": "Mister",
    r"Mrs\.": "Missus",
    r"Ms\.": "Miz",
    r"Prof\.": "Professor",
    r"Lt\.": "Lieutenant",
    r"Capt\.": "Captain",
    r"Gen\.(?= [A-Z])": "General",
    r"Sgt\.": "Sergeant",
    r"Col\.(?= [A-Z])": "Colonel",
    r"Rev\.": "Reverend",
    r"Hon\.": "Honorable",
    r"Gov\.(?= [A-Z])": "Governor",
    r"Sen\.(?= [A-Z])": "Senator",
    r"Jr\.": "Junior",
    r"Sr\.": "Senior",
    r"Mt\.(?= [A-Z])": "Mount",
    r"Ft\.(?= [A-Z])": "Fort",
    r"St\.(?= [A-Z][a-z]+(?! [A-Z]))(?<!\d St\.)(?<![a-z] St\.)": "Saint",
    r"(?<=[a-z0-9] )St\.?(?!\w)(?! [A-Z][a-z]*'s)": "Street",
    r"(?<=[a-z0-9] )Ave\.?(?!\w)": "Avenue",
    r"(?<=[a-z] )Rd\.?(?!\w)": "Road",
    r"(?<=[a-z] )Blvd\.?(?!\w)": "Boulevard",
    r"(?<=[a-z] )Hwy\.?(?!\w)": "Highway",
    r"Inc\.": "Incorporated",
    r"Ltd\.": "Limited",
    r"Corp\.": "Corporation",
    r"Co\.": "Company",
    r"Dept\.": "Department",
    r"dept\.": "department",
    r"Apt\.(?= ?#?\d)": "Apartment",
    r"apt\.(?= ?#?\d)": "apartment",
    r"ext\.(?= ?\d)": "extension",
    r"[Ff]ig\.(?= ?\d)": "figure",
    r"pp\.(?= ?\d)": "pages",
    r"p\.(?= ?\d)": "page",
    r"vol\.(?= ?\d)": "volume",
    r"Vol\.(?= ?[\dIVX])": "Volume",
    r"Ch\.(?= ?[\dIVX])": "Chapter",
    r"ch\.(?= ?\d)": "chapter",
    r"e\.\s?g\.,?": "for example,",
    r"i\.\s?e\.,?": "that is,",
    r"etc\.(?=\s*$)": "et cetera.",
    r"etc\.?": "et cetera",
    r"vs\.?": "versus",
    r"approx\.": "approximately",
    r"Ph\.\s?D\.?": "P H D",
    r"[Nn]o\.(?=\s?\d)": "number",
    r"w/o": "without",
    r"w/(?=\s)": "with",
    r"and/or": "and or",
    r"(?:he/she|s/he)": "he or she",
    r"his/her": "his or her",
}
_ABBREVIATION = re.compile(
    rf"\b(?:{'|'.join(f'(?P<a{place}>{short})' for place, short in enumerate(_ABBREVIATIONS))})(?!\w)"
)
_FULL = tuple(_ABBREVIATIONS.values())
_TITLES = "Dr|Mrs?|Ms|Prof|Lt|Capt|Gen|Sgt|Col|Rev|Hon|Gov|Sen|[JS]r|Mt|Ft|Inc|Ltd|Corp|Co|[Dd]ept|Ph|approx|vol"
_ROADS = "etc|vs|St|Ave|Rd|Blvd|Hwy"
# Without one of these no abbreviation, Roman numeral, emoticon or short weekday is in a plain line.
_SHORT_EN = re.compile(
    rf"\b(?:(?:[A-Za-z]|{_TITLES})\.|(?:{_ROADS}|[IVXLC]{{2,}}|[VXLC]|[xX]D)\b"
    r"|(?:Mon|Tues?|Wed|Thu(?:rs)?|Fri|Sat|Sun)-)"
    r"|[a-z] I(?:$|[,.;:!?])|(?:War|Part|Act|Book|Phase|Chapter|Section|Article) I\b"
)
_MAYBE_SHORT = re.compile(rf"/|[A-Za-z]\.(?!$)|\b(?:{_ROADS}|{_TITLES})\b")
_INITIALS = re.compile(r"\b(?:[A-Za-z]\.){2,}(\s*$)?")
_EMOTICON = re.compile(r"(?:(?<=\s)|^)(?:[:;=]['-]?[()DPp|/\\]|<3|\^_\^|[xX]D)(?=\s|$|[.!?])")
_ASCII = str.maketrans("‘’‚′“”„″‐‑‒–，。！？：；、", "''''\"\"\"\"----,.!?:;,")
_QUOTES = str.maketrans("‘’“”", "''\"\"")
_FULL_WIDTH = str.maketrans(",?!;:.", "，？！；：。")
_KEPT_ZH = "，！？：；（）"
_EMOJI_PART = re.compile("[\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")  # variation selectors, skin tones
_HAN_EDGE = r"[^\x00-\xff]"
_EDGES = " ,;，；、"


def verbalize(text: str, language: Language) -> str:
    """`text` as it is to be said: figures, amounts, signs and common abbreviations in words, no decoration."""
    if language == "en":
        if _PLAIN_EN.fullmatch(text) and not _SHORT_EN.search(text):
            return text.rstrip(_EDGES)
    elif _PLAIN_ZH.fullmatch(text):
        return text.translate(_FULL_WIDTH).rstrip(_EDGES)
    text = prepare(text, language)
    text = _english(text) if language == "en" else _mandarin(text)
    text = re.sub(r"([,;:，；：、])(?:\s*[,;:，；：、])+", r"\1", text)
    text = re.sub(r"[,;，；、]\s*(?=[.!?。！？])", "", text)
    text = re.sub(r"([.!?。！？])(?:\s*[,;，；、])+", r"\1", text)
    text = re.sub(r" {2,}", " ", text)
    return text.strip(_EDGES)


def prepare(text: str, language: Language) -> str:
    """`text` as one line of plain characters, its figures still to be read: emoji, emoticons and control characters
    dropped, NFKC but for Mandarin punctuation and superscripts, a dash between figures as a hyphen."""
    if language == "en":
        text = text.translate(_QUOTES)
    if not text.isascii() or not text.isprintable():
        text = _unicode(text, _KEPT_ZH if language == "zh" else "")
    text = _EMOTICON.sub("", text)
    text = " ".join(text.split())
    return re.sub(r"(?<=[\d%°.mM])(?:\s?[–—~～]+\s?|\s-\s)(?=[$£€¥]?\d)", "-", text)


def _unicode(text: str, kept: str) -> str:
    """NFKC, but for `kept` and for superscripts and the like (10² is not 102); emoji and control characters dropped,
    units in one character (㎡) kept."""
    out = []
    for char in text:
        if " " <= char <= "~" or "\u4e00" <= char <= "\u9fff":
            out.append(char)
            continue
        category = unicodedata.category(char)
        if char in kept or category == "No":
            out.append(char)
        elif category in ("Cc", "Zl", "Zp"):
            out.append(" ")
        elif char in "℃℉°" or "㍱" <= char <= "㏟" or not (category in ("So", "Cf", "Me") or _EMOJI_PART.match(char)):
            out.append(unicodedata.normalize("NFKC", char))
    return unicodedata.normalize("NFC", "".join(out))


def _full_form(match: re.Match[str]) -> str:
    return _FULL[int((match.lastgroup or "a0")[1:])]


def _english(text: str) -> str:
    if "-" in text or not text.isascii():
        text = re.sub(r" ?(?:—|--+| [-–] ) ?", ", ", text).translate(_ASCII)
    if ".." in text:
        text = re.sub(r" ?\.{2,} ?", ", ", re.sub(r" ?\.{2,} ?$", ".", text))
    if _MAYBE_SHORT.search(text):
        text = _ABBREVIATION.sub(_full_form, text)
    text = verbalize_en.read_figures(text)
    if "(" in text or ")" in text:
        text = re.sub(r" ?\( ?| ?\)(?= ?\w)", ", ", text).replace(")", "")
    text = re.sub(r"([!?,])\1+", r"\1", text)
    text = re.sub(r"!\?|\?!", "?", text)
    if "." in text:
        text = _INITIALS.sub(_letters, text)
    return re.sub(r"\.{2,}", ".", re.sub(r" +([,.!?;:])", r"\1", text))


def _letters(match: re.Match[str]) -> str:
    """U.S. as its letters; at the end of the text the last point also ends the sentence."""
    return " ".join(match[0].replace(".", "").strip()) + ("." if match[1] is not None else "")


def _mandarin(text: str) -> str:
    text = verbalize_zh.read_figures(text)
    text = re.sub(r"\s*(?:—|--+)+\s*|\s[-–]\s", "，", text)
    text = re.sub(r"\s*(?:\.{2,}|。{2,})\s*$", "。", text)
    text = re.sub(r"\s*(?:\.{2,}|。{2,})\s*", "，", text)
    text = re.sub(r"([!?！？，,])\1+", r"\1", text)
    text = re.sub(r"[（(]|[)）](?=[^\s，。！？；：,.!?;:])", "，", text)
    text = re.sub(r"[)）]", "", text)
    text = re.sub(rf"(?<={_HAN_EDGE})\s*·\s*(?={_HAN_EDGE})", "", text)  # the dot in a foreign name is not said
    text = re.sub(
        rf"(?<={_HAN_EDGE})\s*[,.?!;:]|[,.?!;:](?=\s*{_HAN_EDGE})",
        lambda m: m[0].strip().translate(_FULL_WIDTH),
        text,
    )
    return re.sub(rf"(?<={_HAN_EDGE})\s+|\s+(?={_HAN_EDGE})", "", text)
