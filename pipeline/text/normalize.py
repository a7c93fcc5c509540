"""One form for a reference and for what the recogniser wrote, so that only what was heard differs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from pipeline.dialogue import Language
from pipeline.text.verbalize import prepare, verbalize
from pipeline.text.verbalize_zh import read_figures
from pipeline.text.words import HAN

# Yes and no in sounds, which a normaliser takes for fillers, and the word that stands for all of a kind:
# two words of other letters, so that the one for the other is a word lost and not a word misheard.
_SOUNDED_EN = (
    (re.compile(r"\b(?:u?m+-?h+m+|m+ h+m+|u+h+[- ]?h+u+h+)\b", re.I), "mmhmm"),
    (re.compile(r"\b(?:n+u+h+[- ]?u+h+|u+h+[- ]u+h+)\b", re.I), "nuhuh"),
)
_OH, _SURPRISE = re.compile(r"(?<![\w'])oh\b", re.I), "ohh"
_NUMBER_EN = (
    r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)"
)
_OH_BEGINS, _OH_ENDS = re.compile(r"(?:^|[.!?])\W*$"), re.compile(r"\W*$|[,.;]")
_OH_LED = re.compile(rf"\b{_NUMBER_EN}(?:[ -]oh)*[ -]$", re.I)
_OH_FOLLOWED = re.compile(rf"(?:[ -]oh)*[ -]{_NUMBER_EN}\b", re.I)
_POINT = re.compile(rf"\b{_NUMBER_EN} point $", re.I)


def _oh(match: re.Match[str]) -> str:
    """An oh that is no zero as another word: a zero is among figures (ten oh five, two point oh, oh oh seven)."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    doubled = after[:3].lower() in (" oh", "-oh")
    zero = (
        (_OH_FOLLOWED.match(after) and (doubled or not _OH_BEGINS.search(before)))
        or (_OH_LED.search(before) and _OH_ENDS.match(after))
        or _POINT.search(before)
    )
    return match[0] if zero else _SURPRISE


# What whisper's normaliser would drop, misread or leave: words in brackets (they were spoken), the o of "o.k." and the
# oh of surprise, which it takes for zeros, the one in "a hundred", and contractions that it does not know.
_BEFORE_EN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"[()\[\]<>]"), " "),
    (_OH, _oh),
    (
        re.compile(r"(?<!half )(?<!quarter )\ban? (?:one )?(?=(?:hundred|thousand|(?:m|b|tr)illion)\b)", re.I),
        "one ",
    ),
    (re.compile(r"\bo\.? ?k\.?(?!\w)", re.I), "okay"),
    (re.compile(r"\bo['’ ]?clock\b", re.I), "oclock"),
    (re.compile(r"\bmiz\b", re.I), "ms"),  # as verbalize.py says it
    (re.compile(r"\bcannot\b", re.I), "can not"),
    (re.compile(r"\b(gim|lem)me\b", re.I), lambda match: f"{'give' if match[1].lower() == 'gim' else 'let'} me"),
    (re.compile(r"(?<!\w)['’]em\b", re.I), "them"),
    (re.compile(r"\b(lot|out)ta\b", re.I), r"\1 of"),
    (re.compile(r"\balright\b", re.I), "all right"),
    (re.compile(r"\balot\b", re.I), "a lot"),
    (re.compile(r"['’]d better\b", re.I), " had better"),
    (
        re.compile(
            r"\b((?:go|do|be|hav|com|gett|mak|tak|talk|try|look|think|work|say|(?:no|some|any|every)th)in)['’](?!\w)",
            re.I,
        ),
        r"\1g",
    ),
    (re.compile(r"\b(e-mail|wi-fi)(?=s?\b)", re.I), lambda match: match[0].replace("-", "")),
)
# Sounds of a speaker who thinks; the ER is none.
_FILLERS_EN = re.compile(r"\b(?:[Uu]+h+m*|[Uu]m+|[Ee]r+m*|[Hh]m+|[Mm]m+)\b(?!-\w)")
_FILLERS_ZH = re.compile(f"[嗯呃]+|(?<![{HAN}])[额恩唔]+(?![{HAN}])")
# 著 that is the particle 着, which the simplified script has for it: not in a word of writing or fame. Those words end
# in it (but 讨论著 is a verb), or begin with it (but not behind a verb that holds or reads: 拿著作业, 背著书包).
_DURING = re.compile(
    f"(?<=[{HAN}])(?<![名原编专巨土显昭卓合译遗拙新所论])著"
    "(?![作者述录称])(?!名(?![字单片称]))(?!书(?![包本桌架店房]))"
    "|著(?=[急火凉迷陆])|(?<=[讨议谈争评辩]论)著(?![作名])|(?<=翻译)著|(?<=[看读拿抱捧带背翻盯写挂])著(?=作业|名[字单片称]|书)"
)
# 儿 that only colours the vowel before it (花儿) from the one that is a child.
_CHILD_BEFORE, _CHILD_AFTER = frozenset("女幼婴孤少胎男健宠血育托妻弃产患养生侄孙我"), frozenset("子童女歌科媳孙戏")
_TOKEN_ZH = re.compile(f"[{HAN}]|[^\\W_{HAN}]+")
_VARIANTS = str.maketrans("〇妳她它牠祂幺噢喔欸0123456789", "零你他他他他一哦哦诶零一二三四五六七八九")
_INITIALS = re.compile(r"\b[a-z](?: [a-z])+\b")


