"""Can a text be said, and is an LLM's reply sane? Rules that give a reason word to count by, or None."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from pipeline.dialogue import Language
from pipeline.text.verbalize import verbalize
from pipeline.text.words import HAN, count_units, loops, words_of

__all__ = ["URL", "count_units", "is_code_switched", "reply_fault", "unspeakable"]

_HAN_CHAR = re.compile(f"[{HAN}]")
_MIXED_IN = re.compile(r"[A-Za-z]*[a-z][A-Za-z]*(?:['’-][A-Za-z]+)*")

URL = re.compile(r"https?:|www\.|\S@\S+\.\w|\b[\w-]+\.(?:com|org|net|edu|gov|io|cn)\b", re.I)
_CODE = re.compile(
    r"```|`|\w\(\)|[{}\\|]|[=!<>-]=|[-=]>|::|\w_\w|</?\w+/?>\s*\w*;|;\s*$|^\s*(?:import|def|class|return)\s\w+[.(:]"
)
_MARKUP = re.compile(r"</?[a-z][^>]*>|&[a-z]+;|\*\S|\S\*|^\s*[#>]+\s|\[[^\]]*\]|^\s*[-*]\s", re.I | re.M)
_MARKS: dict[Language, frozenset[str]] = {
    "en": frozenset(".,!?;:'\"- "),
    "zh": frozenset("，。！？；：、“”‘’《》「」『』"),
}
_WORD_MARKS = frozenset("'- ")  # of Latin words in Mandarin
# Nearly every line is words with single marks between them, in which nothing below could be found.
_PLAIN: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"(?!import|def|class|return)(?:[A-Za-z]+(?:['-][A-Za-z]+)*[,.!?]?(?: |$))+"),
    "zh": re.compile(f"[{HAN}][{HAN}，。！？、：]*"),
}


def unspeakable(text: str, language: Language, code_switch: bool = False) -> str | None:
    """Why a spoken (verbalised) text cannot be said in `language`: None if it can, else one of
    "empty", "url", "code", "markup", "digits", "script", "symbols", "repetition".

    script: letters that the language's reader does not know, in zh also Latin (the embedded G2P reads none)
    unless it is to mix languages (code_switch).
    """
    if not _PLAIN[language].fullmatch(text) and (fault := _odd(text, language, code_switch and language == "zh")):
        return fault
    return "repetition" if loops(text, language) else None


def _odd(text: str, language: Language, latin: bool) -> str | None:
    if not re.search(r"\w", text):
        return "empty"
    for reason, pattern in (("url", URL), ("code", _CODE), ("markup", _MARKUP)):
        if pattern.search(text):
            return reason
    if any(char.isdecimal() for char in text):
        return "digits"
    for char in text:
        category = unicodedata.category(char)
        if category[0] == "L":
            if not _readable(char, language) and not (latin and _readable(char, "en")):
                return "script"
        elif category[0] == "M" or char in _MARKS[language] or (char == "〇" and language == "zh"):
            continue
        elif not (latin and char in _WORD_MARKS):
            return "symbols"
    return None


def is_code_switched(text: str) -> bool:
    """Whether a Mandarin text mixes in English: words, not only letters and short names as in T恤, CEO or 卡拉OK."""
    return bool(_HAN_CHAR.search(text)) and any(len(word) > 1 for word in _MIXED_IN.findall(text))


def _readable(char: str, language: Language) -> bool:
    return bool(_HAN_CHAR.match(char)) if language == "zh" else unicodedata.name(char, "").startswith("LATIN")


# ---- replies of an LLM --------------------------------------------------------------------------------------------

_ROLE = re.compile(
    r"\b(?:user|assistant|human|system|bot|note|question|answer|reply|line|again|output)\s*[:：]"
    r"|(?:用户|助手|提示|问题|回答|简答|原话|换说|系统|机器人|输出)\s*[:：]|^\W*\w+\s?[:：]",
    re.I,
)
_ENDS = ".!?。！？"
_CLOSING = "\"'”’」』》)）"
_DANGLING = frozenset(
    ("a", "an", "the", "and", "or", "but", "my", "your", "our", "their", "because", "if", "i'm", "it's", "you're")
)
_SHORTEST: dict[Language, int] = {"en": 2, "zh": 3}
_ALIKE = 0.8  # of the units in common order (difflib ratio), from which two lines are the same line
# Courtesies: they say nothing that could be wrong, and address the user whoever the sentence is about.
_COURTESY: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"\b(?:thanks?(?: you)?(?: (?:so|very) much)?(?: for (?:asking|your \w+))?|of course|to be honest"
        r"|(?:as )?you know|(?:and |so )?(?:how|what) about you|and you|well|sure|please|alright|okay|oh)\b",
        re.I,
    ),
    "zh": re.compile("谢谢(?:你|您)?(?:的?(?:关心|夸奖))?|当然|说实话|其实|没错|好的|你呢(?:，?过得(?:怎么样|好吗))?"),
}
_PERSONS: dict[Language, tuple[re.Pattern[str], ...]] = {
    "en": (
        re.compile(r"\b(?:i|me|my|mine|myself|we|us|our|ours|i'\w+|we'\w+)\b", re.I),
        re.compile(r"\b(?:you|your|yours|yourself|you'\w+)\b", re.I),
        re.compile(r"\b(?:he|him|his|she|her|hers|he's|she's)\b", re.I),
    ),
    "zh": (re.compile("我|咱"), re.compile("[你您]"), re.compile("[他她]")),
}
_NEGATION: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"n't\b|\b(?:not|no|never|nothing|nobody|none|without|cannot|neither|nor|hardly)\b", re.I),
    "zh": re.compile("不|没|無|无|别|未"),
}
_STOP_WORDS_EN = (
    "a an the this that these those it its it's that's there here i me my we us our you your he him his she "
    "her they them their i'm i've i'd i'll we're you're you've you'll he's she's they're am is are was were "
    "be been being do does did have has had will would can could shall should may might must of in on at to "
    "for from with by about as into and or but so if than then too also just very really not no yes don't "
    "doesn't didn't can't won't isn't aren't wasn't what's who's"
)
_STOP: dict[Language, frozenset[str]] = {
    "en": frozenset(_STOP_WORDS_EN.split()),
    "zh": frozenset(
        "的了是在和与就都也很还吗呢吧啊呀嘛哦嗯我你您他她它们这那有会能可以要个一不没着过得地到对把被给让啦哈"
    ),
}


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    for ending in ("ing", "ed", "es", "ly", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if word[-2:-1] == word[-1:] else word  # plugged is plug, powerless is powerles


def _content(text: str, language: Language) -> list[str]:
    """What a text is about: its words or Han characters without stop words, lightly stemmed; all if none is left."""
    found = words_of(_COURTESY[language].sub(" ", text), language) or words_of(text, language)
    kept = [unit for unit in found if unit not in _STOP[language]]
    if language == "en":
        return [_stem(unit) for unit in kept or found]
    return kept if len(kept) > 1 else found  # one character is no word: 样 is not yet 你也一样


def _alike(one: str, other: str, language: Language) -> bool:
    left, right = words_of(one, language), words_of(other, language)
    return bool(left) and SequenceMatcher(None, left, right, autojunk=False).ratio() >= _ALIKE


def _persons(text: str, language: Language) -> list[int]:
    """Of whom `text` speaks, in the order of their first mention: 0 the speaker, 1 the listener, 2 a third."""
    plain = _COURTESY[language].sub(" ", text)
    first = {
        person: match.start() for person, pattern in enumerate(_PERSONS[language]) if (match := pattern.search(plain))
    }
    return sorted(first, key=lambda person: first[person])


def reply_fault(reply: str, language: Language, history: Sequence[str], reference: str, grounding: float) -> str | None:
    """Why an LLM's reply to the last line of `history` should not be used: None if it may, else one of "too short",
    "language", "role", "unfinished", "repetition", "echo", "ungrounded".

    reference: what a person answered, "" if nobody did. grounding: in [0, 1], the share of the reply's content that
    the reference or the last line must hold, and of the reference's content that the reply must keep; 0 asks nothing.
    With a reference and grounding the reply must also say it of the same persons, with the same negation, and
    ask only if the reference asks: small models turn these round and keep the words.
    """
    said = verbalize(reply, language)
    if count_units(said, language) < _SHORTEST[language]:
        return "too short"
    letters = [char for char in said if unicodedata.category(char)[0] == "L"]
    foreign = sum(not _readable(char, language) for char in letters)
    if foreign and (language == "en" or 2 * foreign > len(letters)):
        return "language"
    if _ROLE.search(reply):
        return "role"
    if said.rstrip(_CLOSING)[-1:] not in tuple(_ENDS) or words_of(said, language)[-1] in _DANGLING:
        return "unfinished"
    clauses = [tuple(words_of(clause, language)) for clause in re.split(r"[^\w\s'’-]+", said)]
    clauses = [clause for clause in clauses if len(clause) > 1]
    if loops(said, language) or len(set(clauses)) < len(clauses):
        return "repetition"
    lines, model = [verbalize(line, language) for line in history], verbalize(reference, language)
    for line in lines:
        if _alike(said, line, language) and not _alike(model, line, language):
            return "echo"
    if grounding > 0 and not _grounded(said, language, lines[-1] if lines else "", model, grounding):
        return "ungrounded"
    return None


def _share(found: Sequence[object], known: Collection[object]) -> float:
    return sum(unit in known for unit in found) / len(found) if found else 1.0


def _pairs(text: str, language: Language) -> list[tuple[str, str]]:
    """The neighbouring units within each clause."""
    clauses = [words_of(clause, language) for clause in re.split(r"[^\w\s'’-]+", _COURTESY[language].sub(",", text))]
    return [pair for clause in clauses for pair in pairwise(clause)]


def _grounded(said: str, language: Language, line: str, reference: str, grounding: float) -> bool:
    wanted = _content(reference, language) if reference else []
    if _share(_content(said, language), {*wanted, *_content(line, language)}) < grounding:
        return False
    # Han characters are few and recur in unrelated words, so their pairs must be known too; a pair is where both are.
    if language == "zh":
        known = {*_pairs(reference, language), *_pairs(line, language)}
        if _share(_pairs(said, language), known) < grounding**2:
            return False
    if not reference:
        return True
    if _share(sorted(set(wanted)), set(_content(said, language))) < grounding:
        return False
    if len(_NEGATION[language].findall(said)) != len(_NEGATION[language].findall(reference)):
        return False
    if re.search("[?？]", said) and not re.search("[?？]", reference):
        return False
    persons = _persons(reference, language)
    if persons:
        return _persons(said, language) == persons
    # A reference of nobody ("never"): the reply may answer "you" with "I" and "I" with "you".
    turned = {(1, 0, 2)[person] for person in _persons(line, language)}
    return turned.issuperset(_persons(said, language))