@functools.cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


@functools.cache
def _simplified() -> Callable[[str], str]:
    import opencc

    return opencc.OpenCC("t2s").convert


def normalize(text: str, language: Language) -> str:
    """`text` in the form in which it is compared.

    en: words between single spaces, by the normaliser of Radford et al., "Robust Speech Recognition via Large-Scale
    Weak Supervision" (2022), appendix C: lower case, no punctuation, contractions written out, numbers in figures,
    American spelling; letters said one by one are one word (A.I., a i and AI are ai).
    zh: simplified Han characters, lower-case Latin letters and nothing between them, numbers in Han numerals; 她 and 它
    are 他, and 儿 that only colours a vowel is left out.
    Fillers (um, 嗯) are left out, as recognisers do; text that is nothing else is one of them, um or 嗯. The sounds
    that say yes (mm-hmm) are one word, and those that say no (uh-uh) another. No text with a letter becomes "".
    """
    plain = _normalize_en(text) if language == "en" else bare_zh(read_figures(simple_zh(text)))
    return plain or "".join(filter(str.isalpha, text.lower()))


def _normalize_en(text: str) -> str:
    # By our own rules first: they know which way 10:30, 555-1234 or a date is said; whisper's only gather the words.
    text = verbalize(text, "en")
    for pattern, word in _SOUNDED_EN:
        text = pattern.sub(word, text)
    fluent = _FILLERS_EN.sub(" ", text)
    if fluent != text and not any(map(str.isalnum, fluent)):
        return "um"
    for pattern, form in _BEFORE_EN:
        fluent = pattern.sub(form, fluent)
    plain = re.sub(rf"\b{_SURPRISE}\b", "oh", _english()(fluent)).strip()
    return _INITIALS.sub(lambda match: match[0].replace(" ", ""), plain)


def simple_zh(text: str) -> str:
    """Mandarin in half-width, simplified characters without fillers, its figures still to be read."""
    text = _simplified()(prepare(text, "zh")).replace("甚么", "什么")
    if "著" in text or "祇" in text:
        text = re.sub("(?<![神地])祇", "只", _DURING.sub("着", text))
    fluent = _FILLERS_ZH.sub(" ", text)
    return "嗯" if fluent != text and not any(map(str.isalnum, fluent)) else fluent


def mixed_zh(text: str) -> list[str]:
    """The tokens of `simple_zh` text whose figures are read: Han characters and lower-case Latin words, letters said
    one by one as one word (G P S is gps); other digits one by one in Han."""
    found = _TOKEN_ZH.findall(text.lower().translate(_VARIANTS))
    tokens: list[str] = []
    for place, token in enumerate(found):
        last = found[place - 1] if place else ""
        if _is_letter(token) and _is_letter(last):
            tokens[-1] += token
        elif not (token == "儿" and _colours(last, found[place + 1 : place + 2])):
            tokens.append(token)
    return tokens


def bare_zh(text: str) -> str:
    """What is compared of `simple_zh` text whose figures are read: its `mixed_zh` tokens and nothing between them."""
    return "".join(mixed_zh(text))


def _is_letter(token: str) -> bool:
    return len(token) == 1 and token.isascii()


def _colours(before: str, after: list[str]) -> bool:
    """Whether 儿 between these is no syllable of its own."""
    return bool(re.fullmatch(f"[{HAN}]", before)) and before not in _CHILD_BEFORE and _CHILD_AFTER.isdisjoint(after)
